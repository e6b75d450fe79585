"""The sending engine with channels that misbehave: whatever happens, every person ends up told or listed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from breachwatch.errors import (
    AmbiguousDeliveryError,
    ChannelDownError,
    ConfigError,
    PermanentDeliveryError,
    StoreError,
    TransientDeliveryError,
)
from breachwatch.model import (
    Accepted,
    CampaignKind,
    CampaignState,
    Channel,
    DeliveryState,
    OutgoingMessage,
    Person,
)
from breachwatch.notify.campaign import preview, thaw
from breachwatch.notify.outbox import OutboxEngine
from breachwatch.ports import ChannelSender
from tests.conftest import FakeClock
from tests.notify.installation import Installed, channels, people
from tests.sinks import index, sink

HOPELESS = "hopeless@customers.example"


@dataclass
class FakeChannel:
    """A way out that keeps what it is given and does what it is told."""

    answer: Callable[[OutgoingMessage], Accepted] = lambda _message: Accepted(code="250")
    sent: list[OutgoingMessage] = field(default_factory=list)
    closed: int = 0

    def send(self, message: OutgoingMessage) -> Accepted:
        accepted = self.answer(message)
        self.sent.append(message)
        return accepted

    def close(self) -> None:
        self.closed += 1


def raising(error: Exception) -> Callable[[OutgoingMessage], Accepted]:
    def answer(_message: OutgoingMessage) -> Accepted:
        raise error

    return answer


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Installed]:
    made = Installed(tmp_path)
    yield made
    made.close()


@contextmanager
def engine_for(
    installed: Installed, clock: FakeClock, senders: Mapping[Channel, Callable[[], ChannelSender]], **options: Any
) -> Iterator[OutboxEngine]:
    engine = OutboxEngine(
        installed.store, installed.vault, senders, installed.renderer, clock=clock, worker_id="hub-1", **options
    )
    try:
        yield engine
    finally:
        engine.close()


def settle(engine: OutboxEngine, condition: Callable[[], bool], what: str = "condition") -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true"
        if engine.tick() == 0:
            time.sleep(0.002)


def counts(installed: Installed, campaign: str = "c1") -> Mapping[DeliveryState, int]:
    with installed.store.reading() as view:
        return view.outbox.counts(campaign)


def state(installed: Installed, campaign: str = "c1") -> CampaignState:
    with installed.store.reading() as view:
        found = view.outbox.campaign(campaign)
        assert found is not None
        return found.state


def is_done(installed: Installed, campaign: str = "c1") -> Callable[[], bool]:
    return lambda: state(installed, campaign) is CampaignState.DONE


def bodies(installed: Installed, kind: str) -> list[Mapping[str, object]]:
    return [entry["body"] for entry in installed.entries() if entry["type"] == kind]  # type: ignore[misc]


def test_everybody_is_told_once_and_the_trail_shows_intent_and_outcome(installed: Installed, clock: FakeClock) -> None:
    installed.add(people(50))
    mail = FakeChannel()
    with engine_for(installed, clock, {Channel.EMAIL: lambda: mail}) as engine:
        settle(engine, is_done(installed))
    assert sorted(message.to for message in mail.sent) == sorted(person.email for person in people(50))
    assert counts(installed) == {DeliveryState.ACCEPTED: 50}
    assert len(bodies(installed, "notify.intent")) == len(bodies(installed, "notify.outcome")) == 50
    (done,) = bodies(installed, "campaign.done")
    assert done["deliveries"] == {"accepted": 50}
    trail = str(list(installed.entries()))
    assert "customers.example" not in trail
    assert "+849" not in trail
    assert "Nguy" not in trail


def test_an_intent_is_durable_before_the_message_leaves(installed: Installed, clock: FakeClock) -> None:
    installed.add(people(1))
    seen: list[int] = []

    def answer(_message: OutgoingMessage) -> Accepted:
        seen.append(len(bodies(installed, "notify.intent")))
        return Accepted(code="250")

    with engine_for(installed, clock, {Channel.EMAIL: lambda: FakeChannel(answer)}) as engine:
        settle(engine, is_done(installed))
    assert seen == [1]


def test_the_bytes_sent_are_the_bytes_previewed(installed: Installed, clock: FakeClock) -> None:
    installed.add([Person(ref="1", name="Lê & <Ánh>", email="a@customers.example", language="vi")])
    mail = FakeChannel()
    with engine_for(installed, clock, {Channel.EMAIL: lambda: mail}) as engine:
        settle(engine, is_done(installed))
    with installed.store.reading() as view:
        (row,) = view.outbox.deliveries("c1")
        notice = thaw(view.outbox.content("c1"))
    seen = preview(
        installed.renderer, notice, campaign_id="c1", person_id=row.person_id,
        person=installed.vault.get([row.person_id])[row.person_id], channel=Channel.EMAIL, date=clock.now(),
    )  # fmt: skip
    assert seen == mail.sent[0]


def test_a_refused_mail_becomes_an_sms_and_without_a_phone_the_person_is_listed(
    installed: Installed, clock: FakeClock
) -> None:
    installed.add(
        [
            Person(ref="1", email=HOPELESS, phone="+84900000001"),
            Person(ref="2", email=HOPELESS),
            Person(ref="3", phone="+84900000003"),
            Person(ref="4"),
        ]
    )
    refusal = PermanentDeliveryError("refused", code="550 5.1.1")
    mail, text = FakeChannel(raising(refusal)), FakeChannel()
    with engine_for(installed, clock, {Channel.EMAIL: lambda: mail, Channel.SMS: lambda: text}) as engine:
        settle(engine, is_done(installed))
    assert sorted(message.to for message in text.sent) == ["+84900000001", "+84900000003"]
    with installed.store.reading() as view:
        listed = {(row.person_id, row.code) for row in view.outbox.undeliverable("c1")}
    assert listed == {
        (installed.vault.person_id("2"), "550 5.1.1"),
        (installed.vault.person_id("4"), "no-contact"),
    }
    flags = {(str(body["person"]), body.get("fallback"), body.get("undeliverable")) for body in refused(installed)}
    assert flags == {(installed.vault.person_id("1"), True, None), (installed.vault.person_id("2"), None, True)}


def refused(installed: Installed) -> list[Mapping[str, object]]:
    return [body for body in bodies(installed, "notify.outcome") if body["result"] == "failed"]


def test_a_no_for_now_is_tried_again_later_with_the_same_message_id(installed: Installed, clock: FakeClock) -> None:
    installed.add(people(1))
    tries: list[str] = []

    def answer(message: OutgoingMessage) -> Accepted:
        tries.append(message.message_id)
        if len(tries) < 3:
            raise TransientDeliveryError("later", code="451 4.7.1")
        return Accepted(code="250")

    with engine_for(installed, clock, {Channel.EMAIL: lambda: FakeChannel(answer)}) as engine:
        settle(engine, lambda: len(tries) == 1)
        settle(engine, lambda: counts(installed) == {DeliveryState.READY: 1})
        assert engine.tick() == 0, "it must not be tried again at once"
        for wanted in (2, 3):
            clock.advance(4_000)
            settle(engine, lambda wanted=wanted: len(tries) == wanted)  # type: ignore[misc]
            settle(engine, lambda: DeliveryState.CLAIMED not in counts(installed))
        settle(engine, is_done(installed))
    assert len(set(tries)) == 1
    assert [body["result"] for body in bodies(installed, "notify.outcome")] == ["retry", "retry", "accepted"]


def test_a_server_that_always_says_later_ends_in_the_next_channel(installed: Installed, clock: FakeClock) -> None:
    installed.add(people(1))
    mail, text = FakeChannel(raising(TransientDeliveryError("later", code="451"))), FakeChannel()
    with engine_for(installed, clock, {Channel.EMAIL: lambda: mail, Channel.SMS: lambda: text}) as engine:
        for _hour in range(100):
            engine.tick()
            time.sleep(0.005)
            clock.advance(3_700)
            if text.sent:
                break
        settle(engine, is_done(installed))
    assert counts(installed) == {DeliveryState.FAILED: 1, DeliveryState.ACCEPTED: 1}


def test_an_unknown_end_is_sent_again_a_few_times_and_then_counted_as_such(
    installed: Installed, clock: FakeClock
) -> None:
    installed.add([Person(ref="1", email="a@customers.example")])
    tries: list[str] = []

    def answer(message: OutgoingMessage) -> Accepted:
        tries.append(message.message_id)
        raise AmbiguousDeliveryError("lost", code="lost after data")

    with engine_for(installed, clock, {Channel.EMAIL: lambda: FakeChannel(answer)}) as engine:
        for _try in range(200):
            engine.tick()
            time.sleep(0.003)
            clock.advance(3_700)
            if state(installed) is CampaignState.DONE:
                break
    assert counts(installed) == {DeliveryState.AMBIGUOUS: 1}
    assert 2 <= len(tries) <= 5
    assert len(set(tries)) == 1
    with installed.store.reading() as view:
        assert len(view.outbox.undeliverable("c1")) == 1


def test_a_channel_that_is_down_rests_and_burns_nobodys_attempt(installed: Installed, clock: FakeClock) -> None:
    installed.add(people(100))
    down = True
    asked = 0
    mail = FakeChannel()

    def answer(_message: OutgoingMessage) -> Accepted:
        nonlocal asked
        asked += 1
        if down:
            raise ChannelDownError("refused", code="unreachable")
        return Accepted(code="250")

    mail.answer = answer
    with engine_for(installed, clock, {Channel.EMAIL: lambda: mail}) as engine:
        settle(engine, lambda: asked > 0)
        settle(engine, lambda: DeliveryState.CLAIMED not in counts(installed))
        assert asked <= 4, "each thread may find out once"
        assert counts(installed) == {DeliveryState.READY: 100}
        with installed.store.reading() as view:
            assert sum(row.attempts for row in view.outbox.deliveries("c1")) == asked
        down = False
        for _ in range(400):
            clock.advance(30)
            engine.tick()
            time.sleep(0.005)
            if state(installed) is CampaignState.DONE:
                break
    assert counts(installed) == {DeliveryState.ACCEPTED: 100}
    assert len({message.to for message in mail.sent}) == len(mail.sent) == 100


def test_a_channel_that_hangs_blocks_no_other(installed: Installed, clock: FakeClock) -> None:
    installed.add(people(20), campaign_id="c1")
    installed.add(
        [Person(ref=f"t{number}", phone=f"+8490000{number:04d}") for number in range(20)],
        campaign_id="c2", channels=[Channel.SMS],
    )  # fmt: skip
    release = threading.Event()

    def hang(_message: OutgoingMessage) -> Accepted:
        release.wait(20)
        return Accepted(code="250")

    text = FakeChannel()
    senders = {Channel.EMAIL: lambda: FakeChannel(hang), Channel.SMS: lambda: text}
    with engine_for(installed, clock, senders) as engine:
        settle(engine, is_done(installed, "c2"))
        assert len(text.sent) == 20
        assert state(installed) is CampaignState.RUNNING
        release.set()
        settle(engine, is_done(installed))


def test_a_page_overtakes_a_million_customers(installed: Installed, clock: FakeClock) -> None:
    installed.add(people(300))
    mail = FakeChannel()
    with engine_for(installed, clock, {Channel.EMAIL: lambda: mail}, window=10, workers=1) as engine:
        settle(engine, lambda: len(mail.sent) >= 20)
        installed.add(
            [Person(ref="linh", email="linh@shop.example", language="en")],
            campaign_id="p1", kind=CampaignKind.PAGE, name="page", channels=[Channel.EMAIL],
        )  # fmt: skip
        before = len(mail.sent)
        settle(engine, is_done(installed, "p1"))
        position = [message.to for message in mail.sent].index("linh@shop.example")
        assert position <= before + 25
        settle(engine, is_done(installed))


def test_pause_stops_resume_goes_on_and_cancel_ends(installed: Installed, clock: FakeClock) -> None:
    installed.add(people(200))
    mail = FakeChannel()
    with engine_for(installed, clock, {Channel.EMAIL: lambda: mail}, window=20) as engine:
        settle(engine, lambda: len(mail.sent) >= 20)
        with installed.store.transaction() as tx:
            tx.outbox.set_campaign_state("c1", CampaignState.PAUSED)
        settle(engine, lambda: DeliveryState.CLAIMED not in counts(installed))
        told = len(mail.sent)
        assert told < 200
        for _ in range(5):
            engine.tick()
        assert len(mail.sent) == told
        with installed.store.transaction() as tx:
            tx.outbox.set_campaign_state("c1", CampaignState.RUNNING)
        settle(engine, lambda: len(mail.sent) > told)
        with installed.store.transaction() as tx:
            tx.outbox.set_campaign_state("c1", CampaignState.CANCELLED)
        settle(engine, lambda: DeliveryState.CLAIMED not in counts(installed))
    final = counts(installed)
    assert set(final) == {DeliveryState.ACCEPTED, DeliveryState.CANCELLED}
    assert sum(final.values()) == 200
    assert final[DeliveryState.ACCEPTED] == len(mail.sent)


def test_somebody_erased_is_not_told_and_nobody_else_suffers(installed: Installed, clock: FakeClock) -> None:
    installed.add(people(3))
    installed.vault.erase(installed.vault.person_id("KH-1"))
    mail = FakeChannel()
    with engine_for(installed, clock, {Channel.EMAIL: lambda: mail}) as engine:
        settle(engine, is_done(installed))
    assert counts(installed) == {DeliveryState.ACCEPTED: 2, DeliveryState.SUPPRESSED: 1}
    assert "erased" in {body["code"] for body in bodies(installed, "notify.outcome")}


def test_a_damaged_contact_is_listed_and_nobody_else_suffers(installed: Installed, clock: FakeClock) -> None:
    installed.add(people(3))
    person_id = installed.vault.person_id("KH-1")
    ((_, wrapped, _sealed),) = installed.rows.get_rows([person_id])
    installed.rows.put_rows([(person_id, wrapped, b"x" * 60)])
    with engine_for(installed, clock, {Channel.EMAIL: FakeChannel}) as engine:
        settle(engine, is_done(installed))
    with installed.store.reading() as view:
        assert [(row.person_id, row.code) for row in view.outbox.undeliverable("c1")] == [(person_id, "vault-damaged")]


def test_a_channel_that_cannot_be_made_waits_for_its_settings(installed: Installed, clock: FakeClock) -> None:
    installed.add(people(5))

    def broken() -> ChannelSender:
        raise ConfigError("no mail server")

    with engine_for(installed, clock, {Channel.EMAIL: broken}) as engine:
        settle(engine, lambda: len(bodies(installed, "notify.outcome")) >= 5)
        assert counts(installed) == {DeliveryState.READY: 5}


def test_a_defect_in_a_channel_is_a_retry_and_not_a_dead_thread(installed: Installed, clock: FakeClock) -> None:
    installed.add(people(5))
    with engine_for(installed, clock, {Channel.EMAIL: lambda: FakeChannel(raising(ZeroDivisionError()))}) as engine:
        settle(engine, lambda: len(bodies(installed, "notify.outcome")) == 5)
    assert {body["code"] for body in bodies(installed, "notify.outcome")} == {"defect ZeroDivisionError"}
    assert counts(installed) == {DeliveryState.READY: 5}


def test_a_commit_that_fails_is_made_up_for(installed: Installed, clock: FakeClock) -> None:
    installed.add(people(30))
    mail = FakeChannel()
    store = FailingStore(installed)
    engine = OutboxEngine(
        store, installed.vault, {Channel.EMAIL: lambda: mail}, installed.renderer, clock=clock, worker_id="w",  # type: ignore[arg-type]
    )  # fmt: skip
    deadline = time.monotonic() + 10
    while state(installed) is not CampaignState.DONE:
        assert time.monotonic() < deadline
        store.fails = not store.fails
        try:
            engine.tick()
        except StoreError:
            time.sleep(0.005)
    engine.close()
    assert len(mail.sent) == len({message.to for message in mail.sent}) == 30
    assert counts(installed) == {DeliveryState.ACCEPTED: 30}


@dataclass
class FailingStore:
    """The disk is full every other time, right before the commit."""

    installed: Installed
    fails: bool = False

    @contextmanager
    def transaction(self) -> Iterator[object]:
        with self.installed.store.transaction() as tx:
            yield tx
            if self.fails:
                raise StoreError("disk full")

    def reading(self) -> object:
        return self.installed.store.reading()


def test_what_a_dead_process_held_is_sent_by_the_next(installed: Installed, clock: FakeClock) -> None:
    installed.add(people(10))
    with installed.store.transaction() as tx:
        assert len(tx.outbox.claim("dead", clock.now(), 7, 60)) == 7
    mail = FakeChannel()
    with engine_for(installed, clock, {Channel.EMAIL: lambda: mail}) as engine:
        assert engine.recover() == 7
        settle(engine, is_done(installed))
    assert len(mail.sent) == 10
    assert bodies(installed, "notify.recovered") == [{"deliveries": 7}]


def test_a_result_under_a_lost_claim_changes_nothing_but_is_on_the_record(
    installed: Installed, clock: FakeClock
) -> None:
    installed.add(people(1))

    def robbed(_message: OutgoingMessage) -> Accepted:
        with installed.store.transaction() as tx:
            tx.outbox.release_all()
            assert len(tx.outbox.claim("other", clock.now(), 1, 60)) == 1
        return Accepted(code="250")

    with engine_for(installed, clock, {Channel.EMAIL: lambda: FakeChannel(robbed)}) as engine:
        settle(engine, lambda: len(bodies(installed, "notify.outcome")) == 1)
    assert bodies(installed, "notify.outcome")[0]["result"] == "superseded"
    assert counts(installed) == {DeliveryState.CLAIMED: 1}


def test_at_most_so_many_are_sent_and_not_recorded(installed: Installed, clock: FakeClock) -> None:
    installed.add(people(100))
    mail = FakeChannel()
    with engine_for(installed, clock, {Channel.EMAIL: lambda: mail}, max_unrecorded=7) as engine:
        engine.tick()
        time.sleep(0.3)
        assert len(mail.sent) == 7
        settle(engine, is_done(installed))


def test_content_that_cannot_be_rendered_pauses_the_campaign(installed: Installed, clock: FakeClock) -> None:
    installed.add(people(3))
    from sqlalchemy import text

    with installed.db.begin() as connection:
        connection.execute(text("UPDATE campaign SET content = replace(content, '\"names\"', '\"nomes\"')"))
        connection.execute(text("UPDATE campaign SET content = CAST(content AS BLOB)"))
    mail = FakeChannel()
    with engine_for(installed, clock, {Channel.EMAIL: lambda: mail}) as engine:
        settle(engine, lambda: state(installed) is CampaignState.PAUSED)
    assert mail.sent == []
    assert counts(installed) == {DeliveryState.READY: 3}
    assert bodies(installed, "campaign.paused")[0]["reason"] == "template"


def test_an_idle_engine_writes_nothing(installed: Installed, clock: FakeClock) -> None:
    with engine_for(installed, clock, {Channel.EMAIL: FakeChannel}) as engine:
        for _ in range(10):
            assert engine.tick() == 0
        stop, wake = threading.Event(), threading.Event()
        runner = threading.Thread(target=engine.run, args=(stop, wake))
        runner.start()
        stop.set()
        wake.set()
        runner.join(5)
        assert not runner.is_alive()
    assert list(installed.entries()) == []


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fates=st.lists(st.sampled_from(["ok", "no", "later", "lost", "down"]), min_size=1, max_size=25))
def test_whatever_happens_every_person_ends_told_or_listed(
    tmp_path_factory: pytest.TempPathFactory, fates: list[str]
) -> None:
    installed, clock = Installed(tmp_path_factory.mktemp("outbox")), FakeClock()
    crowd = [Person(ref=str(n), email=f"{fate}-{n}@x.example") for n, fate in enumerate(fates)]
    installed.add(crowd)
    tried: dict[str, int] = {}

    def answer(message: OutgoingMessage) -> Accepted:
        fate = message.to.partition("-")[0]
        tried[message.to] = tried.get(message.to, 0) + 1
        if fate == "no":
            raise PermanentDeliveryError("no", code="550")
        if fate == "later" and tried[message.to] < 3:
            raise TransientDeliveryError("later", code="450")
        if fate == "lost":
            raise AmbiguousDeliveryError("lost", code="lost")
        if fate == "down" and tried[message.to] < 2:
            raise ChannelDownError("down", code="421")
        return Accepted(code="250")

    with engine_for(installed, clock, {Channel.EMAIL: lambda: FakeChannel(answer)}) as engine:
        for _ in range(3_000):
            if engine.tick() == 0:
                time.sleep(0.0005)
                clock.advance(1_800)
            if state(installed) is CampaignState.DONE:
                break
    final = counts(installed)
    with installed.store.reading() as view:
        listed = len(view.outbox.undeliverable("c1"))
    installed.close()
    assert set(final) <= {DeliveryState.ACCEPTED, DeliveryState.FAILED, DeliveryState.AMBIGUOUS}
    assert final.get(DeliveryState.ACCEPTED, 0) + listed == len(crowd)


def test_a_server_that_dies_after_every_tenth_mail_loses_nobody(installed: Installed, tmp_path: Path) -> None:
    from breachwatch.app.clock import SystemClock

    installed.add(people(200))
    with sink("smtp", tmp_path / "sink", "--die-after", "10") as port:
        engine = OutboxEngine(
            installed.store, installed.vault, channels(port), installed.renderer, clock=SystemClock(), worker_id="w"
        )
        settle(engine, is_done(installed))
        engine.close()
    assert len({str(line["to"]) for line in index(tmp_path / "sink")}) == 200
