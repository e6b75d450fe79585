"""Campaigns and deliveries: one row per person and channel, claimed under a lease, recorded under a fence."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Row,
    String,
    Table,
    TextClause,
    Update,
    bindparam,
    case,
    exists,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from breachwatch.errors import StoreError
from breachwatch.model import Campaign, CampaignKind, CampaignState, Channel, Delivery, DeliveryResult, DeliveryState
from breachwatch.store.columns import HostileText, Json, UtcMicros, insert_ignoring
from breachwatch.store.database import metadata

READY, CLAIMED, ACCEPTED = int(DeliveryState.READY), int(DeliveryState.CLAIMED), int(DeliveryState.ACCEPTED)

RETRIES_PER_CLAIM = 16
"""Rows claimed before (by a process that died, maybe after sending) go in small batches: a second crash repeats few."""

campaign_table = Table(
    "campaign",
    metadata,
    Column("id", String, primary_key=True),
    Column("incident_id", String, nullable=False, index=True),
    Column("step", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("state", String, nullable=False, index=True),
    Column("content_hash", String, nullable=False),
    Column("audience_count", Integer, nullable=False),
    Column("channels", Json, nullable=False),
    Column("created_at", UtcMicros, nullable=False),
    Column("created_by", HostileText, nullable=False),
    Column("content", LargeBinary, nullable=False),
)

_fresh, _again = text("state = 0 AND attempts = 0"), text("state = 0 AND attempts > 0")
_leased, _failed = text("state = 1"), text("state > 2")

delivery_table = Table(
    "delivery",
    metadata,
    Column("campaign_id", ForeignKey(campaign_table.c.id), primary_key=True),
    Column("person_id", String, primary_key=True),
    Column("channel", String, primary_key=True),
    Column("state", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", UtcMicros, nullable=False),
    Column("due_at", UtcMicros, nullable=False),
    Column("lease_until", UtcMicros),
    Column("worker", String, nullable=False, server_default=""),
    Column("message_id", String, nullable=False),
    Column("provider_id", HostileText, nullable=False, server_default=""),
    Column("code", String, nullable=False, server_default=""),
    Column("sent_sha256", String, nullable=False, server_default=""),
    Column("sent_at", UtcMicros),
    Column("done_at", UtcMicros),
    # Small beside the table: rows leave them when they are done, so a claim never walks what is sent already
    Index("delivery_fresh", "campaign_id", "channel", "due_at", sqlite_where=_fresh, postgresql_where=_fresh),
    Index("delivery_again", "campaign_id", "channel", "due_at", sqlite_where=_again, postgresql_where=_again),
    Index("delivery_leased", "campaign_id", "lease_until", sqlite_where=_leased, postgresql_where=_leased),
    Index("delivery_failed", "campaign_id", sqlite_where=_failed, postgresql_where=_failed),
    sqlite_with_rowid=False,
)

TABLES = (campaign_table, delivery_table)

_URGENCY = case({str(CampaignKind.PAGE): 0, str(CampaignKind.AUTHORITY): 1}, value=campaign_table.c.kind, else_=2)
"""Staff first, then the authority, then customers: a million customers never delay a page."""

_c, _d = campaign_table.c, delivery_table.c
_CAMPAIGN_COLUMNS = [column for column in campaign_table.c if column.name != "content"]
_DELIVERY_COLUMNS = (
    _d.campaign_id, _d.person_id, _d.channel, _d.state, _d.attempts, _d.due_at, _d.worker, _d.message_id,
    _d.provider_id, _d.code, _d.sent_sha256, _d.created_at, _d.sent_at,
)  # fmt: skip
_TERMINAL = tuple(int(state) for state in DeliveryState if state not in {DeliveryState.READY, DeliveryState.CLAIMED})
_INSERT_BATCH = 5_000


def _claim_statement(condition: TextClause) -> Update:
    """Take due rows under a lease. The condition is literal, for only then does a partial index apply."""
    due = (
        select(_d.campaign_id, _d.person_id, _d.channel)
        .where(condition)
        .where(
            _d.campaign_id == bindparam("k_campaign"),
            _d.channel == bindparam("k_channel"),
            _d.due_at <= bindparam("k_now", type_=UtcMicros()),
        )
        .order_by(_d.due_at)
        .limit(bindparam("k_limit", type_=Integer()))
        .with_for_update(skip_locked=True)
        .cte("due")  # PostgreSQL may run a subquery with LIMIT and FOR UPDATE more than once; a CTE it runs once
    )
    return (
        update(delivery_table)
        .where(_d.campaign_id == due.c.campaign_id, _d.person_id == due.c.person_id, _d.channel == due.c.channel)
        .values(
            state=CLAIMED,
            attempts=_d.attempts + 1,
            worker=bindparam("k_worker"),
            lease_until=bindparam("k_lease", type_=UtcMicros()),
        )
        .returning(*_DELIVERY_COLUMNS)
    )


_CLAIM_FRESH, _CLAIM_AGAIN = _claim_statement(_fresh), _claim_statement(_again)

_RECORD = (
    update(delivery_table)
    .where(
        _d.campaign_id == bindparam("k_campaign"),
        _d.person_id == bindparam("k_person"),
        _d.channel == bindparam("k_channel"),
        _d.state == CLAIMED,
        _d.worker == bindparam("k_worker"),
        _d.attempts == bindparam("k_fence"),
    )
    .values(
        state=bindparam("n_state"), attempts=bindparam("n_attempts"), due_at=bindparam("n_due"),
        worker=bindparam("n_worker"), lease_until=None, provider_id=bindparam("n_provider"), code=bindparam("n_code"),
        sent_sha256=bindparam("n_sha"), sent_at=bindparam("n_sent"), done_at=bindparam("n_done"),
    )
)  # fmt: skip
"""The fence is in the condition: a claim that was lost in between changes no row."""


class OutboxTable:
    """Campaigns and deliveries inside one open transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # -- campaigns ------------------------------------------------------------------------------------------------

    def add_campaign(self, campaign: Campaign, content: bytes) -> None:
        """Store a campaign with what is needed to render it after a restart."""
        values = {
            "id": campaign.id, "incident_id": campaign.incident_id, "step": campaign.step, "kind": str(campaign.kind),
            "state": str(campaign.state), "content_hash": campaign.content_hash,
            "audience_count": campaign.audience_count, "channels": [str(channel) for channel in campaign.channels],
            "created_at": campaign.created_at, "created_by": campaign.created_by, "content": content,
        }  # fmt: skip
        self._connection.execute(insert(campaign_table), values)

    def campaign(self, campaign_id: str) -> Campaign | None:
        """One campaign."""
        row = self._connection.execute(select(*_CAMPAIGN_COLUMNS).where(_c.id == campaign_id)).one_or_none()
        return None if row is None else _campaign(row)

    def campaigns(
        self, states: Sequence[CampaignState] = (), *, incident_id: str | None = None, step: str | None = None
    ) -> list[Campaign]:
        """Campaigns in these states (all if none named), the most urgent first, then by age."""
        query = select(*_CAMPAIGN_COLUMNS).order_by(_URGENCY, _c.created_at, _c.id)
        if states:
            query = query.where(_c.state.in_([str(state) for state in states]))
        if incident_id is not None:
            query = query.where(_c.incident_id == incident_id)
        if step is not None:
            query = query.where(_c.step == step)
        return [_campaign(row) for row in self._connection.execute(query)]

    def content(self, campaign_id: str) -> bytes:
        """What `add_campaign` was given. Raises: StoreError."""
        found = self._connection.execute(select(_c.content).where(_c.id == campaign_id)).scalar()
        if found is None:
            raise StoreError("no such campaign", source=campaign_id)
        return bytes(found)

    def set_campaign_state(self, campaign_id: str, state: CampaignState) -> None:
        """Move a campaign; cancelling it cancels every delivery that nobody is sending. Raises: StoreError."""
        statement = update(campaign_table).where(_c.id == campaign_id).values(state=str(state))
        if self._connection.execute(statement).rowcount != 1:
            raise StoreError("no such campaign", source=campaign_id)
        if state is CampaignState.CANCELLED:
            cancelled = update(delivery_table).where(_d.campaign_id == campaign_id, _d.state == READY)
            self._connection.execute(cancelled.values(state=int(DeliveryState.CANCELLED)))

    # -- deliveries -----------------------------------------------------------------------------------------------

    def add_deliveries(self, rows: Sequence[Delivery]) -> int:
        """Store rows whose key is new (enqueueing again after a crash adds nothing twice); returns how many were."""
        parts = [rows[start : start + _INSERT_BATCH] for start in range(0, len(rows), _INSERT_BATCH)]
        return sum(self._add([_values(row) for row in part]) for part in parts)

    def _add(self, values: list[dict[str, object]]) -> int:
        statement = self._insert().on_conflict_do_nothing()
        if self._connection.dialect.name == "sqlite":
            return self._connection.execute(statement, values).rowcount
        # psycopg does not count what an executemany of INSERT adds, so the new rows are asked for
        return len(self._connection.execute(statement.returning(_d.person_id), values).all())

    def add_fallback(self, rows: Sequence[Delivery]) -> list[Delivery]:
        """Store the next channel of people whom one did not reach; returns those who had no such row yet."""
        return [row for row in rows if insert_ignoring(self._connection, delivery_table, _values(row))]

    def _insert(self) -> sqlite.Insert | postgresql.Insert:
        if self._connection.dialect.name == "postgresql":
            return postgresql.insert(delivery_table)
        return sqlite.insert(delivery_table)

    def has_due(self, now: datetime, channel: Channel) -> bool:
        """Whether a claim would find anything: asked without the writer's lock, so that idling costs nothing."""
        running = select(_c.id).where(_c.state == str(CampaignState.RUNNING))
        due = (_d.channel == str(channel), _d.due_at <= now, _d.campaign_id.in_(running))
        return any(self._connection.execute(select(exists().where(part, *due))).scalar() for part in (_fresh, _again))

    def claim(
        self,
        worker: str,
        now: datetime,
        limit: int,
        lease_s: float,
        *,
        channel: Channel | None = None,
        retries: int = RETRIES_PER_CLAIM,
    ) -> list[Delivery]:
        """Take up to `limit` due rows of running campaigns for `worker`; at most `retries` of them were claimed before.

        The most urgent campaigns first. Each claim counts as an attempt; (worker, attempts) is the fence for `record`.
        """
        claimed: list[Delivery] = []
        again_left = retries
        lease = now + timedelta(seconds=lease_s)
        channels = [channel] if channel else list(Channel)
        running = self._connection.execute(
            select(_c.id).where(_c.state == str(CampaignState.RUNNING)).order_by(_URGENCY, _c.created_at, _c.id)
        ).scalars()
        for campaign_id in running.all():
            for one in channels:
                place = {
                    "k_campaign": campaign_id,
                    "k_channel": str(one),
                    "k_now": now,
                    "k_worker": worker,
                    "k_lease": lease,
                }
                again = self._take(_CLAIM_AGAIN, place, min(again_left, limit - len(claimed)))
                again_left -= len(again)
                claimed += again
                claimed += self._take(_CLAIM_FRESH, place, limit - len(claimed))
        return claimed

    def _take(self, statement: Any, place: Mapping[str, object], limit: int) -> list[Delivery]:
        if limit <= 0:
            return []
        taken = [_delivery(row) for row in self._connection.execute(statement, {**place, "k_limit": limit})]
        return sorted(taken, key=lambda row: (row.due_at, row.person_id))

    def record(self, results: Sequence[DeliveryResult]) -> list[DeliveryResult]:
        """Write down results whose claim still holds; returns those. A result under a lost claim changes nothing."""
        if not results:
            return []
        done = self._connection.execute(_RECORD, [_recorded(result) for result in results]).rowcount
        # nearly always every claim still holds; only else is it worth asking which
        kept = list(results) if done == len(results) else self._kept(results)
        self._cancel_late({result.campaign_id for result in kept if result.state is DeliveryState.READY})
        return kept

    def _kept(self, results: Sequence[DeliveryResult]) -> list[DeliveryResult]:
        """The results that the rows show."""
        kept: list[DeliveryResult] = []
        for result in results:
            new = _recorded(result)
            query = select(_d.state, _d.attempts, _d.due_at, _d.code, _d.sent_sha256).where(
                _d.campaign_id == result.campaign_id,
                _d.person_id == result.person_id,
                _d.channel == str(result.channel),
            )
            row = self._connection.execute(query).one_or_none()
            if row is not None and tuple(row) == (
                new["n_state"], new["n_attempts"], result.due_at, result.code, result.sent_sha256,
            ):  # fmt: skip
                kept.append(result)
        return kept

    def _cancel_late(self, campaign_ids: Collection[str]) -> None:
        """What came back for another try after its campaign was cancelled is cancelled too."""
        if campaign_ids:
            cancelled = select(_c.id).where(_c.id.in_(campaign_ids), _c.state == str(CampaignState.CANCELLED))
            late = update(delivery_table).where(_d.state == READY, _d.campaign_id.in_(cancelled))
            self._connection.execute(late.values(state=int(DeliveryState.CANCELLED)))

    # -- leases ---------------------------------------------------------------------------------------------------

    def renew(self, worker: str, until: datetime) -> None:
        """A sign of life: what `worker` holds stays its own until then."""
        held = update(delivery_table).where(_leased).where(_d.worker == worker)
        self._connection.execute(held.values(lease_until=until))

    def reclaim_expired(self, now: datetime) -> int:
        """Make ready what a silent worker held too long; returns how many."""
        return self._release(_d.lease_until < now)

    def release(self, worker: str) -> int:
        """Make ready what `worker`, known to be dead, held; returns how many."""
        return self._release(_d.worker == worker)

    def release_all(self) -> int:
        """Make ready everything claimed: only under the state lock, which proves that every old owner is dead."""
        return self._release(_d.campaign_id != "")

    def _release(self, condition: object) -> int:
        statement = update(delivery_table).where(_leased).where(condition)  # type: ignore[arg-type]
        return self._connection.execute(statement.values(state=READY, worker="", lease_until=None)).rowcount

    # -- reports --------------------------------------------------------------------------------------------------

    def has_open(self, campaign_id: str) -> bool:
        """Whether anything of a campaign is ready or being sent."""
        any_open = [
            exists().where(condition).where(_d.campaign_id == campaign_id).select().select_from(delivery_table)
            for condition in (_fresh, _again, _leased)
        ]
        return any(self._connection.execute(query).scalar() for query in any_open)

    def counts(self, campaign_id: str) -> Mapping[DeliveryState, int]:
        """How many deliveries are in each state that occurs."""
        query = select(_d.state, func.count()).where(_d.campaign_id == campaign_id).group_by(_d.state)
        return {DeliveryState(state): count for state, count in self._connection.execute(query)}

    def deliveries(self, campaign_id: str, states: Sequence[DeliveryState] = ()) -> Iterator[Delivery]:
        """Deliveries of a campaign in person order."""
        query = select(*_DELIVERY_COLUMNS).where(_d.campaign_id == campaign_id).order_by(_d.person_id, _d.channel)
        if states:
            query = query.where(_d.state.in_([int(state) for state in states]))
        for row in self._connection.execute(query):
            yield _delivery(row)

    def undeliverable(self, campaign_id: str) -> list[Delivery]:
        """The last failed delivery of each person whom no channel reached and none will try any more."""
        other = delivery_table.alias("other")
        reached = exists().where(
            other.c.campaign_id == _d.campaign_id,
            other.c.person_id == _d.person_id,
            other.c.state.in_((READY, CLAIMED, ACCEPTED)),
        )
        query = (
            select(*_DELIVERY_COLUMNS)
            .where(_failed)
            .where(_d.campaign_id == campaign_id, ~reached)
            .order_by(_d.person_id, _d.done_at, _d.channel)
        )
        last = {row.person_id: _delivery(row) for row in self._connection.execute(query)}
        return list(last.values())


