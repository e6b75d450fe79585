"""Signals as documents: whatever the event holds, the document is bounded JSON with the right types at the top."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breachwatch.app.pipeline import daemon_signal, gap_signal, heartbeat_signal
from breachwatch.fleet.documents import MAX_FOREIGN, MAX_FOREIGN_CHARS, document, document_id
from breachwatch.fleet.indices import ECS_TYPES
from breachwatch.model import Gap, Signal
from tests.fleet.samples import AT, HOST, HOSTILE, SURROGATES, match_signal, of_fields

NOW = AT + timedelta(days=400)


def source_of(signal: Signal) -> dict[str, Any]:
    made = document(signal, prefix="bw", ingested_at=NOW, version="1")
    assert b"\n" not in made.source
    source = json.loads(made.source)
    assert isinstance(source, dict)
    return source


def assert_fits(source: dict[str, Any]) -> None:
    """Every value at the top has the type that the mapping gives its name; foreign ones are bounded text."""
    for name, value in source.items():
        if name in ("@timestamp", "event.original", "breachwatch"):
            continue
        for item in value if isinstance(value, list) else [value]:
            kind = ECS_TYPES[name]
            if kind == "long":
                assert type(item) is int
                assert -(2**63) <= item < 2**63
            elif kind == "ip":
                ip_address(item)
            elif kind == "date":
                datetime.fromisoformat(item)
            else:
                assert isinstance(item, str)
                assert len(item) <= 65_536
    foreign = source["breachwatch"].get("fields", {})
    assert len(foreign) <= MAX_FOREIGN + 1
    for name, value in foreign.items():
        assert isinstance(value, str)
        assert name
        assert "\0" not in name
        assert "" not in name.split(".")
        assert len((name + value).encode()) < 32_766


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_event_becomes_a_document_that_fits_the_mapping(what):
    assert_fits(source_of(of_fields(what, HOSTILE[what], raw="r" * 100_000)))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(sorted(ECS_TYPES)) | st.text(st.characters(), max_size=20), json_values))
def test_any_event_becomes_a_document_that_fits_the_mapping(fields):
    assert_fits(source_of(of_fields("m", fields)))


def test_known_fields_stand_at_the_top_and_foreign_ones_below_one_name():
    source = source_of(match_signal("m", source__ip="2001:db8::1", source__port=22, sshd__method="password"))
    assert source["source.ip"] == "2001:db8::1"
    assert source["source.port"] == 22
    assert source["breachwatch"]["fields"] == {"sshd.method": "password"}
    assert source["rule.id"] == "rule"
    assert source["event.kind"] == "alert"
    assert source["event.original"] == "line"
    assert source["breachwatch"]["window"]["count"] == 3
    assert source["breachwatch"]["group"] == {"source.ip": "192.0.2.1"}
    assert source["@timestamp"] == AT.isoformat()
    assert source["event.ingested"] == NOW.isoformat()


def test_a_value_of_the_wrong_type_is_kept_as_foreign_text():
    source = source_of(match_signal("m", source__ip="not an address", process__pid="x"))
    assert "source.ip" not in source
    assert source["breachwatch"]["fields"] == {"source.ip": "not an address", "process.pid": "x"}


def test_a_line_cannot_pretend_to_come_from_another_host_or_rule():
    source = source_of(of_fields("m", HOSTILE["claims to be another"]))
    assert source["host.name"] == HOST
    assert source["rule.id"] == "rule"
    assert source["event.kind"] == "alert"
    assert source["breachwatch"]["fields"]["host.name"] == "somebody-else"


def test_what_is_left_out_is_counted():
    foreign = source_of(of_fields("m", HOSTILE["many fields"]))["breachwatch"]["fields"]
    assert foreign["left_out"] == str(5_000 - MAX_FOREIGN)
    assert len(source_of(of_fields("m", HOSTILE["long text"]))["breachwatch"]["fields"]["foreign"]) == MAX_FOREIGN_CHARS


def test_a_lone_surrogate_is_made_visible():
    source = source_of(of_fields("m", SURROGATES))
    assert source["message"] == "a\\udcffb"
    assert source["user.name"] == "\\ud800"
    assert "\\udc80" in source["breachwatch"]["fields"]["x\\udfff"]


def test_gaps_daemon_records_and_heartbeats_keep_what_they_say():
    gap = gap_signal(Gap(source="/var/log/x", reason="truncated", at_utc=AT, lost_bytes=9, detail="d"), HOST)
    source = source_of(gap)
    assert (source["event.kind"], source["event.reason"], source["log.file.path"]) == (
        "pipeline_error", "truncated", "/var/log/x",
    )  # fmt: skip
    assert source["breachwatch"]["lost_bytes"] == 9
    daemon = source_of(daemon_signal("child_restarted", "agent", host=HOST, at_utc=AT))
    assert (daemon["event.action"], daemon["breachwatch"]["detail"]) == ("child_restarted", "agent")
    beat = source_of(heartbeat_signal(host=HOST, at_utc=AT, detail="lines=1"))
    assert (beat["event.action"], beat["breachwatch"]["kind"]) == ("heartbeat", "heartbeat")


def test_index_and_id_depend_on_the_signal_alone():
    signal = match_signal("m")
    first = document(signal, prefix="bw", ingested_at=AT)
    later = document(replace(signal, seq=99), prefix="bw", ingested_at=AT.replace(year=2038), version="2")
    assert (first.index, first.id) == (later.index, later.id) == ("bw-alerts-2026.03", "m")


@given(st.text(st.characters(), max_size=600))
def test_an_id_never_needs_escaping_and_is_never_too_long(text):
    made = document_id(text)
    assert 0 < len(made.encode("ascii")) <= 512
    assert json.dumps(made) == f'"{made}"'
    assert made == document_id(text)


def test_dates_at_the_ends_of_time_are_written_as_four_digit_years():
    early = datetime(1, 1, 1, tzinfo=UTC)
    assert source_of(match_signal("m", at=early))["@timestamp"].startswith("0001-01-01")
