"""The rules in force: the shipped pack and the operator's own folders, read from disk."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from breachwatch.app.rule_cache import default_cache, load_cached
from breachwatch.detect.ruleset import RuleSet, RuleText
from breachwatch.errors import ConfigError
from breachwatch.watch.source import display


def read_rule_texts(folders: Sequence[Path]) -> list[RuleText]:
    """Every *.yml and *.yaml below the folders, in a stable order. Raises: ConfigError."""
    texts = []
    for folder in folders:
        files = [os.fspath(folder)] if folder.is_file() else _rule_files(folder)
        if not files:
            raise ConfigError(
                "no rule files found", source=str(folder), hint="name a folder that holds *.yml Sigma rules"
            )
        for file in files:
            try:
                texts.append(RuleText(source=display(file), text=_text(file)))
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"cannot read rule file: {error}", source=display(file)) from error
    return texts


def _rule_files(folder: Path) -> list[str]:
    """Paths of the rule files below, part by part in order. Raises: ConfigError."""

    def refuse(error: OSError) -> None:
        raise ConfigError(f"cannot read rule folder: {error}", source=display(folder)) from error

    found = [
        os.path.join(where, name)  # noqa: PTH118  # thousands of files: a Path of each would take longer than reading
        for where, folders, files in os.walk(folder, onerror=refuse)
        for name in (*folders, *files)
        if name.endswith((".yml", ".yaml"))
    ]
    return sorted(found, key=lambda path: path.split("/"))


def _text(file: str) -> str:
    """What a file holds, line ends as in any text file. Raises: OSError, UnicodeDecodeError."""
    with open(file, "rb", buffering=0) as opened:  # noqa: PTH123  # the same
        text = opened.read().decode("utf-8")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


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
