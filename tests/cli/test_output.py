"""What `--json` writes: whatever a log holds, one object a line, in UTF-8."""

from __future__ import annotations

import json
import select
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breachwatch.cli.output import JsonLines, json_line, json_lines
from tests.cli.test_scan import LINES, RULES
from tests.e2e.harness import COMMAND

_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(exclude_categories=())), _values, max_size=6))
def test_a_line_says_what_the_object_says_in_its_order(item):
    line = json_line(item)
    assert line.endswith(b"\n")
    assert b"\n" not in line[:-1]
    assert json.dumps(json.loads(line.decode("utf-8"))) == json.dumps(item)


@pytest.mark.parametrize(
    "value", ["\ud800", "a\udcffb", "\x00\x1f\x7f\u2028", "khách", 2**70, -(10**300), 1e300, "\\ud800"]
)
def test_odd_values_come_back_as_they_were(value):
    assert json.loads(json_line({"kind": value, value if isinstance(value, str) else "x": (value,)})) == {
        "kind": value, value if isinstance(value, str) else "x": [value],
    }  # fmt: skip


def test_what_json_has_no_word_for_is_null():
    assert json_line({"a": float("nan"), "b": [float("inf")]}) == b'{"a":null,"b":[null]}\n'


def test_lines_are_written_together_and_all_of_them_by_the_end(capfdbinary):
    with JsonLines() as lines:
        lines.add({"n": 0})
        assert capfdbinary.readouterr().out == b""
        lines.flush()
        lines.flush()
        assert capfdbinary.readouterr().out == b'{"n":0}\n'
        for number in range(1, 2_500):
            lines.add({"n": number})
        early = capfdbinary.readouterr().out
        assert early.count(b"\n") == 2_000, "few wait"
    told = (early + capfdbinary.readouterr().out).splitlines()
    assert [json.loads(line)["n"] for line in told] == list(range(1, 2_500))


@given(st.lists(st.tuples(st.integers(0, 2), st.dictionaries(st.text(), _values, max_size=3)), max_size=6))
def test_an_event_of_several_matches_stands_in_each_of_them(pairs):
    events = [{"message": "one"}, {"message": "\udcff", "n": 1}, None]
    items = [{"kind": "match", "event": events[place], **rest} for place, rest in pairs]
    assert [json.loads(line) for line in json_lines(items)] == [json.loads(json_line(item)) for item in items]


def test_what_was_found_is_told_before_more_input_is_waited_for(tmp_path: Path):
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "own.yml").write_text(RULES)
    (tmp_path / "auth.log").write_text(LINES)
    command = [*COMMAND, "scan", str(tmp_path / "auth.log"), "-", "--year", "2026", "--json"]
    with subprocess.Popen(
        [*command, "--rules", str(tmp_path / "rules")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as scan:
        assert scan.stdin is not None
        assert scan.stdout is not None
        told, _, _ = select.select([scan.stdout], [], [], 60)  # nothing comes from standard input, nor does it end
        scan.stdin.close()
        items = [json.loads(line) for line in scan.stdout]
    assert told
    assert [item["kind"] for item in items].count("match") == items[-1]["matches"] > 1
