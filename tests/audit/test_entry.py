"""Entries: one spelling, refused at the door where JSON libraries disagree, never a crash on what is stored."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breachwatch.audit.entry import MAX_ENTRY_BYTES, decode, encode
from breachwatch.errors import AuditError, VerificationError
from breachwatch.model import Entry
from breachwatch.model.audit import EntryValue

NOON = datetime(2026, 1, 5, 12, 0, 0, 7, tzinfo=UTC)
WORDS = st.text(st.characters(codec="utf-8"), max_size=40)
SAFE = st.integers(min_value=-(2**53) + 1, max_value=2**53 - 1)
KEYS = st.text(st.characters(max_codepoint=127), min_size=1, max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | SAFE | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(body=st.dictionaries(KEYS, VALUES, max_size=5), actor=WORDS, incident=WORDS)
def test_an_entry_is_spelt_as_rfc_8785_spells_it_and_reads_back(
    body: dict[str, EntryValue], actor: str, incident: str
) -> None:
    entry = Entry(type="incident.opened", at_utc=NOON, actor=actor, incident_id=incident, body=body)
    data = encode(entry)
    document = {
        "actor": actor, "body": body, "inc": incident, "t": "2026-01-05T12:00:00.000007Z",
        "type": "incident.opened", "v": 1,
    }  # fmt: skip
    assert data == json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    assert decode(data) == entry


def test_times_are_written_in_utc() -> None:
    local = NOON.astimezone(timezone(timedelta(hours=7)))
    assert encode(Entry(type="x", at_utc=local)) == encode(Entry(type="x", at_utc=NOON))


@pytest.mark.parametrize(
    "body",
    [
        {"a": 1.5},
        {"a": 2**53},
        {"a": -(2**53)},
        {"khóa": 1},
        {1: "x"},
        {"a": b"bytes"},
        {"a": "\ud800"},
        {"a": [{"b": float("nan")}]},
        {"a": NOON},
    ],
    ids=repr,
)
def test_what_json_libraries_disagree_on_is_refused(body: dict[str, EntryValue]) -> None:
    with pytest.raises(AuditError, match="audit entry"):
        encode(Entry(type="x", at_utc=NOON, body=body))


@pytest.mark.parametrize("field", ["type", "actor", "incident_id"])
def test_a_name_that_is_no_unicode_is_refused(field: str) -> None:
    with pytest.raises(AuditError, match="not Unicode"):
        encode(replace(Entry(type="x", at_utc=NOON), **{field: "a\udc80"}))  # type: ignore[arg-type]


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(AuditError, match="without a zone"):
        encode(Entry(type="x", at_utc=NOON.replace(tzinfo=None)))


def test_an_oversized_entry_is_refused_with_its_size() -> None:
    with pytest.raises(AuditError, match=f"at most {MAX_ENTRY_BYTES}"):
        encode(Entry(type="x", at_utc=NOON, body={"a": "é" * MAX_ENTRY_BYTES}))


def test_a_body_nested_without_end_is_refused() -> None:
    body: dict[str, EntryValue] = {}
    for _ in range(5_000):
        body = {"a": body}
    with pytest.raises(AuditError, match="nested deeper"):
        encode(Entry(type="x", at_utc=NOON, body=body))


GOOD = encode(Entry(type="x", at_utc=NOON, body={"a": 1, "b": "é"}))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        b"[" * 16_000,
        b'{"a":' * 3_000,
        GOOD + b" ",
        GOOD + b"\n",
        GOOD.replace(b'"v":1', b'"v":2'),
        GOOD.replace(b'"v":1', b'"v":1.0'),
        GOOD.replace(b'"v":1', b'"v":true'),
        GOOD.replace(b'"v":1', b'"v":1,"v":1'),
        GOOD.replace(b'"v":1', b'"v":1,"w":1'),
        GOOD.replace(b'"a":1', b'"a":1e0'),
        GOOD.replace(b'"a":1', b'"a":NaN'),
        GOOD.replace(b'"a":1', b'"a":' + b"9" * 5_000),
        GOOD.replace("é".encode(), b"\\u00e9"),
        GOOD.replace(b'"body":{', b'"body": {'),
        GOOD.replace(b'{"a":1,"b":"\xc3\xa9"}', b'{"b":"\xc3\xa9","a":1}'),
        GOOD.replace(b'{"a":1,"b":"\xc3\xa9"}', b'[["a",1]]'),
        GOOD.replace(b"000007Z", b"000007+00:00"),
        GOOD.replace(b"2026-01-05T12:00:00.000007Z", b"0001-01-01T00:00:00+23:59"),
        GOOD.replace(b"2026-01-05T12:00:00.000007Z", b"9999-12-31T23:59:59-23:59"),
        GOOD.replace(b'"type":"x"', b'"type":7'),
        GOOD.replace(b'"actor":"system"', b'"actor":null'),
        GOOD.replace(b'"inc":""', b'"inc":"\\ud800"'),
    ],
    ids=lambda data: repr(data[:60]),
)
def test_any_other_spelling_is_refused_with_the_entry_s_number(data: bytes) -> None:
    assert data != GOOD
    with pytest.raises(VerificationError, match="entry 41 "):
        decode(data, 41)


@given(place=st.integers(min_value=0, max_value=len(GOOD) - 1), byte=st.integers(min_value=0, max_value=255))
def test_a_changed_byte_gives_another_entry_or_an_error_never_the_same_entry(place: int, byte: int) -> None:
    changed = GOOD[:place] + bytes([byte]) + GOOD[place + 1 :]
    try:
        entry = decode(changed)
    except VerificationError:
        return
    assert (entry == decode(GOOD)) == (changed == GOOD)
