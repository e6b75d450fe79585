"""How soon an appended line is a parsed event, and how fast a log is tailed, beside what the machine can do at most.

python benchmarks/tail.py [--lines 4000000] [--runs 5] [--appends 2000]

Latency: a writer of its own appends single lines at random moments (2 to 30 ms apart) with the instant in them; the
agent's own loop (kernel wake-up, tail, parse, detect, commit) runs in another process, and the time is taken when the
parsed event reaches the detector. `polled` is the same without a kernel wake-up, as on a network file system.

Throughput: a file of 110-byte lines, one in a hundred of which holds a literal that a rule looks for, in the page
cache.
`tail, blocks` is the tail alone: reading, cutting at line ends, fingerprints, hashes of what was read, checkpoints; its
blocks are searched for the literal as a prefilter would, and only lines that hold it are made. `+ parse, detect, store`
also parses those lines, evaluates one rule, and commits the matches with the offset in one durable transaction each
megabyte. Which lines are candidates is the engine's business and is measured there.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from breachwatch.app import agent as agent_module
from breachwatch.app.agent import Agent, AgentSettings, LogSettings
from breachwatch.app.clock import SystemClock
from breachwatch.app.pipeline import Pipeline, SourceFormat
from breachwatch.app.process import Asked
from breachwatch.app.rules import rules_in
from breachwatch.app.state import prepare_state
from breachwatch.detect.engine import Detector
from breachwatch.model import Block, Event, Match, RawLine, Signal
from breachwatch.store.agent import SqliteAgentStore
from breachwatch.watch.files import LogFiles, LogSpec
from breachwatch.watch.wake import Wake

LITERAL = b"Failed password"

RULE = """
title: Failed password
id: 7b1f2f0e-1d4b-4d59-9a53-0d4c7f0a1b2c
level: low
logsource: {product: linux}
detection:
  words: ["Failed password"]
  condition: words
