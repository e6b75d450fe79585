"""The rules that a command works with: named folders or the shipped pack, with the configuration's placeholders."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from breachwatch.app.rules import rules_in
from breachwatch.config.shipped import DEFAULT_CONFIG, shipped_folder
from breachwatch.detect.ruleset import RuleSet
from breachwatch.parse import FORMATS

VARIABLE = "BREACHWATCH_RULES__PLACEHOLDERS"


def rules_for(config: Path | None, folders: Sequence[Path]) -> RuleSet:
    """The rules of these folders, or the shipped ones. Raises: ConfigError."""
    return rules_in(list(folders) or [shipped_folder("rules")], placeholders=_placeholders(config))


def sources_for(config: Path | None) -> tuple[tuple[str, ...], bool]:
    """Formats of the logs that are watched here, and whether files are; all of them where there is no configuration.

    Raises: ConfigError.
    """
    if config is None and not os.access(DEFAULT_CONFIG, os.R_OK):
        return tuple(FORMATS), True
    from breachwatch.config.settings import load_settings  # takes longer than everything else of a short command

    watch = load_settings(config).watch
    formats = {log.format for log in watch.logs} | {listener.format for listener in watch.syslog}
    return tuple(sorted(formats | ({"journal"} if watch.journal.enabled else set()))), watch.integrity.enabled


def _placeholders(config: Path | None) -> Mapping[str, tuple[str, ...]]:
    """Those of the configuration; none where there is none that this account may read.

    A rule whose placeholder has no value is refused with that reason, so nothing is silent about it.
    """
    if config is None and not os.access(DEFAULT_CONFIG, os.R_OK) and VARIABLE not in os.environ:
        return {}
    from breachwatch.config.settings import load_settings  # the same

    return load_settings(config).rules.placeholders
