"""What an agent keeps on disk: whole or not at all after kill -9, never in a file of somebody else's."""

from __future__ import annotations

import os
import random
import signal as signals_of_os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breachwatch.app.pipeline import daemon_signal
from breachwatch.errors import LockedError, StoreError
from breachwatch.model import Event, Level, LogSource, Match, RuleRef, Signal, SignalKind
from breachwatch.store.agent import APPLICATION_ID, MIGRATIONS, SqliteAgentStore
from tests.conftest import ROOT
from tests.store.together import all_end_well
from tests.store.writer import AT, reached, said


def state_of(file: Path) -> tuple[list[str], int, int]:
    store = SqliteAgentStore(file)
    try:
        ids = [one.id for one in store.read_signals(after=0, limit=10**6)]
        offsets = [known.offset for known in store.checkpoints().values()]
        return ids, max(offsets, default=0), int(store.correlation_state() or b"0")
    finally:
        store.close()


def test_kill_nine_in_the_middle_of_commits_leaves_each_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "agent.db"
    chance = random.Random(5)
    promised = 0
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.store.writer", str(file), str(promised)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.random() * 0.05)  # the moment of the kill is the point, not a wait for something
        process.send_signal(signals_of_os.SIGKILL)
        rest = [line for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        process.stdout.close()
        process.wait(10)
        ids, offset, correlated = state_of(file)
        assert len(ids) == offset == correlated, "a commit was torn"
        if rest:
            assert offset >= int(rest[-1]), "a commit that had returned was lost"
        assert offset > promised
        promised = offset
    assert ids == [said(number).id for number in range(promised)]


def test_only_one_agent_owns_a_state_and_readers_come_beside_it(tmp_path: Path) -> None:
    owner = SqliteAgentStore(tmp_path / "agent.db", owner=True)
    with pytest.raises(LockedError, match="another breachwatch agent owns this state directory"):
        SqliteAgentStore(tmp_path / "agent.db", owner=True)
    reader = SqliteAgentStore(tmp_path / "agent.db")
    owner.commit(signals=[said(1)], checkpoints=())
    assert [one.id for one in reader.read_signals(after=0, limit=10)] == [said(1).id]
    reader.close()
    owner.close()
    SqliteAgentStore(tmp_path / "agent.db", owner=True).close()


OPENER = """
import sys
from pathlib import Path
from breachwatch.store.agent import SqliteAgentStore
print("ready", flush=True)
sys.stdin.readline()
SqliteAgentStore(Path(sys.argv[1])).close()
"""


def test_many_processes_that_meet_a_new_file_at_once_all_get_it(tmp_path: Path) -> None:
    all_end_well(OPENER, str(tmp_path / "agent.db"), count=6)


def database(file: Path, *statements: str) -> None:
    connection = sqlite3.connect(file)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "statements",
    [
        ("CREATE TABLE moz_places (id INTEGER)", "PRAGMA user_version=77"),
        ("CREATE TABLE theirs (id INTEGER)", "PRAGMA application_id=1234"),
        (f"PRAGMA application_id={APPLICATION_ID}", f"PRAGMA user_version={len(MIGRATIONS) + 1}"),
        ("CREATE TABLE theirs (id INTEGER)",),
    ],
    ids=["foreign version", "foreign program", "newer schema", "foreign tables"],
)
def test_the_file_of_somebody_else_or_of_a_newer_version_is_refused_and_left_alone(
    tmp_path: Path, statements: tuple[str, ...]
) -> None:
    file = tmp_path / "agent.db"
    database(file, *statements)
    with pytest.raises(StoreError, match="not an agent's state, or of a newer version") as refused:
        SqliteAgentStore(file, owner=True)
    assert refused.value.source == str(file)
    connection = sqlite3.connect(file)
    assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'signal'").fetchall() == []
    connection.close()
    with pytest.raises(StoreError, match="not an agent's state"):
        SqliteAgentStore(file, owner=True)  # not "locked": the refusal released the lock


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "agent.db"
    content = b"not a database at all\n" * 1_000
    file.write_bytes(content)
    with pytest.raises(StoreError, match="file is not a database"):
        SqliteAgentStore(file)
    assert file.read_bytes() == content


