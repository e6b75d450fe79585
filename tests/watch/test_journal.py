"""A real journal, made by systemd and read by the real journalctl, and records that no journal should hold."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from breachwatch.app.clock import SystemClock
from breachwatch.app.pipeline import Pipeline, SourceFormat
from breachwatch.app.rules import rules_in
from breachwatch.detect.engine import Detector
from breachwatch.model import Checkpoint, Gap, RawLine
from breachwatch.watch.journal import LOOK_AGAIN_S, MAX_RECORD_BYTES, Journal
from breachwatch.watch.wake import Wake
from tests.conftest import FakeClock

REMOTE = Path("/lib/systemd/systemd-journal-remote")
BOOT = "0123456789abcdef0123456789abcdef"

needs_journal = pytest.mark.skipif(
    shutil.which("journalctl") is None or not REMOTE.exists(),
    reason="systemd or systemd-journal-remote is not installed",
)


def write(path: Path, first: int, last: int, unit: str = "ssh.service", boot: str = BOOT) -> None:
    """Real journal entries with these numbers, a millisecond apart."""
    entries = b"".join(
        (
            f"__REALTIME_TIMESTAMP={1769940000000000 + number * 1000}\n__MONOTONIC_TIMESTAMP={1000000 + number}\n"
            f"_BOOT_ID={boot}\n_MACHINE_ID={BOOT}\n_HOSTNAME=web01\n_TRANSPORT=syslog\nPRIORITY=6\n"
            f"SYSLOG_IDENTIFIER=sshd\n_PID=7\n_UID=0\n_COMM=sshd\n_SYSTEMD_UNIT={unit}\nMESSAGE=number={number:06d}\n\n"
        ).encode()
        for number in range(first, last)
    )
    path.parent.mkdir(exist_ok=True)
    subprocess.run([REMOTE, "-o", str(path), "-"], input=entries, check=True, capture_output=True)


@dataclass
class Heard:
    """A journal that is polled, and what an agent would have stored."""

    command: Sequence[str]
    units: Sequence[str] = ()
    clock: FakeClock | SystemClock = field(default_factory=SystemClock)
    lines: list[RawLine] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    stored: Checkpoint | None = None

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.journal = Journal(self.stored, clock=self.clock, units=self.units, command=self.command)

    def restart(self) -> None:
        self.journal.close()
        self.start()

    def poll(self, *, commit: bool = True) -> None:
        for item in self.journal.poll(1 << 20):
            (self.gaps if isinstance(item, Gap) else self.lines).append(item)  # type: ignore[arg-type]
        if commit:
            for checkpoint in self.journal.progress().checkpoints:
                self.stored = checkpoint

    def until(self, done: Callable[[], bool], *, commit: bool = True) -> None:
        end = time.monotonic() + 20
        while not done():
            assert time.monotonic() < end, (len(self.lines), self.gaps)
            self.poll(commit=commit)
            time.sleep(0.01)

    @property
    def numbers(self) -> list[int]:
        return [int(json.loads(line.data)["MESSAGE"].partition("number=")[2]) for line in self.lines]


@pytest.fixture
def hear() -> Iterator[Callable[..., Heard]]:
    made: list[Heard] = []

    def make(*command: str, **named: object) -> Heard:
        made.append(Heard(command, **named))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for heard in made:
        heard.journal.close()


Hear = Callable[..., Heard]


@needs_journal
def test_a_journal_is_read_from_its_start_and_on_while_it_grows(tmp_path, hear: Hear):
    write(tmp_path / "j" / "a.journal", 0, 500)
    heard = hear("journalctl", f"--directory={tmp_path / 'j'}")
    heard.until(lambda: len(heard.lines) >= 500)
    write(tmp_path / "j" / "a.journal", 500, 510)
    heard.until(lambda: len(heard.lines) >= 510)
    assert heard.numbers == list(range(510))
    assert heard.gaps == []


@needs_journal
def test_a_restart_goes_on_behind_the_last_stored_cursor(tmp_path, hear: Hear):
    write(tmp_path / "j" / "a.journal", 0, 100)
    heard = hear("journalctl", f"--directory={tmp_path / 'j'}")
    heard.until(lambda: len(heard.lines) >= 100)
    write(tmp_path / "j" / "a.journal", 100, 400)  # far more than journalctl shows without being asked
    heard.restart()
    heard.until(lambda: len(heard.lines) >= 400)
    assert heard.numbers == list(range(400))
    heard.restart()
    write(tmp_path / "j" / "a.journal", 400, 401)
    heard.until(lambda: len(heard.lines) >= 401)
    assert heard.numbers == list(range(401))
    assert heard.gaps == []


@needs_journal
def test_what_was_not_stored_before_a_kill_is_read_again(tmp_path, hear: Hear):
    write(tmp_path / "j" / "a.journal", 0, 100)
    heard = hear("journalctl", f"--directory={tmp_path / 'j'}")
    heard.until(lambda: len(heard.lines) >= 100)
    write(tmp_path / "j" / "a.journal", 100, 150)
    heard.until(lambda: len(heard.lines) >= 150, commit=False)
    heard.restart()
    heard.until(lambda: len(heard.lines) >= 200)
    assert heard.numbers == [*range(150), *range(100, 150)]


@needs_journal
def test_what_was_written_before_a_reboot_is_read_after_it(tmp_path, hear: Hear):
    write(tmp_path / "j" / "a.journal", 0, 50)
    heard = hear("journalctl", f"--directory={tmp_path / 'j'}")
    heard.until(lambda: len(heard.lines) >= 50)
    heard.journal.close()
    write(tmp_path / "j" / "a.journal", 50, 60)
    write(tmp_path / "j" / "b.journal", 60, 70, boot="f" + BOOT[1:])
    heard.start()
    heard.until(lambda: len(heard.lines) >= 70)
    assert heard.numbers == list(range(70))
    assert heard.gaps == []


@needs_journal
def test_a_killed_journalctl_is_a_gap_and_is_started_again_where_it_was(tmp_path, hear: Hear, clock: FakeClock):
    write(tmp_path / "j" / "a.journal", 0, 100)
    heard = hear("journalctl", f"--directory={tmp_path / 'j'}", clock=clock)
    heard.until(lambda: len(heard.lines) >= 100)
    child = heard.journal._child
    assert child is not None
    os.kill(child.pid, signal.SIGKILL)
    write(tmp_path / "j" / "a.journal", 100, 120)
    heard.until(lambda: bool(heard.gaps))
    clock.advance(2)
    heard.until(lambda: len(heard.lines) >= 120)
    assert heard.numbers == list(range(120))
    assert [gap.reason for gap in heard.gaps] == ["unreadable"]


@needs_journal
def test_a_stopped_journalctl_stops_nobody_else(tmp_path, hear: Hear, clock: FakeClock):
    write(tmp_path / "j" / "a.journal", 0, 100)
    heard = hear("journalctl", f"--directory={tmp_path / 'j'}", clock=clock)
    heard.until(lambda: len(heard.lines) >= 100)
    assert heard.journal._child is not None
    os.kill(heard.journal._child.pid, signal.SIGSTOP)
    write(tmp_path / "j" / "a.journal", 100, 120)
    clock.advance(LOOK_AGAIN_S)
    heard.until(lambda: len(heard.lines) >= 120)
    assert heard.numbers == list(range(120))


@needs_journal
def test_records_across_rotated_journal_files_come_in_order_and_once(tmp_path, hear: Hear):
    write(tmp_path / "j" / "a.journal", 0, 50)
    heard = hear("journalctl", f"--directory={tmp_path / 'j'}")
    heard.until(lambda: len(heard.lines) >= 50)
    (tmp_path / "j" / "a.journal").rename(tmp_path / "j" / "a@1.journal")
    write(tmp_path / "j" / "a.journal", 50, 80)
    heard.until(lambda: len(heard.lines) >= 80)
    heard.restart()
    write(tmp_path / "j" / "b.journal", 80, 90)
    heard.until(lambda: len(heard.lines) >= 90)
    assert heard.numbers == list(range(90))
    assert heard.gaps == []


@needs_journal
@pytest.mark.parametrize("act", ["vacuumed", "emptied"])
def test_a_journal_that_was_cleared_while_down_is_a_gap_with_a_rule(tmp_path, hear: Hear, act: str):
    write(tmp_path / "j" / "a.journal", 0, 50)
    heard = hear("journalctl", f"--directory={tmp_path / 'j'}")
    heard.until(lambda: len(heard.lines) >= 50)
    heard.journal.close()
    (tmp_path / "j" / "a.journal").unlink()
    if act == "vacuumed":
        write(tmp_path / "j" / "b.journal", 70, 80)
    heard.start()
    heard.poll()
    if act == "emptied":
        write(tmp_path / "j" / "b.journal", 70, 80)
    heard.until(lambda: len(heard.lines) >= 60)
    assert heard.numbers == [*range(50), *range(70, 80)]
    reasons = [gap.reason for gap in heard.gaps]
    assert reasons == ["vanished"] or (act == "emptied" and reasons == ["unreadable", "vanished"])  # journalctl gave up
    pipeline = Pipeline(host="web01", detector=Detector(rules_in([Path("rules")])), now=SystemClock().now)
    assert [match for _, found in pipeline.matches(heard.gaps[-1], SourceFormat()) for match in found]


@needs_journal
def test_only_the_units_that_were_asked_for_are_read(tmp_path, hear: Hear):
    write(tmp_path / "j" / "a.journal", 0, 10, unit="cron.service")
    write(tmp_path / "j" / "a.journal", 10, 20, unit="ssh.service")
    heard = hear("journalctl", f"--directory={tmp_path / 'j'}", units=("ssh.service",))
    heard.until(lambda: len(heard.lines) >= 10)
    assert heard.numbers == list(range(10, 20))


@needs_journal
def test_a_new_record_wakes_whoever_waits(tmp_path):
    write(tmp_path / "j" / "a.journal", 0, 10)
    wake = Wake()
    journal = Journal(
        None, clock=SystemClock(), command=("journalctl", f"--directory={tmp_path / 'j'}"), on_open=wake.listen
    )
    try:
        seen: list[object] = []
        seen += journal.poll(1 << 20)
        while len(seen) < 10:
            assert wake.wait(10)
            seen += journal.poll(1 << 20)
        while wake.wait(0.2):
            seen += journal.poll(1 << 20)
        write(tmp_path / "j" / "a.journal", 10, 11)
        assert wake.wait(10)
        while len(seen) < 11:
            seen += journal.poll(1 << 20)
    finally:
        journal.close()
        wake.close()


# -- what no journal should say


def saying(tmp_path: Path, code: str) -> tuple[str, str]:
    script = tmp_path / "journalctl.py"
    script.write_text(f"import sys, time\nout = sys.stdout.buffer\n{code}\nout.flush()\ntime.sleep(60)\n")
    return sys.executable, str(script)


def record(number: int) -> str:
    return json.dumps(
        {"__CURSOR": f"c{number}", "__REALTIME_TIMESTAMP": "1769940000000000", "MESSAGE": f"number={number}"}
    )


def test_after_a_silence_the_journal_is_read_again_from_the_last_record_on(tmp_path, hear: Hear, clock: FakeClock):
    """What journalctl saw half written or did not see at all: a record that grew, and one behind it."""
    starts = tmp_path / "starts"
    half, whole, second = '{"__CURSOR": "c1"}', record(1), record(2)
    told = {"": [half], "--cursor=c1": [whole, second], "--cursor=c2": [second]}
    code = f"""
