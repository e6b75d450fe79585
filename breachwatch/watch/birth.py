"""When a file was born: tells a new file from an old one whose inode number it got. Source: statx(2)."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

AT_EMPTY_PATH = 0x1000
STATX_BTIME = 0x800
STATX_BYTES = 256
BTIME_AT = 80

_mask = struct.Struct("I")
_time = struct.Struct("qI")


def _find_statx() -> Any:
    return getattr(ctypes.CDLL(None, use_errno=True), "statx", None)


_statx = _find_statx()


def born_ns(descriptor: int) -> int:
    """Nanoseconds since 1970, or 0 where kernel or file system do not say."""
    if _statx is None:
        return 0
    buffer = ctypes.create_string_buffer(STATX_BYTES)
    if _statx(descriptor, b"", AT_EMPTY_PATH, STATX_BTIME, buffer) != 0:
        return 0
    if not _mask.unpack_from(buffer.raw)[0] & STATX_BTIME:
        return 0
    seconds, nanoseconds = _time.unpack_from(buffer.raw, BTIME_AT)
    return int(seconds * 1_000_000_000 + nanoseconds)
