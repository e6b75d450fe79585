"""The module map is the tree, and modules and functions stay small enough to read."""

from __future__ import annotations

import ast
import re

from tests.conftest import ROOT

MODULES = sorted((ROOT / "breachwatch").rglob("*.py"))

LONG_MODULES: dict[str, str] = {}
"""Path: why it is longer than 600 lines."""

LONG_FUNCTIONS: dict[str, str] = {}
"""path:function: why it is longer than 60 lines."""


def test_the_module_map_names_every_module_and_nothing_else():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^- `(breachwatch/\S+\.py)`", text, flags=re.MULTILINE))
    tree = {str(path.relative_to(ROOT)) for path in MODULES if path.name != "__init__.py"}
    assert len(tree) > 50
    assert named == tree, f"missing: {sorted(tree - named)}; gone: {sorted(named - tree)}"


def test_no_module_is_longer_than_600_lines():
    long = {str(path.relative_to(ROOT)) for path in MODULES if len(path.read_bytes().splitlines()) > 600}
    assert long == set(LONG_MODULES)


def test_no_function_is_longer_than_60_lines():
    long = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                if node.end_lineno - node.lineno + 1 > 60:
                    long.add(f"{path.relative_to(ROOT)}:{node.name}")
    assert long == set(LONG_FUNCTIONS)
