"""docs/configuration.md names every setting with its default, and its examples load."""

from __future__ import annotations

import json
import os
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from breachwatch.config.sections import Settings
from breachwatch.config.settings import load_settings
from tests.docs.pages import every_page, page, rows, snippets

PAGE = page("configuration.md")

DIFFER_BY_HOST = {"state.directory": "/var/lib/breachwatch", "host.name": "the host's name"}
"""Defaults that depend on who runs it where: what the page says of them."""


def settings_of(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    """Every leaf with its dotted name; `[]` behind lists of tables, `*` for tables by name."""
    for name, field in model.model_fields.items():
        inner, mark = _table(field.annotation)
        if inner is None:
            yield prefix + name, field
        else:
            yield from settings_of(inner, f"{prefix}{name}{mark}.")


def _table(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    arguments = get_args(annotation)
    if get_origin(annotation) is tuple and isinstance(arguments[0], type) and issubclass(arguments[0], BaseModel):
        return arguments[0], "[]"
    if get_origin(annotation) is dict and isinstance(arguments[1], type) and issubclass(arguments[1], BaseModel):
        return arguments[1], ".*"
    assert get_origin(annotation) in {None, tuple, dict, Union, types.UnionType} or arguments, annotation
    return None, ""


SETTINGS = dict(settings_of(Settings, ""))
DOCUMENTED = {cells[0].strip("`"): cells[1:] for cells in rows(PAGE, 3) if cells[0].startswith("`")}


def said(name: str, field: FieldInfo) -> str:
    """The default as the page writes it."""
    if name in DIFFER_BY_HOST:
        return DIFFER_BY_HOST[name]
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if default is None:
        return "none"
    if isinstance(default, SecretStr):
        return "secret"
    if isinstance(default, str):
        return default or '""'
    return json.dumps(list(default) if isinstance(default, tuple) else default)


def test_the_walk_finds_settings_of_every_shape():
    assert {"smtp.host", "watch.logs[].path", "authorities.*.email", "team.groups"} <= SETTINGS.keys()


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_on_the_page_with_its_default(name):
    assert name in DOCUMENTED, f"docs/configuration.md does not list {name}"
    assert DOCUMENTED[name][0].strip("`") == said(name, SETTINGS[name])


def test_the_page_lists_no_setting_that_there_is_not():
    assert set(DOCUMENTED) - set(SETTINGS) == set()


def test_every_secret_can_be_given_in_a_file():
    secrets = [name for name, field in SETTINGS.items() if field.annotation is SecretStr]
    assert secrets
    assert [name for name in secrets if f"{name}_file" not in SETTINGS] == []


TOML = [one for path in every_page() for one in snippets(path) if one.language == "toml"]


@pytest.mark.parametrize("snippet", TOML, ids=lambda snippet: snippet.where)
def test_every_toml_example_loads(snippet, tmp_path, monkeypatch):
    for variable in [name for name in os.environ if name.startswith("BREACHWATCH_")]:
        monkeypatch.delenv(variable)
    made = tmp_path / "folder"
    made.mkdir()
    tree = tomllib.loads(snippet.text)
    text = snippet.text
    for section in ("rules", "playbooks", "templates"):
        for folder in tree.get(section, {}).get("directories", ()):
            text = text.replace(folder, str(made))  # folders have to exist; the page's are the reader's
    for section in tree.values():
        if isinstance(section, dict) and "ca_file" in section:
            certificate = tmp_path / "ca.pem"
            certificate.touch()
            text = text.replace(section["ca_file"], str(certificate))
    file = tmp_path / "breachwatch.toml"
    file.write_text(text, encoding="utf-8")
    settings = load_settings(file)
    assert settings.model_fields_set


def test_there_are_toml_examples():
    assert len(TOML) >= 1


def test_a_misspelt_setting_in_an_example_would_be_found(tmp_path):
    file: Path = tmp_path / "breachwatch.toml"
    file.write_text(TOML[0].text.replace("[host]\nname", "[host]\nnome"), encoding="utf-8")
    with pytest.raises(Exception, match="nome"):
        load_settings(file)
