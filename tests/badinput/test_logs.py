"""Hostile logs under a running agent and in a scan: each leaves a gap record or a visible text, and no line beside."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from breachwatch.model import Gap
from breachwatch.store.agent import SqliteAgentStore
from tests.badinput.host import CONFIG, RULE
from tests.e2e.harness import Installation, stop, wait_until

LONG = 10 << 20
KEPT = 65_536


@dataclass
class Watching:
    """An agent that watches a folder of logs, and what it has said so far."""

    installed: Installation
    logs: Path
    store: SqliteAgentStore

    def matched(self, log: Path) -> list[str]:
        """The lines of one log that the rule matched, in order."""
        events = [one.match.event for one in self.store.read_signals(after=0, limit=10_000) if one.match is not None]
        return [event.raw for event in events if event.fields["log.file.path"] == str(log)]

    def gaps(self, log: Path) -> list[Gap]:
        gaps = [one.gap for one in self.store.read_signals(after=0, limit=10_000) if one.gap is not None]
        return [gap for gap in gaps if gap.source == str(log)]

    def told(self, name: str, hostile: bytes, *, head: bytes = b"") -> Path:
        """A log with this between two lines that match; returns when the agent has told both."""
        log = self.logs / name
        log.write_bytes(head + before(log) + hostile + after(log))
        wanted = {shown(before(log)), shown(after(log))}
        wait_until(lambda: wanted <= set(self.matched(log)), what="both neighbours are found")
        return log

    def scanned(self, log: Path) -> list[dict[str, object]]:
        rules = str(self.installed.root / "rules")
        text = self.installed.call(
            "scan", str(log), "--rules", rules, "--format", "syslog", "--host", "web01", "--json", check=(1,)
        )
        return [json.loads(item) for item in text.splitlines()]


def before(log: Path) -> bytes:
    """Of this log alone: the same line at the same place of two logs is one event, told once."""
    return f"Jan  5 08:00:00 web01 sshd[1]: marker-word before {log.name}\n".encode()


def after(log: Path) -> bytes:
    return f"Jan  5 08:00:00 web01 sshd[2]: marker-word after {log.name}\n".encode()


def shown(whole: bytes) -> str:
    return whole.decode().rstrip("\n")


@pytest.fixture(scope="module")
def watching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watching]:
    root = tmp_path_factory.mktemp("host")
    for name in ("rules", "logs"):
        (root / name).mkdir()
    (root / "rules" / "own.yml").write_text(RULE)
    text = CONFIG.format(log=root / "logs" / "*.log", rules=root / "rules", form="syslog")
    installed = Installation(root, text)
    process = installed.start("agent")
    wait_until((installed.state / "agent.alive").exists, what="the agent is alive")
    store = SqliteAgentStore(installed.state / "agent.db")
    yield Watching(installed, root / "logs", store)
    store.close()
    assert stop(process) == 0, installed.read_log()
    assert "Traceback" not in installed.read_log()


def reasons(items: list[dict[str, object]]) -> list[object]:
    return [item["reason"] for item in items if item["kind"] == "gap"]


def test_binary_noise_costs_no_line_beside_it(watching: Watching) -> None:
    noise = random.Random(3).randbytes(300_000).replace(b"\0", b"\1")
    log = watching.told("noise.log", noise + b"\n")
    (summary,) = [item for item in watching.scanned(log) if item["kind"] == "summary"]
    assert summary["matches"] == 2
    assert summary["lines"] == noise.count(b"\n") + 3, "every piece of noise between two line ends is a line"
    # what is cut of a piece that is longer than a line may be is on record
    longest = max(len(piece) for piece in noise.split(b"\n"))
    assert bool(watching.gaps(log)) == (longest > KEPT)


def test_a_line_of_ten_megabytes_is_cut_on_record_and_holds_up_no_other_log(watching: Watching) -> None:
    head = b"Jan  5 08:00:00 web01 sshd[9]: marker-word "
    long = watching.logs / "long.log"
    long.write_bytes(before(long) + head + b"A" * LONG)
    other = watching.told("other.log", b"")
    assert watching.matched(other) == [shown(before(other)), shown(after(other))]
    wait_until(lambda: watching.matched(long) == [shown(before(long))], what="what was whole before it is found")
    with long.open("ab") as file:
        file.write(b"\n" + after(long))
    wait_until(lambda: shown(after(long)) in watching.matched(long), what="and what comes after it")
    (gap,) = watching.gaps(long)
    assert (gap.reason, gap.lost_bytes) == ("line_cut", LONG + len(head) - KEPT)
    (cut,) = [text for text in watching.matched(long) if len(text) > 1_000]
    assert cut.startswith(head.decode() + "AAA"), "its head is kept, and matched"
    assert len(cut) <= KEPT
    scanned = watching.scanned(long)
    assert reasons(scanned) == ["line_cut"]
    assert [item["matches"] for item in scanned if item["kind"] == "summary"] == [3]


def test_nul_bytes_are_a_gap_where_a_hole_is_and_visible_where_they_stand_in_a_line(watching: Watching) -> None:
    inside = b"Jan  5 08:00:00 web01 sshd[9]: marker-word a\0b\n"
    log = watching.told("nul.log", inside, head=b"\0" * 5_000)
    (gap,) = watching.gaps(log)
    assert (gap.reason, gap.lost_bytes) == ("nul_run", 5_000)
    assert watching.matched(log)[1] == "Jan  5 08:00:00 web01 sshd[9]: marker-word a\\x00b"


def test_bytes_that_are_no_utf8_are_shown_as_such_and_the_line_is_read(watching: Watching) -> None:
    log = watching.told("latin.log", b"Jan  5 08:00:00 web01 sshd[9]: marker-word caf\xe9 \xff\xfe \xed\xa0\x80\n")
    assert watching.gaps(log) == []
    (_, middle, _) = watching.matched(log)
    assert middle.endswith("marker-word caf\\xe9 \\xff\\xfe \\xed\\xa0\\x80")
    assert [item["matches"] for item in watching.scanned(log) if item["kind"] == "summary"] == [3]


def test_a_log_that_vanishes_is_a_gap_and_the_next_of_its_name_is_read(watching: Watching) -> None:
    log = watching.told("gone.log", b"")
    log.unlink()
    wait_until(lambda: [gap.reason for gap in watching.gaps(log)] == ["vanished"], what="it is missed")
    third = b"Jan  5 08:00:00 web01 sshd[3]: marker-word third of gone.log\n"
    log.write_bytes(third)
    wait_until(lambda: shown(third) in watching.matched(log), what="its successor is read")
    assert watching.matched(log) == [shown(before(log)), shown(after(log)), shown(third)]


def test_a_log_that_is_emptied_in_place_is_a_gap_and_read_on(watching: Watching) -> None:
    log = watching.told("emptied.log", b"")
    third = b"Jan  5 08:00:00 web01 sshd[3]: marker-word third\n"
    log.write_bytes(third)
    wait_until(lambda: shown(third) in watching.matched(log), what="what came after is read")
    assert [gap.reason for gap in watching.gaps(log)] == ["truncated"]
