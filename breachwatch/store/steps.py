"""What playbooks have done per incident, and who approved which content."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Column, Connection, ForeignKey, Index, Integer, Row, String, Table, select

from breachwatch.errors import RowError
from breachwatch.model import Approval, StepRun, StepState
from breachwatch.store.columns import HostileText, Json, UtcMicros, insert_ignoring, insert_or_update
from breachwatch.store.database import metadata
from breachwatch.store.incidents import incident_table

step_run = Table(
    "step_run",
    metadata,
    Column("incident_id", ForeignKey(incident_table.c.id), primary_key=True),
    Column("step", String, primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("state", String, nullable=False),
    Column("at", UtcMicros, nullable=False),
    Column("due_at", UtcMicros),
    Column("output", Json, nullable=False),
    Index("step_run_by_due", "due_at"),
)

approval_table = Table(
    "approval",
    metadata,
    Column("campaign_id", String, primary_key=True),
    Column("content_hash", String, primary_key=True),
    Column("approver", HostileText, primary_key=True),
    Column("at", UtcMicros, nullable=False),
    Column("os_user", HostileText, nullable=False),
)

TABLES = (step_run, approval_table)
"""The tables of this module."""

_ENDED = (str(StepState.DONE), str(StepState.CANCELLED))


class StepTable:
    """Step runs and approvals inside one open transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, run: StepRun) -> bool:
        """Record a step once; False if (incident, step, n) is recorded already: then it is not to be performed."""
        return insert_ignoring(self._connection, step_run, _columns(run))

    def put(self, run: StepRun) -> None:
        """Record a step or its new state. Raises: StoreError (the step is done or cancelled: that is final)."""
        if self.add(run):
            return
        known = self.get(run.incident_id, run.step, run.n)
        if known is not None and str(known.state) in _ENDED and known.state is not run.state:
            raise RowError(
                f"step is {known.state} and cannot become {run.state}", source=f"{run.incident_id} {run.step} #{run.n}"
            )
        insert_or_update(
            self._connection,
            step_run,
            _columns(run),
            key=["incident_id", "step", "n"],
            update=["state", "at", "due_at", "output"],
        )

    def get(self, incident_id: str, step: str, n: int | None = None) -> StepRun | None:
        """One run; `n` None means the latest."""
        query = select(step_run).where(step_run.c.incident_id == incident_id, step_run.c.step == step)
        if n is not None:
            query = query.where(step_run.c.n == n)
        row = self._connection.execute(query.order_by(step_run.c.n.desc()).limit(1)).one_or_none()
        return None if row is None else _run(row)

    def latest(self, incident_id: str) -> dict[str, StepRun]:
        """Step to its run with the highest `n`: what the planner is given."""
        return {run.step: run for run in self.history(incident_id)}

    def history(self, incident_id: str) -> list[StepRun]:
        """Every run of an incident, by step and `n`."""
        query = select(step_run).where(step_run.c.incident_id == incident_id).order_by(step_run.c.step, step_run.c.n)
        return [_run(row) for row in self._connection.execute(query)]

    def due(self, now: datetime, limit: int = 1_000) -> list[StepRun]:
        """Runs neither done nor cancelled whose time has come, the longest due first."""
        query = (
            select(step_run)
            .where(step_run.c.due_at <= now, step_run.c.state.not_in(_ENDED))
            .order_by(step_run.c.due_at, step_run.c.incident_id, step_run.c.step, step_run.c.n)
            .limit(limit)
        )
        return [_run(row) for row in self._connection.execute(query)]

    def moving(self) -> set[str]:
        """Incidents with a step that is approved or being sent: what moves without a change of the incident."""
        states = (str(StepState.APPROVED), str(StepState.RUNNING))
        query = select(step_run.c.incident_id).where(step_run.c.state.in_(states)).distinct()
        return set(self._connection.scalars(query))

    def add_approval(self, campaign_id: str, content_hash: str, approver: str, at: datetime, os_user: str) -> bool:
        """Keep one person's yes; False if this person said yes to this content before."""
        values = {"campaign_id": campaign_id, "content_hash": content_hash, "approver": approver}
        return insert_ignoring(self._connection, approval_table, {**values, "at": at, "os_user": os_user})

    def approvals(self, campaign_id: str, content_hash: str) -> list[Approval]:
        """Who said yes to exactly this content, oldest first."""
        here = (approval_table.c.campaign_id == campaign_id) & (approval_table.c.content_hash == content_hash)
        query = select(approval_table).where(here).order_by(approval_table.c.at, approval_table.c.approver)
        return [
            Approval(
                campaign_id=row.campaign_id,
                content_hash=row.content_hash,
                approver=row.approver,
                at_utc=row.at,
                os_user=row.os_user,
            )
            for row in self._connection.execute(query)
        ]


def _columns(run: StepRun) -> dict[str, Any]:
    return {
        "incident_id": run.incident_id,
        "step": run.step,
        "n": run.n,
        "state": str(run.state),
        "at": run.at_utc,
        "due_at": run.due_at,
        "output": dict(run.output),
    }


def _run(row: Row[Any]) -> StepRun:
    try:
        state = StepState(row.state)
    except ValueError as error:
        raise RowError("a stored step is damaged or newer than this program", source=row.step) from error
    return StepRun(
        incident_id=row.incident_id,
        step=row.step,
        n=row.n,
        state=state,
        at_utc=row.at,
        due_at=row.due_at,
        output=row.output,
    )
