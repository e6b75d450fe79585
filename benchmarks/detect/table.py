"""The table that the benchmark prints, line by line as figures come."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.detect.race import Result

WIDTH = 34


class Table:
    """Rows: who, how fast, what was found, the ratio that is wanted and the one reached."""

    def __init__(self, runs: int) -> None:
        self._runs = runs
        self._size = self._lines = 0
        self.missed: list[str] = []
        """Ratios below what must be."""

    def head(self) -> None:
        """Names of the columns."""
        print(
            f"{'task':{WIDTH}} {'engine':36} {'MB/CPU-s':>9} {'k lines/s':>9} {'found':>8} {'ratio':>7} {'must':>6}"
            f"   (medians of {self._runs}; load {os.getloadavg()[0]:.1f})",
            flush=True,
        )

    def on(self, file: Path) -> None:
        """The rows that follow are about this file."""
        self._size = self._lines = 0
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                self._size += len(block)
                self._lines += block.count(b"\n")

    def ours(self, task: str, result: Result, note: str = "") -> None:
        """A row of our own."""
        self._row(task, result, "", note)

    def peer(self, task: str, result: Result, ours: Result, must: float | None, note: str = "") -> None:
        """A row of a peer, with how many times faster ours is."""
        ratio = result.seconds / ours.seconds
        self._row(task, result, self._judged(f"{task} / {result.name}", ratio, must), note)

    def plain(self, task: str, what: str, figure: str, must: str = "", *, is_met: bool = True) -> None:
        """A row of another kind of figure."""
        verdict = ("met" if is_met else "MISSED") if must else ""
        if not is_met:
            self.missed.append(f"{task} / {what}: {figure}, must be {must}")
        print(f"{task:{WIDTH}} {what:36} {figure:>19} {must:>17} {verdict}".rstrip(), flush=True)

    def left_out(self, task: str, why: str) -> None:
        """A row that cannot be measured here."""
        print(f"{task:{WIDTH}} left out: {why}", flush=True)

    def note(self, text: str) -> None:
        """A line of explanation."""
        print(f"  {text}", flush=True)

    def _judged(self, what: str, ratio: float, must: float | None) -> str:
        if must is None:
            return f"{ratio:6.2f}x"
        if ratio < must:
            self.missed.append(f"{what}: {ratio:.2f}x, must be {must:g}x")
        return f"{ratio:6.2f}x {must:5g}x {'met' if ratio >= must else 'MISSED'}"

    def _row(self, task: str, result: Result, judged: str, note: str) -> None:
        if result.is_noise:
            note = f"{note}; {result.seconds:.2f} s beside a start of {result.start_s:.2f} s: use more lines".lstrip(
                "; "
            )
        rates = f"{self._size / result.seconds / 1e6:9.0f} {self._lines / result.seconds / 1e3:9.0f}"
        print(f"{task:{WIDTH}} {result.name:36} {rates} {result.found:8} {judged:21} {note}".rstrip(), flush=True)
