"""Roots and mounts: what inotify never tells. A root renamed with a decoy in its place, a file system over a folder."""

from __future__ import annotations

import os
import re
import select
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import FileIO

from breachwatch.watch.integrity.tree import is_below

MOUNTINFO = "/proc/self/mountinfo"
"""Source: proc_pid_mountinfo(5); poll(2) with POLLPRI tells when it changes."""

_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that happened to a root or over a watched directory."""

    path: bytes
    reason: str
    """root_lost, root_replaced, root_back, root_redirected, over_mounted, unmounted, guard_blind."""
    detail: str


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo."""

    number: int
    point: bytes
    kind: str
    device: str
    options: str = ""


def parse_mounts(text: bytes) -> dict[int, Mount]:
    """Mounts by their id. `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`."""
    found = {}
    for line in text.splitlines():
        left, _, right = line.partition(b" - ")
        parts, kind = left.split(b" "), right.split(b" ")[:1]
        if len(parts) < 6 or not parts[0].isdigit() or not kind:  # noqa: PLR2004  # fields before the dash
            continue
        point = _OCTAL.sub(lambda match: bytes((int(match[1], 8) & 0xFF,)), parts[4])
        number = int(parts[0])
        found[number] = Mount(
            number,
            point,
            kind[0].decode("ascii", "replace")[:40],
            parts[2].decode("ascii", "replace"),
            parts[5].decode("ascii", "replace"),
        )
    return found


def identity(path: bytes) -> tuple[int, int] | None:
    """(device, inode) of what has this name, None if nothing has."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


class Guard:
    """Looks once a second at what the roots are and at the mount table."""

    def __init__(self, roots: Sequence[bytes], *, was_known: Callable[[bytes], bool]) -> None:
        self._roots: dict[bytes, tuple[int, int] | None] = {root: identity(root) for root in roots}
        self._links: dict[bytes, bytes] = {}
        self._covering: dict[int, Mount] = {}
        self._blind = False
        self._poll = select.poll()
        try:
            self._file: FileIO | None = open(MOUNTINFO, "rb", buffering=0)  # noqa: SIM115, PTH123  # kept open: poll(2) needs it
        except OSError:
            self._file = None
            self._mounts: dict[int, Mount] = {}
            return
        self._poll.register(self._file, select.POLLPRI | select.POLLERR)
        self._mounts = self._read()
        # A mount below a root that was here before us: if the baseline knows what it hides, it came while we were away
        inner = [mount for mount in self._mounts.values() if self._is_inside(mount.point)]
        self._started_under = [mount for mount in inner if was_known(mount.point)]
        self._covering = {mount.number: mount for mount in self._started_under}

    def _read(self) -> dict[int, Mount]:
        assert self._file is not None
        self._file.seek(0)
        parts = []
        while part := self._file.read(1 << 16):
            parts.append(part)
        return parse_mounts(b"".join(parts))

    def follow(self, link: bytes, root: bytes) -> None:
        """A root was configured under another name: look whether that still leads to it."""
        self._links[link] = root

    def _is_inside(self, point: bytes) -> bool:
        return any(point != root and is_below(point, root) for root in self._roots)

    def add(self, root: bytes) -> None:
        """Look at one more root from now on."""
        self._roots.setdefault(root, identity(root))

    def hides(self, path: bytes) -> bool:
        """True below a mount that covers what is watched."""
        return bool(self._covering) and any(is_below(path, mount.point) for mount in self._covering.values())

    @property
    def mounts(self) -> list[Mount]:
        """All mounts as they are now."""
        return [] if self._file is None else list(self._mounts.values())

    def check(self) -> list[Finding]:
        """What happened since the last call."""
        return [*self._check_mounts(), *self._check_roots(), *self._check_links()]

    def _check_mounts(self) -> list[Finding]:
        if self._file is None:
            if self._blind:
                return []
            self._blind = True
            return [Finding(b"/", "guard_blind", "the mount table cannot be read: over-mounts are not seen")]
        found = [_over(mount) for mount in self._started_under]
        self._started_under = []
        if not self._poll.poll(0):
            return found
        now = self._read()
        for number, mount in now.items():
            if number not in self._mounts and any(_touches(mount.point, root) for root in self._roots):
                self._covering[number] = mount
                found.append(_over(mount))
        for number in [number for number in self._covering if number not in now]:
            mount = self._covering.pop(number)
            if not self.hides(mount.point):
                found.append(Finding(mount.point, "unmounted", f"the {mount.kind} over it is gone"))
        self._mounts = now
        return found

    def _check_links(self) -> list[Finding]:
        found = []
        for link, root in list(self._links.items()):
            try:
                leads_to = os.stat(link)  # noqa: PTH116  # bytes: a path need not be UTF-8
            except OSError:
                continue  # the root itself tells that it is gone
            if (leads_to.st_dev, leads_to.st_ino) != self._roots.get(root):
                now = os.path.realpath(link)
                if now != root:
                    self._links[link] = now
                    found.append(Finding(link, "root_redirected", "a link to a watched path leads elsewhere now"))
        return found

    def _check_roots(self) -> list[Finding]:
        found = []
        for root, before in self._roots.items():
            now = identity(root)
            if now == before or self.hides(root):
                continue
            self._roots[root] = now
            if now is None:
                found.append(Finding(root, "root_lost", "a watched path is gone"))
            elif before is None:
                found.append(Finding(root, "root_back", "a watched path is there again"))
            else:
                found.append(Finding(root, "root_replaced", "something else has taken the name of a watched path"))
        return found

    def close(self) -> None:
        """Release the mount table."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _touches(point: bytes, root: bytes) -> bool:
    """True for a mount on a root, in it, or on a folder above it."""
    return is_below(point, root) or is_below(root, point)


def _over(mount: Mount) -> Finding:
    return Finding(mount.point, "over_mounted", f"{mount.kind} ({mount.device}) hides what was watched here")