def _values(row: Delivery) -> dict[str, object]:
    state = int(row.state)
    return {
        "campaign_id": row.campaign_id, "person_id": row.person_id, "channel": str(row.channel), "state": state,
        "attempts": row.attempts, "created_at": row.created_at or row.due_at, "due_at": row.due_at,
        "worker": row.worker, "message_id": row.message_id, "provider_id": row.provider_id, "code": row.code,
        "sent_sha256": row.sent_sha256, "done_at": row.due_at if state in _TERMINAL else None,
    }  # fmt: skip


def _recorded(result: DeliveryResult) -> dict[str, object]:
    state = int(result.state)
    return {
        "k_campaign": result.campaign_id, "k_person": result.person_id, "k_channel": str(result.channel),
        "k_worker": result.worker, "k_fence": result.attempts, "n_state": state,
        "n_attempts": result.attempts if result.tried else result.attempts - 1, "n_due": result.due_at,
        "n_worker": "" if state == READY else result.worker, "n_provider": result.provider_id, "n_code": result.code,
        "n_sha": result.sent_sha256, "n_sent": result.sent_at, "n_done": result.due_at if state in _TERMINAL else None,
    }  # fmt: skip


def _campaign(row: Row[*tuple[Any, ...]]) -> Campaign:
    return Campaign(
        id=row.id,
        incident_id=row.incident_id,
        step=row.step,
        kind=CampaignKind(row.kind),
        state=CampaignState(row.state),
        content_hash=row.content_hash,
        audience_count=row.audience_count,
        channels=tuple(Channel(name) for name in row.channels),
        created_at=row.created_at,
        created_by=row.created_by,
    )


def _delivery(row: Row[*tuple[Any, ...]]) -> Delivery:
    return Delivery(
        campaign_id=row.campaign_id,
        person_id=row.person_id,
        channel=Channel(row.channel),
        state=DeliveryState(row.state),
        attempts=row.attempts,
        due_at=row.due_at,
        worker=row.worker,
        message_id=row.message_id,
        provider_id=row.provider_id,
        code=row.code,
        sent_sha256=row.sent_sha256,
        created_at=row.created_at,
        sent_at=row.sent_at,
    )
