"""What benchmarks share: CPU of a process and its descendants, memory, medians, tables."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Spent:
    """Seconds that a piece of work took."""

    wall_s: float = 0.0
    cpu_s: float = 0.0


def family(pid: int) -> list[int]:
    """A process and all below it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return []
    return [pid, *(below for child in children for below in family(int(child)))]


def cpu_s(pid: int) -> float:
    """User and system seconds of a process and all below it, with its ended children."""
    total = 0
    for member in family(pid):
        # the name of a command may hold spaces and brackets: fields count from behind the last bracket
        fields = Path(f"/proc/{member}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        total += sum(int(ticks) for ticks in fields[11:15])
    return total / TICKS


def resident_mb(pid: int) -> float:
    """Resident set of one process, megabytes."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


@contextmanager
def spent(pid: int | None = None) -> Iterator[Spent]:
    """Measure the body: this process' CPU, or that of another family."""
    clock = time.process_time if pid is None else lambda: cpu_s(pid)
    figure, wall, cpu = Spent(), time.perf_counter(), clock()
    yield figure
    figure.cpu_s, figure.wall_s = clock() - cpu, time.perf_counter() - wall


def command(arguments: Sequence[str]) -> Spent:
    """One run of a command to its end, its output thrown away."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(arguments, stdout=subprocess.DEVNULL, check=False)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Spent(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def until(done: Callable[[], bool], *, timeout_s: float = 600.0, every_s: float = 0.02) -> None:
    """Wait. Raises: TimeoutError."""
    end = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"{done} did not come true within {timeout_s:.0f} s")
        time.sleep(every_s)


def median(figures: Sequence[Spent]) -> Spent:
    """Medians of both columns."""
    return Spent(statistics.median(each.wall_s for each in figures), statistics.median(each.cpu_s for each in figures))


def row(name: str, wall: str, cpu: str = "", wanted: str = "") -> None:
    """One line of a table, at once."""
    print(f"{name:58} {wall:>12} {cpu:>12}   {wanted}".rstrip(), flush=True)


def rate_row(name: str, count: int, runs: Sequence[Spent], wanted: str = "") -> None:
    """How many a second of wall, and a second of CPU."""
    middle = median(runs)
    row(name, f"{count / middle.wall_s:,.0f}", f"{count / middle.cpu_s:,.0f}", wanted)
