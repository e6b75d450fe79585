"""When dpkg worked on which package, and when a package's script or trigger ran. Source: dpkg.log of dpkg 1.21."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

SLACK_S = 2.0
"""The log has whole seconds."""

LINE = re.compile(
    r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)"
    r" (install|upgrade|remove|purge|configure|trigproc|status [a-z-]+) (\S+) (\S+)(?: (\S+))?"
)
"""2026-11-26 13:00:01 upgrade openssl:amd64 3.0.11-1 3.0.15-1"""

BEGINS = {"install", "upgrade", "remove", "purge"}

RUNS = {"configure", "trigproc"}

ENDS = {"status installed", "status config-files", "status not-installed"}
"""What follows is another's business: a trigger, years later, does not make this transaction longer."""


@dataclass(slots=True)
class Transaction:
    """One package on its way from one version to another, or one run of its script."""

    package: str
    """name:architecture as the log writes it."""
    begin_s: float
    end_s: float
    version: str = ""

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.package.partition(':')[0]} {self.version}".strip()

    def holds(self, moment_ns: int) -> bool:
        """True for a moment within it."""
        return self.begin_s - SLACK_S <= moment_ns / 1e9 <= self.end_s + SLACK_S


def parse_log(text: str) -> list[Transaction]:
    """Transactions in the order in which they began. Local time, as the log has it."""
    return _spans(text, BEGINS)


def parse_runs(text: str) -> list[Transaction]:
    """Runs of packages' scripts (`configure`) and triggers (`trigproc`), likewise."""
    return _spans(text, RUNS)


def _spans(text: str, begins: set[str]) -> list[Transaction]:
    found: list[Transaction] = []
    latest: dict[str, Transaction] = {}
    for at_s, action, package, version in _lines(text):
        if action in begins:
            latest[package] = Transaction(package, at_s, at_s, version=version)
            found.append(latest[package])
        elif package in latest:
            latest[package].end_s = at_s
            if action in ENDS:
                del latest[package]
    return found


def _lines(text: str) -> Iterator[tuple[float, str, str, str]]:
    """(seconds since 1970, action, package, version that it has or gets)."""
    for line in text.splitlines():
        match = LINE.fullmatch(line)
        if match is None:
            continue
        stamp, action, package, first, second = match.groups()
        try:
            at_s = time.mktime(time.strptime(stamp, "%Y-%m-%d %H:%M:%S"))
        except (ValueError, OverflowError):
            continue
        yield at_s, action, package, first if second in {None, "<none>"} else second
