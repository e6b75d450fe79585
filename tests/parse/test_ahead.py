"""Lines of JSON that are read before it is their turn give the events that they would give then."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from breachwatch.model import Block, Event, LogSource
from breachwatch.model.passes import native
from breachwatch.parse import Parser, parser_for
from breachwatch.parse import jsonlines as module
from breachwatch.parse.context import AheadReader, ParseContext
from breachwatch.parse.event import JOURNAL_SOURCE, MAX_LINE_BYTES, digest_of
from breachwatch.parse.jsonlines import MAX_DEPTH
from breachwatch.parse.skipping import line_of
from tests.parse.samples import CONTEXT

compiled = pytest.mark.skipif(native is None, reason="nobody compiled native/")

_NAMES = (
    "message", "a.b", "product", "category", "service", "host", "host.name", "event", "event.dataset", "@timestamp",
    "ts", "log.file.path", "log.offset", "log.source.address", "khách",
)  # fmt: skip
_values = st.sampled_from(
    [
        None, "", "cisco", "aaa", "nginx.access", "x" * 200, 7, 1.5, True, [1, "a"], {"name": "db"}, {"dataset": "a.b"},
        "2026-02-01T10:00:00Z", 1_769_940_000, "{[", "\\", '"', "\0", "é\ud83d\ude00",
    ]
)  # fmt: skip
_records = st.dictionaries(st.sampled_from(_NAMES), _values, max_size=6)
_odd = st.sampled_from(
    [
        b"", b"{", b"[]", b"7", b'"a"', b"{} {}", b"{}\r", b"{}\r\r", b' {"a":1}\t', b'{"a":1,"a":2}', b'{"a":NaN}',
        b'{"a":"\xff"}', b'{"\xff":1}', b'{"a":"\x00"}', b'{"a":1}\x00', b"{" * 99, b"[" * 9_999,
        b'{"a":' * 63 + b"1" + b"}" * 63, b'{"a":' * 64 + b"1" + b"}" * 64, b'{"a":' * 65 + b"1" + b"}" * 65,
        b'{"a":"' + b"[{" * 40 + b'"}', b'{"a":1e999}', b'{"a":' + b"9" * 5_000 + b"}",
        b'{"__REALTIME_TIMESTAMP":"1769940000000000","MESSAGE":"a","_COMM":"sshd"}', b'{"a":"\\ud800"}',
        b'{"product":"cisco","service":"aaa"}', b'{"\\u0070roduct":"cisco","service":"aaa"}',
    ]
)  # fmt: skip
_lines = st.lists(
    st.one_of(
        _records.map(lambda record: json.dumps(record).encode()),
        _records.map(lambda record: json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass")),
        _odd,
        st.binary(max_size=12).map(lambda data: data.replace(b"\n", b"")),
    ),
    max_size=12,
)


def places_in(block: Block) -> list[tuple[int, int, str]]:
    ends = [at + 1 for at, byte in enumerate(block.data) if byte == 10]
    return [(start, end, "more") for start, end in zip([0, *ends], ends, strict=False)]


def read_in_turn(parser: Parser, block: Block, context: ParseContext = CONTEXT) -> list[Event]:
    return [event for place in places_in(block) for event in parser.parse(line_of(block, *place[:2]), context)]


def read_ahead(parser: Parser, block: Block, context: ParseContext = CONTEXT) -> tuple[list[Event], int]:
    """All events; how many of them were read ahead."""
    assert isinstance(parser, AheadReader)
    ahead, places = parser.ahead(block, context), places_in(block)
    events: list[Event] = []
    count = 0
    for (start, end, _), one in zip(places, ahead.read(places) if ahead else [None] * len(places), strict=True):
        if ahead is not None and one is not None:
            events.append(ahead.event_of(one))
            count += 1
        else:
            events += parser.parse(line_of(block, start, end), context)
    return events, count


@compiled
@pytest.mark.parametrize("log_format", ["json", "auto"])
@example([b'{"product":["a"]}', b'{"product":"cisco"}', b'{"product":"never seen before"}', b'{"host":"db"}'], 7)
@example([b'{"@timestamp":"2026-02-01T10:00:00Z"}', b'{"product":"cisco"}', b'{"host":7}', b'{"host.name":null}'], 0)
@given(_lines, st.sampled_from([0, 1 << 40]))
def test_what_is_read_ahead_is_what_is_read_in_turn(log_format, lines, offset):
    block = Block(source="/var/log/x", data=b"".join(line + b"\n" for line in lines), offset=offset, generation="g")
    first = Block(source="/var/log/x", data=b'{"product":"cisco","service":"aaa"}\n', generation="g")
    one, other = parser_for(log_format), parser_for(log_format)
    assert read_in_turn(one, first) == read_in_turn(other, first)
    events, _ = read_ahead(other, block)
    assert events == read_in_turn(one, block)
    assert [list(event.fields) for event in events] == [list(event.fields) for event in read_in_turn(one, block)]
    assert other.memory.saved() == one.memory.saved()


@compiled
def test_most_lines_are_read_ahead_and_those_that_take_more_are_not():
    good = [
        b'{"a":1}',
        b'{"product":"cisco"}\r',
        b' {"ts":1769940000,"host":{"name":"db"}}',
        b'{"a":"' + b"x" * 9_999 + b'"}',
    ]
    long = [b'{"a":"' + b"x" * size + b'"}' for size in (MAX_LINE_BYTES - 8, MAX_LINE_BYTES - 7)]
    deep = [b'{"a":' * depth + b"1" + b"}" * depth for depth in (MAX_DEPTH - 1, MAX_DEPTH)]
    lists = [b'{"a":' + b"[" * depth + b"]" * depth + b"}" for depth in (MAX_DEPTH - 2, MAX_DEPTH - 1)]
    for lines, wanted in ((good, 4), (long, 1), (deep, 1), (lists, 1), ([b"{}\r\r", b"[1]", b"{", b""], 0)):
        block = Block(source="x", data=b"".join(line + b"\n" for line in lines), generation="g")
        events, count = read_ahead(parser_for("json"), block)
        assert (len(events), count) == (len(lines), wanted)
        assert events == read_in_turn(parser_for("json"), block)


@compiled
def test_a_file_that_is_called_like_the_journal_is_read_as_it_always_was():
    block = Block(source=JOURNAL_SOURCE, data=b'{"a":1}\n', generation="g")
    assert read_ahead(parser_for("json"), block) == (read_in_turn(parser_for("json"), block), 0)


def test_without_compiled_code_lines_wait_for_their_turn(monkeypatch):
    monkeypatch.setattr(module, "native", None)
    block = Block(source="x", data=b'{"a":1}\n', generation="g")
    assert read_ahead(parser_for("json"), block) == (read_in_turn(parser_for("json"), block), 0)


@compiled
def test_a_record_is_as_old_as_what_was_read_before_its_turn_not_before_it_was_read():
    block = Block(source="x", data=b'{"product":"cisco"}\n{"a":1}\n', generation="g")
    parser = parser_for("json")
    assert isinstance(parser, AheadReader)
    ahead = parser.ahead(block, CONTEXT)
    assert ahead is not None
    first, second = ahead.read(places_in(block))
    assert first is not None
    assert second is not None
    assert ahead.event_of(first).at_utc == CONTEXT.reference_utc
    later = datetime(2026, 2, 1, tzinfo=UTC)
    parser.memory.note(later)
    assert ahead.event_of(second).at_utc == later


@compiled
def test_hosts_and_files_have_names_of_their_own():
    block = Block(source="x", data=b'{"product":"cisco"}\n', generation="g")
    others = [replace(CONTEXT, host="db"), CONTEXT]
    names = {read_ahead(parser_for("json"), block, context)[0][0].id for context in others}
    names |= {read_ahead(parser_for("json"), Block(source="x", data=block.data, generation="h"))[0][0].id}
    assert len(names) == 3


@compiled
def test_wrong_use_is_an_error_and_nothing_outside_of_the_block_is_read():
    data, known = b'{"a":1}\n', {(None, None, None): LogSource()}
    more = "x", 0, json.loads, digest_of("h", "g"), "h", frozenset(("ts",)), known
    (one,) = native.json_lines(data, [(0, len(data))], *more)
    assert one[:2] == ({"a": 1, "log.file.path": "x", "log.offset": 0, "host.name": "h"}, '{"a":1}')
    for place in ((0, 9), (-1, 8), (8, 8), (3, 2), (0, 1 << 70)):
        with pytest.raises((ValueError, OverflowError)):
            native.json_lines(data, [place], *more)
    no_places: list[Any] = [(), (0,), [0, 8], 0, (0, "8"), (None, 8)]
    for no_place in no_places:
        with pytest.raises(TypeError):
            native.json_lines(data, [no_place], *more)
    arguments: list[Any] = [
        (),
        (data, []),
        ("", [], *more),
        (data, (), *more),
        (data, [], *more[:-1], 7),
        (data, [], *more, 1),
    ]
    for wrong in arguments:
        with pytest.raises(TypeError):
            native.json_lines(*wrong)
    with pytest.raises(AttributeError):
        native.json_lines(data, [(0, 8)], "x", 0, json.loads, 7, *more[4:])

    def interrupted(_line: bytes) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        native.json_lines(data, [(0, 8)], "x", 0, interrupted, *more[3:])
