"""File integrity beside Debian's AIDE with the same attributes, the raw OpenSSL rate, and the clock.

python -m benchmarks.integrity [--files 20000] [--large-mb 1024] [--sweep-files 100000] [--storm 20000] [--runs 3]
                               [--folder DIR] [--only check,large,sweep,latency,storm]

The figures of docs/integrity.md: --files 100000 --large-mb 5120 --sweep-files 1000000 --storm 100000.

`check` and `large`: a full check, every content read, of many small files (200 B to 16 KB, 100 a folder) and of few
large ones (1 to 64 MiB), each as one process from its start to its end; AIDE's attributes are
p+i+n+u+g+s+m+c+acl+xattrs+sha256. Ours also reads inode flags and checks its signed baseline. `share of raw` is bytes
per CPU second of our check beside SHA-256 of the same number of bytes in memory. `sweep`: all metadata of many files
again, in the agent's watcher, with its resident memory. `latency`: from just before a small file is written to its
verdict, the machine otherwise idle. `storm`: files created by another process as fast as it can; from its end until
every one has its verdict. Medians of --runs; CPU is user and system; the page cache is warm.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from breachwatch.app.agent import COMMIT_S
from breachwatch.app.baseline import open_baseline
from breachwatch.app.clock import SystemClock
from breachwatch.app.integrity import open_integrity
from breachwatch.app.memory import give_back
from breachwatch.app.state import prepare_state
from breachwatch.model import FileChange
from breachwatch.store.agent import SqliteAgentStore
from breachwatch.watch.integrity import Integrity, Options

AIDE = """
database_in=file:{folder}/aide.db
database_out=file:{folder}/aide.db
gzip_dbout=no
report_url=file:{folder}/aide.report
Same = p+i+n+u+g+s+m+c+acl+xattrs+sha256
{root} Same
"""

WRITER = """
import os, random, sys, time
root, count = sys.argv[1], int(sys.argv[2])
chance = random.Random(7)
for number in range(count):
    time.sleep(chance.uniform(0.005, 0.06))
    path = f"{root}/w-{time.monotonic_ns()}"
    with open(path, "w") as file:
        file.write("x" * 200)
"""

STORM = """
import os, sys
root, count = sys.argv[1], int(sys.argv[2])
for number in range(count):
    with open(f"{root}/{number % 1000:03}/storm-{number}", "w") as file:
        file.write(str(number))
"""


# -- what is measured, each in a process of its own -------------------------------------------------------------------


def settings(root: Path, rolling_hash: str = "sha256") -> Options:
    return Options(
        paths=(str(root),), sweep_s=1e9, full_s=1e9, cpu_share=1.0, bytes_per_s=1 << 40, setuid_s=0.0, processes=False,
        rolling_hash=rolling_hash,
    )  # fmt: skip


def begin(root: Path, state: Path, rolling_hash: str = "sha256") -> None:
    with open_baseline(settings(root, rolling_hash), state, host="bench", owner=True) as baseline:
        baseline.begin(actor="bench", reason="", force=True, on_progress=lambda *_: None)


def check(root: Path, state: Path, rolling_hash: str = "sha256") -> None:
    with open_baseline(settings(root, rolling_hash), state, host="bench") as baseline:
        baseline.verify()
        met = list(baseline.compare((), contents=True, on_progress=lambda *_: None))
    assert len(met) == 1, f"a check of what did not change found {met[:3]}"


class Watcher:
    """The agent's watcher in this process; polled as the agent does."""

    def __init__(self, root: Path, state: Path) -> None:
        layout = prepare_state(state)
        self.woken = threading.Event()
        self.next_commit = 0.0
        self.store = SqliteAgentStore(layout.agent_db, owner=True)
        self.integrity: Integrity = open_integrity(
            settings(root), self.store, SystemClock(), layout, notify=self.woken.set
        )
        self.until(lambda: self.integrity.is_settled)

    def poll(self) -> list[FileChange]:
        self.woken.clear()
        seen = [item for item in self.integrity.poll(1 << 20) if isinstance(item, FileChange)]
        if self.integrity.is_full or time.monotonic() >= self.next_commit:
            self.commit()
        return seen

    def commit(self) -> None:
        self.next_commit = time.monotonic() + COMMIT_S
        progress = self.integrity.progress()
        if progress.baseline is not None:
            self.store.commit(signals=(), checkpoints=(), baseline=progress.baseline, sealer=progress.sealer)

    def rest(self) -> None:
        due = self.integrity.next_due_s
        self.woken.wait(COMMIT_S if due is None else min(due, COMMIT_S))

    def until(self, holds: Callable[[], bool], take: Callable[[list[FileChange]], None] = lambda _: None) -> None:
        while True:
            seen = self.poll()
            take(seen)
            if holds():
                return
            if not seen:
                self.rest()

    def close(self) -> None:
        self.integrity.close()
        self.store.close()


