"""docs/bad-input.md: every kind of bad input that we promise to survive is there, with tests that there are."""

from __future__ import annotations

import ast
import re

from tests.conftest import ROOT
from tests.docs.pages import page, rows

PROMISED = (
    "binary noise", "a line of 10 MB", "NUL bytes", "invalid UTF-8", "a log that vanishes",
    "a rule with an unknown modifier", "a playbook with an unknown step", "a CSV with broken rows",
    "an SMTP server that hangs", "an SMTP server that refuses", "an SMTP server that dies half way", "a full disk",
    "a state directory of another user", "two daemons on one state directory",
)  # fmt: skip


def test_every_promise_stands_there_with_tests_that_there_are():
    listed = {what: re.findall(r"`(test_\w+)`", tests) for what, _, tests in rows(page("bad-input.md"), 3)}
    assert [one for one in PROMISED if not any(what.startswith(one) for what in listed)] == []
    there = {
        node.name
        for file in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert [what for what, tests in listed.items() if not tests and what != "what"] == []
    assert sorted({name for tests in listed.values() for name in tests} - there) == []
