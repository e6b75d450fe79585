"""The rules in force: the shipped pack and the operator's own folders, read from disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from breachwatch.app.rule_cache import default_cache, load_cached
from breachwatch.detect.load import RuleSet, RuleText
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


def rules_in(
    folders: Sequence[Path],
    *,
    cache: Path | None = None,
    placeholders: Mapping[str, tuple[str, ...]] | None = None,
    apart: bool = False,
) -> RuleSet:
    """The rules of these folders, parsed (`apart`: in another process) or from the cache (by default the user's).

    Raises: ConfigError.
    """
    return load_cached(read_rule_texts(folders), cache or default_cache(), placeholders, apart=apart)
