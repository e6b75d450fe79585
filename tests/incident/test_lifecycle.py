from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breachwatch.errors import IncidentError
from breachwatch.incident.clocks import instants
from breachwatch.incident.grouping import absorb, open_incident
from breachwatch.incident.lifecycle import (
    ALLOWED,
    MAX_REASON_CHARS,
    allowed_from,
    needs_second_person,
    note,
    transition,
)
from breachwatch.model import Incident, IncidentState, Level
from tests.incident.samples import START, a_match

S = IncidentState

PATHS: dict[IncidentState, list[IncidentState]] = {
    S.OPEN: [],
    S.ACKNOWLEDGED: [S.ACKNOWLEDGED],
    S.CONFIRMED: [S.ACKNOWLEDGED, S.CONFIRMED],
    S.CONTAINED: [S.ACKNOWLEDGED, S.CONFIRMED, S.CONTAINED],
    S.NOTIFYING: [S.ACKNOWLEDGED, S.CONFIRMED, S.NOTIFYING],
    S.NOTIFIED: [S.ACKNOWLEDGED, S.CONFIRMED, S.NOTIFYING, S.NOTIFIED],
    S.CLOSED: [S.ACKNOWLEDGED, S.CONFIRMED, S.NOTIFYING, S.NOTIFIED, S.CLOSED],
    S.DISMISSED: [S.DISMISSED],
}


def go(incident: Incident, *states: IncidentState, at: datetime = START) -> Incident:
    for state in states:
        incident, _ = transition(incident, state, actor="usr:lan", reason="because", now=at)
    return incident


def fresh(level: Level = Level.HIGH) -> Incident:
    return open_incident(a_match(level=level), incident_id="INC-2026-000001", now=START)


def test_every_state_can_be_reached():
    for state, path in PATHS.items():
        assert go(fresh(), *path).state is state


@pytest.mark.parametrize("before", list(S))
@pytest.mark.parametrize("after", list(S))
def test_the_table_is_the_law(before, after):
    incident = go(fresh(), *PATHS[before])
    if after in ALLOWED[before]:
        changed, change = transition(incident, after, actor="usr:lan", reason="because", now=START)
        assert (change.before, change.after) == (str(before), str(after))
        parallel = after is S.CONTAINED and before in {S.NOTIFYING, S.NOTIFIED}
        assert changed.state is (before if parallel else after)
        assert changed.revision == incident.revision
    else:
        with pytest.raises(IncidentError) as refused:
            transition(incident, after, actor="usr:lan", reason="because", now=START)
        assert "INC-2026-000001" in str(refused.value)
        assert all(str(state) in str(refused.value) for state in allowed_from(incident))


def test_containing_and_notifying_run_side_by_side_in_either_order():
    first = go(fresh(), *PATHS[S.CONTAINED], S.NOTIFYING)
    assert first.state is S.NOTIFYING
    assert first.contained_at is not None
    then = go(fresh(), *PATHS[S.NOTIFYING], S.CONTAINED)
    assert then.state is S.NOTIFYING
    assert then.contained_at is not None
    late = go(fresh(), *PATHS[S.NOTIFIED], S.CONTAINED, S.CLOSED)
    assert late.state is S.CLOSED


def test_containing_twice_is_refused():
    with pytest.raises(IncidentError, match="already contained"):
        go(fresh(), *PATHS[S.NOTIFYING], S.CONTAINED, S.CONTAINED)


@pytest.mark.parametrize("path", [[S.DISMISSED], [*PATHS[S.CONFIRMED], S.CLOSED], [*PATHS[S.CLOSED], S.OPEN]])
def test_a_grave_change_needs_a_reason(path):
    incident = go(fresh(), *path[:-1])
    for reason in ("", "  \n"):
        with pytest.raises(IncidentError, match="needs a reason"):
            transition(incident, path[-1], actor="usr:lan", reason=reason, now=START)


def test_acknowledging_and_closing_what_was_notified_need_none():
    transition(fresh(), S.ACKNOWLEDGED, actor="usr:lan", reason="", now=START)
    transition(go(fresh(), *PATHS[S.NOTIFIED]), S.CLOSED, actor="usr:lan", reason="", now=START)