def sweep(root: Path, state: Path, runs: int) -> None:
    watcher = Watcher(root, state)
    figures = []
    for _ in range(runs):
        began, cpu = time.monotonic(), time.process_time()
        watcher.integrity.sweep_now()
        watcher.until(lambda: watcher.integrity.is_settled)
        figures.append((time.process_time() - cpu, time.monotonic() - began))
    give_back()  # as the agent does every few seconds
    coverage = watcher.integrity.coverage
    watcher.close()
    resident_mb = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cpu_s, wall_s = (statistics.median(column) for column in zip(*figures, strict=True))
    print(
        f"  quick sweep of {coverage.entries} entries, {coverage.watched} watches  {cpu_s:6.2f} CPU s {wall_s:6.2f} s"
    )
    print(f"  resident {resident_mb:.0f} MB, peak {peak_mb:.0f} MB (coverage {coverage.percent:.2f} %)")


def latency(root: Path, state: Path, count: int) -> None:
    watcher = Watcher(root, state)
    delays: list[float] = []

    def take(seen: list[FileChange]) -> None:
        now = time.monotonic_ns()
        delays.extend((now - int(item.path.rpartition(b"-")[2])) / 1e6 for item in seen if item.action == "created")

    cpu = time.process_time()
    with subprocess.Popen([sys.executable, "-c", WRITER, root, str(count)]) as writer:
        watcher.until(lambda: writer.poll() is not None and len(delays) >= count, take)
    cpu = time.process_time() - cpu
    watcher.close()
    delays.sort()
    p50, p99 = delays[len(delays) // 2], delays[int(len(delays) * 0.99)]
    print(f"  write to verdict, {len(delays)} files: p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {delays[-1]:.1f} ms"
          f" ({1000 * cpu / count:.2f} CPU ms a file)")  # fmt: skip


def storm(root: Path, state: Path, count: int) -> None:
    for number in range(1000):
        (root / f"{number:03}").mkdir(exist_ok=True)
    watcher = Watcher(root, state)
    seen: set[bytes] = set()
    ended: list[float] = []
    cpu, began = time.process_time(), time.monotonic()

    def take(changes: list[FileChange]) -> None:
        seen.update(item.path for item in changes)
        if not ended and writer.poll() is not None:
            ended.append(time.monotonic())

    with subprocess.Popen([sys.executable, "-c", STORM, root, str(count)]) as writer:
        watcher.until(lambda: bool(ended) and len(seen) >= count, take)
    done = time.monotonic()
    cpu = time.process_time() - cpu
    watcher.close()
    print(f"  storm of {count} files in {ended[0] - began:.1f} s: all found {done - ended[0]:.1f} s after its end"
          f" ({cpu:.1f} CPU s in all)")  # fmt: skip


# -- data -------------------------------------------------------------------------------------------------------------


def small_files(root: Path, count: int) -> int:
    chance, total = random.Random(7), 0
    body = chance.randbytes(1 << 15)
    for number in range(count):
        folder = root / f"{number // 10_000:03}" / f"{number // 100 % 100:02}"
        if number % 100 == 0:
            folder.mkdir(parents=True)
        size = int(200 * 80 ** chance.random())
        start = chance.randrange(len(body) - size)
        (folder / f"f{number}").write_bytes(body[start : start + size])
        total += size
    return total


def large_files(root: Path, megabytes: int) -> int:
    chance, total, number = random.Random(7), 0, 0
    block = chance.randbytes(1 << 20)
    while total < megabytes << 20:
        size = chance.randint(1, 64)
        with (root / f"f{number}").open("wb") as file:
            for part in range(size):
                file.write(part.to_bytes(8, "big") + block[8:])
        total += size << 20
        number += 1
    return total


# -- the parent -------------------------------------------------------------------------------------------------------


def timed(*command: str | Path) -> tuple[float, float, float]:
    """(CPU s, wall s, peak MB) of one process."""
    began = time.monotonic()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{command} ended with {process.returncode}"
    return usage.ru_utime + usage.ru_stime, time.monotonic() - began, usage.ru_maxrss / 1024


def job(name: str, *arguments: str | Path) -> tuple[str | Path, ...]:
    return (sys.executable, Path(__file__).resolve(), "--job", name, *arguments)


def raw_rate(runs: int) -> float:
    """Bytes a CPU second of SHA-256 in memory."""
    block, rates = bytes(1 << 20), []
    for _ in range(runs):
        cpu, state = time.process_time(), sha256()
        for _ in range(1024):
            state.update(block)
        rates.append((1 << 30) / (time.process_time() - cpu))
    return statistics.median(rates)


def beside_aide(name: str, root: Path, folder: Path, size: int, runs: int) -> None:
    """The table of one tree; ours and AIDE's by turns, so that both have the same neighbours."""
    state = folder / f"state-{name}"
    os.sync()  # AIDE does not hash a file whose blocks the kernel has yet to place
    rows = {"init": timed(*job("begin", root, state))}
    aide = shutil.which("aide")
    config = folder / f"aide-{name}.conf"
    config.write_text(AIDE.format(folder=folder, root=root))
    timed(*job("check", root, state))  # racy entries of fresh files are read a second time once
    ours, peers = [], []
    if aide is not None:
        peer_init = timed(aide, "--init", "-c", config)
    for _ in range(runs):
        ours.append(timed(*job("check", root, state)))
        if aide is not None:
            peers.append(timed(aide, "--check", "-c", config))
    cpu, wall, peak = (statistics.median(column) for column in zip(*ours, strict=True))
    print(f"  breachwatch init      {rows['init'][0]:7.2f} CPU s {rows['init'][1]:7.2f} s")
    print(f"  breachwatch check     {cpu:7.2f} CPU s {wall:7.2f} s   peak {peak:.0f} MB")
    if aide is None:
        print("  aide is not installed (Debian package aide): no comparison")
    else:
        peer_cpu, peer_wall, peer_peak = (statistics.median(column) for column in zip(*peers, strict=True))
        print(f"  aide 0.18 init        {peer_init[0]:7.2f} CPU s {peer_init[1]:7.2f} s")
        print(f"  aide 0.18 check       {peer_cpu:7.2f} CPU s {peer_wall:7.2f} s   peak {peer_peak:.0f} MB")
        print(f"  ratio of checks       {peer_cpu / cpu:7.1f} x CPU {peer_wall / wall:6.1f} x")
    if name == "large" and importlib.util.find_spec("blake3"):
        second = folder / "state-blake3"
        timed(*job("begin", root, second, "blake3"))
        figures = [timed(*job("check", root, second, "blake3")) for _ in range(runs)]
        fast, fast_wall, _ = (statistics.median(column) for column in zip(*figures, strict=True))
        print(f"  the same by BLAKE3    {fast:7.2f} CPU s {fast_wall:7.2f} s")
    if name == "large":
        raw = raw_rate(runs)
        (folder / "nothing").mkdir()
        timed(*job("begin", folder / "nothing", folder / "state-nothing"))
        start = statistics.median(
            timed(*job("check", folder / "nothing", folder / "state-nothing"))[0] for _ in range(3)
        )
        rate = size / (cpu - start)
        print(f"  raw SHA-256 in memory {raw / 1e6:7.0f} MB/CPU s; our check {rate / 1e6:.0f} MB/CPU s beyond the"
              f" {start:.2f} CPU s of its start: {100 * rate / raw:.0f} %")  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--large-mb", type=int, default=1024)
    parser.add_argument("--sweep-files", type=int, default=100_000)
    parser.add_argument("--storm", type=int, default=20_000)
    parser.add_argument("--writes", type=int, default=500)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="where there is room; default: the temporary folder")
    parser.add_argument("--only", default="check,large,sweep,latency,storm")
    parser.add_argument("--job", nargs="+", help=argparse.SUPPRESS)
    return parser.parse_args()


