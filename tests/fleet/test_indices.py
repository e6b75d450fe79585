"""Index names are bounded, and the template says all there is to say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breachwatch.fleet.indices import ECS_TYPES, index_name, index_template
from breachwatch.model import SignalKind


@pytest.mark.parametrize(
    ("at", "name"),
    [
        (datetime(2026, 11, 26, tzinfo=UTC), "bw-alerts-2026.11"),
        (datetime(2026, 11, 1, 1, tzinfo=timezone(timedelta(hours=7))), "bw-alerts-2026.10"),
        (datetime(2020, 1, 1, tzinfo=UTC), "bw-alerts-2020.01"),
        (datetime(2039, 12, 31, 23, tzinfo=UTC), "bw-alerts-2039.12"),
        (datetime(2019, 12, 31, tzinfo=UTC), "bw-alerts-late"),
        (datetime(2040, 1, 1, tzinfo=UTC), "bw-alerts-late"),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))), "bw-alerts-late"),
        (datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-12))), "bw-alerts-late"),
        (datetime(2020, 1, 1, 1, tzinfo=timezone(timedelta(hours=7))), "bw-alerts-late"),
    ],
)
def test_a_match_goes_to_the_month_it_happened_in(at, name):
    assert index_name("bw", SignalKind.MATCH, at) == name


def test_whoever_chooses_the_dates_cannot_choose_how_many_indices_there_are():
    days = (datetime(1, 1, 1, tzinfo=UTC) + timedelta(days=20 * number) for number in range(180_000))
    assert len({index_name("bw", SignalKind.MATCH, day) for day in days}) == 241


@given(st.datetimes(timezones=st.timezones()), st.sampled_from(SignalKind))
def test_every_signal_has_an_index_that_the_template_covers(at, kind):
    name = index_name("bw", kind, at)
    assert any(name.startswith(pattern.removesuffix("*")) for pattern in index_template("bw")["index_patterns"])


def test_no_name_at_the_top_is_the_beginning_of_another():
    names = sorted([*ECS_TYPES, "event.original", "breachwatch"])
    assert not [(a, b) for a in names for b in names if b.startswith(a + ".")]


def test_nothing_a_document_brings_along_changes_the_mapping():
    mappings = index_template("bw")["template"]["mappings"]
    assert mappings["dynamic"] is False
    assert {"source.ip", "@timestamp", "breachwatch"} <= set(mappings["properties"])
