"""How processes that read many lines use memory: blocks of lines are reused, and garbage is searched for rarely.

Without this every block of a quarter of a megabyte is asked of the kernel anew, page by page, which costs as much as
searching it. Where the C library is another one, its part is left out. Source: mallopt(3), malloc_trim(3).
"""

from __future__ import annotations

import ctypes
import gc

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3

REUSED_BYTES = 1 << 20
"""Smaller allocations come from the heap, which is reused."""

KEPT_BYTES = 4 << 20
"""So much free memory at the heap's end stays ours, until `give_back`."""

GARBAGE_AFTER = 50_000
"""So many objects more before those that only refer to each other are looked for. What lines are made into never does,
and is freed at once."""


def prepare_for_many_lines() -> None:
    """Set this process up."""
    gc.set_threshold(GARBAGE_AFTER, 10, 10)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, REUSED_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def give_back() -> None:
    """Return freed memory to the system."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
