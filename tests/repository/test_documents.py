"""The documents agree with the code: what is in the tree is named, what is named is in the tree."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import get_args

import click
import pytest
from pydantic import BaseModel

from breachwatch.cli.main import cli
from breachwatch.config.settings import Settings
from tests.conftest import ROOT


def document(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def names_in_first_column(text: str) -> set[str]:
    return set(re.findall(r"^\| `([^`]+)` \|", text, flags=re.MULTILINE))


def section_of(annotation: object) -> tuple[type[BaseModel], str] | None:
    """The table that a field holds, and how its members are addressed."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    for argument in get_args(annotation):
        if isinstance(argument, type) and issubclass(argument, BaseModel):
            return argument, ".NAME" if "dict" in str(annotation) else "[]"
    return None


def settings(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        found = section_of(field.annotation)
        if found is None:
            yield prefix + name
        else:
            yield from settings(found[0], f"{prefix}{name}{found[1]}.")


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            member = command.get_command(click.Context(command), name)
            assert member is not None
            yield from commands(member, (*path, name))
    else:
        yield " ".join(path), command


def test_every_setting_is_documented_and_every_documented_setting_exists():
    known = set(settings(Settings))
    assert "smtp.password_file" in known
    assert "team.people[].os_user" in known
    assert names_in_first_column(document("configuration.md")) == known


def test_every_command_is_documented_and_every_documented_command_exists():
    known = {path for path, _ in commands(cli)}
    assert "incident ack" in known
    assert set(re.findall(r"^### `breachwatch ([a-z ]+)", document("cli.md"), flags=re.MULTILINE)) == known


@pytest.mark.parametrize(
    ("path", "command"), list(commands(cli)), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_option_stands_under_its_command(path: str, command: click.Command):
    blocks = re.split(r"^### `breachwatch ", document("cli.md"), flags=re.MULTILINE)
    (block,) = [block for block in blocks if re.match(rf"{path}(?![a-z ]*[a-z])", block)]
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert f"`{parameter.opts[0]}`" in block, f"{path}: {parameter.opts[0]}"


def test_every_runtime_dependency_is_documented():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["postgresql"]]
    names = {re.split(r"[\[<>=]", line)[0] for line in wanted}
    assert names_in_first_column(document("dependencies.md")) == names


def test_links_between_documents_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
