"""The outbox rows on SQLite and PostgreSQL: claims, fences, fallbacks, lists."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, text

from breachwatch.errors import StoreError
from breachwatch.model import (
    Campaign,
    CampaignKind,
    CampaignState,
    Channel,
    Delivery,
    DeliveryResult,
    DeliveryState,
)
from breachwatch.store.database import metadata
from breachwatch.store.outbox import TABLES, OutboxTable

NOW = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
LEASE_S = 60.0


@pytest.fixture
def engine(hub_engine: Engine) -> Engine:
    metadata.create_all(hub_engine, tables=list(TABLES))
    return hub_engine


@pytest.fixture
def outbox(engine: Engine) -> Iterator[OutboxTable]:
    with engine.begin() as connection:
        yield OutboxTable(connection)


def campaign(
    name: str = "c1", kind: CampaignKind = CampaignKind.CUSTOMERS, state: CampaignState = CampaignState.RUNNING
) -> Campaign:
    return Campaign(
        id=name, incident_id="INC-1", step="p/s", kind=kind, state=state, content_hash="ab" * 32, audience_count=3,
        channels=(Channel.EMAIL, Channel.SMS), created_at=NOW, created_by="usr:linh",
    )  # fmt: skip


def row(person: str, *, name: str = "c1", channel: Channel = Channel.EMAIL, due: datetime = NOW) -> Delivery:
    return Delivery(
        campaign_id=name, person_id=person, channel=channel, due_at=due, message_id=f"{name}-{person}-{channel}"
    )


def result(claimed: Delivery, state: DeliveryState = DeliveryState.ACCEPTED, **changes: object) -> DeliveryResult:
    values: dict[str, object] = {
        "campaign_id": claimed.campaign_id, "person_id": claimed.person_id, "channel": claimed.channel,
        "worker": claimed.worker, "attempts": claimed.attempts, "state": state, "due_at": NOW, "code": "250",
    } | changes  # fmt: skip
    return DeliveryResult(**values)  # type: ignore[arg-type]


def start(outbox: OutboxTable, *people: str, name: str = "c1") -> None:
    outbox.add_campaign(campaign(name), b"content")
    assert outbox.add_deliveries([row(person, name=name) for person in people]) == len(people)


def test_a_campaign_comes_back_as_it_was(outbox: OutboxTable) -> None:
    outbox.add_campaign(campaign(), b"\x00content\xff")
    assert outbox.campaign("c1") == campaign()
    assert outbox.content("c1") == b"\x00content\xff"
    assert outbox.campaign("c2") is None
    with pytest.raises(StoreError):
        outbox.content("c2")
    with pytest.raises(StoreError):
        outbox.set_campaign_state("c2", CampaignState.PAUSED)


def test_campaigns_are_listed_by_urgency(outbox: OutboxTable) -> None:
    for name, kind in (("a", CampaignKind.CUSTOMERS), ("b", CampaignKind.AUTHORITY), ("c", CampaignKind.PAGE)):
        outbox.add_campaign(campaign(name, kind), b"")
    outbox.set_campaign_state("b", CampaignState.PAUSED)
    assert [found.id for found in outbox.campaigns()] == ["c", "b", "a"]
    assert [found.id for found in outbox.campaigns([CampaignState.RUNNING])] == ["c", "a"]
    assert [found.id for found in outbox.campaigns(incident_id="INC-2")] == []
    assert [found.id for found in outbox.campaigns(step="p/s")] == ["c", "b", "a"]


def test_enqueueing_again_adds_nobody_twice(outbox: OutboxTable) -> None:
    start(outbox, "p1", "p2")
    assert outbox.add_deliveries([row("p2"), row("p3")]) == 1
    assert outbox.add_deliveries([]) == 0
    assert outbox.counts("c1") == {DeliveryState.READY: 3}


def test_a_row_is_claimed_once_and_only_when_due_and_running(outbox: OutboxTable) -> None:
    start(outbox, "p1", "p2")
    outbox.add_deliveries([row("later", due=NOW + timedelta(seconds=1))])
    outbox.add_campaign(campaign("c2", state=CampaignState.AWAITING_APPROVAL), b"")
    outbox.add_deliveries([row("p1", name="c2")])
    claimed = outbox.claim("w1", NOW, 10, LEASE_S)
    assert [(found.person_id, found.attempts, found.worker, found.state) for found in claimed] == [
        ("p1", 1, "w1", DeliveryState.CLAIMED), ("p2", 1, "w1", DeliveryState.CLAIMED),
    ]  # fmt: skip
    assert claimed[0].message_id == "c1-p1-email"
    assert claimed[0].created_at == NOW
    assert outbox.claim("w2", NOW, 10, LEASE_S) == []
    assert not outbox.has_due(NOW, Channel.EMAIL)
    assert outbox.has_due(NOW + timedelta(seconds=1), Channel.EMAIL)
    assert not outbox.has_due(NOW + timedelta(seconds=1), Channel.SMS)


def test_the_most_urgent_campaign_is_claimed_first_and_channels_apart(outbox: OutboxTable) -> None:
    start(outbox, "p1", "p2")
    outbox.add_campaign(campaign("page", CampaignKind.PAGE), b"")
    outbox.add_deliveries([row("linh", name="page"), row("linh", name="page", channel=Channel.SMS)])
    assert [found.campaign_id for found in outbox.claim("w", NOW, 2, LEASE_S, channel=Channel.EMAIL)] == ["page", "c1"]
    assert [found.channel for found in outbox.claim("w", NOW, 9, LEASE_S, channel=Channel.SMS)] == [Channel.SMS]
    assert outbox.claim("w", NOW, 0, LEASE_S) == []


def test_rows_that_were_claimed_before_go_in_small_batches(outbox: OutboxTable) -> None:
    start(outbox, *(f"p{number:03}" for number in range(60)))
    outbox.claim("dead", NOW, 40, LEASE_S)
    assert outbox.release_all() == 40
    claimed = outbox.claim("w", NOW, 50, LEASE_S, retries=5)
    assert sorted(found.attempts for found in claimed) == [1] * 20 + [2] * 5


def test_a_result_counts_only_under_its_own_claim(outbox: OutboxTable) -> None:
    start(outbox, "p1", "p2")
    first, second = outbox.claim("w1", NOW, 2, LEASE_S)
    outbox.release("w1")
    (again, _) = outbox.claim("w2", NOW, 2, LEASE_S)
    assert outbox.record([result(first), result(second)]) == []
    assert outbox.counts("c1") == {DeliveryState.CLAIMED: 2}
    assert outbox.record([result(again), result(second)]) == [result(again)]
    assert outbox.record([result(again, code="251")]) == []
    assert outbox.record([]) == []


def test_a_recorded_row_keeps_what_is_known_of_it(outbox: OutboxTable) -> None:
    start(outbox, "p1")
    (claimed,) = outbox.claim("w1", NOW, 1, LEASE_S)
    outbox.record([result(claimed, provider_id="Q\x001", sent_sha256="cd" * 32, sent_at=NOW)])
    (found,) = outbox.deliveries("c1", [DeliveryState.ACCEPTED])
    assert (found.code, found.provider_id, found.sent_sha256) == ("250", "Q\\x001", "cd" * 32)
    assert not outbox.has_open("c1")


def test_a_retry_waits_and_a_row_handed_back_keeps_its_attempt(outbox: OutboxTable) -> None:
    start(outbox, "p1", "p2")
    first, second = outbox.claim("w1", NOW, 2, LEASE_S)
    later = NOW + timedelta(minutes=5)
    outbox.record([result(first, DeliveryState.READY, due_at=later), result(second, DeliveryState.READY, tried=False)])
    assert [(found.person_id, found.attempts) for found in outbox.deliveries("c1")] == [("p1", 1), ("p2", 0)]
    assert [found.person_id for found in outbox.claim("w1", NOW, 2, LEASE_S)] == ["p2"]
    assert [found.attempts for found in outbox.claim("w1", later, 2, LEASE_S)] == [2]
    assert outbox.has_open("c1")


def test_leases_end_unless_they_are_renewed(outbox: OutboxTable) -> None:
    start(outbox, "p1", "p2")
    outbox.claim("alive", NOW, 1, LEASE_S)
    outbox.claim("silent", NOW, 1, LEASE_S)
    late = NOW + timedelta(seconds=LEASE_S + 1)
    outbox.renew("alive", late + timedelta(seconds=LEASE_S))
    assert outbox.reclaim_expired(late) == 1
    assert [found.attempts for found in outbox.claim("w", late, 9, LEASE_S)] == [2]


def test_cancelling_ends_what_waits_and_what_comes_back(outbox: OutboxTable) -> None:
    start(outbox, "p1", "p2", "p3")
    first, second = outbox.claim("w", NOW, 2, LEASE_S)
    outbox.set_campaign_state("c1", CampaignState.CANCELLED)
    assert outbox.counts("c1") == {DeliveryState.CANCELLED: 1, DeliveryState.CLAIMED: 2}
    outbox.record([result(first), result(second, DeliveryState.READY, tried=False)])
    assert outbox.counts("c1") == {DeliveryState.CANCELLED: 2, DeliveryState.ACCEPTED: 1}


def test_people_whom_no_channel_reached_are_listed_once(outbox: OutboxTable) -> None:
    start(outbox, "reached", "waiting", "lost", "ambiguous")
    rows = {found.person_id: found for found in outbox.claim("w", NOW, 9, LEASE_S)}
    outbox.record(
        [
            result(rows[name], DeliveryState.FAILED, code="550")
            for name in ("reached", "waiting", "lost")
        ]
        + [result(rows["ambiguous"], DeliveryState.AMBIGUOUS, code="lost")]
    )  # fmt: skip
    added = outbox.add_fallback([row(name, channel=Channel.SMS) for name in ("reached", "waiting", "lost")])
    assert len(added) == 3
    assert outbox.add_fallback([row("lost", channel=Channel.SMS)]) == []
    texts = {found.person_id: found for found in outbox.claim("w", NOW, 9, LEASE_S, channel=Channel.SMS)}
    later = NOW + timedelta(seconds=9)
    outbox.record(
        [result(texts["reached"]), result(texts["lost"], DeliveryState.FAILED, code="http 400", due_at=later)]
    )
    assert [(found.person_id, found.channel, found.code) for found in outbox.undeliverable("c1")] == [
        ("ambiguous", Channel.EMAIL, "lost"), ("lost", Channel.SMS, "http 400"),
    ]  # fmt: skip
    assert outbox.undeliverable("c2") == []


def test_a_claim_walks_an_index_that_holds_only_what_waits(outbox: OutboxTable, engine: Engine) -> None:
    if engine.dialect.name != "sqlite":
        pytest.skip("the plan is read on SQLite")
    start(outbox, "p1")
    connection: Connection = outbox._connection
    for condition, wanted in (("attempts = 0", "delivery_fresh"), ("attempts > 0", "delivery_again")):
        query = (
            f"EXPLAIN QUERY PLAN SELECT person_id FROM delivery WHERE state = 0 AND {condition} AND campaign_id = 'c1'"
            " AND channel = 'email' AND due_at <= 1 ORDER BY due_at LIMIT 1"
        )
        plan = str(connection.execute(text(query)).all())
        assert wanted in plan
        assert "TEMP B-TREE" not in plan


def test_two_workers_never_claim_the_same_row(engine: Engine) -> None:
    with engine.begin() as connection:
        start(OutboxTable(connection), *(f"p{number:03}" for number in range(200)))
    claimed: dict[str, list[str]] = {"w1": [], "w2": []}

    def work(name: str) -> None:
        while True:
            with engine.begin() as connection:
                outbox = OutboxTable(connection)
                rows = outbox.claim(name, NOW, 10, LEASE_S)
                assert outbox.record([result(found) for found in rows]) == [result(found) for found in rows]
            if not rows:
                return
            claimed[name] += [found.person_id for found in rows]

    threads = [threading.Thread(target=work, args=(name,)) for name in claimed]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed["w1"] + claimed["w2"]) == len(set(claimed["w1"] + claimed["w2"])) == 200
    with engine.begin() as connection:
        assert OutboxTable(connection).counts("c1") == {DeliveryState.ACCEPTED: 200}
