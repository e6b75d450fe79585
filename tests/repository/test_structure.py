"""Sizes that keep the code readable, and what no file of the repository may hold. Exceptions need a reason, here."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

MAX_MODULE_LINES = 600
MAX_FUNCTION_LINES = 60
MAX_PUBLIC_METHODS = 9
MAX_EXCUSED_METHODS = 20

LONG_MODULES: dict[str, str] = {}
"""Path: why it is longer."""

LONG_FUNCTIONS: dict[str, str] = {}
"""path:function: why it is longer."""

WIDE_CLASSES: dict[str, str] = {
    "breachwatch/ports.py:OutboxRows": "a seam: one method per statement, and both stores answer all of them",
    "breachwatch/store/agent.py:SqliteAgentStore": "one method per statement on the agent's database",
    "breachwatch/store/incidents.py:IncidentTable": "one method per statement on the tables of incidents",
    "breachwatch/store/outbox.py:OutboxTable": "one method per statement on the tables of the outbox",
    "breachwatch/watch/tail.py:FileTail": "one open file: what is asked of it belongs to one descriptor",
    "tests/playbook/test_plan.py:PlannerMachine": "a state machine of hypothesis: one method per thing that can happen",
}
"""path:class: why it has more public methods."""


@cache
def tracked() -> tuple[Path, ...]:
    """Files that belong to the repository, those that are about to be added included."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"not a git checkout: {done.stderr.strip()}")
    return tuple(path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file())


def python_files() -> Iterator[tuple[str, str]]:
    for path in tracked():
        if path.suffix == ".py":
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def nodes() -> Iterator[tuple[str, ast.AST]]:
    for name, text in python_files():
        for node in ast.walk(ast.parse(text)):
            yield name, node


def public_methods(node: ast.ClassDef) -> list[str]:
    """Those that are called: properties, tests and what begins with an underscore left out."""
    return [
        one.name
        for one in node.body
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
        and not one.name.startswith(("_", "test_"))
        and not any(isinstance(mark, ast.Name) and "property" in mark.id for mark in one.decorator_list)
    ]


def test_no_module_is_longer_than_600_lines():
    long = {name for name, text in python_files() if len(text.splitlines()) > MAX_MODULE_LINES}
    assert long == set(LONG_MODULES)


def test_no_function_is_longer_than_60_lines():
    long = set()
    for name, node in nodes():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            if node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES:
                long.add(f"{name}:{node.name}")
    assert long == set(LONG_FUNCTIONS)


def test_no_class_has_ten_public_methods():
    wide = {
        f"{name}:{node.name}": len(methods)
        for name, node in nodes()
        if isinstance(node, ast.ClassDef) and len(methods := public_methods(node)) > MAX_PUBLIC_METHODS
    }
    assert set(wide) - set(WIDE_CLASSES) == set(), "split it, or list it with a reason"
    assert set(WIDE_CLASSES) - set(wide) == set(), "no longer wide: take it off the list"
    assert {name: count for name, count in wide.items() if count > MAX_EXCUSED_METHODS} == {}


def test_the_walk_sees_the_whole_tree():
    names = {name for name, _ in python_files()}
    assert {"breachwatch/ports.py", "tests/conftest.py", "benchmarks/__init__.py"} <= names
    assert len(names) > 150


TEXTS = (".py", ".md", ".toml", ".yaml", ".yml", ".j2", ".txt", ".json", ".csv", "", ".sh")


def lines_with(pattern: str) -> list[str]:
    """file:line of every line of the repository that holds this, this file and the licence left out."""
    wanted = re.compile(pattern)
    found = []
    for path in tracked():
        if path.suffix not in TEXTS or path == Path(__file__).resolve() or path.name == "LICENSE":
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if wanted.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}")
    return found


def test_unfinished_work_names_its_issue():
    words = "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3))
    assert lines_with(rf"\b({words})\b(?!.*(#|issue )\d+)") == []


def test_no_file_names_the_machine_it_was_written_on():
    assert lines_with(r"(?<![\w.])/(work|workspace|mnt/data|Users)/") == []


def test_no_file_names_a_package_index():
    assert lines_with(r"(?i)\b(pypi\.org|pythonhosted|--(extra-)?index-url|crates\.io)\b") == []


def test_no_private_key_lies_in_the_tree():
    assert lines_with(r"-----BEGIN [A-Z ]*PRIVATE KEY-----") == []
