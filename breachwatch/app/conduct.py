"""Asks the playbooks what to do about every live incident, and has it done. Looks only where something changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from breachwatch.app.perform import Performer
from breachwatch.errors import BreachWatchError, RowError, StoreError
from breachwatch.model import Duty, Incident, IncidentState
from breachwatch.playbook.plan import plan
from breachwatch.playbook.schema import Playbook
from breachwatch.ports import Clock
from breachwatch.store.hub import HubStore

LIVE = frozenset(IncidentState) - {IncidentState.CLOSED, IncidentState.DISMISSED}

MAX_ROUNDS = 50
"""Plans in a row for one incident: one that still wants more is looked at again after the others."""

AFTER_TROUBLE = timedelta(seconds=30)
"""When an incident whose actions failed is tried again."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What was known when an incident was last looked at."""

    revision: int
    again_at: datetime | None


@dataclass(slots=True)
class Conductor:
    """The hub's second half, between ingest and outbox."""

    store: HubStore
    performer: Performer
    clock: Clock
    playbooks: Sequence[Playbook]
    duties_of: Callable[[Incident, Mapping[str, str]], Sequence[Duty]]
    on_trouble: Callable[[str, BreachWatchError], None]
    _looks: dict[str, _Look] = field(default_factory=dict)
    _troubles: dict[str, str] = field(default_factory=dict)
    """What is wrong with which incident, as it was told."""

    def tick(self) -> int:
        """Look at every incident that may want something; returns how many actions were done. Raises: StoreError."""
        with self.store.reading() as view:
            revisions = view.incidents.revisions(LIVE)
            moving = view.steps.moving()
        self._looks = {name: look for name, look in self._looks.items() if name in revisions}
        self._troubles = {name: told for name, told in self._troubles.items() if name in revisions}
        now = self.clock.now()
        wanted = [name for name, revision in revisions.items() if name in moving or self._is_due(name, revision, now)]
        return sum(self._conduct(incident_id, revisions[incident_id]) for incident_id in sorted(wanted))

    def next_look(self) -> datetime | None:
        """When something is due although nothing changes."""
        return min((look.again_at for look in self._looks.values() if look.again_at is not None), default=None)

    def forget(self) -> None:
        """Look at everything again: the playbooks have changed."""
        self._looks.clear()

    def _is_due(self, incident_id: str, revision: int, now: datetime) -> bool:
        look = self._looks.get(incident_id)
        return look is None or look.revision != revision or (look.again_at is not None and look.again_at <= now)

    def _conduct(self, incident_id: str, revision: int) -> int:
        """One incident; its trouble never holds up the others. Raises: StoreError."""
        done = 0
        for _ in range(MAX_ROUNDS):
            did, look = self._tried(incident_id, revision)
            if look is not None:
                self._looks[incident_id] = look
            done += did
            if not did:
                break
        return done

    def _tried(self, incident_id: str, revision: int) -> tuple[int, _Look | None]:
        """One round; what goes wrong with this incident alone is told once and tried again. Raises: StoreError."""
        try:
            done = self._round(incident_id)
        except RowError as error:
            trouble: BreachWatchError = error
        except StoreError:
            raise
        except BreachWatchError as error:
            trouble = error
        except Exception as error:  # noqa: BLE001  # the boundary: a defect met by one incident must not end the others
            trouble = BreachWatchError(f"defect: {type(error).__name__}", source=_place(error))
        else:
            self._troubles.pop(incident_id, None)
            return done
        if self._troubles.get(incident_id) != str(trouble):
            self._troubles[incident_id] = str(trouble)
            self.on_trouble(incident_id, trouble)
        return 0, _Look(revision, self.clock.now() + AFTER_TROUBLE)

    def _round(self, incident_id: str) -> tuple[int, _Look | None]:
        """Ask once and do what is asked; gives how many actions, and when to look again."""
        with self.store.reading() as view:
            incident = view.incidents.get(incident_id)
        if incident is None:
            return 0, None
        settled = self.performer.settle(incident)
        with self.store.reading() as view:
            steps = view.steps.latest(incident_id)
            facts = view.incidents.facts(incident_id)
        duties = self.duties_of(incident, facts)
        now = self.clock.now()
        again: list[datetime] = []
        done = int(settled)
        for playbook in self.playbooks:
            found = plan(playbook, incident, steps, duties, now)
            if found.next_due is not None:
                again.append(found.next_due)
            for action in found.actions:
                self.performer.perform(action, incident)
                done += 1
            if found.actions:
                break  # what was done may change what the next playbook wants: ask anew
        return done, _Look(incident.revision, min(again, default=None))


def _place(error: Exception) -> str:
    """Where a defect showed: module and line, never the words of the error, which may repeat a contact."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return "" if last is None else f"{last.tb_frame.f_globals.get('__name__', '')}:{last.tb_lineno}"
