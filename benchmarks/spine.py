"""The figures of the whole story on this machine: lines, e-mails, audit entries, memory, start, idle.

python -m benchmarks.spine [RUNS] [SECONDS OF IDLING]

Beside each rate stands what the machine could do at most with the same bytes: reading the lines, sending the same
mails without outbox and audit, writing the same entries without tree and signature.
"""

from __future__ import annotations

import random
import smtplib
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.measure import Spent, command, cpu_s, family, median, rate_row, resident_mb, row, spent, until
from breachwatch.model import Channel, DeliveryState, Entry
from breachwatch.store.agent import SqliteAgentStore
from tests.e2e.harness import COMMAND, Installation, command_line, stop
from tests.notify.installation import Installed, people
from tests.sinks import ROOT, index, sink

LINES = 100_000
ATTACKS = 0.01
MAILS = 10_000
ENTRIES = 20_000
AT = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)


def auth_log(count: int) -> bytes:
    """A deterministic auth.log: sessions, cron, sudo, and one line in a hundred of a brute force."""
    chance = random.Random(7)
    lines: list[str] = []
    for number in range(count):
        stamp = f"Jan  5 {number // 3600 % 24:02d}:{number // 60 % 60:02d}:{number % 60:02d} web01"
        address, port = f"198.51.100.{chance.randrange(1, 255)}", chance.randrange(1024, 65535)
        attack = chance.random() < ATTACKS
        said = f"sshd[{number}]: Failed password for root from 203.0.113.{number % 40} port {port} ssh2"
        if not attack:
            said = chance.choice(
                (
                    f"sshd[{number}]: Accepted publickey for deploy from {address} port {port} ssh2: ED25519 SHA256:x",
                    f"sshd[{number}]: Connection closed by {address} port {port} [preauth]",
                    f"CRON[{number}]: pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)",
                    "sudo:   deploy : TTY=pts/0 ; PWD=/srv ; USER=root ; COMMAND=/usr/bin/systemctl reload nginx",
                    f"systemd-logind[411]: New session {number} of user deploy.",
                )
            )
        lines.append(f"{stamp} {said}\n")
    return "".join(lines).encode()


