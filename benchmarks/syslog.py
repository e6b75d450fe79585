"""How many messages a second the syslog listeners take, over UDP and TCP, beside a bare loop over the same socket.

python -m benchmarks.syslog [--messages 300000] [--runs 3]

A sender of its own writes 110-byte messages as fast as it can. `listener` is our source alone (receiving, framing,
lines with their sender), in this process; `bare socket` reads the same bytes and counts. For UDP, `dropped` is what the
kernel dropped because the reader was slower: each of them counted, and told by the listener as a gap. CPU seconds are
the reader's.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from breachwatch.app.clock import SystemClock
from breachwatch.model import Gap
from breachwatch.watch.syslog import ListenSpec, UdpSyslog
from breachwatch.watch.syslog_stream import StreamSyslog
from breachwatch.watch.wake import Wake

SENDER = """
import socket, sys
kind, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
message = b"<38>Oct 11 22:14:15 web01 sshd[7]: Failed password for root from 203.0.113.7 port 22 ssh2 ".ljust(109, b"x")
if kind == "udp":
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect(("127.0.0.1", port))
    for _ in range(count):
        sender.send(message)
else:
    sender = socket.create_connection(("127.0.0.1", port))
    block = (message + b"\\n") * 100
    for _ in range(count // 100):
        sender.sendall(block)
    sender.close()
"""

Figures = tuple[int, int, float, float]
"""(received, dropped, CPU seconds, wall seconds)."""


def listener(kind: str, count: int) -> Figures:
    wake = Wake()
    spec = ListenSpec(protocol=kind, address="127.0.0.1", port=0)
    make = UdpSyslog if kind == "udp" else StreamSyslog
    source = make(spec, clock=SystemClock(), on_open=wake.listen)
    received = dropped = 0
    with subprocess.Popen([sys.executable, "-c", SENDER, kind, str(source.port), str(count)]):
        wake.wait(10)
        begin, used = time.perf_counter(), time.process_time()
        while received + dropped < count:
            before = received + dropped
            for item in source.poll(1 << 20):
                if isinstance(item, Gap):
                    dropped += int(item.detail.split()[0])
                else:
                    received += 1
            if received + dropped == before:
                wake.wait(0.2)
        figures = received, dropped, time.process_time() - used, time.perf_counter() - begin
    source.close()
    wake.close()
    return figures


def bare(kind: str, count: int) -> Figures:
    received = size = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as bound:
        bound.bind(("127.0.0.1", 0))
        if kind == "udp":
            bound.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
        else:
            bound.listen()
        with subprocess.Popen([sys.executable, "-c", SENDER, kind, str(bound.getsockname()[1]), str(count)]):
            reader = bound if kind == "udp" else bound.accept()[0]
            reader.settimeout(2.0)
            chunk = reader.recv(65_536)
            begin, used = time.perf_counter(), time.process_time()
            last, cpu = begin, 0.0
            try:
                while chunk and (kind != "udp" or received < count):
                    received += 1 if kind == "udp" else chunk.count(b"\n")
                    size += len(chunk)
                    last, cpu = time.perf_counter(), time.process_time() - used
                    chunk = reader.recv(65_536)
            except TimeoutError:
                pass  # the rest was dropped
            if reader is not bound:
                reader.close()
    return received, count - received, cpu, last - begin


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--messages", type=int, default=300_000)
    arguments.add_argument("--runs", type=int, default=3)
    chosen = arguments.parse_args()
    subjects: dict[str, Callable[[str, int], Figures]] = {"listener": listener, "bare socket": bare}
    print(f"{chosen.messages:,} messages of 110 bytes; median of {chosen.runs}")
    print(f"{'':18} {'received':>9} {'dropped':>8} {'per CPU-s':>11} {'per s wall':>11}")
    for kind in ("udp", "tcp"):
        for name, subject in subjects.items():
            runs = [subject(kind, chosen.messages) for _ in range(chosen.runs)]
            received, dropped, cpu, wall = (statistics.median(column) for column in zip(*runs, strict=True))
            print(f"{kind} {name:14} {received:9,.0f} {dropped:8,.0f} {received / cpu:11,.0f} {received / wall:11,.0f}")


if __name__ == "__main__":
    main()
