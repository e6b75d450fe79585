"""What a playbook wants done now, from what is recorded, and when to look again. Pure and idempotent.

`plan` is asked again and again with the recorded steps. An action that was performed has a row (`recorded` says which),
and a row makes sure that the action is not asked for again; so a crash between the two repeats the question, never
the effect that was written down with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from breachwatch.errors import ApprovalError
from breachwatch.model import CampaignKind, Duty, Incident, IncidentState, StepRun, StepState
from breachwatch.playbook.actions import (
    Action,
    MarkNotified,
    MarkNotifying,
    PageTeam,
    PrepareNotice,
    StartCampaign,
    WarnClock,
)
from breachwatch.playbook.schema import EscalationLevel, NoticeStep, Playbook

_S = IncidentState

FRACTIONS = (0.5, 0.75, 0.9, 1.0)
"""Parts of a clock's time after which people are warned; at 1.0 it is overdue."""

MAX_REPEAT_WAIT = timedelta(hours=4)
"""An incident that nobody acknowledges keeps paging the last level, ever more slowly, at least this often."""

APPROVER_ROLES = frozenset({"dpo", "ciso"})
"""Who may approve where no playbook says otherwise."""

_CONFIRMED = frozenset({_S.CONFIRMED, _S.CONTAINED, _S.NOTIFYING})
"""States in which notices are drafted and sent."""

_SILENT = frozenset({_S.CONFIRMED, _S.CONTAINED})
"""Confirmed, and nobody told yet."""

_CLOCKS_REST = frozenset({_S.NOTIFIED, _S.CLOSED, _S.DISMISSED})

_LIVE = frozenset({StepState.WAITING, StepState.PREPARED, StepState.APPROVED, StepState.RUNNING})
"""Steps that still want something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do, in this order, and when to ask again if nothing happens before."""

    actions: tuple[Action, ...] = ()
    next_due: datetime | None = None
    waiting: Mapping[str, str]
    """Step to what it waits for, in words: what a person looking at the incident wants to know."""


def plan(
    playbook: Playbook, incident: Incident, steps: Mapping[str, StepRun], duties: Sequence[Duty], now: datetime
) -> Plan:
    """The next actions of `playbook` for `incident`; `steps` holds the latest run of each step.

    A playbook that began with an incident stays with it, whatever its condition says later.
    """
    own = {key: run for key, run in steps.items() if key.startswith(f"{playbook.id}/")}
    if not own and not playbook.applies_to(incident):
        return Plan(waiting={})
    asked = _Question(playbook=playbook, incident=incident, own=own, every=steps, now=now)
    actions: list[Action] = []
    if incident.state is _S.OPEN:
        actions += asked.escalation()
    if incident.state in _CONFIRMED or incident.state is _S.NOTIFIED:
        actions += asked.notices()
        actions += asked.ending()
    if incident.state not in _CLOCKS_REST:
        actions += asked.clocks(duties)
    ahead = [at for at in asked.looks if at > now]
    return Plan(actions=tuple(actions), next_due=min(ahead, default=None), waiting=asked.waiting)


def recorded(action: Action, incident: Incident, *, now: datetime) -> StepRun | None:
    """The row to write in the transaction that performs `action` (`output` is the caller's); None for state changes."""
    match action:
        case PageTeam():
            step, n, state = action.step, action.attempt, StepState.DONE
        case WarnClock():
            step, n, state = action.step, action.n, StepState.DONE
        case PrepareNotice():
            step, n, state = action.step, 0, StepState.PREPARED
        case StartCampaign():
            step, n, state = action.step, 0, StepState.RUNNING
        case MarkNotifying() | MarkNotified():
            return None
    return StepRun(incident_id=incident.id, step=step, n=n, state=state, at_utc=now)


def check_approval(
    step: str,
    approver: str,
    roles: Collection[str],
    requester: str,
    given: Collection[str],
    *,
    allowed_roles: Collection[str] = APPROVER_ROLES,
) -> None:
    """Four eyes: `approver` (with `roles`) may add a yes to those `given` for what `requester` asked for.

    Raises: ApprovalError (no name, own request, wrong role, said yes before).
    """
    if not approver.strip() or not requester.strip():
        raise ApprovalError("an approval needs a known person and a known requester", source=step)
    if _same(approver, requester):
        raise ApprovalError("you asked for this notice yourself", source=step, hint="another person has to approve it")
    if not set(roles) & set(allowed_roles):
        needed = ", ".join(sorted(allowed_roles)) or "nobody"
        raise ApprovalError("your roles may not approve this", source=step, hint=f"one of these may: {needed}")
    if any(_same(approver, other) for other in given):
        raise ApprovalError("you approved this content before", source=step, hint="a further person has to approve it")


def is_approved(need: int, requester: str, given: Collection[str]) -> bool:
    """Whether enough different people other than the requester said yes. `given`: yeses to one content hash."""
    people = {_folded(name) for name in given if name.strip()} - {_folded(requester)}
    return need >= 1 and len(people) >= need


def _folded(name: str) -> str:
    return name.strip().casefold()


def _same(one: str, other: str) -> bool:
    return _folded(one) == _folded(other)


def escalation_key(playbook: Playbook, incident: Incident, level: int) -> str:
    """The key of a level's pages: a reopened incident escalates anew."""
    return f"{playbook.id}/escalation.{incident.reopened}.{level}"


def is_escalation(step: str) -> bool:
    """Whether a step's key is that of a level's pages."""
    return step.partition("/")[2].startswith("escalation.")


def clock_key(playbook: Playbook, regime: str, stage: str) -> str:
    """The key of a clock's warnings."""
    return f"{playbook.id}/clock.{regime}.{stage}"


