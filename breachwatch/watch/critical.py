"""Paths whose change means something, with severity and ATT&CK techniques."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from fnmatch import translate

from breachwatch.model import FileRecord

SCRIPT = re.compile(
    r"\.(?:php[0-9s]?|phtml|phar|inc|jspx?|jspf|war|aspx?|ashx|asmx|cgi|pl|py|sh|rb|cfm|shtml)(?:\.|$)", re.IGNORECASE
)
"""What a web server may execute: the last part of a name, or one before it (`shell.php.jpg`)."""

BINARY_LOG = re.compile(r"/var/log/(?:[wb]tmp|lastlog)")
"""Who was logged in: they only grow, whoever shortens or rewrites one hides something."""

LEVELS = ("low", "medium", "high", "critical")

SETUID = 0o6000
WORLD_WRITABLE = 0o002
IMMUTABLE_FLAGS = 0x30
"""FS_IMMUTABLE_FL | FS_APPEND_FL: set by an intruder to keep a file, cleared to change one."""


@dataclass(frozen=True, slots=True)
class CriticalPath:
    """A pattern (`*` crosses folders) and what a change there means."""

    pattern: str
    severity: str
    techniques: tuple[str, ...]


CRITICAL_PATHS = (
    CriticalPath("*/breachwatch/app/*", "critical", ("attack.t1562.001",)),
    CriticalPath("/etc/ld.so.preload", "critical", ("attack.t1574.006",)),
    CriticalPath("/etc/ld.so.*", "high", ("attack.t1574.006",)),
    CriticalPath("/etc/ld.so.conf.d/*", "high", ("attack.t1574.006",)),
    CriticalPath("/etc/shadow*", "high", ("attack.t1098", "attack.t1003.008")),
    CriticalPath("/etc/gshadow*", "high", ("attack.t1098.007",)),
    CriticalPath("/etc/passwd*", "high", ("attack.t1136.001",)),
    CriticalPath("/etc/group*", "medium", ("attack.t1098.007",)),
    CriticalPath("/etc/sudoers*", "high", ("attack.t1548.003",)),
    CriticalPath("/etc/polkit-1/*", "high", ("attack.t1548",)),
    CriticalPath("/etc/doas.conf", "high", ("attack.t1548",)),
    CriticalPath("/etc/pam.d/*", "high", ("attack.t1556.003",)),
    CriticalPath("/etc/pam.conf", "high", ("attack.t1556.003",)),
    CriticalPath("/etc/security/*", "high", ("attack.t1556.003",)),
    CriticalPath("*/security/pam_*.so", "critical", ("attack.t1556.003",)),
    CriticalPath("*/.ssh/authorized_keys*", "high", ("attack.t1098.004",)),
    CriticalPath("*/.ssh/rc", "high", ("attack.t1546.004",)),
    CriticalPath("*/.ssh/*", "medium", ("attack.t1098.004",)),
    CriticalPath("/etc/ssh/*", "high", ("attack.t1098.004",)),
    CriticalPath("/etc/cron*", "high", ("attack.t1053.003",)),
    CriticalPath("/etc/anacrontab", "high", ("attack.t1053.003",)),
    CriticalPath("/etc/at.*", "medium", ("attack.t1053.002",)),
    CriticalPath("/var/spool/cron/*", "high", ("attack.t1053.003",)),
    CriticalPath("*/systemd/system-generators/*", "critical", ("attack.t1543.002",)),
    CriticalPath("*/systemd/user-generators/*", "critical", ("attack.t1543.002",)),
    CriticalPath("*/systemd/system-environment-generators/*", "critical", ("attack.t1543.002",)),
    CriticalPath("*/systemd/*.timer", "high", ("attack.t1053.006",)),
    CriticalPath("/etc/systemd/*", "high", ("attack.t1543.002",)),
    CriticalPath("*/.config/systemd/user/*", "high", ("attack.t1543.002",)),
    CriticalPath("*/systemd/system/*.d/*.conf", "high", ("attack.t1543.002",)),
    CriticalPath("/usr/lib/systemd/*", "medium", ("attack.t1543.002",)),
    CriticalPath("/lib/systemd/*", "medium", ("attack.t1543.002",)),
    CriticalPath("/etc/rc.local", "high", ("attack.t1037.004",)),
    CriticalPath("/etc/rc?.d/*", "high", ("attack.t1037.004",)),
    CriticalPath("/etc/init.d/*", "high", ("attack.t1037.004",)),
    CriticalPath("/etc/init/*", "high", ("attack.t1037.004",)),
    CriticalPath("/etc/update-motd.d/*", "high", ("attack.t1546",)),
    CriticalPath("/etc/profile*", "high", ("attack.t1546.004",)),
    CriticalPath("/etc/bash*", "high", ("attack.t1546.004",)),
    CriticalPath("/etc/zsh*", "high", ("attack.t1546.004",)),
    CriticalPath("/etc/environment*", "high", ("attack.t1574.006",)),
    CriticalPath("*/.bashrc", "medium", ("attack.t1546.004",)),
    CriticalPath("*/.profile", "medium", ("attack.t1546.004",)),
    CriticalPath("*/.bash_profile", "medium", ("attack.t1546.004",)),
    CriticalPath("*/udev/rules.d/*", "high", ("attack.t1546.017",)),
    CriticalPath("/etc/xdg/autostart/*", "high", ("attack.t1547.013",)),
    CriticalPath("/etc/modules*", "high", ("attack.t1547.006",)),
    CriticalPath("/etc/modprobe.d/*", "high", ("attack.t1547.006",)),
    CriticalPath("/usr/lib/modules-load.d/*", "high", ("attack.t1547.006",)),
    CriticalPath("/usr/lib/modules/*", "high", ("attack.t1547.006",)),
    CriticalPath("/lib/modules/*", "high", ("attack.t1547.006",)),
    CriticalPath("/etc/initramfs-tools/*", "high", ("attack.t1542",)),
    CriticalPath("/boot/*", "high", ("attack.t1542",)),
    CriticalPath("/etc/nsswitch.conf", "high", ("attack.t1556",)),
    CriticalPath("/etc/hosts", "medium", ("attack.t1565.001",)),
    CriticalPath("/etc/resolv.conf", "medium", ("attack.t1557",)),
    CriticalPath("/etc/audit/*", "high", ("attack.t1562.012",)),
    CriticalPath("/etc/rsyslog*", "high", ("attack.t1562.001",)),
    CriticalPath("/etc/logrotate*", "medium", ("attack.t1070.002",)),
    CriticalPath("/var/log/wtmp*", "medium", ("attack.t1070.002",)),
    CriticalPath("/var/log/btmp*", "medium", ("attack.t1070.002",)),
    CriticalPath("/var/log/lastlog", "medium", ("attack.t1070.002",)),
    CriticalPath("/etc/apt/*", "high", ("attack.t1195.002",)),
    CriticalPath("/etc/yum*", "high", ("attack.t1195.002",)),
    CriticalPath("/usr/share/keyrings/*", "high", ("attack.t1195.002",)),
    CriticalPath("/var/lib/dpkg/info/*.md5sums", "high", ("attack.t1565.001",)),
    CriticalPath("/var/lib/dpkg/info/*", "medium", ("attack.t1195.002",)),
    CriticalPath("/var/lib/dpkg/*", "low", ()),
    CriticalPath("/etc/ssl/private/*", "high", ("attack.t1552.004",)),
    CriticalPath("/etc/breachwatch/*", "high", ("attack.t1562.001",)),
    CriticalPath("*/site-packages/breachwatch/*", "critical", ("attack.t1562.001",)),
    CriticalPath("*/bin/breachwatch", "critical", ("attack.t1562.001",)),
    CriticalPath("/usr/bin/*", "medium", ("attack.t1554",)),
    CriticalPath("/usr/sbin/*", "medium", ("attack.t1554",)),
    CriticalPath("/usr/local/bin/*", "medium", ("attack.t1554",)),
    CriticalPath("/usr/local/sbin/*", "medium", ("attack.t1554",)),
    CriticalPath("/bin/*", "medium", ("attack.t1554",)),
    CriticalPath("/sbin/*", "medium", ("attack.t1554",)),
    CriticalPath("/usr/lib/*.so*", "medium", ("attack.t1574.006",)),
    CriticalPath("/lib/*.so*", "medium", ("attack.t1574.006",)),
)
"""First match wins."""

_ANY = re.compile("|".join(f"({translate(critical.pattern)})" for critical in CRITICAL_PATHS))
"""All patterns in one: the number of the group that matched is the number of the path."""

DEFAULT_PATHS = (
    "/etc", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/usr/lib/systemd", "/usr/lib/modules",
    "/usr/lib/udev/rules.d", "/usr/lib/modules-load.d", "/usr/lib/x86_64-linux-gnu/security",
    "/usr/lib/aarch64-linux-gnu/security", "/usr/lib64/security", "/boot", "/var/spool/cron", "/var/lib/dpkg/info",
    "/var/log/wtmp", "/var/log/btmp", "/var/log/lastlog", "/root/.ssh", "/var/www", "/srv/www", "/usr/share/nginx/html",
)  # fmt: skip
"""Watched when the operator names none and they exist."""

WEB_ROOTS = ("/var/www/", "/srv/www/", "/usr/share/nginx/html/")


def default_paths() -> tuple[str, ...]:
    """Those of the default paths that this host has."""
    return tuple(path for path in DEFAULT_PATHS if os.path.exists(path))  # noqa: PTH110  # plain strings throughout


def own_paths() -> tuple[str, ...]:
    """Where BreachWatch itself lies: its code, the environment it runs in, its configuration."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120  # plain strings
    environment = (sys.prefix,) if sys.prefix != sys.base_prefix else ()
    return tuple(path for path in (package, *environment, "/etc/breachwatch") if os.path.isdir(path))  # noqa: PTH112