open({str(starts)!r}, "a").write("x")
cursor = next((option for option in sys.argv if option.startswith("--cursor=")), "")
for said in {told!r}[cursor]:
    out.write(said.encode() + b"\\n")
"""
    heard = hear(*saying(tmp_path, code), clock=clock)
    heard.until(lambda: len(heard.lines) >= 1)
    clock.advance(LOOK_AGAIN_S - 1)
    heard.poll()
    assert starts.read_text() == "x"
    clock.advance(1)
    heard.until(lambda: len(heard.lines) >= 3)
    assert [json.loads(line.data).get("MESSAGE") for line in heard.lines] == [None, "number=1", "number=2"]
    assert heard.gaps == []
    for _ in range(5):  # it tells of c2 again: nothing new, and after that the child is left alone
        clock.advance(LOOK_AGAIN_S)
        heard.poll()
        time.sleep(0.2)
    assert starts.read_text() == "xxx"
    assert len(heard.lines) == 3


def test_a_record_of_many_megabytes_is_set_aside_and_its_neighbours_are_read(tmp_path, hear: Hear):
    code = f"""
out.write({record(1)!r}.encode() + b"\\n")
out.write(b'{{"__CURSOR": "x", "MESSAGE": "' + b"y" * {3 * MAX_RECORD_BYTES} + b'"}}\\n')
out.write({record(2)!r}.encode() + b"\\n")
"""
    heard = hear(*saying(tmp_path, code))
    heard.until(lambda: len(heard.lines) >= 2)
    assert heard.numbers == [1, 2]
    assert [gap.reason for gap in heard.gaps] == ["line_cut"]


def test_records_without_cursor_or_sense_are_gaps(tmp_path, hear: Hear):
    code = f"""
