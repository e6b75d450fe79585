"""Which changes a Debian package made. What it answers is a reason, never a reason to drop anything.

dpkg knows MD5 sums only, in files that root may edit. So a sum counts only if its file was written within the
package's own transaction, the changed file as well (change times cannot be set back without setting the clock), and the
content is the one whose SHA-256 was judged. Source: dpkg(1), deb-md5sums(5), dpkg.log as written by dpkg 1.21.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import md5, sha256
from pathlib import Path

from breachwatch.model import FileChange, FileRecord
from breachwatch.watch.integrity.dpkg_log import SLACK_S, Transaction, parse_log, parse_runs
from breachwatch.watch.integrity.inspect import BUFFER_BYTES, open_quietly
from breachwatch.watch.integrity.owners import Owners
from breachwatch.watch.integrity.scripts import maker_of

LOG_TAIL_BYTES = 4 << 20
"""Of the log: some ten thousand packages."""

MAX_SUMS_BYTES = 64 << 20

SUM = re.compile(rb"([0-9a-f]{32})  (.+)")


@dataclass(slots=True)
class _Contents:
    """What a package says of its files after a transaction."""

    sums: dict[bytes, str] = field(default_factory=dict)
    paths: frozenset[bytes] = frozenset()


class Dpkg:
    """One dpkg database with its log."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = os.fsencode(root).rstrip(b"/")
        self.admin = root / "var/lib/dpkg"
        self.lock = self.admin / "lock"
        self._log = root / "var/log/dpkg.log"
        self._seen: tuple[int, int] | None = None
        self._transactions: list[Transaction] = []
        self._runs: list[Transaction] = []
        self._last_s = 0.0
        self._contents: dict[tuple[str, float], _Contents] = {}
        self._owners: list[Owners] = []

    @property
    def is_there(self) -> bool:
        """True on a host that has dpkg."""
        return (self.admin / "info").is_dir()

    # -- reading the database -------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Read the log if it grew. Whatever cannot be read explains nothing."""
        try:
            with self._log.open("rb") as log:
                status = os.fstat(log.fileno())
                if self._seen == (status.st_ino, status.st_size):
                    return
                log.seek(max(0, status.st_size - LOG_TAIL_BYTES))
                text = log.read().decode("utf-8", "replace")
        except OSError:
            self._transactions, self._runs = [], []
            return
        self._transactions, self._runs = parse_log(text), parse_runs(text)
        self._seen = (status.st_ino, status.st_size)
        self._last_s = max((item.end_s for item in (*self._transactions, *self._runs)), default=0.0)
        self._contents.clear()

    def _lists(self) -> Iterator[tuple[str, bytes]]:
        for path in sorted((self.admin / "info").glob("*.list")):
            package = path.stem
            for line in _read(path).splitlines():
                yield package, line

    def _info(self, transaction: Transaction, kind: str) -> bytes:
        """A file of the package's information, if it was written within the transaction."""
        for name in (transaction.package, transaction.package.partition(":")[0]):
            path = self.admin / "info" / f"{name}.{kind}"
            try:
                written = path.lstat().st_ctime_ns
            except OSError:
                continue
            return _read(path) if transaction.holds(written) else b""
        return b""

    def _contents_of(self, transaction: Transaction) -> _Contents:
        key = transaction.package, transaction.begin_s
        if key not in self._contents:
            sums = {
                b"/" + match[2]: match[1].decode()
                for line in self._info(transaction, "md5sums").splitlines()
                if (match := SUM.fullmatch(line))
            }
            sums.update(self._conffiles(transaction))
            paths = frozenset(self._info(transaction, "list").splitlines())
            self._contents[key] = _Contents(sums, paths)
        return self._contents[key]

    def _conffiles(self, transaction: Transaction) -> dict[bytes, str]:
        """Configuration files are not among the sums but in the status: ` /etc/foo.conf d41d8cd9…`."""
        name = transaction.package.partition(":")[0].encode()
        for stanza in _read(self.admin / "status").split(b"\n\n"):
            if stanza.startswith(b"Package: " + name + b"\n"):
                found = re.findall(rb"^ (/\S+) ([0-9a-f]{32})", stanza.partition(b"\nConffiles:")[2], re.MULTILINE)
                return {path: digest.decode() for path, digest in found}
        return {}

    # -- explaining -----------------------------------------------------------------------------------------------

    def explain(self, change: FileChange) -> str:
        """The package that made this change; empty if none did."""
        if not change.path.startswith(self._root + b"/"):
            return ""
        path = change.path[len(self._root) :]
        moment = moment_of(change)
        if self._is_quiet_since(moment):
            return ""
        for transaction in reversed(self._transactions):
            if transaction.holds(moment) and self._made(transaction, path, change):
                return transaction.name
        return ""

    def suspect(self, change: FileChange) -> str:
        """The package whose script or trigger ran at that moment and makes such a file; empty if none did."""
        after = change.after
        is_plain = after is None or (after.type == "file" and not after.mode & 0o022)
        if not is_plain or not change.path.startswith(self._root + b"/"):
            return ""
        path, moment = change.path[len(self._root) :], moment_of(change)
        if self._is_quiet_since(moment):
            return ""
        return next((run.name for run in reversed(self._runs) if run.holds(moment) and maker_of(path, run, self)), "")

    def _is_quiet_since(self, moment_ns: int) -> bool:
        """True for nearly every change of a host: no package was worked on since."""
        return moment_ns / 1e9 > self._last_s + SLACK_S

    def owns(self, run: Transaction, path: bytes) -> bool:
        """True if the package says that the file is its own."""
        return path in self._contents_of(run).paths or any(owners.has(path, run.package) for owners in self._owners)

    def _made(self, transaction: Transaction, path: bytes, change: FileChange) -> bool:
        if path.startswith(b"/var/lib/dpkg/"):
            return self._is_own_record(transaction, path)
        contents, after = self._contents_of(transaction), change.after
        if after is None:
            was_its_own = any(owners.has(path, transaction.package) for owners in self._owners)
            return path not in contents.paths and was_its_own
        if after.type == "dir":
            return path in contents.paths and not after.mode & 0o022
        if after.type == "symlink":
            return path in contents.paths and self._leads_to_a_package(path, after.link_target)
        wanted = contents.sums.get(path)
        return wanted is not None and after.type == "file" and is_content(change.path, after, wanted)

    def _is_own_record(self, transaction: Transaction, path: bytes) -> bool:
        """What dpkg writes of a package while it works on it."""
        name = path.rpartition(b"/")[2].decode("utf-8", "replace")
        full, short = transaction.package, transaction.package.partition(":")[0]
        is_info = path.startswith(b"/var/lib/dpkg/info/")
        return name.startswith((f"{full}.", f"{short}.")) if is_info else not name.endswith(".md5sums")

    def _leads_to_a_package(self, path: bytes, target: bytes) -> bool:
        """A link is as good as what it leads to; dpkg keeps no record of targets."""
        leads_to = os.path.normpath(os.path.join(os.path.dirname(path), target))  # noqa: PTH118, PTH120  # bytes
        if any(leads_to in self._contents_of(item).paths for item in self._transactions):
            return True
        if not self._owners:
            self.remember()
        return self._owners[-1].has(leads_to, "")

    def remember(self) -> None:
        """As a transaction begins: who owns what; what it takes away is known by it."""
        self._owners = [*self._owners[-1:], Owners(self._lists())]


