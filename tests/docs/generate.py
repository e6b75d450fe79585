"""What docs/ can say by itself: `python -m tests.docs.generate` writes it, a test compares it.

The module map comes from the docstrings, the command reference from click, the JSON Schema from the playbook model.
Whoever adds a module or a flag runs the command; nobody writes these lists by hand.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from breachwatch.cli.main import cli
from breachwatch.playbook.schema import Playbook
from tests.conftest import ROOT
from tests.docs.pages import BLOCK, DOCS

PACKAGE = ROOT / "breachwatch"
SCHEMA = DOCS / "playbook.schema.json"


def modules() -> list[Path]:
    """Every module of the package, packages before what is in them."""
    return sorted(PACKAGE.rglob("*.py"), key=lambda path: path.with_suffix("").parts)


def first_line(path: Path) -> str:
    """What a module says of itself."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def module_map() -> str:
    """One table a package, one line a module."""
    lines: list[str] = []
    folder: Path | None = None
    for path in sorted(modules(), key=lambda path: (path.parent.parts, path.name != "__init__.py", path.name)):
        if path.parent != folder:
            folder = path.parent
            lines += ["", f"### {folder.relative_to(ROOT)}/", "", "| module | what it is |", "|---|---|"]
        lines.append(f"| `{path.name}` | {_cell(first_line(path))} |")
    return "\n".join([*lines[1:], ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command with its whole name, groups before what is in them."""
    yield from _commands(cli, "breachwatch")


def _commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None, f"{name} lists {child} and does not have it"
            yield from _commands(found, f"{name} {child}")


def command_reference() -> str:
    """Every command with its words and its flags."""
    return "\n".join(part for name, command in commands() for part in _command(name, command))


def _command(name: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    yield f"### `{name}`\n"
    yield f"    {usage}\n"
    if command.help:
        yield "\n\n".join(" ".join(part.split()) for part in command.help.split("\n\n")) + "\n"
    options = [_option(one) for one in command.params if isinstance(one, click.Option) and not one.hidden]
    if options:
        yield "\n".join(["| option | what it does |", "|---|---|", *options]) + "\n"


def _option(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    said = option.help or ""
    if isinstance(option.type, click.Choice):
        said += " One of " + ", ".join(f"`{choice}`" for choice in option.type.choices) + "."
    elif not option.is_flag and option.type.name not in {"text", "path", "file"}:
        said += f" ({option.type.name})"
    if option.required:
        said += " Required."
    if option.multiple and "repeatable" not in said.lower():
        said += " Repeatable."
    if isinstance(option.default, str | int | float) and not option.is_flag:
        said += f" Without it: `{option.default}`."
    return f"| {names} | {_cell(said.strip())} |"


def playbook_schema() -> str:
    """The JSON Schema of playbooks."""
    schema = Playbook.model_json_schema(by_alias=True)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "BreachWatch playbook"}
    return json.dumps({**schema, **head}, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


BLOCKS: dict[str, tuple[str, Callable[[], str]]] = {
    "modules": ("architecture.md", module_map),
    "commands": ("cli.md", command_reference),
}
"""Name of a generated block: its page, and what makes it."""


def with_block(text: str, name: str, fresh: str) -> str:
    """The page with this block in it. Raises: AssertionError where the page has no such block."""
    replaced, count = BLOCK.subn(
        lambda found: f"{found[1]}{fresh}{found[4]}" if found["name"] == name else found[0], text
    )
    assert count, f"no block {name}"
    return replaced


def main() -> None:
    """Write every generated part."""
    for name, (file, make) in BLOCKS.items():
        path = DOCS / file
        path.write_text(with_block(path.read_text(encoding="utf-8"), name, make()), encoding="utf-8")
    SCHEMA.write_text(playbook_schema(), encoding="utf-8")


if __name__ == "__main__":
    main()