"""

WRITER = """
import os, random, sys, time
path, count, noise = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
chance = random.Random(7)
line = b"Jan  5 08:00:00 web01 noise[7]: " + b"x" * 77 + b"\\n"
for number in range(count):
    end = time.monotonic() + chance.uniform(0.002, 0.03)
    while noise and time.monotonic() < end - 0.002:
        os.write(log, line * max(1, noise // 500))
        time.sleep(0.002)
    time.sleep(max(0, end - time.monotonic()))
    os.write(log, b"Jan  5 08:00:00 web01 bench[7]: instant=%d\\n" % time.monotonic_ns())
"""


class Recorder:
    """A detector that notes when an event arrived."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self.delays_ms: list[float] = []

    def feed(self, event: Event, satisfied: Sequence[int] | None = None) -> list[Match]:
        _, found, stamp = event.raw.partition("instant=")
        if found:
            self.delays_ms.append((time.monotonic_ns() - int(stamp)) / 1e6)
        return self._detector.feed(event, satisfied)

    def __getattr__(self, name: str) -> object:
        return getattr(self._detector, name)


class Deaf(Wake):
    """No kernel events."""

    def watch(self, folders: object) -> dict[Path, str]:  # noqa: ARG002
        return {}


def latency(appends: int, noise: int, wake: Wake) -> tuple[list[float], float, float]:
    """(delays in ms, CPU seconds of the agent, wall seconds)."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "rules").mkdir()
        (root / "rules" / "one.yml").write_text(RULE.replace("Failed password", "instant="))  # every line is read
        log = root / "app.log"
        log.touch()
        layout = prepare_state(root / "state")
        store = SqliteAgentStore(layout.agent_db, owner=True)
        settings = AgentSettings(
            state_directory=str(root / "state"), host="web01", rule_folders=(str(root / "rules"),),
            logs=(LogSettings(path=str(log), format="syslog"),),
        )  # fmt: skip
        watcher = Agent(settings, store, SystemClock())
        pipeline: Pipeline = watcher._pipeline  # noqa: SLF001
        recorder = Recorder(pipeline.detector)
        pipeline.detector = recorder  # type: ignore[assignment]
        asked = Asked()
        command = [sys.executable, "-c", WRITER, str(log), str(appends), str(noise)]
        begin, used = time.perf_counter(), time.process_time()
        with subprocess.Popen(command) as writer:

            def end() -> None:
                writer.wait()
                time.sleep(1.5)
                asked.stop = True
                wake.set()

            ender = threading.Thread(target=end)
            ender.start()
            agent_module._loop(watcher, asked=asked, wake=wake)  # noqa: SLF001
            ender.join()
        watcher.close()
        store.close()
        wake.close()
        return recorder.delays_ms, time.process_time() - used, time.perf_counter() - begin


def show_latency(appends: int) -> None:
    print(
        f"{'append -> parsed event':34} {'lines':>6} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8} {'CPU s':>6} {'wall':>6}"
    )
    for name, count, noise, wake in (
        ("idle log", appends, 0, Wake()),
        ("log that gets 5,000 lines/s", appends // 2, 5_000, Wake()),
        ("polled, idle log", max(60, appends // 20), 0, Deaf()),
    ):
        delays, cpu, wall = latency(count, noise, wake)
        assert len(delays) == count, (len(delays), count)
        cut = statistics.quantiles(delays, n=100)
        print(f"{name:34} {count:6} {cut[49]:8.2f} {cut[98]:8.2f} {max(delays):8.2f} {cpu:6.2f} {wall:7.1f}")


def make_log(path: Path, lines: int) -> None:
    chance = random.Random(3)
    with path.open("wb") as log:
        for begin in range(0, lines, 10_000):
            batch = []
            for number in range(begin, min(lines, begin + 10_000)):
                what = b"Failed password for root from" if chance.random() < 0.01 else b"Accepted nothing special for"
                line = b"Jan  5 08:%02d:%02d web01 sshd[%d]: %s 203.0.113.%d port %d ssh2 " % (
                    number // 60 % 60, number % 60, number % 30_000, what, number % 256, number % 60_000,
                )  # fmt: skip
                batch.append(line.ljust(109, b"x") + b"\n")
            log.write(b"".join(batch))


def candidates(block: Block) -> Iterator[RawLine]:
    """Lines with the literal, found as a prefilter would: one search over the block."""
    data, at = block.data, 0
    while (found := data.find(LITERAL, at)) >= 0:
        begin = data.rfind(b"\n", 0, found) + 1
        at = data.find(b"\n", found)
        yield RawLine(
            source=block.source, data=data[begin:at], offset=block.offset + begin, generation=block.generation,
            length_bytes=at - begin,
        )  # fmt: skip


def tail_alone(path: Path, scratch: Path) -> tuple[int, int]:  # noqa: ARG001  # all subjects are called alike
    files = LogFiles(LogSpec(pattern=str(path)), {}, clock=SystemClock())
    lines = found = 0
    while True:
        before = lines
        for piece in files.poll(1 << 20):
            assert isinstance(piece, Block)
            lines += piece.data.count(b"\n")
            found += sum(1 for _ in candidates(piece))
        files.progress()
        if lines == before:
            files.close()
            return lines, found


def tail_and_store(path: Path, scratch: Path) -> tuple[int, int]:
    (scratch / "rules").mkdir()
    (scratch / "rules" / "one.yml").write_text(RULE)
    store = SqliteAgentStore(scratch / "agent.db", owner=True)
    clock = SystemClock()
    pipeline = Pipeline(host="web01", detector=Detector(rules_in([scratch / "rules"])), now=clock.now)
    files, how = LogFiles(LogSpec(pattern=str(path)), {}, clock=clock), SourceFormat(format="syslog")
    lines = found = 0
    while True:
        before = lines
        signals: list[Signal] = []
        for piece in files.poll(1 << 20):
            assert isinstance(piece, Block)
            lines += piece.data.count(b"\n")
            for line in candidates(piece):
                signals += pipeline.signals(line, how)
        progress = files.progress()
        store.commit(signals=signals, checkpoints=progress.checkpoints, forgotten=progress.forgotten)
        found += len(signals)
        if lines == before:
            files.close()
            store.close()
            return lines, found


def python_read(path: Path, scratch: Path) -> tuple[int, int]:  # noqa: ARG001
    lines = 0
    with path.open("rb", buffering=0) as log:
        while chunk := log.read(1 << 18):
            lines += chunk.count(b"\n")
    return lines, 0


def python_lines(path: Path, scratch: Path) -> tuple[int, int]:  # noqa: ARG001
    lines = found = 0
    with path.open("rb") as log:
        for line in log:
            lines += 1
            found += LITERAL in line
    return lines, found


def run_command(*command: str) -> Callable[[Path, Path], tuple[int, int]]:
    def run(path: Path, scratch: Path) -> tuple[int, int]:  # noqa: ARG001
        said = subprocess.run([*command, str(path)], capture_output=True, text=True, check=True).stdout
        return int(said.split()[0]), 0

    return run


SUBJECTS: dict[str, Callable[[Path, Path], tuple[int, int]]] = {
    "tail, blocks": tail_alone,
    "+ parse, detect, store": tail_and_store,
    "Python: read and count line feeds": python_read,
    "Python: for line in file, search": python_lines,
    "wc -l": run_command("wc", "-l"),
    "rg -c 'Failed password'": run_command("rg", "-c", LITERAL.decode()),
}


def once(name: str, path: Path) -> dict[str, float]:
    """In a process of its own, so that nobody profits from another's caches."""
    code = "import sys, benchmarks.tail as tail; tail.child(sys.argv[1], sys.argv[2])"
    done = subprocess.run([sys.executable, "-c", code, name, str(path)], capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def child(name: str, path: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        before = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        begin = time.perf_counter()
        lines, found = SUBJECTS[name](Path(path), Path(scratch))
        wall = time.perf_counter() - begin
        after = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime for a, b in zip(before, after, strict=True))
    memory = after[0].ru_maxrss / 1024
    print(json.dumps({"lines": lines, "found": found, "cpu": cpu, "wall": wall, "memory": memory}))


def show_throughput(lines: int, runs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "app.log"
        make_log(path, lines)
        size = path.stat().st_size
        print(f"\n{lines:,} lines, {size / 1e6:.0f} MB, in the page cache; median of {runs}")
        print(f"{'':34} {'lines/CPU-s':>12} {'MB/CPU-s':>9} {'CPU s':>7} {'wall s':>7} {'MB mem':>7} {'found':>7}")
        for name in SUBJECTS:
            if name.startswith("rg") and shutil.which("rg") is None:
                print(f"{name:34} not installed")
                continue
            figures = [once(name, path) for _ in range(runs)]
            middle = {key: statistics.median(figure[key] for figure in figures) for key in figures[0]}
            assert name.startswith("rg") or middle["lines"] == lines, middle
            print(
                f"{name:34} {lines / middle['cpu']:12,.0f} {size / 1e6 / middle['cpu']:9,.0f} {middle['cpu']:7.2f}"
                f" {middle['wall']:7.2f} {middle['memory']:7.0f} {middle['found']:7.0f}"
            )


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--lines", type=int, default=4_000_000)
    arguments.add_argument("--runs", type=int, default=5)
    arguments.add_argument("--appends", type=int, default=2_000)
    chosen = arguments.parse_args()
    show_latency(chosen.appends)
    show_throughput(chosen.lines, chosen.runs)


if __name__ == "__main__":
    main()
