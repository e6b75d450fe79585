"""The sending engine: claims with intents, hands to the channels' threads, records results with outcomes.

Nothing is sent before its claim and its `notify.intent` entry are durable. Results are recorded in groups; at most
`max_unrecorded` messages per channel are on their way or sent and not yet recorded: that, and no more, is what a crash
can send twice, with the same Message-ID (facts/notify.md 4.3).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from queue import Empty, SimpleQueue

from breachwatch.errors import (
    AmbiguousDeliveryError,
    BreachWatchError,
    StoreError,
    TemplateError,
    TransientDeliveryError,
    VerificationError,
)
from breachwatch.model import (
    Campaign,
    CampaignKind,
    CampaignState,
    Channel,
    Delivery,
    DeliveryResult,
    DeliveryState,
    Entry,
    Person,
)
from breachwatch.model.audit import EntryValue
from breachwatch.notify.campaign import FrozenNotice, NoticeRenderer, next_channel
from breachwatch.notify.lane import Job, Lane, Outcome
from breachwatch.notify.retry import POLICIES, RetryPolicy
from breachwatch.ports import ChannelSender, Clock, ContactVault, OutboxStore, OutboxTransaction

LEASE_S = 120.0
"""How long a silent hub keeps its claims where the state lock cannot prove it dead (PostgreSQL)."""

POLL_S = 1.0
"""How often an idle engine looks for due rows."""

GATHER_S = 0.02
"""How long results are gathered for one commit: less than a mail server takes, more than the commit costs."""

STUCK_S = 900.0
"""No send takes longer: RFC 5321 4.5.3.2.6 gives the final dot ten minutes. Then its connection is cut."""

KEPT_CAMPAIGNS = 200
"""Compiled campaigns kept in memory while none of their deliveries is under way."""

JOIN_S = 5.0
"""How long a stop waits for sends under way before it cuts them."""


@dataclass(frozen=True, slots=True)
class _Running:
    campaign: Campaign
    notice: FrozenNotice


class OutboxEngine:
    """Turns rows of the outbox into messages, and what came of them into rows and audit entries."""

    def __init__(
        self,
        store: OutboxStore,
        vault: ContactVault,
        channels: Mapping[Channel, Callable[[], ChannelSender]],
        renderer: NoticeRenderer,
        *,
        clock: Clock,
        worker_id: str,
        workers: int = 4,
        window: int = 400,
        max_unrecorded: int = 100,
        lease_s: float = LEASE_S,
        policies: Mapping[CampaignKind, RetryPolicy] = POLICIES,
        on_trouble: Callable[[BreachWatchError], None] | None = None,
    ) -> None:
        self._store, self._vault, self._renderer, self._clock = store, vault, renderer, clock
        self._worker_id, self._lease_s, self._policies = worker_id, lease_s, policies
        self._on_trouble = on_trouble
        self._results: SimpleQueue[Outcome] = SimpleQueue()
        self._unrecorded: list[Outcome] = []
        """Taken from the queue but not durable yet: a commit that fails is tried again with them."""
        self._campaigns: dict[str, _Running] = {}
        self._batch = max(1, max_unrecorded // 2)
        self._ready = threading.Event()
        self._wake = threading.Event()
        self._renewed = clock.monotonic()
        self._lanes = {
            channel: Lane(
                channel, factory, renderer, clock, workers=workers, window=window, max_unrecorded=max_unrecorded,
                done=self._take,
            )
            for channel, factory in channels.items()
        }  # fmt: skip

    def recover(self) -> int:
        """Make ready what a dead process held; only under the state lock. Returns how many. Raises: StoreError."""
        with self._store.transaction() as tx:
            released = tx.outbox.release_all()
            if released:
                tx.audit(Entry(type="notify.recovered", at_utc=self._clock.now(), body={"deliveries": released}))
        return released

    def run(self, stop: threading.Event, wake: threading.Event) -> None:
        """Send until `stop`; `wake` says that there is something new. Raises: StoreError, AuditError.

        With `on_trouble`, a StoreError (full disk, locked database) is reported there and waited out.
        """
        self._wake = wake
        while not stop.is_set():
            wake.clear()
            try:
                moved = self.tick()
            except StoreError as error:
                if self._on_trouble is None:
                    raise
                self._on_trouble(error)
                stop.wait(2 * POLL_S)
                continue
            if moved:
                self._ready.wait(GATHER_S)
            else:
                wake.wait(POLL_S)

    def tick(self) -> int:
        """Record what came in and claim what is due, in one transaction; returns how many deliveries moved.

        Raises: StoreError, AuditError (then nothing of it happened, and the next tick does it).
        """
        self._ready.clear()
        self._drain()
        for lane in self._lanes.values():
            lane.end_stuck(STUCK_S)
        if not self._unrecorded and not self._something_to_do():
            return 0
        with self._store.transaction() as tx:
            self._keep_leases(tx)
            recorded = self._record(tx)
            self._open_running(tx)
            claims = {channel: self._claim(tx, channel, lane.room()) for channel, lane in self._lanes.items()}
            jobs = {channel: self._jobs(claimed) for channel, claimed in claims.items()}
            running = self._finish(tx, [row for claimed in claims.values() for row in claimed])
        # durable from here on
        for outcome in self._unrecorded:
            self._lanes[outcome.delivery.channel].recorded(outcome)
        self._unrecorded = []
        for channel, lane in self._lanes.items():
            lane.sendable = running
            ready, gone = jobs[channel]
            lane.dispatch(ready)
            lane.claimed += len(gone)
            for outcome in gone:
                self._take(outcome)
        return recorded + sum(map(len, claims.values()))

    def close(self) -> None:
        """Begin no new send, let those under way end, record everything. Raises: StoreError."""
        for lane in self._lanes.values():
            lane.stop()
        for lane in self._lanes.values():
            lane.join(JOIN_S)
            for job in lane.leftovers():
                self._take(Outcome(delivery=job.delivery, person=job.person))
        self._drain()
        if self._unrecorded:
            self.tick()

    # -- results --------------------------------------------------------------------------------------------------

    def _take(self, outcome: Outcome) -> None:
        """Called by the channels' threads."""
        self._results.put(outcome)
        if self._results.qsize() >= self._batch:
            self._ready.set()
        self._wake.set()

    def _drain(self) -> None:
        while True:
            try:
                self._unrecorded.append(self._results.get_nowait())
            except Empty:
                return

    def _record(self, tx: OutboxTransaction) -> int:
        if not self._unrecorded:
            return 0
        now = self._clock.now()
        results = [self._result(tx, outcome, now) for outcome in self._unrecorded]
        kept = {(row.campaign_id, row.person_id, row.channel) for row in tx.outbox.record(results)}
        fallback: list[Delivery] = []
        for outcome, result in zip(self._unrecorded, results, strict=True):
            held = (result.campaign_id, result.person_id, result.channel) in kept
            next_row = self._fallback(outcome, result, now) if held else None
            if next_row is not None:
                fallback.append(next_row)
            tx.audit(self._outcome_entry(outcome, result, now, held=held, more=next_row is not None))
        if fallback:
            tx.outbox.add_fallback(fallback)
        return len(kept)

    def _result(self, tx: OutboxTransaction, outcome: Outcome, now: datetime) -> DeliveryResult:
        delivery = outcome.delivery
        state, due = self._state_after(outcome, now)
        if isinstance(outcome.error, TemplateError):
            campaign = tx.outbox.campaign(delivery.campaign_id)
            # Pages go on: what cannot be rendered for one channel may still call somebody by another
            if campaign is not None and campaign.kind is not CampaignKind.PAGE:
                self._pause(tx, campaign, outcome.error, now)
        return DeliveryResult(
            campaign_id=delivery.campaign_id,
            person_id=delivery.person_id,
            channel=delivery.channel,
            worker=delivery.worker,
            attempts=delivery.attempts,
            state=state,
            tried=outcome.tried or state is not DeliveryState.READY,
            due_at=due,
            code=outcome.code or delivery.code,
            provider_id=outcome.accepted.provider_id if outcome.accepted else "",
            sent_sha256=outcome.sent_sha256,
            sent_at=outcome.sent_at,
        )

    def _state_after(self, outcome: Outcome, now: datetime) -> tuple[DeliveryState, datetime]:
        delivery, error = outcome.delivery, outcome.error
        if outcome.accepted is not None:
            return DeliveryState.ACCEPTED, now
        if outcome.code in _GONE:
            return _GONE[outcome.code], now
        if error is None:
            return DeliveryState.READY, delivery.due_at
        kind = self._campaigns[delivery.campaign_id].campaign.kind
        if isinstance(error, TransientDeliveryError):
            return self._state_after_transient(delivery, error, kind, now)
        if isinstance(error, TemplateError) and kind is not CampaignKind.PAGE:
            return DeliveryState.READY, delivery.due_at
        return DeliveryState.FAILED, now

    def _state_after_transient(
        self, delivery: Delivery, error: TransientDeliveryError, kind: CampaignKind, now: datetime
    ) -> tuple[DeliveryState, datetime]:
        age_s = (now - (delivery.created_at or now)).total_seconds()
        delay_s = self._policies[kind].delay_s(error, attempts=delivery.attempts, age_s=age_s)
        if delay_s is not None:
            return DeliveryState.READY, now + timedelta(seconds=delay_s)
        ambiguous = isinstance(error, AmbiguousDeliveryError)
        return DeliveryState.AMBIGUOUS if ambiguous else DeliveryState.FAILED, now

    def _pause(self, tx: OutboxTransaction, campaign: Campaign, error: TemplateError, now: datetime) -> None:
        """What cannot be rendered for one cannot be trusted for the others: a person has to look."""
        if campaign.state is not CampaignState.RUNNING:
            return
        tx.outbox.set_campaign_state(campaign.id, CampaignState.PAUSED)
        body: dict[str, EntryValue] = {"campaign": campaign.id, "reason": "template", "where": error.source or ""}
        tx.audit(Entry(type="campaign.paused", at_utc=now, incident_id=campaign.incident_id, body=body))

    def _fallback(self, outcome: Outcome, result: DeliveryResult, now: datetime) -> Delivery | None:
        """The next channel for somebody whom this one did not reach; None if there is none."""
        if result.state not in {DeliveryState.FAILED, DeliveryState.AMBIGUOUS}:
            return None
        campaign = self._campaigns[result.campaign_id].campaign
        usable = [channel for channel in campaign.channels if channel in self._lanes or channel is result.channel]
        channel = next_channel(outcome.person, usable, after=result.channel)
        if channel is None:
            return None
        return Delivery(
            campaign_id=result.campaign_id,
            person_id=result.person_id,
            channel=channel,
            due_at=now,
            created_at=now,
            message_id=self._renderer.message_id(result.campaign_id, result.person_id, channel),
        )

    def _outcome_entry(
        self, outcome: Outcome, result: DeliveryResult, now: datetime, *, held: bool, more: bool
    ) -> Entry:
        said = result.state.name.lower()
        if result.state is DeliveryState.READY:
            said = "retry" if outcome.tried else "not_tried"
        body: dict[str, EntryValue] = {
            **_about(outcome.delivery),
            "result": said if held else "superseded",
            "code": result.code,
            "sha256": result.sent_sha256,
        }
        if result.provider_id:
            body["provider_id"] = result.provider_id
        if more:
            body["fallback"] = True
        elif result.state in {DeliveryState.FAILED, DeliveryState.AMBIGUOUS}:
            body["undeliverable"] = True
        incident = self._campaigns[result.campaign_id].campaign.incident_id
        return Entry(type="notify.outcome", at_utc=now, incident_id=incident, body=body)

    # -- claims ---------------------------------------------------------------------------------------------------

    def _something_to_do(self) -> bool:
        """A look without the writer's lock, so that an idle hub writes nothing."""
        if self._clock.monotonic() - self._renewed > self._lease_s / 3:
            return True
        now = self._clock.now()
        with self._store.reading() as view:
            running = view.outbox.campaigns([CampaignState.RUNNING])
            if not running:
                return False
            open_lanes = [channel for channel, lane in self._lanes.items() if lane.room() > 0]
            if any(view.outbox.has_due(now, channel) for channel in open_lanes):
                return True
            return any(not view.outbox.has_open(campaign.id) for campaign in running)

    def _keep_leases(self, tx: OutboxTransaction) -> None:
        if self._clock.monotonic() - self._renewed > self._lease_s / 3:
            now = self._clock.now()
            tx.outbox.renew(self._worker_id, now + timedelta(seconds=self._lease_s))
            tx.outbox.reclaim_expired(now)
            self._renewed = self._clock.monotonic()

    def _claim(self, tx: OutboxTransaction, channel: Channel, room: int) -> list[Delivery]:
        if room <= 0:
            return []
        now = self._clock.now()
        claimed = tx.outbox.claim(self._worker_id, now, room, self._lease_s, channel=channel)
        for row in claimed:
            incident = self._campaigns[row.campaign_id].campaign.incident_id
            tx.audit(Entry(type="notify.intent", at_utc=now, incident_id=incident, body=_about(row)))
        return claimed

    def _open_running(self, tx: OutboxTransaction) -> None:
        """Compile what is running; a campaign whose frozen content cannot be read is paused before anything leaves."""
        if len(self._campaigns) > KEPT_CAMPAIGNS and not any(lane.claimed for lane in self._lanes.values()):
            self._campaigns.clear()
        for campaign in tx.outbox.campaigns([CampaignState.RUNNING]):
            if campaign.id not in self._campaigns:
                try:
                    notice = self._renderer.open(tx.outbox.content(campaign.id))
                except TemplateError as error:
                    self._pause(tx, campaign, error, self._clock.now())
                else:
                    self._campaigns[campaign.id] = _Running(campaign, notice)

    def _jobs(self, claimed: Sequence[Delivery]) -> tuple[list[Job], list[Outcome]]:
        """Jobs for whom the vault knows; outcomes for whom it does not."""
        people = self._people([row.person_id for row in claimed])
        jobs: list[Job] = []
        gone: list[Outcome] = []
        for row in claimed:
            person = people.get(row.person_id)
            if isinstance(person, Person):
                jobs.append(Job(delivery=row, notice=self._campaigns[row.campaign_id].notice, person=person))
            else:
                gone.append(Outcome(delivery=row, person=Person(ref=""), code=person or "erased"))
        return jobs, gone

    def _people(self, person_ids: Sequence[str]) -> Mapping[str, Person | str]:
        """Who these are; for a contact that was tampered with, the word for it instead. Raises: StoreError."""
        if not person_ids:
            return {}
        try:
            return self._vault.get(person_ids)
        except VerificationError:
            found: dict[str, Person | str] = {}
            for person_id in person_ids:  # one damaged row must not keep the others from being told
                try:
                    found |= self._vault.get([person_id])
                except VerificationError:
                    found[person_id] = "vault-damaged"
            return found

    def _finish(self, tx: OutboxTransaction, claimed: Sequence[Delivery]) -> frozenset[str]:
        """Mark campaigns done that have nothing left; returns the ids of those that run on."""
        now = self._clock.now()
        busy = {row.campaign_id for row in claimed}
        running: set[str] = set()
        for campaign in tx.outbox.campaigns([CampaignState.RUNNING]):
            if campaign.id in busy or tx.outbox.has_open(campaign.id):
                running.add(campaign.id)
                continue
            tx.outbox.set_campaign_state(campaign.id, CampaignState.DONE)
            counts: dict[str, EntryValue] = {
                state.name.lower(): count for state, count in tx.outbox.counts(campaign.id).items()
            }
            body: dict[str, EntryValue] = {
                "campaign": campaign.id, "deliveries": counts, "audience": campaign.audience_count,
            }  # fmt: skip
            tx.audit(Entry(type="campaign.done", at_utc=now, incident_id=campaign.incident_id, body=body))
        return frozenset(running)


_GONE = {"erased": DeliveryState.SUPPRESSED, "vault-damaged": DeliveryState.FAILED}


def _about(row: Delivery) -> dict[str, EntryValue]:
    return {
        "campaign": row.campaign_id,
        "person": row.person_id,
        "channel": str(row.channel),
        "message_id": row.message_id,
        "attempt": row.attempts,
    }
