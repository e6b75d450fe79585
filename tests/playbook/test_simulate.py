from __future__ import annotations

import time
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

import breachwatch.law
from breachwatch.errors import PlaybookError
from breachwatch.incident.clocks import instants
from breachwatch.law import duties, load_regimes
from breachwatch.model import Duty, Incident, Severity
from breachwatch.playbook import simulate as simulation
from breachwatch.playbook.actions import MarkNotified, PageTeam, PrepareNotice, StartCampaign, WarnClock
from breachwatch.playbook.schema import Playbook, load_playbook
from breachwatch.playbook.simulate import Scenario, simulate
from tests.playbook.samples import DUTIES, SMALL, START

ROOT = Path(__file__).parents[2]
REGIMES = [
    regime
    for path in sorted((Path(breachwatch.law.__file__).parent / "regimes").glob("*.yaml"))
    for regime in load_regimes(path.read_text(encoding="utf-8"), path.name)
]
SHIPPED = [
    load_playbook(path.read_text(encoding="utf-8"), path.name) for path in sorted((ROOT / "playbooks").glob("*.yaml"))
]


def duties_of(incident: Incident) -> list[Duty]:
    return [duty for regime in REGIMES for duty in duties(regime, instants(incident))]


def told(story, kind):
    return [action for _, action in story if isinstance(action, kind)]


@pytest.mark.parametrize("playbook", SHIPPED, ids=lambda playbook: playbook.id)
def test_a_breach_that_people_answer_ends_notified_in_hours(playbook: Playbook):
    story = simulate(playbook, Scenario(), duties_of)
    assert len(told(story, PageTeam)) == 1
    assert len(told(story, PrepareNotice)) == len(told(story, StartCampaign)) == 2
    assert isinstance(story[-1][1], MarkNotified)
    assert story[-1][0] - Scenario().opened_at <= timedelta(hours=5)
    assert not told(story, WarnClock)


@pytest.mark.parametrize("playbook", SHIPPED, ids=lambda playbook: playbook.id)
def test_nobody_approves_and_the_clock_is_heard_four_times(playbook: Playbook):
    story = simulate(playbook, Scenario(approve_after=None), duties_of)
    assert [warning.fraction for warning in told(story, WarnClock)] == [0.5, 0.75, 0.9, 1.0]
    assert not told(story, StartCampaign)
    assert not told(story, MarkNotified)


def test_the_vietnamese_clock_runs_from_the_detection_although_nobody_ever_confirms():
    vietnam = SHIPPED[1]
    story = simulate(vietnam, Scenario(acknowledge_after=None), duties_of)
    warnings = [(at, action) for at, action in story if isinstance(action, WarnClock)]
    assert warnings[-1][0] - Scenario().opened_at == timedelta(hours=72)
    pages = [at for at, action in story if isinstance(action, PageTeam)]
    assert pages[-1] - Scenario().opened_at > timedelta(days=29)
    assert max(after - before for before, after in pairwise(pages)) <= timedelta(hours=4)


def test_thirty_days_take_milliseconds():
    began = time.process_time()
    for _ in range(10):
        simulate(SHIPPED[1], Scenario(acknowledge_after=None), duties_of)
    assert (time.process_time() - began) / 10 < 0.5


def test_an_incident_that_the_playbook_is_not_for_has_no_story():
    assert simulate(SMALL, Scenario(severity=Severity.LOW), lambda _: DUTIES) == []


def test_a_confirmation_without_an_acknowledgement_does_not_happen():
    story = simulate(SMALL, Scenario(opened_at=START, acknowledge_after=None, confirm_after=timedelta(0)), lambda _: [])
    assert not told(story, PrepareNotice)


def test_a_playbook_that_never_rests_is_refused(monkeypatch):
    monkeypatch.setattr(simulation, "MAX_ACTIONS", 20)
    with pytest.raises(PlaybookError, match="never comes to rest"):
        simulate(SMALL, Scenario(opened_at=START, acknowledge_after=None), lambda _: DUTIES)
