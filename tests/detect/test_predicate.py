"""What keywords search in a record: compiled and in Python alike."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from breachwatch.detect import predicate
from breachwatch.detect.predicate import plain_texts, record_texts
from breachwatch.detect.values import MAX_QUICK, MAX_VALUE, all_texts, folded
from breachwatch.model.passes import native

NAMES = st.sampled_from(["a", "log", "log.", "log.offset", "host.name", "host.name.x", "host", "", "\u017flog."])
NUMBERS = st.integers() | st.sampled_from([MAX_QUICK, MAX_QUICK - 1, -MAX_QUICK, 2**63, -(2**63), 10**400])
SINGLE = st.none() | st.booleans() | NUMBERS | st.floats() | st.text() | st.just("x" * (MAX_VALUE + 1))
VALUES = st.recursive(SINGLE, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6)


@given(st.dictionaries(NAMES, VALUES))
def test_compiled_and_in_python_alike(record):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predicate, "native", None)
        expected = record_texts(record)
    assert [*map(repr, record_texts(record))] == [*map(repr, expected)]
    own = ("log.", "host.name")
    assert expected == [text for name, one in record.items() if not name.startswith(own) for text in all_texts(one)]


@pytest.mark.skipif(native is None, reason="nobody compiled native/")
@pytest.mark.parametrize(
    "given_", [(), ({}, (), 1), ([], (), 1, all_texts), ({}, [], 1, all_texts), ({}, (), "", all_texts)]
)
def test_nothing_else_is_taken(given_):
    with pytest.raises(TypeError):
        native.record_texts(*given_)


@pytest.mark.skipif(native is None, reason="nobody compiled native/")
def test_what_goes_wrong_below_is_raised():
    def fails(value: object) -> list[str]:
        raise RecursionError(value)

    with pytest.raises(RecursionError):
        native.record_texts({"a": [1]}, (), 5, fails)
    with pytest.raises(TypeError):
        native.record_texts({"a": [1]}, (1,), 5, fails)


PLAIN_TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)) | st.sampled_from(
    ["A\\B", '"', "/", "\t\r\n\b\f", "\\", "x" * MAX_VALUE]
)
PLAIN_NAMES = st.sampled_from(["a", "B", "log.x", "host.name", "host", ""]) | st.integers(0, 99).map(str)
PLAIN = st.dictionaries(
    PLAIN_NAMES, st.none() | st.booleans() | st.integers(1 - 10**17, 10**17 - 1) | PLAIN_TEXT, max_size=10
)
MANY_NAMES = st.integers(60, 70).map(lambda count: {f"name {number}": number for number in range(count)})
PIECES = (
    "{",
    "}",
    '"a"',
    '"a"',
    '"b"',
    '"log.x"',
    ":",
    ":",
    ",",
    "1",
    "-0",
    "1e9",
    "true",
    "[1]",
    '"\\/"',
    '"',
    "\r",
    " ",
)


def decoded_texts(line: bytes) -> str:
    record = msgspec.json.decode(line)
    assert isinstance(record, dict)
    return folded("\0".join(record_texts(record)))


@pytest.mark.skipif(native is None, reason="nobody compiled native/")
@given(PLAIN | MANY_NAMES, st.booleans())
def test_plain_records_need_no_decoding(record, is_spaced):
    text = json.dumps(record) if is_spaced else json.dumps(record, separators=(",", ":"))
    line = text.encode()
    assert plain_texts(line) == (decoded_texts(line) if len(record) <= 64 else None)


NOT_PLAIN = [
    "", "{", "}", "{}}", "{}x", '{"a"}', '{"a":}', '{"a";1}', '{"a":1', '{"a":1}x', '{"a":1;"b":2}', '{"a":1 "b":2}',
    '{"a":1,}', '{"a":"x', '{"a":"x\\', '{"a":"\\x"}', '{"a":"\\u0041"}', '{"a":"\x00"}', '{"a":"\n"}',
    '{"a":"\u00e9"}',
    '{"a":tru}', '{"a":truee}', '{"a":nul}', '{"a":-}', '{"a":-0}', '{"a":01}', '{"a":1.5}', '{"a":1e2}', '{"a":1E2}',
    '{"a":' + "9" * 18 + "}", '{"a":[1]}', '{"a":{"b":1}}', '{"a":"' + "x" * (MAX_VALUE + 1) + '"}', "[1]", "1", '"a"',
    '{"a":1,"a":"x"}', '{"\\/a":"x"}', "{a:1}", '{"a":1}{"a":1}',
]  # fmt: skip


@pytest.mark.parametrize("line", NOT_PLAIN)
def test_what_is_not_plain_is_decoded(line):
    assert plain_texts(line.encode()) is None


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_any_line_is_decoded_or_says_the_same(text):
    line = text.encode()
    found = plain_texts(line)
    assert found is None or found == decoded_texts(line)


@given(PLAIN, st.data())
def test_a_plain_record_with_one_byte_changed_says_what_it_then_says(record, data):
    line = bytearray(json.dumps(record).encode())
    place = data.draw(st.integers(0, len(line) - 1))
    line[place : place + data.draw(st.integers(0, 1))] = data.draw(st.binary(max_size=2))
    found = plain_texts(bytes(line))
    assert found is None or found == decoded_texts(bytes(line))


@pytest.mark.skipif(native is None, reason="nobody compiled native/")
@pytest.mark.parametrize("given_", [(), (b"", (), ""), ("", (), 1), (b"", [], 1), (b'{"a":1}', (1,), 1)])
def test_plain_texts_takes_nothing_else(given_):
    with pytest.raises(TypeError):
        native.plain_texts(*given_)
