"""Blocks of lines are reused, and what was freed goes back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BLOCKS = """
import resource, sys
from pathlib import Path
from breachwatch.app.clock import SystemClock
from breachwatch.app.memory import give_back, prepare_for_many_lines
from breachwatch.watch.archive import read_pieces

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in read_pieces(Path(sys.argv[1]), max_line_bytes=65_536, clock=SystemClock()):
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

plain = [faults(), faults()][1]
prepare_for_many_lines()
print(plain, [faults(), faults()][1])
give_back()
"""


@pytest.mark.skipif("glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""), reason="of another C library")
def test_blocks_of_lines_are_not_asked_of_the_kernel_one_by_one(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_bytes(b"x" * 99 + b"\n" + b"a line of forty bytes, more or less, yes\n" * 300_000)
    asked = [sys.executable, "-c", BLOCKS, str(log)]
    done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60)
    plain, prepared = map(int, done.stdout.split())
    assert prepared < plain / 4
