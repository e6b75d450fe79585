"""The one command that runs every check: all of them run, and the first failure decides."""

from __future__ import annotations

import sys

import pytest

from tests import checks


@pytest.fixture
def recorded(monkeypatch, capfd):
    """Steps that only say who they are; those named fail."""

    def with_failures(**codes: int) -> tuple[int, str]:
        steps = {
            step: ("-c", f"print('ran {step}'); raise SystemExit({codes.get(step, 0)})")
            for step in ("one", "two", "three")
        }
        monkeypatch.setattr(checks, "STEPS", steps)
        monkeypatch.setattr(checks, "command_of", lambda step, arguments: [sys.executable, *steps[step], *arguments])
        code = checks.main([])
        return code, capfd.readouterr().out

    return with_failures


def test_all_is_well_when_every_step_is(recorded):
    code, said = recorded()
    assert code == 0
    assert "FAILED" not in said


def test_a_failure_does_not_hide_those_behind_it(recorded):
    code, said = recorded(one=4, three=7)
    assert code == 4
    assert "ran two" in said
    assert "ran three" in said
    assert said.rstrip().endswith("FAILED: one, three")


def test_a_tool_that_is_missing_is_a_failure(monkeypatch, capfd):
    monkeypatch.setattr(checks, "STEPS", {"lint": ("no-such-tool-here",)})
    assert checks.main([]) == 127
    assert "requirements/dev.txt" in capfd.readouterr().out


def test_the_tests_come_last():
    assert [*checks.STEPS][-1] == "tests"
