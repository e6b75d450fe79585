"""What a command costs on a file, beyond its start, beside others on the same file in the same minutes."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Found = Callable[[Path], tuple[int, Mapping[str, int]]]
"""From what a command printed: how much it found and, where it says so, how often each rule."""

LEAST_S = 1e-3
"""No difference is taken for less."""

_INSTALLED = {"PYTHONDONTWRITEBYTECODE": ""}
"""Programs in Python keep their compiled modules, as what is installed has them."""

NOISE = 0.2
"""Starts differ by so much of themselves from run to run on a busy machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """A command that takes a file."""

    name: str
    command: Callable[[Path], Sequence[str]]
    found: Found
    folder: Path | None = None
    """Where it runs."""
    environment: Mapping[str, str] = field(default_factory=dict)
    begin: str = "empty"
    """What its start is measured on: an `empty` file, or the first `line` for a peer that refuses an empty one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a runner took for a file."""

    name: str
    seconds: float
    start_s: float
    found: int
    by_rule: Mapping[str, int]

    @property
    def is_noise(self) -> bool:
        """What the file cost is too little beside the start to be told from it."""
        return self.seconds < NOISE * self.start_s


def cpu_seconds(runner: Runner, file: Path, output: Path) -> float:
    """CPU seconds of one run, its children included; what it prints goes to a file."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with output.open("wb") as printed, output.with_suffix(".err").open("wb") as said:
        subprocess.run(
            runner.command(file), stdout=printed, stderr=said, stdin=subprocess.DEVNULL, cwd=runner.folder,
            env={**os.environ, **_INSTALLED, **runner.environment}, check=False,
        )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def race(runners: Sequence[Runner], file: Path, scratch: Path, runs: int) -> list[Result]:
    """Medians over the runs, which take turns: what else the machine does hits all alike."""
    first = scratch / "start-line"
    with file.open("rb") as opened:
        first.write_bytes(opened.readline())
    empty = scratch / "start-empty"
    empty.write_bytes(b"")
    starts: list[list[float]] = [[] for _ in runners]
    totals: list[list[float]] = [[] for _ in runners]
    outputs = [scratch / f"output-{number}" for number in range(len(runners))]
    for number, runner in enumerate(runners):  # not counted: fills caches, ours of rules and plans too
        cpu_seconds(runner, file, outputs[number])
    for _ in range(runs):
        for number, runner in enumerate(runners):
            begin = first if runner.begin == "line" else empty
            starts[number].append(cpu_seconds(runner, begin, scratch / "output-start"))
            totals[number].append(cpu_seconds(runner, file, outputs[number]))
    results = []
    for number, runner in enumerate(runners):
        start = statistics.median(starts[number])
        found, by_rule = runner.found(outputs[number])
        seconds = max(LEAST_S, statistics.median(totals[number]) - start)
        results.append(Result(name=runner.name, seconds=seconds, start_s=start, found=found, by_rule=by_rule))
    return results


def best(results: Iterable[Result]) -> Result:
    """The fastest, unless its file seemed to cost nothing: that is a start measured too long, not speed."""
    return min(results, key=lambda result: (result.seconds <= LEAST_S, result.seconds))


def alike(one: Result, other: Result) -> str:
    """Whether two found the same, rule by rule; else how many matches only one of them has."""
    ours, theirs = Counter(one.by_rule), Counter(other.by_rule)
    if ours == theirs:
        return "same alerts"
    return f"{(ours - theirs).total()} only ours, {(theirs - ours).total()} only theirs"