def classify(path: str) -> tuple[str, tuple[str, ...]]:
    """(severity, techniques) of a change at this path; `low` where nothing special is known."""
    found = _ANY.match(path)
    if found is not None and found.lastindex is not None:
        critical = CRITICAL_PATHS[found.lastindex - 1]
        return critical.severity, critical.techniques
    if "/www/" in path or path.startswith(WEB_ROOTS):
        name = path.rpartition("/")[2]
        if SCRIPT.search(name) or name in {".htaccess", ".user.ini", "web.config"}:
            return "high", ("attack.t1505.003",)
        return "medium", ("attack.t1491.002",)
    return "low", ()


def judge_change(
    path: str, action: str, before: FileRecord | None, after: FileRecord | None, changed: tuple[str, ...]
) -> tuple[str, tuple[str, ...]]:
    """As `classify`, raised for what is suspicious wherever it happens, lowered for what only touched times."""
    severity, techniques = classify(path)
    if action == "attributes" and not set(changed) - {"mtime_ns", "ctime_ns", "nlink"}:
        severity = "low"
    if BINARY_LOG.fullmatch(path) and action != "created":
        severity = "low" if _only_grew(path, before, after, changed) else "high"
    raised, technique = _suspicious(before, after, changed)
    if LEVELS.index(raised) > LEVELS.index(severity):
        severity = raised
    if technique and technique not in techniques:
        techniques = (*techniques, technique)
    return severity, techniques


