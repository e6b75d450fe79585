"""The rules that a command works with: named folders or the shipped pack, with the configuration's placeholders."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from breachwatch.app.rules import rules_in
from breachwatch.config.shipped import shipped_folder
from breachwatch.detect.load import RuleSet

VARIABLE = "BREACHWATCH_RULES__PLACEHOLDERS"


def rules_for(config: Path | None, folders: Sequence[Path]) -> RuleSet:
    """The rules of these folders, or the shipped ones. Raises: ConfigError."""
    return rules_in(list(folders) or [shipped_folder("rules")], placeholders=_placeholders(config))


def _placeholders(config: Path | None) -> Mapping[str, tuple[str, ...]]:
    """Those of the configuration; none where there is none that this account may read.

    A rule whose placeholder has no value is refused with that reason, so nothing is silent about it.
    """
    from breachwatch.config.settings import DEFAULT_CONFIG, load_settings

    if config is None and not os.access(DEFAULT_CONFIG, os.R_OK) and VARIABLE not in os.environ:
        return {}
    return load_settings(config).rules.placeholders
