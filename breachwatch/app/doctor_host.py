"""Doctor, part one: the host. State directory, sources, clock, kernel limits."""

from __future__ import annotations

import ctypes
import glob
import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from breachwatch.app.finding import Finding, ok, problem, warning
from breachwatch.config.settings import Settings
from breachwatch.detect.prefilter import backend
from breachwatch.model.passes import native
from breachwatch.watch.critical import default_paths

MIN_FREE_BYTES = 1 << 30
"""A day of signals and a campaign of a million rows fit; below it a full disk comes without warning."""

MIN_INOTIFY_WATCHES = 65_536
"""One watch per folder, shared by every program of the account; the kernel's old default was 8,192."""

JOURNALCTL_TIMEOUT_S = 10.0
STA_UNSYNC = 0x0040
"""timex.status: the kernel clock is not disciplined by anything. Source: adjtimex(2)."""

TIMEX_STATUS = 40
"""Offset of `status` in struct timex on 64-bit Linux (modes, offset, freq, maxerror, esterror come before it)."""

TIMESYNCD_MARK = Path("/run/systemd/timesync/synchronized")


def check_state(settings: Settings) -> Iterator[Finding]:
    """Owner, mode and free space of the state directory, or of the nearest folder that exists above it."""
    root = settings.state.directory
    what = f"state directory {root}"
    if not root.exists():
        above = next((folder for folder in root.parents if folder.exists()), Path("/"))
        if os.access(above, os.W_OK | os.X_OK):
            yield warning(what, "does not exist yet", "`breachwatch init` or the first `breachwatch run` creates it")
        else:
            yield problem(
                what,
                f"does not exist, and {above} is not writable for uid {os.geteuid()}",
                "run as root or as the service's user, or set state.directory",
            )
        yield from _free_space(above)
        return
    status = root.stat()
    if status.st_uid != os.geteuid():
        yield problem(
            what,
            f"belongs to uid {status.st_uid}, this is uid {os.geteuid()}",
            "run as its owner, or set state.directory to another place",
        )
    elif status.st_mode & 0o077:
        yield problem(what, f"mode {status.st_mode & 0o777:04o} lets other accounts in", f"chmod 0700 {root}")
    else:
        yield ok(what, "ours alone")
    yield from _free_space(root)


