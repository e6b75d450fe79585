"""Which files a pattern names, and which of their neighbours are earlier lives of the same log."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterator, Sequence
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


def neighbours(path: str, elsewhere: Sequence[str] = ()) -> list[Found]:
    """Files that may be earlier lives of the log, oldest change first; also in the folders rotation moves them to."""
    base = Path(path)
    extension = base.suffix if base.suffix in EXTENSIONS else ""
    stem = base.name[: len(base.name) - len(extension)]
    found: list[Found] = []
    # a symlink is rotated where it points to
    places = {base.parent, Path(os.path.realpath(path)).parent, *(Path(place) for place in elsewhere)}
    for folder in places:
        found.extend(_in_folder(folder, base.name, stem, extension))
    return sorted(found, key=lambda item: (item.changed_ns, item.path.name))


def is_rotated_from(path: str, log: str) -> bool:
    """True if the name says that this file is an earlier life of that log."""
    base = Path(log)
    extension = base.suffix if base.suffix in EXTENSIONS else ""
    stem = base.name[: len(base.name) - len(extension)]
    name = Path(path).name
    return name != base.name and name.startswith(stem) and _is_rotated(name, base.name, stem, extension)


def _in_folder(folder: Path, name: str, stem: str, extension: str) -> Iterator[Found]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if not entry.name.startswith(stem) or entry.name == name:
            continue
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode):
            is_packed = entry.name.endswith(PACKED_SUFFIXES)
            plain = entry.name.removesuffix(Path(entry.name).suffix) if is_packed else entry.name
            yield Found(
                Path(entry.path), (status.st_dev, status.st_ino), status.st_size, status.st_mtime_ns, is_packed,
                _is_rotated(plain, name, stem, extension),
            )  # fmt: skip


def _is_rotated(candidate: str, name: str, stem: str, extension: str) -> bool:
    if candidate.startswith(name):
        return ROTATED.match(candidate, len(name)) is not None
    if not extension or not candidate.endswith(extension):
        return ROTATED.match(candidate, len(stem)) is not None and not extension
    return ROTATED_INSIDE.match(candidate[len(stem) : len(candidate) - len(extension)]) is not None
