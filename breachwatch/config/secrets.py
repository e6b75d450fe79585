"""Secrets from files: a folder with one file per secret, systemd credentials, or a file that a setting names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from breachwatch.errors import ConfigError

MAX_SECRET_BYTES = 65_536
"""Far beyond any password, token or database address: a larger file is the wrong file."""


@dataclass(slots=True)
class SecretFiles:
    """What the secret files say, as a tree of settings, and which file each came from."""

    tree: dict[str, Any] = field(default_factory=dict, repr=False)
    files: dict[tuple[str | int, ...], Path] = field(default_factory=dict)


def secret_folders(beside: Path) -> list[Path]:
    """BREACHWATCH_SECRETS_DIR and systemd's credentials, else the folder `secrets` beside the configuration.

    Raises: ConfigError for a named folder that cannot be read.
    """
    named = {name: os.environ.get(name, "") for name in ("BREACHWATCH_SECRETS_DIR", "CREDENTIALS_DIRECTORY")}
    folders = []
    for name, folder in named.items():
        if folder and not (Path(folder).is_dir() and os.access(folder, os.R_OK | os.X_OK)):
            raise ConfigError(f"{name}: no such folder, or not readable: {folder}", source="environment")
        if folder:
            folders.append(Path(folder))
    default = beside / "secrets"
    usable = default.is_dir() and os.access(default, os.R_OK | os.X_OK)
    return folders or ([default] if usable else [])


def read_secrets(folders: Sequence[Path]) -> SecretFiles:
    """Files named like the setting, `smtp__password` for smtp.password; others (no `__`) are left alone.

    Raises: ConfigError for a file that cannot be read.
    """
    found = SecretFiles()
    for folder in folders:
        for file in sorted(folder.iterdir()):
            location = tuple(file.name.lower().removeprefix("breachwatch_").split("__"))
            if len(location) > 1 and not file.name.startswith(".") and file.is_file():
                table: Any = found.tree
                for part in location[:-1]:
                    table = table.setdefault(part, {}) if isinstance(table, dict) else None
                if not isinstance(table, dict) or isinstance(table.get(location[-1]), dict):
                    raise ConfigError("names a setting inside another secret, or around one", source=str(file))
                table[location[-1]] = read_secret(file, str(file)).get_secret_value()
                found.files[location] = file
    return found


def read_secret(file: Path, source: str) -> SecretStr:
    """The text of one file without the blanks around it. Raises: ConfigError, which never shows the text."""
    try:
        data = file.expanduser().read_bytes()
        if len(data) > MAX_SECRET_BYTES:
            raise ConfigError(f"{file} is too large for a secret", source=source)
        text = data.decode("utf-8").strip()
    except OSError as error:
        raise ConfigError(
            f"cannot read the secret file {file}: {error.strerror}",
            source=source,
            hint="it has to exist and be readable for the account that runs this",
        ) from error
    except UnicodeDecodeError:
        raise ConfigError(f"the secret file {file} is not UTF-8", source=source) from None
    if not text:
        raise ConfigError(f"the secret file {file} is empty", source=source)
    return SecretStr(text)
