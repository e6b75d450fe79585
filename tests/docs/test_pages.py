"""What every page has in common: generated parts are current, links lead somewhere, snippets are known and checked."""

from __future__ import annotations

import re

import pytest

from breachwatch.cli.main import COMMANDS
from tests.conftest import ROOT
from tests.docs import generate
from tests.docs.pages import BLOCK, DOCS, every_page, page, snippets

PAGES = every_page()

CHECKED = {
    ("toml", ""): "test_configuration: loads",
    ("yaml", "rule"): "test_rules: loads",
    ("yaml", "samples"): "test_rules: passes",
    ("yaml", "playbook"): "test_playbooks: loads",
    ("cel", ""): "test_playbooks: compiles",
    ("csv", ""): "test_notices: is read",
    ("jinja2", ""): "test_notices: is taken",
    ("json", ""): "test_audit: is an entry",
    ("python", "check"): "test_audit: runs",
    ("ini", "unit"): "test_operations: names what there is",
    ("sh", "lock"): "test_dependencies: names what there is",
    ("sh", ""): "here: names commands that there are",
    ("", ""): "a picture",
}
"""Every kind of snippet, and the test that looks at it."""


@pytest.mark.parametrize("name", generate.BLOCKS)
def test_generated_parts_are_what_the_code_says_now(name):
    file, make = generate.BLOCKS[name]
    found = {block["name"]: block["text"] for block in BLOCK.finditer(page(file))}
    assert found[name] == make(), f"docs/{file} is not current: python -m tests.docs.generate"


def test_the_json_schema_is_what_the_code_says_now():
    said = generate.SCHEMA.read_text(encoding="utf-8")
    assert said == generate.playbook_schema(), "docs/playbook.schema.json is not current: python -m tests.docs.generate"


def test_every_module_says_what_it_is():
    assert [str(path) for path in generate.modules() if not generate.first_line(path)] == []


def test_every_module_and_no_other_is_in_the_map():
    text = page("architecture.md")
    listed, folder = set(), ""
    for line in text.splitlines():
        if line.startswith("### breachwatch/"):
            folder = line.removeprefix("### ")
        elif found := re.match(r"\| `(\w+\.py)` \|", line):
            listed.add(folder + found[1])
    assert listed == {str(path.relative_to(ROOT)) for path in generate.modules()}
    assert len(listed) > 50


def test_every_command_and_flag_is_on_the_page():
    text = page("cli.md")
    names = [name for name, _ in generate.commands()]
    assert {f"breachwatch {name}" for name in COMMANDS} <= set(names)
    for name, command in generate.commands():
        section = text.partition(f"### `{name}`\n")[2].partition("\n### ")[0]
        assert section, f"docs/cli.md does not describe {name}"
        for option in (flag for one in command.params for flag in one.opts if flag.startswith("-")):
            assert f"`{option}`" in section, f"docs/cli.md: {name} {option}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://", "#")):
            assert (path.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_snippet_is_of_a_kind_that_is_checked(path):
    assert [one.where for one in snippets(path) if (one.language, one.more) not in CHECKED] == []


SHELL = [one for path in PAGES for one in snippets(path) if one.language == "sh"]


@pytest.mark.parametrize("snippet", SHELL, ids=lambda snippet: snippet.where)
def test_shell_examples_name_commands_and_flags_that_there_are(snippet):
    known = dict(generate.commands())
    for line in snippet.text.splitlines():
        for part in re.split(r"&&|\|\||;|\|", line.partition(" #")[0]):
            words = part.replace("'", "").replace('"', "").split()
            if not words or words[0].rpartition("/")[2] != "breachwatch":
                continue
            name = "breachwatch"
            for word in words[1:]:
                if f"{name} {word}" in known:
                    name += f" {word}"
            assert name == "breachwatch" or known[name], part
            assert name != "breachwatch" or len(words) == 1 or words[1].startswith("-"), f"{snippet.where}: {part}"
            flags = {flag for one in known[name].params for flag in one.opts}
            assert [word for word in words if word.startswith("--") and word not in flags] == [], part


def test_commands_in_the_text_exist():
    known = {name for name, _ in generate.commands()}
    for path in PAGES:
        for words in re.findall(r"`breachwatch ([a-z][a-z ]*)", path.read_text(encoding="utf-8")):
            name = f"breachwatch {words.split()[0]}"
            assert name in known, f"{path.name}: {name}"


def test_every_page_can_be_reached_from_the_readme():
    reached, waiting = set(), ["README.md"]
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        reached.add(name)
        path = ROOT / name
        if path.is_dir():
            continue
        for target in re.findall(r"\]\(([^)\s:]+)\)", path.read_text(encoding="utf-8")):
            found = (path.parent / target.partition("#")[0]).resolve()
            if found.suffix == ".md":
                waiting.append(str(found.relative_to(ROOT)))
    assert {str(path.relative_to(ROOT)) for path in DOCS.glob("*.md")} <= reached
