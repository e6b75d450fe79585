"""A host under watch in a process of its own, which a test may stop, continue and kill."""

from __future__ import annotations

import base64
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.watch.integrity.host import Host


def serve(folder: Path, roots: list[str], options: dict[str, Any]) -> None:
    """The child: everything that is told, one JSON object a line; `settled` whenever nothing is left to do."""
    host = Host(folder, list(roots), **options)
    host.start(settle=False)
    was_settled = False
    while True:
        seen = host.poll()
        for change in host.take():
            path = base64.b64encode(change.path).decode()
            print(json.dumps([path, change.action, list(change.changed), change.channel]), flush=True)
        for gap in host.gaps:
            print(json.dumps([gap.source, gap.reason, gap.detail]), flush=True)
        host.gaps.clear()
        assert host.integrity is not None
        is_settled = host.integrity.is_settled
        if is_settled and not was_settled:
            percent = host.integrity.coverage.percent
            print(json.dumps(["settled", percent]), flush=True)
        was_settled = is_settled
        if not seen:
            due = host.integrity.next_due_s
            time.sleep(0.005 if due is None else min(due, 0.005))


class Daemon:
    """The parent's end."""

    def __init__(self, folder: Path, *roots: Path | str, prefix: tuple[str, ...] = (), **options: Any) -> None:
        command = (sys.executable, "-m", "tests.watch.integrity.daemon", folder, json.dumps([*map(str, roots)]))
        self.process = subprocess.Popen([*prefix, *command, json.dumps(options)], stdout=subprocess.PIPE)
        self.changes: dict[bytes, list[tuple[str, str, list[str]]]] = {}
        """Path: (action, channel, changed) in order."""
        self.gaps: list[tuple[str, str, str]] = []
        self.settled: float | None = None
        """Coverage, if the last word was that nothing is left to do."""
        self._rest = b""
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self._ready = selectors.DefaultSelector()
        self._ready.register(self.process.stdout, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.send(signal.SIGCONT)
        self.kill()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._ready.close()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def read(self) -> None:
        assert self.process.stdout is not None
        if not self._ready.select(0.05):
            return
        data = self.process.stdout.read() or b""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            item = json.loads(line)
            self.settled = item[1] if item[0] == "settled" else None
            if item[0] == "settled":
                continue
            if len(item) == 3:
                self.gaps.append((item[0], item[1], item[2]))
            else:
                self.changes.setdefault(base64.b64decode(item[0]), []).append((item[1], item[3], item[2]))

    def until(self, holds: Callable[[], object], timeout_s: float = 60.0) -> None:
        end = time.monotonic() + timeout_s
        while not holds():
            assert self.process.poll() is None, "the watcher has ended"
            assert time.monotonic() < end, f"not seen in {timeout_s} s; {len(self.changes)} changes, {self.gaps[-5:]}"
            self.read()

    def until_settled(self, timeout_s: float = 60.0) -> float:
        """Wait until nothing is left to do; returns the coverage then."""
        self.until(lambda: self.settled is not None, timeout_s)
        assert self.settled is not None
        return self.settled

    def reasons(self) -> set[str]:
        return {reason for _, reason, _ in self.gaps}

    def told(self, path: Path | str) -> list[tuple[str, str, list[str]]]:
        return self.changes.get(os.fsencode(path), [])


if __name__ == "__main__":
    serve(Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3]))
