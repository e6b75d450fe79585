"""Paths whose change means something, with severity and ATT&CK techniques."""

from __future__ import annotations

import os
from dataclasses import dataclass
from fnmatch import fnmatchcase

SCRIPT_SUFFIXES = (
    ".php",
    ".phtml",
    ".php5",
    ".phar",
    ".jsp",
    ".jspx",
    ".asp",
    ".aspx",
    ".ashx",
    ".cgi",
    ".pl",
    ".py",
    ".sh",
)
"""What a web server may execute when it lies in a web root."""


@dataclass(frozen=True, slots=True)
class CriticalPath:
    """A pattern (`*` crosses folders) and what a change there means."""

    pattern: str
    severity: str
    techniques: tuple[str, ...]


CRITICAL_PATHS = (
    CriticalPath("/etc/ld.so.preload", "critical", ("attack.t1574.006",)),
    CriticalPath("/etc/ld.so.conf*", "high", ("attack.t1574.006",)),
    CriticalPath("/etc/shadow*", "high", ("attack.t1098", "attack.t1003.008")),
    CriticalPath("/etc/passwd*", "high", ("attack.t1136.001",)),
    CriticalPath("/etc/group*", "medium", ("attack.t1098.007",)),
    CriticalPath("/etc/sudoers*", "high", ("attack.t1548.003",)),
    CriticalPath("/etc/pam.d/*", "high", ("attack.t1556.003",)),
    CriticalPath("*/security/pam_*.so", "critical", ("attack.t1556.003",)),
    CriticalPath("*/.ssh/authorized_keys*", "high", ("attack.t1098.004",)),
    CriticalPath("/etc/ssh/*", "high", ("attack.t1098.004",)),
    CriticalPath("/etc/cron*", "high", ("attack.t1053.003",)),
    CriticalPath("/var/spool/cron/*", "high", ("attack.t1053.003",)),
    CriticalPath("/etc/systemd/*", "high", ("attack.t1543.002",)),
    CriticalPath("/usr/lib/systemd/*", "medium", ("attack.t1543.002",)),
    CriticalPath("/etc/rc.local", "high", ("attack.t1037.004",)),
    CriticalPath("/etc/init.d/*", "high", ("attack.t1037.004",)),
    CriticalPath("/etc/profile*", "medium", ("attack.t1546.004",)),
    CriticalPath("/etc/udev/rules.d/*", "high", ("attack.t1546",)),
    CriticalPath("/etc/modules*", "high", ("attack.t1547.006",)),
    CriticalPath("/usr/lib/modules/*", "high", ("attack.t1547.006",)),
    CriticalPath("/etc/nsswitch.conf", "medium", ("attack.t1556",)),
    CriticalPath("/usr/bin/*", "medium", ("attack.t1554",)),
    CriticalPath("/usr/sbin/*", "medium", ("attack.t1554",)),
    CriticalPath("/boot/*", "high", ("attack.t1542",)),
)

DEFAULT_PATHS = (
    "/etc", "/usr/bin", "/usr/sbin", "/usr/lib/systemd", "/usr/lib/modules", "/boot", "/var/spool/cron",
    "/root/.ssh", "/var/www", "/srv/www", "/usr/share/nginx/html",
)  # fmt: skip
"""Watched when the operator names none and they exist."""

WEB_ROOTS = ("/var/www/", "/srv/www/", "/usr/share/nginx/html/")


def default_paths() -> tuple[str, ...]:
    """Those of the default paths that this host has."""
    return tuple(path for path in DEFAULT_PATHS if os.path.isdir(path))  # noqa: PTH112  # plain strings throughout


def classify(path: str) -> tuple[str, tuple[str, ...]]:
    """(severity, techniques) of a change at this path; `low` where nothing special is known."""
    for critical in CRITICAL_PATHS:
        if fnmatchcase(path, critical.pattern):
            return critical.severity, critical.techniques
    if "/www/" in path or path.startswith(WEB_ROOTS):
        if path.lower().endswith(SCRIPT_SUFFIXES) or path.endswith("/.htaccess"):
            return "high", ("attack.t1505.003",)
        return "medium", ("attack.t1491.002",)
    return "low", ()
