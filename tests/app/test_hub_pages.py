"""Pages, reloads and trouble through the hub: somebody is always called, and one bad thing never stops the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from breachwatch.model import CampaignState, DeliveryState, Duty, Incident, IncidentState, StepState
from tests.app.hub_host import LINH, PLAYBOOK, Desk
from tests.conftest import FakeClock
from tests.sinks import index, sink

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # apprise, at import

MINUTE = 60.0


@pytest.fixture
def new_desk(tmp_path: Path, clock: FakeClock) -> Iterator[Callable[..., Desk]]:
    """Desks with other settings; no mail server answers, so that pages stay queued."""
    made: list[Desk] = []

    def make(**options) -> Desk:
        made.append(Desk(tmp_path, clock=clock, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def pages(desk: Desk, incident: str) -> list[tuple[str, CampaignState]]:
    found = desk.campaigns(incident)
    return [(one.step, one.state) for one in found if one.step.startswith("mine/escalation")]


RUNNING, CANCELLED = CampaignState.RUNNING, CampaignState.CANCELLED


@pytest.mark.parametrize("answer", [IncidentState.ACKNOWLEDGED, IncidentState.DISMISSED])
def test_pages_that_still_wait_when_somebody_answers_are_never_sent(
    new_desk: Callable[..., Desk], answer: IncidentState
) -> None:
    desk = new_desk()
    incident = desk.break_in()
    desk.clock.advance(5 * MINUTE)
    desk.settle()
    levels = ["mine/escalation.0.0", "mine/escalation.0.1"]
    assert pages(desk, incident) == [(step, RUNNING) for step in levels]
    desk.verbs.change_state(incident, answer, actor=LINH, reason="looked at it")
    assert pages(desk, incident) == [(step, CANCELLED) for step in levels]
    for campaign in desk.campaigns(incident):
        assert set(desk.counts(campaign)) == {DeliveryState.CANCELLED}
    assert desk.trail().count("campaign.cancelled") == 2
    desk.clock.advance(60 * MINUTE)
    desk.settle()
    assert len(pages(desk, incident)) == 2, "and nobody else is called"


def test_a_page_under_way_is_not_tried_again_once_somebody_answered(
    new_desk: Callable[..., Desk], tmp_path: Path
) -> None:
    with sink("smtp", tmp_path / "mail", "--defer", "linh@shop.example") as port:
        desk = new_desk(port=port)
        incident = desk.break_in()
        (page,) = desk.campaigns(incident)
        desk.send(lambda: "notify.outcome" in desk.trail(), "it is tried")
        assert desk.counts(page) == {DeliveryState.READY: 1}, "and is to be tried again"
        desk.verbs.change_state(incident, IncidentState.ACKNOWLEDGED, actor=LINH, reason="")
        intents = desk.trail().count("notify.intent")
        for _ in range(5):
            desk.clock.advance(MINUTE)
            desk.hub._engine.tick()
            desk.settle()
        assert desk.trail().count("notify.intent") == intents
        assert desk.counts(page) == {DeliveryState.CANCELLED: 1}
        assert index(tmp_path / "mail") == []


def test_who_is_reopened_is_paged_again(new_desk: Callable[..., Desk]) -> None:
    desk = new_desk()
    incident = desk.break_in()
    desk.verbs.change_state(incident, IncidentState.ACKNOWLEDGED, actor=LINH, reason="")
    desk.clock.advance(MINUTE)
    desk.verbs.change_state(incident, IncidentState.OPEN, actor=LINH, reason="handed back")
    desk.settle()
    assert pages(desk, incident) == [("mine/escalation.0.0", CANCELLED), ("mine/escalation.1.0", RUNNING)]


NO_PEOPLE = {
    '[[team.people]]\nname = "linh"\nemail = "linh@shop.example"\nroles = ["analyst", "dpo"]\n': "",
    '[[team.people]]\nname = "quang"\nemail = "quang@shop.example"\nroles = ["dpo"]\n': "",
    'security = ["linh"]\nmanagement = ["quang"]': "security = []\nmanagement = []",
}
NO_MAIL_ADDRESSES = {'email = "linh@shop.example"': 'email = ""', 'email = "quang@shop.example"': 'email = ""'}
NO_CHANNEL = {'host = "127.0.0.1"\nport': 'host = ""\nport'}


@pytest.mark.parametrize("change", [NO_PEOPLE, NO_MAIL_ADDRESSES, NO_CHANNEL], ids=["people", "addresses", "channel"])
def test_a_page_with_nobody_on_call_is_loud_and_the_escalation_goes_on(
    new_desk: Callable[..., Desk], change: Mapping[str, str]
) -> None:
    desk = new_desk(change=change)
    incident = desk.break_in()
    assert desk.campaigns(incident) == []
    assert desk.trail().count("page.failed") == 1
    assert "page.called" not in desk.trail()
    assert any("nobody could be paged" in words for words in desk.history(incident))
    assert any(incident in words and "nobody could be paged" in words for words in desk.said), "the operator hears it"
    desk.clock.advance(5 * MINUTE)
    desk.settle()
    assert desk.trail().count("page.failed") == 2, "the next level is tried all the same"


def test_where_the_one_who_is_meant_has_no_address_everybody_else_is_called(new_desk: Callable[..., Desk]) -> None:
    desk = new_desk(change={'email = "linh@shop.example"': 'email = ""'})
    incident = desk.break_in()
    (page,) = desk.campaigns(incident)
    assert desk.counts(page)[DeliveryState.READY] == 1, "quang is called although the page was for linh"
    assert "page.called" in desk.trail()


def test_a_broken_playbook_keeps_the_old_set_and_says_so(new_desk: Callable[..., Desk]) -> None:
    desk = new_desk()
    file = desk.root / "playbooks" / "mine.yaml"
    file.write_text(PLAYBOOK.replace("wait: 5m", "wait: soon"))
    desk.hub.reload(desk.config)
    (words,) = desk.said
    assert "playbooks_kept" in words
    assert "mine.yaml:6" in words
    assert "daemon.playbooks_kept" in desk.trail()
    incident = desk.break_in()
    assert pages(desk, incident) == [("mine/escalation.0.0", RUNNING)]
    file.write_text(PLAYBOOK.replace("to: security", "to: management"))
    desk.hub.reload(desk.config)
    assert "daemon.playbooks_reloaded" in desk.trail()
    second = desk.break_in("203.0.113.67")
    assert any("management called" in words for words in desk.history(second))


def test_a_broken_configuration_or_template_keeps_what_works_too(new_desk: Callable[..., Desk]) -> None:
    desk = new_desk()
    sound = desk.config.read_text()
    desk.config.write_text(sound.replace("[playbooks]", "[playbokos]"))
    desk.hub.reload(desk.config)
    assert "playbooks_kept" in desk.said[-1]
    assert "playbokos" in desk.said[-1]
    desk.config.write_text(sound)
    incident = desk.break_in()
    assert pages(desk, incident) == [("mine/escalation.0.0", RUNNING)]


def test_a_damaged_step_of_one_incident_holds_up_no_other_and_is_told_once(new_desk: Callable[..., Desk]) -> None:
    desk = new_desk()
    first = desk.break_in()
    with desk.hub.store.transaction() as tx:
        tx.connection.exec_driver_sql("UPDATE step_run SET state = 'torn', due_at = NULL")
    desk.clock.advance(5 * MINUTE)
    second = desk.break_in("203.0.113.67")
    assert pages(desk, second) == [("mine/escalation.0.0", RUNNING)]
    for _ in range(3):
        desk.clock.advance(31)
        desk.settle()
    assert [words for words in desk.said if first in words] == [desk.said[0]]
    assert "a stored step is damaged" in desk.said[0]
    assert desk.trail().count("daemon.incident_trouble") == 1
    with desk.hub.store.transaction() as tx:
        tx.connection.exec_driver_sql("UPDATE step_run SET state = 'done' WHERE state = 'torn'")
    desk.clock.advance(5 * MINUTE)
    desk.settle()
    assert [step for step, _ in pages(desk, first)] == ["mine/escalation.0.0", "mine/escalation.0.1"]


def test_a_defect_met_by_one_incident_ends_neither_the_hub_nor_the_others(new_desk: Callable[..., Desk]) -> None:
    desk = new_desk()
    duties_of = desk.hub._conductor.duties_of

    def defective(incident: Incident, facts: Mapping[str, str]) -> list[Duty]:
        if "203.0.113.13" in incident.entities["source.ip"]:
            raise ZeroDivisionError("customer@customers.example")
        return list(duties_of(incident, facts))

    desk.hub._conductor.duties_of = defective
    first, second = desk.break_in("203.0.113.13"), desk.break_in("203.0.113.67")
    assert pages(desk, second) == [("mine/escalation.0.0", RUNNING)]
    assert pages(desk, first) == []
    (words,) = desk.said
    assert "defect: ZeroDivisionError" in words
    assert "test_hub_pages" in words, "it says where"
    assert "customers.example" not in words, "and repeats nothing"


def test_what_stood_approved_when_the_hub_ended_starts_with_the_next_hub(new_desk: Callable[..., Desk]) -> None:
    desk = new_desk()
    incident = desk.break_in()
    desk.confirm(incident)
    desk.approve(desk.draft(incident, "authority"))
    desk.hub.close()
    desk.open()
    desk.settle()
    assert desk.step(incident, "authority").state is StepState.RUNNING
