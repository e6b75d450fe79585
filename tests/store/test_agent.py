"""The agent's state on disk: private, exclusive, migrated, and never silently replaced when it is damaged."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from breachwatch.errors import LockedError, StoreError
from breachwatch.model import Checkpoint, Signal, SignalKind
from breachwatch.store.agent import MIGRATIONS, SqliteAgentStore
from tests.conftest import ROOT, FakeClock

KNOWN = Checkpoint(source="/var/log/a.log", device=1, inode=2, offset=3, tail=b"abc", seals=b"x" * 29)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.db"


def signal(number: int, clock: FakeClock) -> Signal:
    return Signal(
        id=f"s{number}", kind=SignalKind.DAEMON, at_utc=clock.now(), host="web01", action="a", detail="x" * 900
    )


def test_what_was_committed_is_there_after_a_restart(path, clock):
    store = SqliteAgentStore(path, owner=True)
    store.commit(signals=[signal(1, clock)], checkpoints=[KNOWN], correlation_state=b"state")
    store.close()
    store = SqliteAgentStore(path, owner=True)
    assert list(store.checkpoints().values()) == [KNOWN]
    assert store.correlation_state() == b"state"
    assert [item.id for item in store.read_signals(after=0, limit=9)] == ["s1"]
    store.close()


def test_the_file_is_for_its_owner_only(path):
    before = os.umask(0)
    try:
        SqliteAgentStore(path).close()
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_second_owner_is_refused(path):
    store = SqliteAgentStore(path, owner=True)
    with pytest.raises(LockedError, match="another breachwatch agent"):
        SqliteAgentStore(path, owner=True)
    store.close()


@pytest.mark.parametrize("damage", ["noise", "half", "page", "row"])
def test_damaged_state_is_one_clear_error_and_stays_as_it_is(path, clock, damage: str):
    store = SqliteAgentStore(path, owner=True)
    store.commit(signals=[signal(number, clock) for number in range(40)], checkpoints=[KNOWN])
    store.close()
    content = path.read_bytes()
    match damage:
        case "noise":
            path.write_bytes(os.urandom(8_192))
        case "half":
            path.write_bytes(content[: len(content) // 2])
        case "page":
            path.write_bytes(content[:4096] + b"\xff" * 4096 + content[8192:])
        case "row":
            connection = sqlite3.connect(path)
            connection.execute("UPDATE checkpoint SET body = x'c1'")
            connection.commit()
            connection.close()
    damaged = path.read_bytes()
    with pytest.raises(StoreError) as caught:
        open_and_read(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes()[4096:] == damaged[4096:]


def open_and_read(path: Path) -> None:
    store = SqliteAgentStore(path, owner=True)
    try:
        store.checkpoints()
        store.read_signals(after=0, limit=1_000)
    finally:
        store.close()


def test_state_of_a_newer_version_is_refused(path):
    SqliteAgentStore(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(StoreError, match="newer version"):
        SqliteAgentStore(path)


def test_a_checkpoint_of_an_older_version_lacks_what_was_not_known_then(path):
    import msgspec

    SqliteAgentStore(path).close()
    connection = sqlite3.connect(path)
    old = msgspec.msgpack.encode({"source": "/var/log/a.log", "device": 1, "inode": 2, "offset": 3})
    connection.execute("INSERT INTO checkpoint VALUES (?, ?)", ("/var/log/a.log\x001:2", old))
    connection.commit()
    connection.close()
    store = SqliteAgentStore(path)
    assert list(store.checkpoints().values()) == [Checkpoint(source="/var/log/a.log", device=1, inode=2, offset=3)]
    store.close()


def test_a_database_of_somebody_else_is_refused(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    path.chmod(0o600)
    with pytest.raises(StoreError, match="not an agent's state"):
        SqliteAgentStore(path)


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    with pytest.raises(StoreError, match="cannot use the state directory"):
        SqliteAgentStore(tmp_path / "missing" / "agent.db", owner=True)


FULL = """
import sys
from datetime import datetime, timezone
from pathlib import Path
from breachwatch.errors import StoreError
from breachwatch.model import Checkpoint, Signal, SignalKind
from breachwatch.store.agent import SqliteAgentStore

folder = Path(sys.argv[1])
store, stored = SqliteAgentStore(folder / "agent.db", owner=True), 0
def commit(number):
    batch = [Signal(id=f"{number}-{i}", kind=SignalKind.DAEMON, at_utc=datetime.now(timezone.utc), host="h", action="a",
                    detail="x" * 900) for i in range(100)]
    store.commit(signals=batch, checkpoints=[Checkpoint(source="/a", device=1, inode=2, offset=number + 1)])
try:
    while stored < 1000:
        commit(stored)
        stored += 1
except StoreError as error:
    assert "free space" in str(error), error
else:
    raise SystemExit("the disk never filled")
[known] = store.checkpoints().values()
assert known.offset == stored, (known.offset, stored)
(folder / "ballast").unlink()
commit(stored)
[known] = store.checkpoints().values()
assert known.offset == stored + 1
assert len(store.read_signals(after=0, limit=10**6)) == 100 * (stored + 1)
store.close()
print("whole")
"""


def test_a_full_disk_loses_nothing_that_was_committed_and_goes_on_when_there_is_room(tmp_path):
    inside = 'mount -t tmpfs -o size=3m none "$0" && head -c 1000000 /dev/zero > "$0/ballast" && exec "$@"'
    command = ["unshare", "--mount", "--user", "--map-root-user", "sh", "-c", inside, str(tmp_path)]
    done = subprocess.run(
        [*command, sys.executable, "-c", FULL, str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no private file system can be mounted here: {done.stderr.strip()}")
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr
