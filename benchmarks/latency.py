"""How soon a line that was written is an open incident, under `breachwatch run` on a host that has nothing else to do.

python -m benchmarks.latency [LINES]

Each line makes an incident of its own. It counts from before the line is written until another process reads the
incident in the hub's database. Beside it: how long one durable commit takes on this disk, of which the way has two.
"""

from __future__ import annotations

import random
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from benchmarks.measure import cpu_s, row, until
from tests.e2e.harness import Installation, stop

CONFIG = """
[[watch.logs]]
path = "{log}"
format = "syslog"

[rules]
directories = ["{rules}"]
"""
RULE = """
title: Unknown user at the door
id: 11111111-2222-4333-8444-000000000099
level: high
logsource: {product: linux}
detection:
  door: ["Invalid user eve"]
  condition: door
breachwatch:
  group_by: [source.ip]
"""
LINE = "Jan  5 08:00:00 web01 sshd[7]: Invalid user eve from 198.51.{}.{} port 22\n"
PATIENCE_S = 10.0


def incidents(database: sqlite3.Connection) -> int:
    """How many there are."""
    return int(database.execute("SELECT count(*) FROM incident").fetchone()[0])


def latencies(folder: Path, lines: int) -> tuple[list[float], float]:
    """Milliseconds from line to incident, each; CPU milliseconds of the daemon for each."""
    (folder / "rules").mkdir()
    (folder / "rules" / "one.yml").write_text(RULE)
    log = folder / "auth.log"
    log.touch()
    installed = Installation(folder, CONFIG.format(log=log, rules=folder / "rules"))
    daemon = installed.start("run")
    chance, found = random.Random(3), []
    try:
        until(installed.is_alive)
        time.sleep(3)
        with (
            closing(sqlite3.connect(f"file:{installed.state / 'hub.db'}?mode=ro", uri=True)) as hub,
            log.open("a") as file,
        ):
            before = cpu_s(daemon.pid)
            for number in range(lines):
                time.sleep(chance.uniform(0.1, 0.4))
                begun = time.perf_counter()
                file.write(LINE.format(number // 250, number % 250))
                file.flush()
                until(lambda: incidents(hub) > number, timeout_s=PATIENCE_S, every_s=0.0005)  # noqa: B023
                found.append((time.perf_counter() - begun) * 1000)
            return found, (cpu_s(daemon.pid) - before) / lines * 1000
    finally:
        stop(daemon)


def commits(folder: Path, count: int) -> list[float]:
    """Milliseconds of one durable commit of one row, each."""
    found = []
    with closing(sqlite3.connect(folder / "plain.db", isolation_level=None)) as database:
        database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE e(d)")
        for _ in range(count):
            begun = time.perf_counter()
            database.execute("INSERT INTO e VALUES (?)", (b"x" * 300,))
            found.append((time.perf_counter() - begun) * 1000)
    return found


def main() -> None:
    lines = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    row(f"{lines} lines", "p50", "p99", "wanted (p99)")
    with tempfile.TemporaryDirectory() as scratch:
        found, cpu_ms = latencies(Path(scratch), lines)
        plain = commits(Path(scratch), lines)
    for name, figures, wanted in (
        ("line written to incident open", found, "<= 50 ms, aim 10 ms"),
        ("  limit: one durable commit in SQLite", plain, ""),
    ):
        figures.sort()
        row(name, f"{figures[len(figures) // 2]:.1f} ms", f"{figures[int(len(figures) * 0.99)]:.1f} ms", wanted)
    row("CPU of agent, hub and supervisor for each", f"{cpu_ms:.1f} ms")


if __name__ == "__main__":
    main()
