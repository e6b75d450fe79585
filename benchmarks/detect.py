"""The detection engine beside what people use instead: CPU seconds on the same files, medians, start-up not counted.

    python benchmarks/detect.py SIGMAHQ_FOLDER [--megabytes 40] [--runs 3] [--rsigma BINARY]

SIGMAHQ_FOLDER is SigmaHQ's `rules/`. Peers that are not installed are left out, and that is said. Every command runs on
the file and on an empty one; the difference counts, so loading rules does not. `rg` counts lines that hold one of the
literals that our engine looks for before it is fitted to the file; rsigma evaluates the same rules on the same JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.lines import Maker
from breachwatch.app.rules import rules_in
from breachwatch.detect.load import RuleSet
from breachwatch.detect.plan import Plan, Scope
from breachwatch.detect.rule import And, Condition, Keyword, Not, Or
from breachwatch.model.rawform import RawForm
from breachwatch.parse.rawform import FORMS

RSIGMA_MODES: tuple[tuple[str, ...], ...] = ((), ("--logsource-routing",), ("--cross-rule-ac",))


def cpu_seconds(command: Sequence[str]) -> tuple[float, str]:
    """What one run of a command costs, and its output."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def net_seconds(command: Callable[[Path], list[str]], file: Path, empty: Path, runs: int) -> tuple[float, str]:
    """Median CPU seconds on the file beyond those on an empty one, and what was printed."""
    start = statistics.median(cpu_seconds(command(empty))[0] for _ in range(runs))
    figures = [cpu_seconds(command(file)) for _ in range(runs)]
    return max(1e-3, statistics.median(figure for figure, _ in figures) - start), figures[0][1]


def ours(rules: Path, log_format: str, *extra: str) -> Callable[[Path], list[str]]:
    """Our scan of a file."""
    options = ("--format", log_format, "--rules", str(rules), "--json", *extra)
    return on_file(sys.executable, "-m", "breachwatch", "scan", *options)


def on_file(*command: str, prefix: str = "") -> Callable[[Path], list[str]]:
    """The command with a file as its last argument."""
    return lambda path: [*command, f"{prefix}{path}"]


def literals(rules: RuleSet, form: RawForm, scope: Scope, scratch: Path) -> Path:
    """The literals that our engine would look for, a line each."""
    plan = Plan(rules.rules, form, scope)
    file = scratch / f"literals-{form.name}-{len(plan.patterns)}"
    file.write_bytes(
        b"\n".join(pattern.data for pattern in plan.patterns if not pattern.is_regex and pattern.data != b"\0")
    )
    return file


def has_keyword(condition: Condition) -> bool:
    if isinstance(condition, And | Or):
        return any(map(has_keyword, condition.parts))
    return has_keyword(condition.part) if isinstance(condition, Not) else isinstance(condition, Keyword)


def keyword_rules(folder: Path, scratch: Path) -> Path:
    """The rules of a folder that search keywords, as a folder of their own."""
    chosen = scratch / "keyword-rules"
    chosen.mkdir()
    for number, rule in enumerate(rules_in([folder]).rules):
        if has_keyword(rule.condition):
            shutil.copy(rule.source.rpartition(":")[0], chosen / f"{number}.yml")
    return chosen


def matches(printed: str) -> int:
    return sum(1 for line in printed.splitlines() if json.loads(line)["kind"] == "match")


def row(task: str, name: str, size: int, lines: int, seconds: float, note: str = "") -> None:
    print(f"{task:34} {name:26} {size / seconds / 1e6:9.0f} {lines / seconds / 1e3:9.0f}   {note}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sigmahq", type=Path)
    parser.add_argument("--megabytes", type=int, default=40)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rsigma", default=shutil.which("rsigma"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        empty = scratch / "empty"
        empty.write_bytes(b"")
        linux, web = asked.sigmahq / "linux", asked.sigmahq / "web"
        keywords = keyword_rules(linux, scratch)
        any_source = ("--logsource", "any")
        print(f"{'task':34} {'engine':26} {'MB/CPU-s':>9} {'k lines/s':>9}   (median of {asked.runs})")
        for task, kind, share, rules, log_format, extra in (
            ("auth.log, keyword rules, 0.1 %", "auth", 0.001, keywords, "syslog", any_source),
            ("auth.log, keyword rules, 5 %", "auth", 0.05, keywords, "syslog", any_source),
            ("nginx, web rules, 0.1 %", "web", 0.001, web, "nginx", ()),
            ("nginx, web rules, 5 %", "web", 0.05, web, "nginx", ()),
            ("JSON, 210 Linux rules, 0.1 %", "json", 0.001, linux, "json", any_source),
            ("JSON, 210 Linux rules, 5 %", "json", 0.05, linux, "json", any_source),
        ):
            data = Maker(kind, share).lines(asked.megabytes * 1_000_000)
            file = scratch / kind
            file.write_bytes(data)
            size, lines = len(data), data.count(b"\n")
            seconds, printed = net_seconds(ours(rules, log_format, *extra), file, empty, asked.runs)
            row(task, "breachwatch scan", size, lines, seconds, f"{matches(printed)} matches")
            scope = Scope(any_logsource=bool(extra))
            patterns = literals(rules_in([rules]), FORMS[log_format], scope, scratch)
            if shutil.which("rg"):
                rg = on_file("rg", "-c", "-i", "-F", "-j1", "--mmap", "-f", str(patterns))
                seconds, printed = net_seconds(rg, file, empty, asked.runs)
                row(task, "rg, same literals", size, lines, seconds, f"{printed.strip()} lines")
            else:
                print(f"{task:34} rg is not installed")
            if kind == "json" and asked.rsigma:
                for mode in RSIGMA_MODES:
                    evaluate = (asked.rsigma, "engine", "eval", "-r", str(rules), "-q", "--no-stats", *mode, "-e")
                    seconds, printed = net_seconds(on_file(*evaluate, prefix="@"), file, empty, asked.runs)
                    row(task, " ".join(("rsigma", *mode)), size, lines, seconds, f"{len(printed.splitlines())} matches")
            elif kind == "json":
                print(f"{task:34} rsigma is not installed")


if __name__ == "__main__":
    main()
