"""What rotation does to a log: by rename, and by every compressor."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import zstandard

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
    "bz2": bz2.compress,
}


def pack(path: Path, suffix: str = "gz") -> Path:
    """What a compressor does: write beside, keep the time of the last change, remove the original."""
    packed = path.with_name(f"{path.name}.{suffix}")
    packed.write_bytes(PACKERS[suffix](path.read_bytes()))
    status = path.stat()
    os.utime(packed, (status.st_atime, int(status.st_mtime)))
    path.unlink()
    return packed


def rotate(log: Path, *, to: str = "app.log.1", create: bool = True) -> Path:
    old = log.rename(log.with_name(to))
    if create:
        log.touch()
    return old
