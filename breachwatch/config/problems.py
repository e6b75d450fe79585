"""Validation errors as sentences: where it stands, what is wrong, what is allowed. Never the value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from breachwatch.config.lines import Location, TomlLines
from breachwatch.config.secrets import SecretFiles


@dataclass(frozen=True, slots=True)
class Origins:
    """Which source a setting came from."""

    file: str
    lines: TomlLines
    secrets: SecretFiles
    environment: Mapping[str, str]

    def of(self, location: Location) -> str:
        """The variable, the secret file, or `file:line` (of the nearest table around it)."""
        variables = {name.upper(): name for name in self.environment}
        for length in range(len(location), 0, -1):
            path = location[:length]
            wanted = "BREACHWATCH_" + "__".join(str(part).upper() for part in path)
            within = (variables[name] for name in variables if name == wanted or name.startswith(wanted + "__"))
            if path == location and (variable := next(within, None)):
                return f"environment {variable}"
            if wanted in variables:
                return f"environment {variables[wanted]}"
            if path in self.secrets.files:
                return str(self.secrets.files[path])
        line = self.lines.find(location)
        return f"{self.file}:{line}" if line else self.file


def problems(error: ValidationError, model: type[BaseModel], origins: Origins) -> Iterator[str]:
    """One sentence per problem."""
    for found in error.errors(include_input=False, include_url=False):
        location = found["loc"]
        name = ".".join(str(part) for part in location)
        if found["type"] == "extra_forbidden":
            known = _known_keys(model, location[:-1])
            close = get_close_matches(str(location[-1]), known, n=1)
            guess = f"did you mean {close[0]!r}?" if close else f"allowed here: {', '.join(known)}"
            yield f"{origins.of(location)}: unknown setting {name!r}: {guess}"
        else:
            yield f"{origins.of(location)}: {name}: {found['msg'].removeprefix('Value error, ')}"


def _known_keys(model: Any, location: Location) -> list[str]:
    """Names allowed in the table at `location`."""
    current: Any = model
    for part in location:
        field = getattr(current, "model_fields", {}).get(part)
        if field is not None:
            current = _inner_model(field.annotation) or current
    return sorted(getattr(current, "model_fields", {}))


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (inner := _inner_model(argument)) is not None:
            return inner
    return None
