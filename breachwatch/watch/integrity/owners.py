"""Who owned which path before a package manager went to work: ten bytes a path."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from hashlib import blake2b

PARTS = 256
"""Parts that are sorted one by one: a host has 100,000 paths, and a list of them all takes megabytes."""


class Owners:
    """A set of (path, package) pairs. A wrong answer takes a collision of 64 bits."""

    def __init__(self, pairs: Iterable[tuple[str, bytes]]) -> None:
        names: dict[str, int] = {}
        parts = [(array("Q"), array("H")) for _ in range(PARTS)]
        for package, path in pairs:
            number = _number(path)
            paths, packages = parts[number >> 56]
            paths.append(number)
            packages.append(names.setdefault(package, len(names) & 0xFFFF))
        self._paths, self._packages = array("Q"), array("H")
        for paths, packages in parts:
            for number, package_number in sorted(zip(paths, packages, strict=True)):
                self._paths.append(number)
                self._packages.append(package_number)
        self._names = names

    def has(self, path: bytes, package: str) -> bool:
        """True if this package owned the path; any package, if none is named."""
        number = _number(path)
        at = bisect_left(self._paths, number)
        short = package.partition(":")[0]
        wanted = {self._names[name] for name in (package, short) if name in self._names}
        while at < len(self._paths) and self._paths[at] == number:
            if not package or self._packages[at] in wanted:
                return True
            at += 1
        return False

    def __len__(self) -> int:
        return len(self._paths)


def _number(path: bytes) -> int:
    return int.from_bytes(blake2b(path, digest_size=8).digest(), "little")
