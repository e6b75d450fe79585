"""docs/rules.md: its rule loads, its samples pass, and it names every format, source, program, field and key."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from breachwatch.app.rule_samples import run_samples
from breachwatch.detect.load import OWN_FIELDS, load_rules
from breachwatch.detect.ruleset import RuleText
from breachwatch.parse import FORMATS
from breachwatch.parse.programs import PROGRAMS
from tests.conftest import ROOT
from tests.docs.pages import DOCS, page, rows, snippets

PAGE = page("rules.md")
FOUND = {one.more: one for one in snippets(DOCS / "rules.md") if one.language == "yaml"}
DATASETS = {"nginx.access", "nginx.error", "apache.access", "apache.error", "system.auth", "system.syslog"}
READ = {"event.dataset"}
"""Dotted texts in the parsers that are no fields of our events: values, and what JSON records say themselves."""


def strings() -> Iterator[str]:
    for path in sorted((ROOT / "breachwatch" / "parse").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_every_field_that_a_parser_makes_is_on_the_page():
    made = {text for text in strings() if re.fullmatch(r"[a-z_]+(\.[a-z_0-9]+)+", text)} - DATASETS - READ
    assert {"source.ip", "sudo.tty", "file.hash.sha256"} <= made
    assert sorted(name for name in made if f"`{name}`" not in PAGE) == []


def test_every_format_is_on_the_page_and_no_other():
    listed = {cells[0].strip("`") for cells in rows(PAGE.partition("## Formats")[2].partition("## Fields")[0], 3)}
    assert listed - {"format"} == set(FORMATS)


def test_every_log_source_is_on_the_page():
    for path in sorted((ROOT / "breachwatch" / "parse").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "LogSource":
                for part in node.args:
                    if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value:
                        assert f"`{part.value}`" in PAGE, f"{path.name}: {part.value}"


def test_every_program_is_on_the_page():
    assert sorted(name for name in PROGRAMS if f"`{name}`" not in PAGE) == []


def test_every_key_of_our_own_is_on_the_page_and_no_other():
    listed = {cells[0].strip("`") for cells in rows(PAGE.partition("### Keys")[2].partition("### Samples")[0], 3)}
    assert listed - {"key"} == OWN_FIELDS


def test_the_rule_of_the_page_loads_and_its_samples_pass(tmp_path):
    loaded = load_rules([RuleText(FOUND["rule"].where, FOUND["rule"].text)])
    assert loaded.refused == ()
    assert len(loaded.rules) == len(loaded.correlations) == 1
    (tmp_path / "sample.yml").write_text(FOUND["samples"].text, encoding="utf-8")
    results = run_samples(tmp_path, loaded)
    assert sorted(one.kind for one in results) == ["forged", "matching", "near_miss"]
    assert [one for one in results if not one.passed] == []
