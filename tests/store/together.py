"""Processes that do the same thing at the same moment."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT


def all_end_well(source: str, argument: str, *, count: int) -> None:
    """Run it so many times; each says `ready`, then waits for a line. Fails if one of them does."""
    started = [
        subprocess.Popen([sys.executable, "-c", source, argument], cwd=ROOT, stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(count)
    ]  # fmt: skip
    for one in started:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in started:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    ended = [one.communicate(timeout=60) for one in started]
    assert [one.returncode for one in started] == [0] * count, ended
