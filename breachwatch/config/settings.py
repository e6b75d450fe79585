"""Settings: one TOML file, BREACHWATCH_* environment, secrets from files; frozen after loading.

Precedence, highest first: overrides of the caller, environment, secret files, TOML file, defaults. A wrong key, type
or path is one clear message with file and line (or the variable, or the secret file).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic_settings import EnvSettingsSource, SettingsError

from breachwatch.config.coherence import incoherences
from breachwatch.config.lines import TomlLines
from breachwatch.config.problems import Origins, problems
from breachwatch.config.secrets import SecretFiles, read_secret, read_secrets, secret_folders
from breachwatch.config.sections import Settings
from breachwatch.config.shipped import DEFAULT_CONFIG
from breachwatch.errors import ConfigError

__all__ = ["DEFAULT_CONFIG", "Settings", "load_settings"]

OTHER_VARIABLES = ("CONFIG", "SECRETS_DIR", "SERVERS", "TEST_DATA", "TEST_POSTGRESQL")
"""BREACHWATCH_* variables that are no settings: where the configuration is, and what the tests need."""


def load_settings(path: Path | None = None, *, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read everything once. Raises: ConfigError with one line per problem, each with file and line."""
    chosen = path or Path(os.environ.get("BREACHWATCH_CONFIG", "") or DEFAULT_CONFIG)
    text = _read(chosen, must_exist=path is not None or bool(os.environ.get("BREACHWATCH_CONFIG")))
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not valid TOML: {error}", source=str(chosen)) from error
    except RecursionError:
        raise ConfigError("not valid TOML: lists or tables within each other without end", source=str(chosen)) from None
    secrets = read_secrets(secret_folders(chosen.parent))
    origins = Origins(str(chosen), TomlLines(text), secrets, os.environ)
    merged = _merged(tree, secrets.tree, _environment(), overrides or {})
    try:
        settings = Settings(**merged)
    except ValidationError as error:
        found = list(problems(error, Settings, origins))
    else:
        found = [f"{origins.of(location)}: {message}" for location, message in incoherences(settings)]
    found.extend(_stray_variables())
    if found:
        raise ConfigError("\n".join(found), hint="docs/configuration.md lists every setting")
    return _resolved(settings, secrets, origins)


def _environment() -> dict[str, Any]:
    try:
        return EnvSettingsSource(Settings)()
    except SettingsError as error:
        raise ConfigError(f"{error}", source="environment", hint="lists and tables are written as JSON") from None


def _stray_variables() -> list[str]:
    """Variables that look like settings and are none: a misspelt one must not be passed over."""
    known = {name.upper() for name in Settings.model_fields}
    return [
        f"environment: {variable}: unknown setting"
        for variable in sorted(os.environ)
        if variable.upper().startswith("BREACHWATCH_")
        and (rest := variable.upper().removeprefix("BREACHWATCH_")) not in OTHER_VARIABLES
        and rest.partition("__")[0] not in known
    ]


def _merged(*trees: Mapping[str, Any]) -> dict[str, Any]:
    """Tables laid over each other, later ones on top."""
    result: dict[str, Any] = {}
    for tree in trees:
        for key, value in tree.items():
            below = result.get(key)
            both = isinstance(below, Mapping) and isinstance(value, Mapping)
            result[key] = _merged(below, value) if both else value  # type: ignore[arg-type]  # both are mappings
    return result


def _read(path: Path, *, must_exist: bool) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        if not must_exist:
            return ""
        raise ConfigError(
            "no such configuration file", source=str(path), hint="`breachwatch init` writes one"
        ) from error
    except OSError as error:
        raise ConfigError(f"cannot read the configuration: {error.strerror}", source=str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigError("the configuration is not UTF-8", source=str(path)) from error


def _resolved(settings: Settings, secrets: SecretFiles, origins: Origins) -> Settings:
    """With secrets in place of the files that hold them, and with what depends on other settings filled in."""

    def secret(value: SecretStr, file: Path | None, *location: str | int) -> SecretStr:
        if file is None:
            return value
        if value.get_secret_value() and tuple(location) not in secrets.files:
            name = ".".join(map(str, location))
            raise ConfigError(f"{name} and {name}_file are both set", source=origins.of(location), hint="keep one")
        return read_secret(file, origins.of((*location[:-1], f"{location[-1]}_file")))

    smtp, sms, elastic = settings.smtp, settings.sms, settings.elasticsearch
    return settings.model_copy(
        update={
            "smtp": _with(smtp, password=secret(smtp.password, smtp.password_file, "smtp", "password")),
            "sms": _with(sms, token=secret(sms.token, sms.token_file, "sms", "token")),
            "elasticsearch": _with(
                elastic, api_key=secret(elastic.api_key, elastic.api_key_file, "elasticsearch", "api_key")
            ),
            "chat": tuple(
                _with(room, url=secret(room.url, room.url_file, "chat", index, "url"))
                for index, room in enumerate(settings.chat)
            ),
            "audiences": {
                name: _with(audience, url=secret(audience.url, audience.url_file, "audiences", name, "url"))
                for name, audience in settings.audiences.items()
            },
            "state": _with(settings.state, directory=settings.state.directory.expanduser()),
            "audit": _with(settings.audit, origin=settings.audit.origin or f"breachwatch.invalid/{settings.host.name}"),
        }
    )


def _with(section: Any, **values: Any) -> Any:
    """A copy with these values; they are checked already."""
    return section.model_copy(update=values)
