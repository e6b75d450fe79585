"""What is watched: roots, what the operator leaves out, and what lies on another file system."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from fnmatch import translate
from glob import glob

from breachwatch.watch.integrity.tree import is_below

_WILD = re.compile(rb"[*?\[]")


class Scope:
    """Roots without those that lie below another one, and the patterns (`*` crosses folders)."""

    def __init__(self, paths: Sequence[str], *, exclude: Sequence[str] = ()) -> None:
        self._paths = tuple(paths)
        self.roots: tuple[bytes, ...] = ()
        self.links: dict[bytes, bytes] = {}
        """Configured names that are not, or not yet, the real path: where they lead."""
        self.root_set: frozenset[bytes] = frozenset()
        self.expand()
        self._exclude = [os.fsencode(pattern) for pattern in exclude]
        self._out = _compile(exclude)

    def expand(self) -> list[bytes]:
        """See what the configured paths and globs name now; returns new roots. A root never leaves by itself."""
        named = [found for path in self._paths for found in _named_by(path)]
        before = self.root_set
        leads = {os.fsencode(path): os.path.realpath(os.fsencode(path)) for path in named}
        self.links = {name.rstrip(b"/"): real for name, real in leads.items() if name.rstrip(b"/") != real}
        self.roots = _outermost([*before, *leads.values()])
        self.root_set = frozenset(self.roots)
        return [root for root in self.roots if root not in before]

    def root_of(self, path: bytes) -> bytes | None:
        """The root that a path belongs to."""
        return next((root for root in self.roots if is_below(path, root)), None)

    def covers(self, path: bytes) -> bool:
        """True for a path that is watched: below a root and not left out itself or by a folder above it."""
        root = self.root_of(path)
        if root is None:
            return False
        if self._out is not None:
            while path != root:
                if self._out.fullmatch(os.fsdecode(path)):
                    return False
                path = path.rpartition(b"/")[0] or b"/"
            return not self._out.fullmatch(os.fsdecode(path))
        return True

    def filter_for(self, folder: bytes) -> Callable[[str], bool] | None:
        """A test of an entry's name, None when every entry of this directory is wanted."""
        stem = folder.rstrip(b"/") + b"/"
        if not any(_may_concern(pattern, stem) for pattern in self._exclude):
            return None
        out, text = self._out, os.fsdecode(stem)
        assert out is not None
        return lambda name: out.fullmatch(text + name) is None


def count_folders(scope: Scope) -> int:
    """Folders that there are now, for a progress bar; nothing rests on it."""
    found, pending = 0, list(scope.roots)
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as entries:
                inner = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue
        found += 1
        pending += [path for path in inner if scope.covers(path)]
    return found


def _outermost(roots: Sequence[bytes]) -> tuple[bytes, ...]:
    kept: list[bytes] = []
    for root in sorted(set(roots)):
        if not any(is_below(root, other) for other in kept):
            kept.append(root)
    return tuple(kept)


def _named_by(path: str) -> list[str]:
    """What a configured path means: itself, or what its pattern matches; a name that exists is no pattern."""
    if os.path.lexists(path) or not any(sign in path for sign in "*?["):
        return [path]
    return sorted(glob(path))  # noqa: PTH207  # plain strings: a name need not be UTF-8


def _compile(patterns: Sequence[str]) -> re.Pattern[str] | None:
    """`/a/b*` also leaves out what lies below a folder of that name."""
    if not patterns:
        return None
    parts = [translate(pattern.rstrip("/") or "/") for pattern in patterns]
    parts += [translate(pattern.rstrip("/") + "/*") for pattern in patterns]
    return re.compile("|".join(f"(?:{part})" for part in parts))


def _may_concern(pattern: bytes, stem: bytes) -> bool:
    wild = _WILD.search(pattern)
    literal = pattern[: wild.start()] if wild else pattern
    return literal.startswith(stem) or stem.startswith(literal)