for text in (b"", b"[]", b"{{", b'{{"MESSAGE": "x"}}', b'{{"__CURSOR": 7}}', b"\\xff\\xfe"):
    out.write(text + b"\\n")
out.write({record(1)!r}.encode() + b"\\n")
"""
    heard = hear(*saying(tmp_path, code))
    heard.until(lambda: len(heard.lines) >= 1)
    assert [gap.reason for gap in heard.gaps] == ["unreadable"] * 5


def test_a_missing_time_and_a_message_of_bytes_are_kept(tmp_path, hear: Hear):
    code = """
out.write(b'{"__CURSOR": "a", "MESSAGE": "no time"}\\n')
out.write(b'{"__CURSOR": "b", "__REALTIME_TIMESTAMP": "1769940000000000", "MESSAGE": [104, 105, 255, 10]}\\n')
out.write(b'{"__CURSOR": "c", "__REALTIME_TIMESTAMP": "1769940000000000", "MESSAGE": ["one", "two"]}\\n')
"""
    heard = hear(*saying(tmp_path, code))
    heard.until(lambda: len(heard.lines) >= 3)
    pipeline = Pipeline(host="web01", detector=Detector(rules_in([])), now=SystemClock().now)
    events = [event for line in heard.lines for event in pipeline.parse(line, SourceFormat(format="journal"))]
    assert [event.fields["event.kind"] for event in events] == ["pipeline_error", "event", "event"]
    assert [event.fields["message"] for event in events[1:]] == ["hi\\xff", "one"]


def test_without_journalctl_there_is_a_gap_and_not_one_each_second(hear: Hear, clock: FakeClock):
    heard = hear("/nonexistent/journalctl", clock=clock)
    for _ in range(30):
        heard.poll()
        clock.advance(1)
    assert {gap.reason for gap in heard.gaps} == {"unreadable"}
    assert len(heard.gaps) <= 4
