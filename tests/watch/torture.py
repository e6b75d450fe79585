"""The real logrotate, a real writer and readers that are killed: what was lost, what came twice, what was reported.

Used by the short form in tests and the long form in benchmarks/rotation.py.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from breachwatch.app.agent import AgentSettings, LogSettings
from breachwatch.model import Gap, SignalKind
from breachwatch.store.agent import SqliteAgentStore

MODES = {
    "rename": "nocompress create 0640",
    "gzip": "compress nodelaycompress create 0640",
    "delaycompress": "compress delaycompress create 0640",
    "copytruncate": "nocompress copytruncate",
}

WRITER = """
import os, signal, sys, time
path, rate = sys.argv[1], int(sys.argv[2])
state = {"reopen": False, "stop": False}
signal.signal(signal.SIGHUP, lambda *_: state.update(reopen=True))
signal.signal(signal.SIGTERM, lambda *_: state.update(stop=True))
flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
log, number, start = os.open(path, flags, 0o640), 0, time.monotonic()
print("ready", flush=True)
while not state["stop"]:
    if state["reopen"]:
        state["reopen"] = False
        os.close(log)
        log = os.open(path, flags, 0o640)
    due = int((time.monotonic() - start) * rate)
    while number < due:
        burst = min(due, number + 8)
        lines = [f"Jan  5 08:00:00 web01 torture[7]: number={n:09d} and some words\\n" for n in range(number, burst)]
        os.write(log, "".join(lines).encode())
        number = burst
    time.sleep(0.002)
print(number, flush=True)
"""

RULE = """
title: Every line of the torture
id: 7b1f2f0e-1d4b-4d59-9a53-0d4c7f0a1b2c
level: low
logsource: {product: linux}
detection:
  numbered: ["number="]
  condition: numbered
"""

_NUMBER = re.compile(r"number=(\d{9})")


class ReaderProcess(Protocol):
    """Something that reads the log, can be killed and started again, and says which numbers it has."""

    name: str

    def start(self) -> None: ...

    def kill(self) -> None: ...

    def stop(self) -> None: ...

    def numbers(self) -> list[int]: ...


@dataclass
class Daemon:
    """A process that is started the same way each time."""

    name: str
    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, **self.environment},
        )  # fmt: skip

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()


@dataclass
class OurAgent(Daemon):
    """The agent, with one rule that matches every line: what it stored is what it read."""

    state: Path = Path()
    settings: bytes = b""
    said: list[tuple[SignalKind, int, Gap | None]] = field(default_factory=list)
    """(kind, number of the line, the gap) of every signal stored so far."""
    after: int = 0

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE)
        assert self.process.stdin is not None
        self.process.stdin.write(self.settings)
        self.process.stdin.close()

    def _read(self) -> None:
        if not (self.state / "agent.db").exists():
            return
        store = SqliteAgentStore(self.state / "agent.db")
        try:
            while batch := store.read_signals(after=self.after, limit=20_000):
                self.after = batch[-1].seq or self.after
                for item in batch:
                    number = number_in(item.match.event.raw) if item.match else -1
                    self.said.append((item.kind, number, item.gap))
        finally:
            store.close()

    def numbers(self) -> list[int]:
        self._read()
        return [number for kind, number, _ in self.said if kind is SignalKind.MATCH]

    def gaps(self) -> list[str]:
        self._read()
        return [gap.reason for _, _, gap in self.said if gap]

    def cuts(self) -> list[int]:
        """Inode numbers of the copies whose cuts were reported, once for each report."""
        self._read()
        return [int(gap.about.split(":")[1]) for _, _, gap in self.said if gap and gap.reason == "copytruncate"]


def our_agent(root: Path, log: Path) -> OurAgent:
    rules = root / "rules"
    rules.mkdir()
    (rules / "torture.yml").write_text(RULE)
    settings = AgentSettings(
        state_directory=str(root / "state"),
        host="web01",
        logs=(LogSettings(path=str(log), format="syslog"),),
        rule_folders=(str(rules),),
    )
    return OurAgent(
        name="breachwatch",
        command=(sys.executable, "-m", "breachwatch.app.agent"),
        state=root / "state",
        settings=msgspec.json.encode(settings),
    )


def number_in(text: str) -> int:
    found = _NUMBER.search(text)
    return int(found[1]) if found else -1


@dataclass
class Outcome:
    """What one reader made of one mode."""

    name: str
    mode: str
    written: int
    missing: int
    missing_on_disk: int
    """Of the missing ones, those that still are in some file: the reader's own fault."""
    twice: int
    rotations: int
    kills: int


