"""What `--json` writes: whatever a log holds, one object a line, in UTF-8."""

from __future__ import annotations

import io
import json
import select
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breachwatch.cli.output import MAX_WAITING_BYTES, JsonLines, as_objects, json_line
from breachwatch.model import Event, Incident, Level, LogSource, Match, RuleRef, Window
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
        for number in range(1, 50_000):
            lines.add({"n": number})
        early = capfdbinary.readouterr().out
    late = capfdbinary.readouterr().out
    assert early.endswith(b"\n")
    assert 0 < len(late) < MAX_WAITING_BYTES < len(early), "little waits"
    assert [json.loads(line)["n"] for line in (early + late).splitlines()] == list(range(1, 50_000))


_text = st.text(st.characters(exclude_categories=()), max_size=12)
_moments = st.integers(0, 10**12).map(lambda ms: datetime.fromtimestamp(ms / 1e3, UTC)) | st.just(
    datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))
)
_rules = st.builds(
    RuleRef,
    id=st.sampled_from(["one", "two", 'Regel \u00fc "3"']),
    title=st.just("A title"),
    level=st.just(Level.HIGH),
    tags=st.just(("attack.t1110",)),
)
_events = st.builds(
    Event,
    id=st.just("0" * 32),
    at_utc=_moments,
    logsource=st.just(LogSource()),
    fields=st.dictionaries(_text | st.just("@timestamp"), _values, max_size=4),
)
_matches = st.builds(
    Match,
    id=st.text("0123456789abcdef", min_size=1),
    rule=_rules,
    event=_events,
    group=st.dictionaries(_text, _text, max_size=1),
    window=st.none() | st.builds(Window, first=_moments, last=_moments, count=st.integers(0, 9)),
)
_incidents = st.builds(
    Incident,
    id=_text,
    title=_text,
    severity=st.sampled_from(Level),
    opened_at=_moments,
    first_seen=_moments,
    last_seen=_moments,
    count=st.integers(0, 9),
    rules=st.tuples(_text),
    entities=st.dictionaries(st.sampled_from(["source.ip", "user.name"]), st.tuples(_text), max_size=2),
)


@given(
    st.lists(
        st.lists(_matches, max_size=3) | _incidents | st.fixed_dictionaries({"kind": st.just("gap"), "detail": _text}),
        max_size=6,
    )
)
def test_what_is_put_together_says_what_the_objects_say(items):
    written = io.BytesIO()
    again = [item for item in items for _ in range(2)]  # an event may match twice in a row
    with JsonLines(written) as lines:
        for item in again:
            lines.add(item)
    assert written.getvalue() == b"".join(json_line(told) for item in again for told in as_objects(item))


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
