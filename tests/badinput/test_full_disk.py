"""A full disk: said, waited out, and nothing is lost once there is room again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from breachwatch.app.pipeline import daemon_signal
from breachwatch.app.state import prepare_state
from breachwatch.app.wiring import open_hub_store_at
from breachwatch.audit.entry import decode
from breachwatch.errors import StoreError
from breachwatch.model import Entry
from breachwatch.store.agent import SqliteAgentStore
from tests.badinput.host import a_host, failing, fill, found, line, needs_root, running, said, small_disk, trail_types
from tests.e2e.harness import wait_until

pytestmark = needs_root


def test_a_full_state_volume_is_said_and_after_it_nothing_is_missing(tmp_path: Path) -> None:
    installed = a_host(tmp_path)
    log = tmp_path / "auth.log"
    with small_disk(installed.state, "16m"), running(installed) as process:
        log.write_text("".join(line(number) for number in range(10)))
        wait_until(lambda: found(installed) == ["Marker 10"], what="it works")
        ballast = fill(installed.state)
        with log.open("a") as file:
            file.write("".join(line(number) for number in range(10, 400)))
        wait_until(
            lambda: said(installed, ["breachwatch agent: ", "disk is full", "free space on the state volume"]),
            what="the agent says so",
        )
        # the supervisor gives its sign of life in vain, and the daemon does not end over it
        wait_until(lambda: said(installed, ["run.alive: cannot write"]), what="the supervisor says so")
        assert process.poll() is None, installed.read_log()
        assert found(installed) == ["Marker 10"]
        ballast.unlink()
        wait_until(lambda: found(installed) == ["Marker 400"], timeout_s=90, what="every line counts, none twice")
        wait_until(lambda: trail_types(installed).get("daemon.child_exited", 0) > 0, what="the trouble is on record")
    assert "Traceback" not in installed.log.read_text()


def until_full(step: Callable[[int], None]) -> int:
    """Do it with 0, 1, 2, … until the disk is full; gives how many times that went well."""
    told = ""
    for number in range(10_000):
        try:
            step(number)
        except StoreError as error:
            told = str(error)
            break
    assert "full (free space on the state volume)" in told
    assert number > 0
    return number


def signals(first: int, last: int):
    at = datetime(2026, 1, 5, tzinfo=UTC)
    return [
        daemon_signal("said", "x" * 2_000, host="web01", at_utc=at + timedelta(seconds=number))
        for number in range(first, last)
    ]


def test_the_agents_state_and_spool_keep_what_was_committed_and_take_the_rest_later(tmp_path: Path) -> None:
    with small_disk(tmp_path / "state", "3m") as folder:
        ballast = folder / "ballast"
        ballast.write_bytes(b"x" * 1_000_000)
        store = SqliteAgentStore(folder / "agent.db", owner=True)
        done = 20 * until_full(lambda step: store.commit(signals=signals(20 * step, 20 * step + 20), checkpoints=()))
        held = store.read_signals(after=0, limit=10_000)
        assert [one.id for one in held] == [one.id for one in signals(0, done)]
        with pytest.raises(StoreError):
            store.commit(signals=signals(done, done + 200), checkpoints=())
        store.close()
        # with room again the reader takes half, old ones go, and the commit that failed is taken: once
        ballast.unlink()
        store = SqliteAgentStore(folder / "agent.db", owner=True)
        assert len(store.read_signals(after=0, limit=10_000)) == done
        store.acknowledge("hub", held[done // 2].seq)
        assert store.prune(datetime(2027, 1, 1, tzinfo=UTC)) == done // 2 + 1
        store.commit(signals=signals(done, done + 20), checkpoints=())
        left = store.read_signals(after=held[done // 2].seq, limit=10_000)
        assert [one.id for one in left] == [one.id for one in signals(done // 2 + 1, done + 20)]
        store.close()


def test_the_hubs_state_keeps_what_was_committed_and_is_whole_afterwards(tmp_path: Path) -> None:
    at = datetime(2026, 1, 5, tzinfo=UTC)
    with small_disk(tmp_path / "state", "4m") as folder:
        store = open_hub_store_at(prepare_state(folder), origin="test.invalid/hub")
        ballast = folder / "ballast"
        ballast.write_bytes(b"x" * 1_000_000)

        def one_more(step: int) -> None:
            with store.transaction() as tx:
                tx.incidents.next_id(2026)
                tx.audit(Entry(type="incident.note", at_utc=at, body={"n": step, "text": "x" * 3_000}))

        done = until_full(one_more)
        ballast.unlink()
        for step in range(done, done + 5):
            one_more(step)
        done += 5
        with store.reading() as view:
            entries = list(view.audit_tiles.entries(0, view.audit_tiles.size()))
        assert [decode(entry).body["n"] for entry in entries] == list(range(done))
        with store.transaction() as tx:
            assert tx.incidents.next_id(2026) == f"INC-2026-{done + 1:06d}", "an id was used up by what failed"
        store.close()


@pytest.mark.parametrize("command", [("run",), ("agent",), ("hub",), ("incident", "list")], ids=" ".join)
def test_what_starts_on_a_full_disk_is_one_message(tmp_path: Path, command: tuple[str, ...]) -> None:
    installed = a_host(tmp_path)
    with small_disk(installed.state, "1m") as folder:
        fill(folder)
        code, text = failing(installed, *command)
    assert (code, "Traceback" in text) == (3, False), text
    assert "full" in text or "No space left on device" in text
    assert "free space on the state volume" in text
