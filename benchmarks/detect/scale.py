"""Rows with all SigmaHQ rules: rsigma's own generated lanes, growth with the number of rules, start, memory."""

from __future__ import annotations

import math
import random
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.detect.logs import ANY_SOURCE, Programs, beside_rsigma
from benchmarks.detect.ours import ROOT, Bench
from benchmarks.detect.peers import RSIGMA_MODES, rsigma
from benchmarks.detect.race import Runner, alike, best, cpu_seconds, race
from benchmarks.detect.table import Table

GROWTH_SEED = 1
GROWTH_COUNTS = (10, 100, 1_000, 3_000)
PINNED = "product=linux,category=process_creation"

MEASURED_CHILD = """
import sys
from breachwatch.cli.main import main
try:
    main()
finally:
    with open("/proc/self/status", encoding="ascii") as status:
        print(*(line.split()[1] for line in status if line.startswith(("VmHWM:", "VmRSS:"))), file=sys.stderr)
"""
"""A command of ours that says at its end how much memory it had at most and has now, in kB."""


def lanes(bench: Bench, table: Table, programs: Programs, folder: Path | None) -> None:
    """All rules on rsigma's lanes: ours routed beside its routed modes, ours on any source beside the others.

    The row that counts is the last: the faster pairing of ours beside the fastest of its modes.
    """
    files = sorted([*folder.glob("*.ndjson"), *folder.glob("*.jsonl")]) if folder else []
    if not files or not programs.rsigma:
        table.left_out("rsigma's lanes", "needs --lanes FOLDER and --rsigma BINARY")
        return
    ratios = []
    for file in files:
        task = f"{file.stem}, all rules"
        runners = [
            bench.scan(bench.sigmahq, "json", name="breachwatch scan"),
            bench.scan(bench.sigmahq, "json", *ANY_SOURCE, name="breachwatch scan --logsource any"),
            *(rsigma(programs.rsigma, bench.sigmahq, mode) for mode in RSIGMA_MODES),
        ]
        table.on(file)
        results = race(runners, file, bench.scratch, bench.runs)
        routed, anything, *modes = results
        table.ours(task, routed, f"start {routed.start_s:.2f} s")
        table.ours(task, anything)
        beside_rsigma(task, table, routed, anything, modes, must=None)
        fastest = best(modes)
        ours = routed if fastest.name.endswith(("routing", "both")) else anything
        table.peer(task, fastest, ours, 0.7, f"best of its modes; {alike(ours, fastest)}")
        ratios.append(fastest.seconds / ours.seconds)
    middle = math.prod(ratios) ** (1 / len(ratios))
    table.plain("rsigma's lanes", "worst lane", f"{min(ratios):.2f}x", "0.7x", is_met=min(ratios) >= 0.7)
    table.plain("rsigma's lanes", "geometric mean of the lanes", f"{middle:.2f}x", "1x", is_met=middle >= 1)


def growth(bench: Bench, table: Table, lanes_folder: Path | None) -> None:
    """How much slower more rules are, chosen by chance from all of SigmaHQ, each choice holding the one before."""
    files = sorted(bench.sigmahq.rglob("*.yml"))
    random.Random(GROWTH_SEED).shuffle(files)
    sources = [(bench.data("json", 0.001), PINNED, "JSON 0.1%")]
    windows = lanes_folder / "structured_windows.ndjson" if lanes_folder else None
    if windows is not None and windows.exists():
        sources.append((windows, "product=windows,category=process_creation", "structured_windows"))
    for file, source, name in sources:
        task = f"growth, {name}, pinned"
        runners = [_chosen(bench, files[:count], source) for count in GROWTH_COUNTS]
        table.on(file)
        results = race(runners, file, bench.scratch, bench.runs)
        for result in results:
            table.ours(task, result)
        slowdown = results[-1].seconds / results[0].seconds
        must = "10x" if file is not windows else ""  # where two events of three match in the end, matches cost the most
        table.plain(task, "10 to 3,000 rules, slower", f"{slowdown:.1f}x", must, is_met=not must or slowdown <= 10)


def _chosen(bench: Bench, files: Sequence[Path], source: str) -> Runner:
    folder = bench.scratch / f"rules-{len(files)}"
    if not folder.exists():
        folder.mkdir()
        for number, file in enumerate(files):
            shutil.copy(file, folder / f"{number}.yml")
    wanted = dict(part.split("=") for part in source.split(","))
    rules = bench.rules(folder)
    apply = sum(all(getattr(rule.logsource, part) in ("", wanted[part]) for part in wanted) for rule in rules)
    return bench.scan(folder, "json", "--logsource", source, name=f"{len(files):,} rules, {apply} for the source")


def start(bench: Bench, table: Table) -> None:
    """CPU seconds of our command with all rules, to its end on no line and on one: its cache empty, and filled."""
    first = bench.scratch / "first-line"
    first.write_bytes(bench.data("json", 0.001).read_bytes().partition(b"\n")[0] + b"\n")
    empty = bench.scratch / "no-line"
    empty.write_bytes(b"")
    runner = bench.scan(bench.sigmahq, "json", *ANY_SOURCE)
    output = bench.scratch / "output-start"
    for name, file in (("no line", empty), ("until one line is judged", first)):
        for state, must in (("cold", 4.0), ("cached", 0.5)):
            figures = []
            cpu_seconds(runner, file, output)
            for _ in range(bench.runs):
                if state == "cold":
                    shutil.rmtree(bench.cache, ignore_errors=True)
                figures.append(cpu_seconds(runner, file, output))
            middle = statistics.median(figures)
            task = f"start, all rules, {state}"
            table.plain(task, name, f"{middle:.2f} CPU-s", f"{must} s", is_met=middle <= must)


def memory(bench: Bench, table: Table) -> None:
    """Resident memory of a scan, its rules cached: at most, and when all is read."""
    both = bench.scratch / "linux-web-rules"
    if not both.exists():
        for name in ("linux", "web"):
            shutil.copytree(bench.sigmahq / name, both / name)
    for rules, name, must in ((both, "Linux and web rules", 80), (bench.sigmahq, "all rules", 200)):
        for kind, log_format, extra in (("json", "json", ()), ("auth", "syslog", ANY_SOURCE)):
            file = bench.data(kind, 0.001)
            options = ("--format", log_format, "--rules", str(rules), "--json", *extra, str(file))
            most, last = [], []
            for number in range(bench.runs + 1):
                peak_kb, end_kb = _memory_kb(bench, options)
                if number:  # the first run fills the cache of rules
                    most.append(peak_kb / 1024)
                    last.append(end_kb / 1024)
            middle = statistics.median(most)
            figure = f"{middle:.0f} MB, end {statistics.median(last):.0f}"
            table.plain(f"memory, {name}", f"peak over {kind} 0.1%", figure, f"{must} MB", is_met=middle <= must)


def _memory_kb(bench: Bench, options: Sequence[str]) -> tuple[int, int]:
    command = (sys.executable, "-c", MEASURED_CHILD, "scan", *options)
    runner = Runner(
        name="", command=lambda _: command, found=lambda _: (0, {}), folder=ROOT,
        environment={"XDG_CACHE_HOME": str(bench.cache)},
    )  # fmt: skip
    output = bench.scratch / "output-memory"
    cpu_seconds(runner, Path(), output)
    said = output.with_suffix(".err").read_text().split()
    if len(said) < 2:
        raise subprocess.SubprocessError(f"no figures of memory from {command}")
    return int(said[-2]), int(said[-1])
