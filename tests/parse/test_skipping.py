"""Lines that nobody parsed leave a parser's memory as if it had read them all."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breachwatch.model import Block, RawLine
from breachwatch.parse import parser_for
from breachwatch.parse.skipping import Skipped, lines_of
from tests.parse.samples import CONTEXT

RECORDS = [
    b'{"@timestamp":"2026-02-03T04:05:0%dZ","F":"x"}',
    b'{"ts":176994000%d}',
    b'{"t\\u0069me":"2026-02-03T04:06:0%dZ"}',
    b'{"\\u0040timestamp":"2026-02-03T04:07:0%dZ"}',
    b'{"F":"C:\\\\users\\\\u0041\\\\%d"}',
    b'{"F":"\\"time\\" %d"}',
    b'{"F":{"date":"2026-02-03T04:08:0%dZ"}}',
    b'{"time":"no time %d"}',
    b'{"time":null,"ts":"2026-02-03T04:09:0%dZ"}',
    b'{"F":%d}',
    b'{"timestamp":"2026-02-03T04:05:0%dZ"',
    b"no record, time %d",
    b"",
]


def made(record: bytes, number: int) -> bytes:
    return record % number if b"%" in record else record


@given(
    st.lists(st.tuples(st.sampled_from(RECORDS), st.integers(0, 9)), min_size=1, max_size=12),
    st.integers(0, 12),
    st.integers(0, 12),
)
def test_json_records_that_are_skipped_leave_the_time_that_reading_them_would(lines, one, other):
    data = b"".join(made(record, number) + b"\n" for record, number in lines)
    ends = [0, *(at + 1 for at, byte in enumerate(data) if byte == 10)]
    start, stop = sorted((ends[min(one, len(lines))], ends[min(other, len(lines))]))
    block = Block(source="x", data=data, generation="g")
    reading, skipping = parser_for("json"), parser_for("json")
    for line in lines_of(block, 0, start):
        reading.parse(line, CONTEXT)
        skipping.parse(line, CONTEXT)
    before = reading.memory.saved()
    for line in lines_of(block, start, stop):
        reading.parse(line, CONTEXT)
    skipping.memory.forget(Skipped(skipping, block, CONTEXT, start, stop, skipping.memory.saved()).recall)
    # a record without a time, where none was told before, is as old as the log was when it was read
    left, wanted = skipping.memory.at_utc, reading.memory.at_utc
    assert left == wanted or (before[0] is None and left is None and wanted == CONTEXT.reference_utc)


@pytest.mark.parametrize("record", [b'{"F":"C:\\\\users\\\\ui%d"}', RECORDS[5]])
def test_only_records_that_may_tell_the_time_are_read(record, monkeypatch):
    data = b"".join(made(record, number % 10) + b"\n" for number in range(1_000))
    parser = parser_for("json")
    read: list[RawLine] = []
    monkeypatch.setattr(parser, "parse", lambda line, _context: read.append(line))
    skipped = Skipped(parser, Block(source="x", data=data, generation="g"), CONTEXT, 0, len(data), (None, None))
    parser.memory.forget(skipped.recall)
    assert parser.memory.at_utc is None
    assert not read


def test_records_that_only_look_as_if_they_told_the_time_are_each_read_once_or_twice():
    data = b'{"F":{"date":1},"G":"\\u0007"}\n' * 8_000  # a block of the size that is read
    parser = parser_for("json")
    skipped = Skipped(parser, Block(source="x", data=data, generation="g"), CONTEXT, 0, len(data), (None, None))
    parser.memory.forget(skipped.recall)
    before = time.process_time()
    assert parser.memory.at_utc == CONTEXT.reference_utc
    assert time.process_time() - before < 1.0  # looking for the last of them anew each time has no such bound
