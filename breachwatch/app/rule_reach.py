"""Which rules no source can trigger: for `rules lint` and `doctor`."""

from __future__ import annotations

from collections.abc import Iterable

from breachwatch.detect.reach import Unreachable, unreachable
from breachwatch.detect.ruleset import RuleSet
from breachwatch.model import LogSource

SYSTEM = tuple(LogSource("linux", "", service) for service in ("sshd", "sudo", "auth", "syslog", "cron"))
FILES = (LogSource("linux", "file_event", ""), LogSource("linux", "log_integrity", ""))
NGINX = (LogSource("nginx", "webserver", ""), LogSource("nginx", "webserver", "error"))
APACHE = (LogSource("apache", "webserver", ""), LogSource("apache", "webserver", "error"))

AUDIT = (LogSource("linux", "", "auditd"), LogSource("linux", "process_creation", "auditd"))

SOURCES: dict[str, tuple[LogSource, ...]] = {
    "auto": (*SYSTEM, *NGINX, *APACHE, *AUDIT),
    "syslog": SYSTEM,
    "sshd": SYSTEM,
    "journal": SYSTEM,
    "nginx": NGINX,
    "apache": APACHE,
    "auditd": AUDIT,
}
"""What the parser of each format makes."""


def rules_without_source(rules: RuleSet, formats: Iterable[str], *, integrity: bool = True) -> list[Unreachable]:
    """Rules that cannot run on logs of these formats.

    JSON records name their own product and service (`event.dataset`): they reach every rule that asks for no category.
    """
    named = list(formats)
    sources = [source for name in named for source in SOURCES.get(name, ())]
    if integrity:
        sources.extend(FILES)
    if "json" in named:
        sources.extend(
            LogSource(rule.logsource.product, "", rule.logsource.service)
            for rule in rules.rules
            if not rule.logsource.category
        )
    return unreachable(rules, sources)
