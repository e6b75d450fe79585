"""How long rules take to load, parsed and from the cache, each in a fresh process: CPU seconds, wall, resident memory.

python benchmarks/rules_load.py FOLDER_OR_TAR [RUNS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

CHILD = """
import resource, sys, time
from pathlib import Path
wall = time.perf_counter()
from breachwatch.app.rules import rules_in
loaded = rules_in([Path(sys.argv[1])], cache=Path(sys.argv[2]))
usage = resource.getrusage(resource.RUSAGE_SELF)
print(len(loaded.rules) + len(loaded.correlations), len(loaded.refused), usage.ru_utime + usage.ru_stime,
      time.perf_counter() - wall, usage.ru_maxrss / 1024)
"""


def child(folder: Path, cache: Path) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), str(cache)], capture_output=True, text=True, check=True
    )
    return [float(figure) for figure in done.stdout.split()]


def main() -> None:
    source = Path(sys.argv[1])
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    with tempfile.TemporaryDirectory() as scratch:
        folder = source
        if source.is_file():
            folder = Path(scratch) / "rules"
            with tarfile.open(source) as archive:
                archive.extractall(folder, filter="data")
        caches = [Path(scratch) / f"cache{number}" for number in range(runs)]
        print(f"{'':8} {'rules':>6} {'refused':>8} {'CPU s':>7} {'wall s':>7} {'MB':>6}   (median of {runs})")
        for name in ("cold", "cached"):
            figures = [child(folder, cache) for cache in caches]
            rules, refused, cpu, wall, memory = (statistics.median(column) for column in zip(*figures, strict=True))
            print(f"{name:8} {rules:6.0f} {refused:8.0f} {cpu:7.2f} {wall:7.2f} {memory:6.0f}")


if __name__ == "__main__":
    main()