def _free_space(folder: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(folder).free
    said = f"{free / (1 << 30):.1f} GiB free"
    if free < MIN_FREE_BYTES:
        yield problem(f"volume of {folder}", said, "free space or move state.directory: a full disk stops the watch")
    else:
        yield ok(f"volume of {folder}", said)


def check_logs(settings: Settings) -> Iterator[Finding]:
    """Every configured log is there and readable; something is watched at all."""
    watch = settings.watch
    if not (watch.logs or watch.journal.enabled or watch.syslog or watch.integrity.enabled):
        yield problem("sources", "nothing is watched", "set watch.logs, watch.journal, watch.syslog or watch.integrity")
    for log in watch.logs:
        matching = sorted(glob.glob(log.path, recursive=True))  # noqa: PTH207  # patterns are absolute
        if not matching:
            yield problem(
                f"log {log.path}", "no file matches", "correct watch.logs.path; a log that appears later is read then"
            )
        for path in matching:
            yield _readable_log(path)


def _readable_log(path: str) -> Finding:
    try:
        kind = Path(path).stat().st_mode
        if stat.S_ISDIR(kind):
            return ok(f"log {path}", "a folder: all files in it are read")
        if not stat.S_ISREG(kind):  # opening a pipe would wait for whoever writes it
            return problem(f"log {path}", "is a pipe or device, not a file", "correct watch.logs.path")
        with Path(path).open("rb") as log:
            log.read(1)
    except OSError as error:
        return problem(
            f"log {path}",
            f"cannot be read: {error.strerror}",
            "run the agent as root, or add its account to the group that owns the log (Debian: adm)",
        )
    return ok(f"log {path}", "readable")


def check_scanner(_settings: Settings, library: str | None = None) -> Iterator[Finding]:
    """What looks for the lines that rules may match. `library`: the scanner to be taken for the installed one."""
    library = backend() if library is None else library
    if not library:
        mend = "install the packages of requirements/run.txt"
        yield warning("scanner", "every line is read: neither hyperscan nor ahocorasick_rs is installed", mend)
    elif native is None:
        yield ok("scanner", f"{library}; compiled passes would be faster: install again where there is a C compiler")
    else:
        yield ok("scanner", f"{library}, compiled passes")


def check_journal(settings: Settings) -> Iterator[Finding]:
    """Journalctl is there and may be read."""
    if not settings.watch.journal.enabled:
        return
    try:
        done = subprocess.run(
            ["journalctl", "--quiet", "--lines=1", "--output=json"],
            capture_output=True,
            timeout=JOURNALCTL_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        yield problem("journal", "journalctl is not installed", "set watch.journal.enabled = false, or install systemd")
        return
    except subprocess.TimeoutExpired:
        yield problem("journal", f"journalctl did not answer in {JOURNALCTL_TIMEOUT_S:.0f} s", "journalctl --verify")
        return
    if done.returncode != 0 or not done.stdout.strip():
        yield problem(
            "journal",
            "journalctl shows nothing: there is no journal, or this account may not read it",
            "run the agent as root or add its account to the group systemd-journal",
        )
    else:
        yield ok("journal", "readable")


def check_integrity(settings: Settings) -> Iterator[Finding]:
    """Watched paths exist, and the kernel gives enough watches."""
    integrity = settings.watch.integrity
    if not integrity.enabled:
        return
    named = [str(path) for path in integrity.paths]
    for path in named:
        if not os.path.lexists(path):
            yield warning(f"integrity path {path}", "does not exist", "correct watch.integrity.paths, or create it")
        elif not os.access(path, os.R_OK):
            yield problem(f"integrity path {path}", "is not readable for this account", "run the agent as root")
    if not named and not default_paths():
        yield problem("integrity", "none of the built-in paths exists here", "set watch.integrity.paths")
    yield from check_inotify()


def check_inotify(limit: Path = Path("/proc/sys/fs/inotify/max_user_watches")) -> Iterator[Finding]:
    """The kernel's limit of watches; beyond it changes are only found by the sweep."""
    try:
        watches = int(limit.read_text(encoding="ascii"))
    except (OSError, ValueError):
        yield warning("inotify", "the kernel's limit is not known here", "changes are still found by the sweep")
        return
    if watches < MIN_INOTIFY_WATCHES:
        yield warning(
            "inotify",
            f"fs.inotify.max_user_watches is {watches}; folders beyond it are only seen by the sweep",
            "sysctl -w fs.inotify.max_user_watches=524288, and write it to /etc/sysctl.d/",
        )
    else:
        yield ok("inotify", f"{watches} watches allowed")


def check_clock(settings: Settings) -> Iterator[Finding]:  # noqa: ARG001  # every check takes the settings
    """Whether anything disciplines the clock: legal clocks and proofs are only as good as it is."""
    state = clock_is_synchronised()
    if state is None:
        yield warning("clock", "whether it is synchronised cannot be known here", "check it on the host: timedatectl")
    elif state:
        yield ok("clock", "synchronised")
    else:
        yield problem(
            "clock",
            "not synchronised: due times and proofs would be wrong",
            "apt-get install chrony, or timedatectl set-ntp true",
        )


def clock_is_synchronised() -> bool | None:
    """What the kernel says (chrony, ntpd and timesyncd all tell it); None where it cannot be asked."""
    if TIMESYNCD_MARK.exists():
        return True
    if struct.calcsize("P") != 8:  # noqa: PLR2004  # the offset below is for 64 bit
        return None
    buffer = ctypes.create_string_buffer(512)  # modes = 0: only reads
    try:
        code = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    except (OSError, AttributeError):
        return None
    if code < 0:
        return None
    (status,) = struct.unpack_from("i", buffer, TIMEX_STATUS)
    return not status & STA_UNSYNC