def moment_of(change: FileChange) -> int:
    """When the change happened: its change time, or when its folder last lost an entry."""
    if change.after is not None:
        return change.after.ctime_ns or _ctime_ns(change.path)
    folder = change.path
    while folder not in {b"/", b""}:
        folder = os.path.dirname(folder)  # noqa: PTH120  # bytes: a path need not be UTF-8
        try:
            return os.lstat(folder).st_mtime_ns
        except OSError:
            continue
    return 0


def _ctime_ns(path: bytes) -> int:
    try:
        return os.lstat(path).st_ctime_ns
    except OSError:
        return 0


def is_content(path: bytes, record: FileRecord, wanted: str) -> bool:
    """True if the file has this MD5 or SHA-256 sum and is still the content that was judged."""
    try:
        descriptor = open_quietly(path)
    except OSError:
        return False
    judged, claimed = sha256(), md5(usedforsecurity=False)
    buffer = bytearray(BUFFER_BYTES)
    view, left = memoryview(buffer), record.size
    try:
        while left > 0 and (count := os.readv(descriptor, [buffer])):
            judged.update(view[:count])
            claimed.update(view[:count])
            left -= count
    except OSError:
        return False
    finally:
        os.close(descriptor)
    same = judged.hexdigest() == record.sha256
    return same and wanted in {claimed.hexdigest(), judged.hexdigest()}


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as handle:
            return handle.read(MAX_SUMS_BYTES)
    except OSError:
        return b""
