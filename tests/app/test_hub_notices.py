"""Notices through the hub, on real SQLite and a real mail server: nothing leaves that nobody approved as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from breachwatch.errors import ApprovalError
from breachwatch.model import CampaignState, DeliveryState, IncidentState, StepState
from tests.app.hub_host import FACTS, LINH, QUANG, Desk
from tests.conftest import FakeClock
from tests.sinks import index, sink

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # apprise, at import


@pytest.fixture(scope="module")
def mail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    folder = tmp_path_factory.mktemp("mail")
    with sink("smtp", folder) as port:
        yield port, folder


@pytest.fixture
def desk(tmp_path: Path, mail: tuple[int, Path], clock: FakeClock) -> Iterator[Desk]:
    made = Desk(tmp_path, mail[0], clock)
    yield made
    made.close()


def told(mail: tuple[int, Path]) -> list[str]:
    return [str(to) for item in index(mail[1]) for to in item["to"]]  # type: ignore[attr-defined]


def test_the_story_from_a_match_to_a_notified_incident(desk: Desk, mail: tuple[int, Path]) -> None:
    before = len(told(mail))
    incident = desk.break_in()
    desk.confirm(incident)
    desk.approve(desk.draft(incident, "authority"))
    desk.approve(desk.draft(incident, "customers"))
    desk.settle()
    assert desk.step(incident, "customers").state is StepState.APPROVED, "customers wait for the authority's notice"
    for step in ("authority", "customers"):
        desk.send(lambda name=step: desk.step(incident, name).state is StepState.DONE, f"{step} told")  # type: ignore[misc]
    with desk.hub.store.reading() as view:
        found = view.incidents.get(incident)
    assert found is not None
    assert found.state is IncidentState.NOTIFIED
    sent = [to for to in told(mail)[before:] if "shop.example" not in to]
    assert sorted(sent) == ["authority@sa.example", *(f"kh{n}@customers.example" for n in range(3))]
    assert sent[0] == "authority@sa.example"


def test_facts_that_change_after_the_approval_void_it(desk: Desk) -> None:
    incident = desk.break_in()
    desk.confirm(incident)
    approved = desk.draft(incident, "customers")
    desk.approve(approved)
    desk.clock.advance(1)
    desk.verbs.note(incident, "", actor=LINH, facts={"data.records": "4"})
    desk.settle()
    (first, second) = desk.campaigns(incident, "mine/customers")
    assert (first.id, first.state) == (approved.id, CampaignState.CANCELLED)
    assert second.state is CampaignState.AWAITING_APPROVAL, "drafted anew, from the new facts"
    assert second.content_hash != first.content_hash
    assert desk.step(incident, "customers").state is StepState.PREPARED
    assert set(desk.counts(first)) == {DeliveryState.CANCELLED}
    assert "notice.voided" in desk.trail()
    with pytest.raises(ApprovalError, match="not awaiting approval"):
        desk.verbs.approve(approved.id, approved.content_hash, actor=QUANG)
    with pytest.raises(ApprovalError, match="not what was previewed"):
        desk.verbs.approve(second.id, approved.content_hash, actor=QUANG)


def test_the_same_facts_said_again_void_nothing(desk: Desk) -> None:
    incident = desk.break_in()
    desk.confirm(incident)
    approved = desk.draft(incident, "customers")
    desk.approve(approved)
    desk.verbs.note(incident, "checked", actor=LINH, facts={"data.records": FACTS["data.records"]})
    desk.settle()
    assert [one.state for one in desk.campaigns(incident, "mine/customers")] == [CampaignState.AWAITING_APPROVAL]
    assert desk.step(incident, "customers").state is StepState.APPROVED


def test_stored_words_that_are_not_what_was_approved_never_leave(desk: Desk) -> None:
    incident = desk.break_in()
    desk.confirm(incident)
    campaign = desk.draft(incident, "authority")
    desk.approve(campaign)
    with desk.hub.store.transaction() as tx:
        tx.connection.exec_driver_sql(
            "UPDATE campaign SET content = CAST(content || x'20' AS BLOB) WHERE id = ?", (campaign.id,)
        )
    desk.settle()
    assert desk.step(incident, "authority").state is StepState.PREPARED
    assert desk.campaigns(incident, "mine/authority")[0].state is CampaignState.AWAITING_APPROVAL
    assert "notice.refused" in desk.trail()
    assert "campaign.running" not in desk.trail()


def test_a_notice_whose_facts_are_missing_waits_by_name_and_goes_on_when_they_are_stated(desk: Desk) -> None:
    incident = desk.break_in()
    desk.confirm(incident, facts={})
    waiting = desk.step(incident, "authority")
    assert waiting.state is StepState.WAITING
    assert desk.campaigns(incident, "mine/authority") == []
    reason = str(waiting.output["reason"])
    for name in ("act.done", "eff.consequences"):
        assert name in reason
    assert any(reason in words for words in desk.history(incident))
    assert desk.trail().count("notice.waiting") == 2
    desk.clock.advance(61)
    desk.settle()
    assert desk.trail().count("notice.waiting") == 2, "told once, tried every minute"
    desk.verbs.note(incident, "", actor=LINH, facts=FACTS)
    desk.settle()
    assert desk.draft(incident, "authority").audience_count == 1
    assert desk.draft(incident, "customers").audience_count == 3


def test_whoever_asked_for_a_notice_cannot_approve_it_whatever_their_role(desk: Desk) -> None:
    incident = desk.break_in()
    desk.confirm(incident)
    campaign = desk.draft(incident, "authority")
    with pytest.raises(ApprovalError, match="you asked for this notice yourself"):
        desk.approve(campaign, LINH)
    desk.settle()
    assert desk.step(incident, "authority").state is StepState.PREPARED
    assert "notice.approved" not in desk.trail()


def test_a_cancelled_campaign_sends_nothing_further(desk: Desk, mail: tuple[int, Path]) -> None:
    incident = desk.break_in()
    desk.confirm(incident)
    campaign = desk.draft(incident, "authority")
    before, cancelled = told(mail).count("authority@sa.example"), desk.trail().count("campaign.cancelled")
    desk.approve(campaign)
    desk.settle()
    assert desk.step(incident, "authority").state is StepState.RUNNING
    desk.verbs.set_campaign(campaign.id, CampaignState.CANCELLED, actor=QUANG, reason="a drill")
    for _ in range(5):
        desk.hub._engine.tick()
        desk.clock.advance(3_600)
        desk.settle()
    assert desk.counts(campaign) == {DeliveryState.CANCELLED: 1}
    assert desk.step(incident, "authority").state is StepState.CANCELLED
    assert told(mail).count("authority@sa.example") == before
    assert desk.trail().count("campaign.cancelled") == cancelled + 1
    assert len(desk.campaigns(incident, "mine/authority")) == 1, "it is not drafted again behind anybody's back"


def test_nothing_of_an_incident_that_is_closed_can_be_approved(desk: Desk) -> None:
    incident = desk.break_in()
    desk.confirm(incident)
    campaign = desk.draft(incident, "authority")
    desk.verbs.change_state(incident, IncidentState.CLOSED, actor=LINH, reason="a drill")
    with pytest.raises(ApprovalError, match="its incident is closed"):
        desk.approve(campaign)


def test_broken_rows_of_the_audience_are_named_by_line_and_everybody_else_is_told(
    tmp_path: Path, mail: tuple[int, Path], clock: FakeClock
) -> None:
    rows = "KH-1,Một,kh1@customers.example\n,no id,x@customers.example\nKH-2,bad,not-an-address\n"
    (tmp_path / "customers.csv").write_bytes(
        b"id,name,email\n"
        + rows.encode()
        + b"KH-\xff,x\n"
        + b"KH-3,Ba,kh3@customers.example\nKH-5,Nam,kh5@customers.example\n"
    )
    desk = Desk(tmp_path, mail[0], clock)
    try:
        incident = desk.break_in()
        desk.confirm(incident)
        assert desk.draft(incident, "customers").audience_count >= 3
        (words,) = [words for words in desk.history(incident) if "faults in the audience" in words]
        for line in (3, 4, 5):
            assert f"customers.csv:{line}" in words
        assert "not-an-address" not in words
        assert "x@customers.example" not in words
        desk.approve(desk.draft(incident, "authority"))
        desk.approve(desk.draft(incident, "customers"))
        desk.settle()
        before = len(told(mail))
        everybody = {f"kh{n}@customers.example" for n in (1, 3, 5)}
        desk.send(lambda: everybody <= set(told(mail)[before:]), "everybody else is told")
    finally:
        desk.close()
