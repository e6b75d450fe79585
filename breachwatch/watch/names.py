"""Which files a pattern names, and which of their neighbours are earlier lives of the same log."""

from __future__ import annotations

import glob
import os
import re
import stat
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from breachwatch.watch.archive import PACKED_SUFFIXES
from breachwatch.watch.source import display

ROTATED = re.compile(r"(?:[.-](?=[^/]*\d)[0-9A-Za-z.:_+-]{1,64}|\.(?:old|bak|prev|0))\Z")
"""What logrotate (number, dateext with any dateformat) and its kin append to a log's name."""

ROTATED_INSIDE = re.compile(r"[.-](?:\d{1,4}|\d{6,14}(?:-\d{1,12})?|\d{4}-\d\d-\d\d[\d:_T.-]{0,20})\Z")
"""The same before the extension (`extension .log`): narrower, because `app-error.log` is another log."""

EXTENSIONS = (".log", ".txt", ".json", ".out", ".err")


@dataclass(frozen=True, slots=True)
class Found:
    """A file beside a log that may hold an earlier life of it."""

    path: Path
    identity: tuple[int, int]
    size: int
    changed_ns: int
    is_packed: bool
    is_rotated: bool
    """Its name says so; else only its content can tell."""


def matching(pattern: str, exclude: Sequence[str] = ()) -> dict[str, str]:
    """Display name to path of what a path, glob (`**` for any depth) or folder names now; no compressed files.

    A path without wildcards is taken as it is, whatever its name.
    """
    wide = os.path.join(glob.escape(pattern), "*") if os.path.isdir(pattern) else pattern  # noqa: PTH112, PTH118
    if not glob.has_magic(wide):
        return {display(wide): wide} if os.path.lexists(wide) else {}
    found = glob.glob(wide, recursive=True, include_hidden=False)  # noqa: PTH207  # names may be any bytes
    return {
        display(path): path
        for path in found
        if not path.endswith(PACKED_SUFFIXES)
        and not any(fnmatchcase(path, unwanted) or fnmatchcase(Path(path).name, unwanted) for unwanted in exclude)
        and not os.path.isdir(path)  # noqa: PTH112
    }


def names(source: str, pattern: str) -> bool:
    """True if a checkpoint's source belongs to this pattern."""
    if source == pattern or source.startswith(pattern.rstrip("/") + "/"):
        return True
    return glob.has_magic(pattern) and fnmatchcase(source, pattern.replace("**/", "*"))


def folders(pattern: str) -> list[Path]:
    """Where the files of a pattern lie now: what the kernel should wake us for."""
    if os.path.isdir(pattern):  # noqa: PTH112
        return [Path(pattern)]
    parent = os.path.dirname(pattern) or "."  # noqa: PTH120
    if not glob.has_magic(parent):
        return [Path(parent)]
    return [Path(path) for path in glob.glob(parent, recursive=True) if os.path.isdir(path)]  # noqa: PTH112, PTH207


class Listing:
    """Names in folders, read once: thousands of logs in one folder must not read it thousands of times."""

    def __init__(self) -> None:
        self._names: dict[Path, list[str]] = {}

    def beginning(self, folder: Path, stem: str) -> list[str]:
        """Names in the folder that begin so."""
        names = self._names.get(folder)
        if names is None:
            try:
                names = sorted(os.listdir(folder))  # noqa: PTH208  # names, not paths
            except OSError:
                names = []
            self._names[folder] = names
        first = bisect_left(names, stem)
        end = first
        while end < len(names) and names[end].startswith(stem):
            end += 1
        return names[first:end]


def neighbours(path: str, elsewhere: Sequence[str] = (), listing: Listing | None = None) -> list[Found]:
    """Files that may be earlier lives of the log, oldest change first; also in the folders rotation moves them to."""
    base = Path(path)
    stem, extension = _stem_of(base)
    listing = listing or Listing()
    # a symlink is rotated where it points to
    places = {base.parent, Path(os.path.realpath(path)).parent, *(Path(place) for place in elsewhere)}
    found = [
        item
        for folder in places
        for name in listing.beginning(folder, stem)
        if name != base.name and (item := _look(folder / name, base.name, stem, extension)) is not None
    ]
    return sorted(found, key=lambda item: (item.changed_ns, item.path.name))


def _stem_of(base: Path) -> tuple[str, str]:
    extension = base.suffix if base.suffix in EXTENSIONS else ""
    return base.name[: len(base.name) - len(extension)], extension


def stem_of(path: str) -> str:
    """What the names of a log's earlier lives begin with."""
    return _stem_of(Path(path))[0]


def is_rotated_from(path: str, log: str) -> bool:
    """True if the name says that this file is an earlier life of that log."""
    base, name = Path(log), Path(path).name
    stem, extension = _stem_of(base)
    return name != base.name and name.startswith(stem) and _is_rotated(name, base.name, stem, extension)


def _look(path: Path, name: str, stem: str, extension: str) -> Found | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    is_packed = path.name.endswith(PACKED_SUFFIXES)
    plain = path.name.removesuffix(path.suffix) if is_packed else path.name
    return Found(
        path, (status.st_dev, status.st_ino), status.st_size, status.st_mtime_ns, is_packed,
        _is_rotated(plain, name, stem, extension),
    )  # fmt: skip


def _is_rotated(candidate: str, name: str, stem: str, extension: str) -> bool:
    if candidate.startswith(name):
        return ROTATED.match(candidate, len(name)) is not None
    if not extension or not candidate.endswith(extension):
        return ROTATED.match(candidate, len(stem)) is not None and not extension
    return ROTATED_INSIDE.match(candidate[len(stem) : len(candidate) - len(extension)]) is not None