def test_reopening_keeps_every_first_time():
    later = START + timedelta(days=1)
    closed = go(fresh(), *PATHS[S.CLOSED])
    again = go(closed, S.OPEN, S.ACKNOWLEDGED, S.CONFIRMED, S.NOTIFYING, S.NOTIFIED, at=later)
    assert (again.acknowledged_at, again.confirmed_at, again.notified_at) == (START, START, START)
    assert (again.closed_at, again.reopened) == (None, 1)
    assert go(again, S.CLOSED, at=later).closed_at == later


def test_a_dismissal_of_a_grave_incident_and_a_silent_close_want_a_second_person():
    assert needs_second_person(fresh(Level.HIGH), S.DISMISSED)
    assert needs_second_person(fresh(Level.CRITICAL), S.DISMISSED)
    assert not needs_second_person(fresh(Level.MEDIUM), S.DISMISSED)
    assert needs_second_person(go(fresh(), *PATHS[S.CONFIRMED]), S.CLOSED)
    assert not needs_second_person(go(fresh(), *PATHS[S.NOTIFIED]), S.CLOSED)
    assert not needs_second_person(fresh(), S.ACKNOWLEDGED)


def test_nobody_is_no_actor_and_local_time_is_no_time():
    with pytest.raises(IncidentError, match="person"):
        transition(fresh(), S.ACKNOWLEDGED, actor=" ", reason="", now=START)
    for now in (START.replace(tzinfo=None), START.astimezone(timezone(timedelta(hours=7)))):
        with pytest.raises(IncidentError, match="UTC"):
            transition(fresh(), S.ACKNOWLEDGED, actor="usr:lan", reason="", now=now)


def test_notes_are_kept_and_bounded():
    kept = note(fresh(), "called the provider", actor="usr:lan", now=START)
    assert (kept.kind, kept.reason) == ("note", "called the provider")
    for text, what in (("  ", "empty"), ("x" * (MAX_REASON_CHARS + 1), "more than")):
        with pytest.raises(IncidentError, match=what):
            note(fresh(), text, actor="usr:lan", now=START)


def test_clocks_start_at_the_detection_and_not_at_the_confirmation():
    incident = go(fresh(), *PATHS[S.CONFIRMED], at=START + timedelta(hours=30))
    found = instants(incident)
    assert found["detected_at"] == START
    assert found["confirmed_at"] == START + timedelta(hours=30)


def test_containment_is_an_instant_too():
    assert instants(go(fresh(), *PATHS[S.CONTAINED]))["contained_at"] == START


def test_nobody_is_aware_before_somebody_looked():
    assert "aware_at" not in instants(fresh())
    assert instants(go(fresh(), S.ACKNOWLEDGED))["aware_at"] == START


def test_a_stated_time_moves_a_clock_earlier_and_never_later():
    earlier = instants(fresh(), {"detected_at": "2026-01-05T09:00:00+07:00"})
    assert earlier["detected_at"] == START - timedelta(hours=6)
    assert instants(fresh(), {"detected_at": "2027-01-05T09:00:00Z"})["detected_at"] == START
    assert (
        instants(fresh(), {"remediated_at": "2027-01-05T09:00:00Z", "act.done": "patched"})["remediated_at"].year
        == 2027
    )


@pytest.mark.parametrize("text", ["yesterday", "2026-01-05", "2026-01-05T09:00:00", ""])
def test_a_stated_time_that_cannot_be_read_is_refused(text):
    with pytest.raises(IncidentError, match="aware_at"):
        instants(fresh(), {"aware_at": text})


@given(st.lists(st.one_of(st.sampled_from(list(S)), st.integers(-10_000, 10_000)), max_size=30))
def test_whatever_happens_no_clock_ever_moves_later(happenings):
    incident = fresh()
    for number, happening in enumerate(happenings):
        before = instants(incident)
        if isinstance(happening, int):
            incident = absorb(incident, a_match(f"m{number}", after_s=happening))
        elif happening in allowed_from(incident):
            incident = go(incident, happening, at=START + timedelta(seconds=number))
        after = instants(incident)
        assert all(after[name] <= at for name, at in before.items())
