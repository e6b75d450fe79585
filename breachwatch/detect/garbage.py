"""Python's collector, held back where many small objects are made that all stay alive."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_frozen: list[bool] = []
"""Not empty once something was: `gc.get_freeze_count`, which knows too, walks through all of it."""


@contextmanager
def uncollected(*, stays: bool = False) -> Iterator[None]:
    """No search for garbage meanwhile: among thousands of rules it takes half the time and finds nothing.

    `stays`: nor later on in what is alive now, the first time this is asked for. It is freed as ever when nobody refers
    to it, but not where it refers to itself: so what was used before a second set of rules came is left alone.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        if stays and not _frozen:
            gc.freeze()
            _frozen.append(True)
    finally:
        if was_enabled:
            gc.enable()