@dataclass(slots=True, kw_only=True)
class _Question:
    """One call of `plan`: what is recorded, and what is found out on the way."""

    playbook: Playbook
    incident: Incident
    own: Mapping[str, StepRun]
    """Latest runs of this playbook's steps."""
    every: Mapping[str, StepRun]
    now: datetime
    looks: list[datetime] = field(default_factory=list)
    """Instants at which the answer may change."""
    waiting: dict[str, str] = field(default_factory=dict)

    def escalation(self) -> Iterator[Action]:
        """At most one page: the next one, once the wait after the last is over."""
        levels = self.playbook.escalation
        last: StepRun | None = None
        index = 0
        for number in range(len(levels)):
            run = self.own.get(escalation_key(self.playbook, self.incident, number))
            if run is not None:
                last, index = run, number
        attempt = 1
        if last is not None:
            due_at = last.at_utc + _wait(levels[index], last.n)
            if due_at > self.now:
                self.looks.append(due_at)
                return
            attempt = last.n + 1
            if last.n >= levels[index].repeat and index + 1 < len(levels):
                index, attempt = index + 1, 1
        step = escalation_key(self.playbook, self.incident, index)
        yield PageTeam(step=step, attempt=attempt, to=levels[index].to, via=levels[index].via)
        self.looks.append(self.now + _wait(levels[index], attempt))

    def notices(self) -> Iterator[Action]:
        """Drafts that are missing, then campaigns that are approved and need nothing any more."""
        ready: list[Action] = []
        for step in self.playbook.on_confirm:
            key = self.playbook.key(step.id)
            run = self.own.get(key)
            if run is None or run.state is StepState.WAITING:
                yield from self._draft(step, key, run)
            elif run.state is StepState.APPROVED and not (missing := self._missing(step)):
                ready.append(StartCampaign(step=key))
            elif run.state is StepState.APPROVED:
                self.waiting[key] = f"needs {missing}"
            elif run.state is StepState.PREPARED:
                people = f"{step.approve.need} of {', '.join(step.approve.roles)}"
                self.waiting[key] = f"approval by {people}, not by the requester"
            elif run.state is StepState.RUNNING:
                self.waiting[key] = "is being sent"
        if ready and self.incident.state in _SILENT:
            yield MarkNotifying()
        yield from ready

    def ending(self) -> Iterator[Action]:
        """Notified: every notice of this playbook is done and none of another one is under way."""
        mine = [self.own.get(self.playbook.key(step.id)) for step in self.playbook.on_confirm]
        are_done = all(run is not None and run.state is StepState.DONE for run in mine)
        if not are_done or self.incident.state not in _CONFIRMED:
            return
        if any(run.state in _LIVE for run in self.every.values()):
            return
        if self.incident.state in _SILENT:
            yield MarkNotifying()
        yield MarkNotified()

    def clocks(self, duties: Sequence[Duty]) -> Iterator[Action]:
        """Warnings of the playbook's clocks that nothing has met yet."""
        known = {(duty.regime, duty.stage): duty for duty in duties}
        for clock in self.playbook.clocks:
            met_by = self.own.get(self.playbook.key(clock.met_by)) if clock.met_by else None
            if met_by is not None and met_by.state is StepState.DONE:
                continue
            key = clock_key(self.playbook, clock.regime, clock.stage)
            duty = known.get((clock.regime, clock.stage))
            if duty is None or duty.due_at is None or duty.starts_at is None:
                self.waiting[key] = duty.why if duty else "no such duty is known: check the regimes that are loaded"
            else:
                yield from self._clock(key, duty, duty.starts_at, duty.due_at)

    def _draft(self, step: NoticeStep, key: str, run: StepRun | None) -> Iterator[Action]:
        if run is not None and run.due_at is not None and run.due_at > self.now:
            self.looks.append(run.due_at)
            self.waiting[key] = "could not be prepared; is tried again"
        elif run is not None or self.incident.state in _CONFIRMED:
            # a notified incident gets no new drafts because a newer playbook has more steps
            yield _prepare(step, key)

    def _missing(self, step: NoticeStep) -> str:
        """Needed steps that are not done, in words; a cancelled one blocks until a person decides."""
        found = []
        for need in step.needs:
            run = self.own.get(self.playbook.key(need))
            if run is None or run.state is not StepState.DONE:
                found.append(f"{need} ({run.state if run else 'not begun'})")
        return ", ".join(found)

    def _clock(self, key: str, duty: Duty, starts_at: datetime, due_at: datetime) -> Iterator[Action]:
        """One warning at most, for the highest part passed: after a time without power there is one call, not four."""
        instants = [starts_at + (due_at - starts_at) * fraction for fraction in FRACTIONS]
        warned = self.own[key].n if key in self.own else 0
        passed = sum(at <= self.now for at in instants)
        self.looks.extend(instants[passed:])
        if passed > warned:
            last = self.playbook.escalation[-1]
            yield WarnClock(
                step=key,
                n=passed,
                regime=duty.regime,
                stage=duty.stage,
                due_at=due_at,
                fraction=FRACTIONS[passed - 1],
                to=last.to,
                via=last.via,
            )


def _wait(level: EscalationLevel, attempt: int) -> timedelta:
    """The level's own wait; past its repeats (only the last level gets there) twice as long each time."""
    beyond: int = min(max(attempt - level.repeat, 0), 20)
    return max(level.wait, min(level.wait * (1 << beyond), MAX_REPEAT_WAIT))


def _prepare(step: NoticeStep, key: str) -> PrepareNotice:
    return PrepareNotice(
        step=key,
        kind=CampaignKind(step.notice.kind),
        audience=step.notice.addressee,
        templates={str(language): name for language, name in step.notice.templates.items()},
        channels=step.notice.choices(),
        approvals_needed=step.approve.need,
        roles=step.approve.roles,
    )
