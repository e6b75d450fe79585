"""What `breachwatch doctor` says about one thing it looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """ok; warning: works, but not as well as it should; problem: a promise cannot be kept like this."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. Never holds a secret or a contact."""

    status: Status
    what: str
    why: str
    mend: str = ""


def ok(what: str, why: str) -> Finding:
    """It is ready, and how that is known."""
    return Finding(Status.OK, what, why)


def warning(what: str, why: str, mend: str) -> Finding:
    """It works, but not as well as it should."""
    return Finding(Status.WARNING, what, why, mend)


def problem(what: str, why: str, mend: str) -> Finding:
    """A promise cannot be kept like this."""
    return Finding(Status.PROBLEM, what, why, mend)