def lines_through_run(data: bytes, runs: int) -> tuple[list[Spent], list[Spent]]:
    """Appended to a log under `breachwatch run`, until the offset behind them is durable; and under `scan`."""
    run, scan = [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            log = folder / "auth.log"
            log.touch()
            installed = Installation(folder, f'[[watch.logs]]\npath = "{log}"\nformat = "syslog"\n')
            daemon = installed.start("run")
            try:
                until(installed.is_alive)
                time.sleep(2)
                store = SqliteAgentStore(installed.state / "agent.db")
                with spent(daemon.pid) as figure:
                    log.write_bytes(data)
                    until(lambda: any(point.offset >= len(data) for point in store.checkpoints().values()))  # noqa: B023
                store.close()
                run.append(figure)
            finally:
                stop(daemon)
            scan.append(command([*COMMAND, "scan", str(log), "--format", "syslog", "--json"]))
    return run, scan


def lines_read(data: bytes, runs: int) -> list[Spent]:
    """The limit of one Python process: split the same bytes into lines and decode each."""
    figures = []
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        for _ in range(runs):
            with spent() as figure, Path(file.name).open("rb") as opened:
                for line in opened:
                    line.decode("utf-8", "replace")
            figures.append(figure)
    return figures


def mails(runs: int) -> tuple[list[Spent], list[Spent]]:
    """A campaign through outbox and audit; and the same mails by smtplib from one process, with nothing recorded."""
    ours, plain = [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as scratch:
            folder, sunk = Path(scratch), Path(scratch) / "sink"
            installed = Installed(folder)
            installed.add(people(MAILS), channels=(Channel.EMAIL,))
            installed.close()
            with sink("smtp", sunk, "--bodies") as port:
                arguments = [sys.executable, "-m", "tests.notify.installation", str(folder), str(port)]
                sender = subprocess.Popen(arguments, cwd=ROOT)
                try:
                    until(lambda: _accepted(folder / "hub.db") > 0)  # noqa: B023
                    before = _accepted(folder / "hub.db")
                    with spent(sender.pid) as figure:
                        until(lambda: _accepted(folder / "hub.db") == MAILS, every_s=0.1)  # noqa: B023
                finally:
                    sender.terminate()
                    sender.wait(30)
            share = MAILS / (MAILS - before)
            ours.append(Spent(figure.wall_s * share, figure.cpu_s * share))
            assert len({str(item["message_id"]) for item in index(sunk)}) == MAILS
            body = (sunk / "000100.eml").read_bytes()
        with tempfile.TemporaryDirectory() as scratch, sink("smtp", Path(scratch)) as port:
            with spent() as figure, smtplib.SMTP("127.0.0.1", port) as connection:
                for number in range(MAILS):
                    connection.sendmail("security@shop.example", [f"kh{number}@customers.example"], body)
            plain.append(figure)
    return ours, plain


def _accepted(database: Path) -> int:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as reader:
        query = "SELECT count(*) FROM delivery WHERE state = ?"
        return int(reader.execute(query, (DeliveryState.ACCEPTED,)).fetchone()[0])


def audit(batch: int, runs: int) -> tuple[list[Spent], list[Spent]]:
    """Entries in transactions of `batch` each, durable; and plain rows of the same size in the same transactions."""
    ours, plain = [], []
    count = min(ENTRIES, batch * 500)
    entries = [
        Entry(type="notify.intent", at_utc=AT, incident_id="INC-2026-000001", body={"delivery": f"d-{n}", "n": n})
        for n in range(count)
    ]
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as scratch:
            installed = Installed(Path(scratch))
            with spent() as figure:
                for first in range(0, count, batch):
                    with installed.store.transaction() as tx:
                        tx.audit(*entries[first : first + batch])
            ours.append(figure)
            installed.close()
            rows = [(n, b"x" * 300) for n in range(count)]
            database = sqlite3.connect(Path(scratch) / "plain.db", isolation_level=None)
            database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE e(n, d)")
            with spent() as figure:
                for first in range(0, count, batch):
                    database.execute("BEGIN IMMEDIATE")
                    database.executemany("INSERT INTO e VALUES (?, ?)", rows[first : first + batch])
                    database.execute("COMMIT")
            plain.append(figure)
            database.close()
    return ours, plain


def idle(seconds: float) -> None:
    """`breachwatch run` with logs, integrity and shipped rules, and nothing to do."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        log = folder / "auth.log"
        log.write_bytes(auth_log(1000))
        installed = Installation(folder, f'[[watch.logs]]\npath = "{log}"\nformat = "syslog"\n')
        daemon = installed.start("run")
        try:
            until(installed.is_alive)
            time.sleep(10)
            before = cpu_s(daemon.pid)
            time.sleep(seconds)
            share = (cpu_s(daemon.pid) - before) / seconds
            row("idle CPU of agent, hub and supervisor together", f"{share:.2%}", "", "<= 0.5 % of a core")
            for member in family(daemon.pid):
                line = command_line(member).rstrip()
                name = "hub" if line.endswith(" hub") else "agent" if "app.agent" in line else "supervisor"
                wanted = {"agent": "<= 60 MB", "hub": "<= 110 MB"}.get(name, "")
                row(f"resident memory when idle: {name}", f"{resident_mb(member):.0f} MB", "", wanted)
        finally:
            stop(daemon)


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    idling = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
    row(f"median of {runs}", "per s wall", "per s CPU", "wanted")
    data = auth_log(LINES)
    daemon, scan = lines_through_run(data, runs)
    rate_row("lines under `run`, until matches and offset are durable", LINES, daemon, ">= 10,000")
    rate_row("lines under `scan`, start included", LINES, scan)
    rate_row("  limit: Python reads and decodes the same lines", LINES, lines_read(data, runs))
    sent, plain = mails(runs)
    rate_row("e-mails with outbox and audit", MAILS, sent, ">= 1,000")
    rate_row("  limit: smtplib, the same bytes, nothing recorded", MAILS, plain)
    for batch in (1, 100, 1000):
        entries, rows = audit(batch, runs)
        count = min(ENTRIES, batch * 500)
        rate_row(f"audit entries, {batch} per transaction", count, entries, ">= 5,000" if batch > 1 else "")
        rate_row("  limit: plain rows in SQLite, synchronous=FULL", count, rows)
    middle = median([command([*COMMAND, "--help"]) for _ in range(max(runs, 5))])
    row("breachwatch --help", f"{middle.wall_s:.2f} s", f"{middle.cpu_s:.2f} s", "<= 0.3 s")
    idle(idling)


if __name__ == "__main__":
    main()
