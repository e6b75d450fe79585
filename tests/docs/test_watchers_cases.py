"""docs/watchers-cases.md: every case of the watchers is there, with tests that there are; so is every evasion."""

from __future__ import annotations

import ast
import re

from tests.conftest import ROOT
from tests.docs.pages import page, rows

LOG_CASES = 36
FILE_CASES = 30
EVASIONS = 32


def existing_tests() -> set[str]:
    """The names of all tests."""
    return {
        node.name
        for file in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }


def listed_cases() -> dict[str, list[str]]:
    """Case to the tests that are named beside it."""
    return {
        what: re.findall(r"`(test_\w+)`", tests) for what, tests in rows(page("watchers-cases.md"), 2) if what != "case"
    }


def test_every_case_stands_there_with_tests_that_there_are():
    listed = listed_cases()
    numbers = [int(found[0]) for what in listed if (found := re.match(r"\d+", what))]
    assert numbers == list(range(1, LOG_CASES + 1))
    assert len(listed) == LOG_CASES + FILE_CASES
    assert [what for what, tests in listed.items() if not tests] == []
    assert sorted({name for tests in listed.values() for name in tests} - existing_tests()) == []


def test_every_evasion_has_a_test_of_its_number():
    found: set[int] = set()
    for name in existing_tests():
        if (one := re.match(r"test_evasions?_(\d+)(?:_to_(\d+))?_", name)) is not None:
            found.update(range(int(one[1]), int(one[2] or one[1]) + 1))
    assert found == set(range(1, EVASIONS + 1))