@dataclass
class Torture:
    """One log in one mode."""

    root: Path
    mode: str
    rate: int = 4000
    seed: int = 7
    pause_s: tuple[float, float] = (0.1, 0.4)

    def __post_init__(self) -> None:
        self.folder = self.root / "log"
        self.folder.mkdir(parents=True)
        self.folder.chmod(0o755)
        self.log = self.folder / "torture.log"
        self.config = self.root / "logrotate.conf"
        self.chance = random.Random(self.seed)

    def run(self, readers: Sequence[ReaderProcess], *, rotations: int, kills: int) -> list[Outcome]:
        """Write, rotate and kill; then let everybody finish, and count."""
        command = [sys.executable, "-c", WRITER, str(self.log), str(self.rate)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            self._configure(writer.pid)
            for reader in readers:
                reader.start()
            self._until_all_read(readers)  # what was rotated before a reader's very first start is not its business
            kill_at = Counter(self.chance.randrange(rotations) for _ in range(kills))
            for rotation in range(rotations):
                time.sleep(self.chance.uniform(*self.pause_s))
                self._rotate()
                for _ in range(kill_at[rotation]):
                    time.sleep(self.chance.uniform(0, self.pause_s[1]))
                    for reader in readers:
                        reader.kill()
                        reader.start()
            time.sleep(0.3)
            writer.send_signal(signal.SIGTERM)
            written = int(writer.stdout.readline())
        self._settle(readers, written)
        for reader in readers:
            reader.stop()
        on_disk = self.on_disk()
        return [self._judge(reader, written, on_disk, rotations, kills) for reader in readers]

    @staticmethod
    def _until_all_read(readers: Sequence[ReaderProcess]) -> None:
        deadline = time.monotonic() + 30
        while not all(reader.numbers() for reader in readers):
            assert time.monotonic() < deadline, "a reader reads nothing"
            time.sleep(0.1)

    def _configure(self, writer: int) -> None:
        hang_up = "" if self.mode == "copytruncate" else f"postrotate\n    kill -HUP {writer}\n  endscript"
        self.config.write_text(
            textwrap.dedent(f"""\
            {self.log} {{
              rotate 4000
              missingok
              {
                MODES[self.mode]
                .replace(" create", chr(10) + "  create")
                .replace(" no", chr(10) + "  no")
                .replace(" copytruncate", chr(10) + "  copytruncate")
                .replace(" delaycompress", chr(10) + "  delaycompress")
            }
              {hang_up}
            }}
            """)
        )
        self.config.chmod(0o644)

    def _rotate(self) -> None:
        done = subprocess.run(
            ["logrotate", "-f", "-s", str(self.root / "logrotate.state"), str(self.config)],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def _settle(self, readers: Sequence[ReaderProcess], written: int) -> None:
        """Until everything arrived, or nothing more did for five seconds."""
        before: list[int] = []
        quiet_until = time.monotonic() + 5
        while time.monotonic() < quiet_until:
            counts = [len(set(reader.numbers())) for reader in readers]
            if all(count >= written for count in counts):
                return
            if counts != before:
                before, quiet_until = counts, time.monotonic() + 5
            time.sleep(0.3)

    def on_disk(self) -> set[int]:
        """Every number that is in any file now."""
        found: set[int] = set()
        for path in self.folder.iterdir():
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            found.update(int(number) for number in re.findall(rb"number=(\d{9})", content))
        return found

    def holes(self) -> list[int]:
        """Inode numbers of the files after which lines are missing: what logrotate lost between copy and cut."""
        ranges = []
        for path in self.folder.iterdir():
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            numbers = [int(number) for number in re.findall(rb"number=(\d{9})", content)]
            ranges += [(numbers[0], numbers[-1], path.stat().st_ino)] if numbers else []
        ranges.sort()
        return [inode for (_, end, inode), (begin, _, _) in itertools.pairwise(ranges) if begin > end + 1]

    def _judge(self, reader: ReaderProcess, written: int, on_disk: set[int], rotations: int, kills: int) -> Outcome:
        numbers = reader.numbers()
        missing = set(range(written)) - set(numbers)
        return Outcome(
            reader.name, self.mode, written, len(missing), len(missing & on_disk), len(numbers) - len(set(numbers)),
            rotations, kills,
        )  # fmt: skip


@dataclass
class FileWriter(Daemon):
    """A peer that writes what it reads to a file."""

    output: Path = Path()

    def numbers(self) -> list[int]:
        if not self.output.exists():
            return []
        return [int(number) for number in re.findall(rb"number=(\d{9})", self.output.read_bytes())]


@contextlib.contextmanager
def ended(readers: Sequence[Daemon]):
    """Whatever happens, no reader stays behind."""
    try:
        yield
    finally:
        for reader in readers:
            if reader.process is not None and reader.process.poll() is None:
                reader.kill()
