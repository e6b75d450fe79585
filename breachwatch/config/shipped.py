"""Where the rules and playbooks that ship with BreachWatch lie, and where a host's configuration does."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from breachwatch.errors import ConfigError

DEFAULT_CONFIG = Path("/etc/breachwatch/breachwatch.toml")
"""Read when it exists and nothing else is named; where `init` writes."""

_PACKAGE = Path(__file__).resolve().parent.parent


def shipped_folder(name: Literal["rules", "playbooks"]) -> Path:
    """`_shipped/<name>` inside an installed package, `<checkout>/<name>` in a source tree. Raises: ConfigError."""
    for candidate in (_PACKAGE / "_shipped" / name, _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise ConfigError(
        f"the shipped {name} are missing from this installation",
        source=str(_PACKAGE),
        hint="install again from a wheel or run from a complete checkout",
    )