@pytest.mark.parametrize("size", [0, 100, 5_000])
def test_a_damaged_file_is_an_error_that_names_it_and_never_an_empty_state(tmp_path: Path, size: int) -> None:
    file = tmp_path / "agent.db"
    store = SqliteAgentStore(file)
    store.commit(signals=[said(number) for number in range(500)], checkpoints=[reached(7)])
    store.close()
    whole = file.read_bytes()
    file.write_bytes(whole[:size] + b"\xa5" * (len(whole) - size))

    def use() -> int:
        opened = SqliteAgentStore(file)
        try:
            return len(opened.read_signals(after=0, limit=1_000))
        finally:
            opened.close()

    with pytest.raises(StoreError) as refused:
        use()
    assert refused.value.source == str(file)


@pytest.mark.parametrize(("table", "column"), [("signal", "body"), ("checkpoint", "body")])
def test_a_damaged_row_is_an_error_and_not_a_guess(tmp_path: Path, table: str, column: str) -> None:
    file = tmp_path / "agent.db"
    store = SqliteAgentStore(file)
    store.commit(signals=[said(1)], checkpoints=[reached(7)])
    database(file, f"UPDATE {table} SET {column} = x'00ff'")
    with pytest.raises(StoreError, match="the agent's state is damaged"):
        _ = store.read_signals(after=0, limit=10) if table == "signal" else store.checkpoints()
    store.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="not tried: only root can give a file away")
def test_the_file_of_another_user_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "agent.db"
    SqliteAgentStore(file).close()
    os.chown(file, 65_534, 65_534)
    with pytest.raises(StoreError, match="belongs to another user"):
        SqliteAgentStore(file)


def test_a_failed_commit_leaves_nothing_of_itself_and_the_next_one_works(tmp_path: Path) -> None:
    store = SqliteAgentStore(tmp_path / "agent.db")
    database(
        tmp_path / "agent.db", "CREATE TRIGGER no BEFORE INSERT ON checkpoint BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    with pytest.raises(StoreError, match="no"):
        store.commit(signals=[said(1)], checkpoints=[reached(1)])
    assert store.read_signals(after=0, limit=10) == []
    database(tmp_path / "agent.db", "DROP TRIGGER no")
    store.commit(signals=[said(1)], checkpoints=[reached(1)])
    assert [one.id for one in store.read_signals(after=0, limit=10)] == [said(1).id]
    store.close()


def test_a_file_name_that_is_no_utf8_in_words_about_it_is_stored_visibly(tmp_path: Path) -> None:
    store = SqliteAgentStore(tmp_path / "agent.db")
    name = os.fsdecode(b"/etc/rules/bad\xff.yml")
    store.commit(
        signals=[daemon_signal("rule_refused", f"{name}: broken", host="web01", at_utc=AT), said(1)], checkpoints=()
    )
    first, second = store.read_signals(after=0, limit=10)
    assert first.detail == "/etc/rules/bad\\udcff.yml: broken"
    assert second.id == said(1).id
    store.close()


@settings(max_examples=60)
@given(
    words=st.text(st.characters(codec=None, categories=None, exclude_categories=()), max_size=20),
    key=st.text(max_size=5),
)
def test_no_text_whatever_raises_or_keeps_its_neighbour_from_being_stored(
    tmp_path_factory: pytest.TempPathFactory, words: str, key: str
) -> None:
    store = SqliteAgentStore(tmp_path_factory.mktemp("s") / "agent.db")
    event = Event(id="e", at_utc=AT, logsource=LogSource(words, "", ""), fields={f"a{key}": [words, {"b": words}]})
    match = Match(id="m", rule=RuleRef(id="r", title=words, level=Level.HIGH), event=event)
    told = Signal(id="m", kind=SignalKind.MATCH, at_utc=AT, host="web01", match=match)
    store.commit(signals=[told, said(1)], checkpoints=())
    first, second = store.read_signals(after=0, limit=10)
    assert first.match is not None
    assert first.match.rule.title == words.encode("utf-8", "backslashreplace").decode()
    assert second.id == said(1).id
    store.close()
