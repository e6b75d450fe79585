"""Which changes an RPM package made: the headers in its database have digest, mode and link target of each file.

Source: rpm(8) query formats; FILEDIGESTS are SHA-256 on every distribution that is still supported (FILEDIGESTALGO 8).
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from breachwatch.model import FileChange
from breachwatch.watch.integrity.dpkg import is_content, moment_of
from breachwatch.watch.integrity.dpkg_log import SLACK_S

QUERY_TIMEOUT_S = 20.0

BEFORE_S = 600.0
"""An RPM header says when its installation began within a transaction of many; files come shortly after."""

FORMAT = r"[%{FILEMODES}\t%{FILEDIGESTS}\t%{FILELINKTOS}\t%{FILENAMES}\n]"

DATABASES = ("usr/lib/sysimage/rpm", "var/lib/rpm")


@dataclass(frozen=True, slots=True)
class _File:
    mode: int
    digest: str
    link_target: bytes


class Rpm:
    """One RPM database, asked through `rpm`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = os.fsencode(root).rstrip(b"/")
        self._command = shutil.which("rpm")
        self.database = next((root / name for name in DATABASES if (root / name).is_dir()), root / DATABASES[-1])
        self.lock = self.database / ".rpm.lock"
        self._installed: list[tuple[float, str]] = []
        self._files: dict[str, dict[bytes, _File]] = {}
        self._seen = 0

    @property
    def is_there(self) -> bool:
        """True on a host whose files come from RPM packages."""
        has_database = any(self.database.glob("rpmdb.sqlite")) or any(self.database.glob("Packages*"))
        return self._command is not None and has_database

    def remember(self) -> None:
        """Nothing: what a transaction took away is not known afterwards, and stays unexplained."""

    def refresh(self) -> None:
        """Ask again if the database changed."""
        written = max((path.lstat().st_mtime_ns for path in self.database.glob("*")), default=0)
        if written != self._seen:
            self._seen = written
            self._files.clear()
            self._installed = [
                (float(installed), name.decode("utf-8", "replace"))
                for line in self._ask("-qa", "--qf", r"%{INSTALLTIME}\t%{NAME}-%{VERSION}-%{RELEASE}\n").splitlines()
                for installed, _, name in (line.partition(b"\t"),)
                if installed.isdigit()
            ]

    def explain(self, change: FileChange) -> str:
        """The package that made this change; empty if none did."""
        if not change.path.startswith(self._root + b"/"):
            return ""
        path, moment_s = change.path[len(self._root) :], moment_of(change) / 1e9
        for installed_s, package in self._installed:
            if installed_s - SLACK_S <= moment_s <= installed_s + BEFORE_S:
                if change.path.startswith(os.fsencode(self.database) + b"/"):
                    return package
                known = self._files_of(package).get(path)
                if known is not None and _is_as_packed(change, known):
                    return package
        return ""

    def suspect(self, change: FileChange) -> str:  # noqa: ARG002  # rpm keeps no log of when a script ran
        """No package."""
        return ""

    def _files_of(self, package: str) -> dict[bytes, _File]:
        if package not in self._files:
            self._files[package] = {}
            for line in self._ask("-q", "--qf", FORMAT, package).splitlines():
                parts = line.split(b"\t", 3)
                if len(parts) == 4 and parts[0].isdigit():  # noqa: PLR2004  # as many as FORMAT has
                    mode, digest, target, path = parts
                    self._files[package][path] = _File(int(mode) & 0xFFFF, digest.decode("ascii", "replace"), target)
        return self._files[package]

    def _ask(self, *arguments: str) -> bytes:
        assert self._command is not None
        done = subprocess.run(
            [self._command, "--dbpath", str(self.database), *arguments],
            capture_output=True, check=False, timeout=QUERY_TIMEOUT_S, env={"LC_ALL": "C", "PATH": os.defpath},
        )  # fmt: skip
        return done.stdout if done.returncode == 0 else b""


def _is_as_packed(change: FileChange, known: _File) -> bool:
    after = change.after
    if after is None or (after.type != "symlink" and stat.S_IMODE(known.mode) != after.mode):
        return False
    if after.type == "file":
        return stat.S_ISREG(known.mode) and is_content(change.path, after, known.digest)
    if after.type == "symlink":
        return after.link_target == known.link_target
    return after.type == "dir" and stat.S_ISDIR(known.mode)
