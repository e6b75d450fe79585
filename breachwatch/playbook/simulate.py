"""A playbook played over thirty days on a virtual clock, in milliseconds: who is called and told, when."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import msgspec

from breachwatch.errors import PlaybookError
from breachwatch.model import Duty, Incident, IncidentState, Severity, StepRun, StepState
from breachwatch.playbook.actions import Action, MarkNotifying
from breachwatch.playbook.plan import plan, recorded
from breachwatch.playbook.schema import Playbook

MAX_ACTIONS = 10_000
"""More than this in thirty days is a playbook that never rests: the simulation says so instead of hanging."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What people do, counted from the opening; None: they never do it."""

    opened_at: datetime = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
    acknowledge_after: timedelta | None = timedelta(minutes=3)
    confirm_after: timedelta | None = timedelta(hours=2)
    approve_after: timedelta | None = timedelta(hours=1)
    """Counted from the draft of each notice."""
    sending_takes: timedelta = timedelta(minutes=30)
    lasts: timedelta = timedelta(days=30)
    severity: Severity = Severity.CRITICAL
    rules: tuple[str, ...] = ()
    entities: Mapping[str, tuple[str, ...]] | None = None


def simulate(
    playbook: Playbook, scenario: Scenario, duties_of: Callable[[Incident], Sequence[Duty]]
) -> list[tuple[datetime, Action]]:
    """Every action with its instant. `duties_of` gives the duties of the incident as it is at that moment.

    Raises: PlaybookError (it never comes to rest).
    """
    world = _World(playbook, scenario)
    end = scenario.opened_at + scenario.lasts
    now: datetime | None = scenario.opened_at
    while now is not None and now <= end:
        world.people_act(now)
        next_due = world.playbook_acts(now, duties_of)
        now = min((at for at in (next_due, world.next_event(now)) if at is not None), default=None)
    return world.story


class _World:
    """The incident, its steps and the people of one scenario."""

    def __init__(self, playbook: Playbook, scenario: Scenario) -> None:
        self.playbook = playbook
        self.scenario = scenario
        self.story: list[tuple[datetime, Action]] = []
        self.steps: dict[str, StepRun] = {}
        self.incident = Incident(
            id="INC-SIMULATED",
            title=playbook.title,
            severity=scenario.severity,
            opened_at=scenario.opened_at,
            first_seen=scenario.opened_at,
            last_seen=scenario.opened_at,
            count=1,
            rules=scenario.rules,
            entities=scenario.entities or {},
        )

    def playbook_acts(self, now: datetime, duties_of: Callable[[Incident], Sequence[Duty]]) -> datetime | None:
        """Perform what is planned until nothing is; gives the next instant to look."""
        while True:
            found = plan(self.playbook, self.incident, self.steps, duties_of(self.incident), now)
            if not found.actions:
                return found.next_due
            for action in found.actions:
                self._perform(action, now)
            if len(self.story) > MAX_ACTIONS:
                raise PlaybookError(f"more than {MAX_ACTIONS} actions: the playbook never comes to rest")

    def people_act(self, now: datetime) -> None:
        """Everything people do by now."""
        acknowledged, confirmed = self._when(self.scenario.acknowledge_after), self._when(self.scenario.confirm_after)
        state = self.incident.state
        if state is IncidentState.OPEN and acknowledged is not None and acknowledged <= now:
            self.incident = msgspec.structs.replace(
                self.incident, state=IncidentState.ACKNOWLEDGED, acknowledged_at=acknowledged
            )
        state = self.incident.state
        if state is IncidentState.ACKNOWLEDGED and confirmed is not None and confirmed <= now:
            self.incident = msgspec.structs.replace(self.incident, state=IncidentState.CONFIRMED, confirmed_at=now)
        for key, run in list(self.steps.items()):
            at = self._moves_at(run)
            if at is not None and at <= now:
                after = StepState.APPROVED if run.state is StepState.PREPARED else StepState.DONE
                self.steps[key] = replace(run, state=after, at_utc=now)

    def next_event(self, now: datetime) -> datetime | None:
        """When people act next."""
        plans = [self._when(self.scenario.acknowledge_after), self._when(self.scenario.confirm_after)]
        plans += [self._moves_at(run) for run in self.steps.values()]
        return min((at for at in plans if at is not None and at > now), default=None)

    def _when(self, after: timedelta | None) -> datetime | None:
        return None if after is None else self.scenario.opened_at + after

    def _moves_at(self, run: StepRun) -> datetime | None:
        if run.state is StepState.PREPARED and self.scenario.approve_after is not None:
            return run.at_utc + self.scenario.approve_after
        return run.at_utc + self.scenario.sending_takes if run.state is StepState.RUNNING else None

    def _perform(self, action: Action, now: datetime) -> None:
        self.story.append((now, action))
        run = recorded(action, self.incident, now=now)
        if run is not None:
            self.steps[run.step] = run
        elif isinstance(action, MarkNotifying):
            self.incident = msgspec.structs.replace(self.incident, state=IncidentState.NOTIFYING)
        else:
            self.incident = msgspec.structs.replace(self.incident, state=IncidentState.NOTIFIED, notified_at=now)