JOBS: dict[str, Callable[..., None]] = {"begin": begin, "check": check}
COUNTED: dict[str, Callable[[Path, Path, int], None]] = {"sweep": sweep, "latency": latency, "storm": storm}


def main() -> None:
    options = arguments()
    if options.job:
        name, root, state, *rest = options.job
        if name in JOBS:
            JOBS[name](Path(root), Path(state), *rest)
        else:
            COUNTED[name](Path(root), Path(state), int(rest[0]))
        return
    wanted = set(options.only.split(","))
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        for part in ("small", "large", "many", "quiet", "storm"):
            (folder / part).mkdir()
        print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, medians of {options.runs}")
        if "check" in wanted:
            size = small_files(folder / "small", options.files)
            print(f"{options.files} small files, {size / 1e6:.0f} MB", flush=True)
            beside_aide("small", folder / "small", folder, size, options.runs)
            shutil.rmtree(folder / "small")
        if "large" in wanted:
            size = large_files(folder / "large", options.large_mb)
            print(f"large files, {size / 1e6:.0f} MB", flush=True)
            beside_aide("large", folder / "large", folder, size, options.runs)
            shutil.rmtree(folder / "large")
        if "sweep" in wanted:
            small_files(folder / "many", options.sweep_files)
            print("the agent's watcher", flush=True)
            subprocess.run(job("sweep", folder / "many", folder / "state-many", str(options.runs)), check=True)
            shutil.rmtree(folder / "many")
        if "latency" in wanted:
            subprocess.run(job("latency", folder / "quiet", folder / "state-quiet", str(options.writes)), check=True)
        if "storm" in wanted:
            for number in range(options.runs):
                root = folder / "storm" / str(number)
                root.mkdir()
                subprocess.run(job("storm", root, folder / f"state-storm-{number}", str(options.storm)), check=True)


if __name__ == "__main__":
    main()
