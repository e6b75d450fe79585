"""The detection engine beside what people use instead: CPU seconds on the same files, medians, start not counted.

    python -m benchmarks.detect SIGMAHQ_FOLDER
                                [--only auth,web,json,audit,fail2ban,sec,zircolite,lanes,growth,start,memory]
                                [--megabytes 40 | --data FOLDER] [--runs 5] [--rsigma BINARY] [--lanes FOLDER]
                                [--zircolite FOLDER --zircolite-python PYTHON]

SIGMAHQ_FOLDER is SigmaHQ's `rules/`. Peers that are not here are left out, and that is said. Every command runs on the
file and on an empty one, in turns with its peers; the difference counts, so loading rules does not. One run of each
before that fills caches. `ratio` is the peer's time over ours, `must` what the project wants of it at the least.

auth, web  `rg -c` counts lines that hold one of the literals that our engine looks for, as fitted to the first lines of
           the file and as chosen before it has seen any. Short literals are in more lines: what it got is said. What is
           judged is `scan --count`, which counts too; the scan that prints every match stands beside it.
json       the same, and rsigma in its four modes. Its modes that route by log source are beside our plain scan, which
           does so too, the others beside `--logsource any`; the fastest of each pair is judged. Both find `found`
           alerts; what only one of them found is said.
audit      the log of the audit daemon, beside Zircolite.
fail2ban   our shipped rules about failed SSH logins, once for lines and once with windows, beside fail2ban-regex with
           Debian's whole sshd filter.
sec        SigmaHQ's keyword rules beside SEC with one regular expression for each.
zircolite  --zircolite is a checkout of it, --zircolite-python the interpreter that has its requirements.
lanes      --lanes is a folder of what rsigma's scripts/perf/gen_events.py makes (100,000 events each: less would drown
           in the start); all rules.
growth     10 to 3,000 rules, chosen by chance, on a source of one log source.
start      until nothing, or one line, is judged with all rules; the cache of rules empty, and filled.
memory     resident memory over a scan of all lines.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.detect import logs, scale
from benchmarks.detect.logs import Programs
from benchmarks.detect.ours import Bench
from benchmarks.detect.table import Table

ROWS = ("auth", "web", "json", "audit", "fail2ban", "sec", "zircolite", "lanes", "growth", "start", "memory")


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sigmahq", type=Path)
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(ROWS), metavar="ROW,ROW")
    parser.add_argument("--megabytes", type=int, default=40)
    parser.add_argument("--data", type=Path, help="has auth-0.001.log, web-0.05.log and so on, made elsewhere")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rsigma", default=shutil.which("rsigma") or "")
    parser.add_argument("--lanes", type=Path)
    parser.add_argument("--zircolite", type=Path)
    parser.add_argument("--zircolite-python", default=sys.executable)
    asked = parser.parse_args()
    if unknown := set(asked.only) - set(ROWS):
        parser.error(f"no such rows: {', '.join(sorted(unknown))}")
    return asked


def main() -> None:
    """Print the table. Exit code 1 if a ratio is below what must be."""
    asked = arguments()
    programs = Programs(
        rg=shutil.which("rg") or "",
        rsigma=asked.rsigma,
        fail2ban=shutil.which("fail2ban-regex") or "",
        sec=shutil.which("sec") or "",
        zircolite=asked.zircolite and asked.zircolite.resolve(),
        zircolite_python=asked.zircolite_python,
    )
    table = Table(asked.runs)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(
            sigmahq=asked.sigmahq.resolve(),
            scratch=Path(folder),
            made=asked.data,
            size_bytes=asked.megabytes * 1_000_000,
            runs=asked.runs,
        )
        table.head()
        for row in asked.only:
            measure(row, bench, table, programs, asked.lanes)
    print(f"load at the end {os.getloadavg()[0]:.1f}")
    for missed in table.missed:
        print(f"missed: {missed}")
    sys.exit(1 if table.missed else 0)


def measure(row: str, bench: Bench, table: Table, programs: Programs, lanes: Path | None) -> None:
    """The lines of one row."""
    match row:
        case "lanes":
            scale.lanes(bench, table, programs, lanes)
        case "growth":
            scale.growth(bench, table, lanes)
        case "start":
            scale.start(bench, table)
        case "memory":
            scale.memory(bench, table)
        case _:
            on_logs = {
                "auth": logs.auth,
                "web": logs.web,
                "json": logs.json_events,
                "audit": logs.audit_row,
                "fail2ban": logs.fail2ban_row,
                "sec": logs.sec_row,
                "zircolite": logs.zircolite_row,
            }
            on_logs[row](bench, table, programs)


if __name__ == "__main__":
    main()