def _only_grew(path: str, before: FileRecord | None, after: FileRecord | None, changed: tuple[str, ...]) -> bool:
    """What such a log does by itself; `lastlog` has a fixed place for each account and is written within."""
    if before is None or after is None or "inode" in changed:
        return False
    return after.size > before.size or (after.size == before.size and path.endswith("lastlog"))


def _suspicious(before: FileRecord | None, after: FileRecord | None, changed: tuple[str, ...]) -> tuple[str, str]:
    if after is None:
        return "low", ""
    is_new = before is None
    old_mode, old_flags, old_links = (
        (0, 0, after.nlink) if before is None else (before.mode, before.flags, before.nlink)
    )
    is_setuid = after.type == "file" and bool(after.mode & SETUID)
    touched = bool(set(changed) & {"sha256", "uid", "gid", "inode"}) or after.nlink > old_links
    has_capability = any(name == "security.capability" for name, _ in after.xattrs)
    gains_write = after.mode & ~old_mode & WORLD_WRITABLE and after.type != "symlink"
    answers = (
        (is_setuid and (after.mode & ~old_mode & SETUID or touched), "high", "attack.t1548.001"),
        ("capabilities" in changed or (is_new and has_capability), "high", "attack.t1548.001"),
        ((after.flags ^ old_flags) & IMMUTABLE_FLAGS, "high", "attack.t1222.002"),
        (not is_new and gains_write, "high", "attack.t1222.002"),
        ({"acl", "selinux"} & set(changed), "medium", "attack.t1222.002"),
        (is_new and after.type in {"block", "char"}, "medium", "attack.t1006"),
    )
    return next(((severity, technique) for holds, severity, technique in answers if holds), ("low", ""))
