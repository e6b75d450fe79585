"""The rules in force: the shipped pack and the operator's own folders, read from disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from breachwatch.detect.load import RuleSet, RuleText, load_rules
from breachwatch.errors import ConfigError


def read_rule_texts(folders: Sequence[Path]) -> list[RuleText]:
    """Every *.yml and *.yaml below the folders, in a stable order. Raises: ConfigError."""
    texts = []
    for folder in folders:
        files = [folder] if folder.is_file() else sorted({*folder.rglob("*.yml"), *folder.rglob("*.yaml")})
        if not files:
            raise ConfigError(
                "no rule files found", source=str(folder), hint="name a folder that holds *.yml Sigma rules"
            )
        for file in files:
            try:
                texts.append(RuleText(source=str(file), text=file.read_text(encoding="utf-8")))
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"cannot read rule file: {error}", source=str(file)) from error
    return texts


def rules_in(folders: Sequence[Path]) -> RuleSet:
    """The rules of these folders. Raises: ConfigError."""
    return load_rules(read_rule_texts(folders))
