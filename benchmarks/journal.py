"""How fast the journal is read: journalctl, our reader of it, the parser behind it, and a native binding beside them.

python -m benchmarks.journal [--records 200000] [--runs 3]

A real journal is made with systemd-journal-remote. `journalctl` counts the child alone; `our reader` is the child and
what we do with its output; `parser` and `parser, rules` are what comes after it, the latter with the shipped rules, on
the same records. The native binding is cysystemd, if it is installed (`pip install cysystemd`): it reads the same
fields into a dictionary.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from breachwatch.app.clock import SystemClock
from breachwatch.app.pipeline import Pipeline, SourceFormat
from breachwatch.app.rules import rules_in
from breachwatch.config.shipped import shipped_folder
from breachwatch.detect.engine import Detector
from breachwatch.detect.ruleset import RuleSet
from breachwatch.model import RawLine
from breachwatch.watch.journal import Journal
from tests.watch.test_journal import write


def cpu_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def journalctl(folder: Path) -> int:
    command = ["journalctl", f"--directory={folder}", "--output=json", "--all", "--no-pager", "--quiet"]
    return subprocess.run(command, capture_output=True, check=True).stdout.count(b"\n")


def lines_of(folder: Path, count: int) -> list[RawLine]:
    journal = Journal(None, clock=SystemClock(), command=("journalctl", f"--directory={folder}"))
    lines: list[RawLine] = []
    while len(lines) < count:
        lines += [item for item in journal.poll(1 << 20) if isinstance(item, RawLine)]
        time.sleep(0.001)
    journal.close()
    return lines


def parser(lines: list[RawLine], rules: RuleSet) -> int:
    pipeline = Pipeline(host="web01", detector=Detector(rules), now=SystemClock().now)
    return sum(1 for line in lines for _ in pipeline.matches(line, SourceFormat(format="journal")))


def native(folder: Path) -> int:
    from importlib import import_module

    reader = import_module("cysystemd.reader").JournalReader()
    reader.open_files(*map(str, sorted(folder.iterdir())))
    reader.seek_head()
    return sum(1 for record in reader if record.data)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--records", type=int, default=200_000)
    arguments.add_argument("--runs", type=int, default=3)
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "journal"
        write(folder / "a.journal", 0, chosen.records)
        lines = lines_of(folder, chosen.records)
        shipped = rules_in([shipped_folder("rules")])
        subjects: dict[str, Callable[[], int]] = {
            "journalctl": lambda: journalctl(folder),
            "our reader": lambda: len(lines_of(folder, chosen.records)),
            "parser": lambda: parser(lines, RuleSet()),
            "parser, rules": lambda: parser(lines, shipped),
            "native binding": lambda: native(folder),
        }
        print(f"{chosen.records:,} records; median of {chosen.runs}; {os.cpu_count()} processors, {sys.platform}")
        print(f"{'':16} {'records/CPU-s':>14} {'CPU s':>7} {'wall s':>7}")
        for name, subject in subjects.items():
            figures = []
            for _ in range(chosen.runs):
                cpu, wall = cpu_s(), time.perf_counter()
                try:
                    assert subject() == chosen.records
                except ImportError as error:
                    print(f"{name:16} not installed ({error.name})")
                    break
                figures.append((cpu_s() - cpu, time.perf_counter() - wall))
            else:
                cpu, wall = (statistics.median(column) for column in zip(*figures, strict=True))
                print(f"{name:16} {chosen.records / cpu:14,.0f} {cpu:7.2f} {wall:7.2f}")


if __name__ == "__main__":
    main()
