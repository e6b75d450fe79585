"""`breachwatch doctor`: what is not ready, why, and how to mend it. Sends nothing, changes nothing, shows no secret."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from breachwatch.app import doctor_host, doctor_outside, doctor_promise
from breachwatch.app.finding import Finding, Status, problem
from breachwatch.config.settings import Settings

Check = Callable[[Settings], Iterable[Finding]]

CHECKS: tuple[Check, ...] = (
    doctor_host.check_state,
    doctor_host.check_logs,
    doctor_host.check_journal,
    doctor_host.check_integrity,
    doctor_host.check_clock,
    doctor_host.check_scanner,
    doctor_promise.check_rules,
    doctor_promise.check_playbooks,
    doctor_promise.check_team,
    doctor_promise.check_approvers,
    doctor_promise.check_letterhead,
    doctor_promise.check_templates,
    doctor_promise.check_audiences,
    doctor_outside.check_smtp,
    doctor_outside.check_sms,
    doctor_outside.check_chat,
    doctor_outside.check_elasticsearch,
)
"""In the order of the story: what is watched, what is decided, who is told, how."""


def examine(settings: Settings, checks: Sequence[Check] = CHECKS) -> list[Finding]:
    """Every finding of every check; a check that fails itself is a problem, never a silence."""
    findings: list[Finding] = []
    for check in checks:
        try:
            findings.extend(check(settings))
        except Exception as error:  # noqa: BLE001  # a boundary: the other checks still have to be heard
            name = getattr(check, "__name__", "check").removeprefix("check_")
            findings.append(problem(name, f"the check itself failed: {type(error).__name__}", "please report this"))
    return findings


__all__ = ["CHECKS", "Check", "Finding", "Status", "examine"]
