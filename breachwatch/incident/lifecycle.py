"""The life of an incident: which state may follow which, who may do it, and what stays on record.

open -> acknowledged -> confirmed -> (contained, notifying) -> notified -> closed; open or acknowledged -> dismissed;
closed or dismissed -> open again. Containing and notifying run side by side: `contained_at` is a fact of its own, so
an incident that is already notifying or notified keeps its state when it is contained.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec.structs import replace

from breachwatch.errors import IncidentError
from breachwatch.model import Incident, IncidentState, Severity, StateChange

_S = IncidentState

ALLOWED: dict[IncidentState, frozenset[IncidentState]] = {
    _S.OPEN: frozenset({_S.ACKNOWLEDGED, _S.DISMISSED}),
    _S.ACKNOWLEDGED: frozenset({_S.OPEN, _S.CONFIRMED, _S.DISMISSED}),
    _S.CONFIRMED: frozenset({_S.CONTAINED, _S.NOTIFYING, _S.CLOSED}),
    _S.CONTAINED: frozenset({_S.NOTIFYING, _S.CLOSED}),
    _S.NOTIFYING: frozenset({_S.CONTAINED, _S.NOTIFIED}),
    _S.NOTIFIED: frozenset({_S.CONTAINED, _S.CLOSED}),
    _S.CLOSED: frozenset({_S.OPEN}),
    _S.DISMISSED: frozenset({_S.OPEN}),
}
"""Acknowledged -> open: the acknowledgement expired or was handed back, and the escalation starts anew."""

_KEEPS_STATE_WHEN_CONTAINED = frozenset({_S.NOTIFYING, _S.NOTIFIED})

MAX_REASON_CHARS = 10_000
"""Longer words belong into an evidence file."""


def transition(
    incident: Incident, to: IncidentState, *, actor: str, reason: str, now: datetime
) -> tuple[Incident, StateChange]:
    """The incident after the change, and the record of it.

    First times stay: reopening or a second confirmation never moves `acknowledged_at`, `confirmed_at`, `notified_at`.

    Raises: IncidentError (not allowed from here, reason or actor missing, clock not UTC).
    """
    _check_words(incident, actor, reason, now)
    _check_allowed(incident, to)
    if needs_reason(incident, to) and not reason.strip():
        raise IncidentError(f"{incident.state} -> {to} needs a reason", source=incident.id, hint="say why; it is kept")
    change = StateChange(
        incident_id=incident.id,
        at_utc=now,
        actor=actor,
        kind="state",
        reason=reason,
        before=str(incident.state),
        after=str(to),
    )
    return _changed(incident, to, now), change


def note(incident: Incident, text: str, *, actor: str, now: datetime) -> StateChange:
    """Words added to the history. Raises: IncidentError (no words, no actor)."""
    _check_words(incident, actor, text, now)
    if not text.strip():
        raise IncidentError("an empty note", source=incident.id, hint="give the words to keep")
    return StateChange(incident_id=incident.id, at_utc=now, actor=actor, kind="note", reason=text)


def needs_reason(incident: Incident, to: IncidentState) -> bool:
    """Dismissing, reopening, and closing what nobody was told of, are decisions somebody will ask about."""
    if to is _S.CLOSED:
        return incident.notified_at is None
    return to is _S.DISMISSED or (to is _S.OPEN and incident.state in {_S.CLOSED, _S.DISMISSED})


def needs_second_person(incident: Incident, to: IncidentState) -> bool:
    """Whether a change that ends the duties of a grave incident should have a second person behind it."""
    if to is _S.DISMISSED:
        return incident.severity.rank >= Severity.HIGH.rank
    return to is _S.CLOSED and incident.notified_at is None


def _changed(incident: Incident, to: IncidentState, now: datetime) -> Incident:
    is_contained = to is _S.CONTAINED
    is_over = to in {_S.CLOSED, _S.DISMISSED}
    closed_at = now if is_over else incident.closed_at
    return replace(
        incident,
        state=incident.state if is_contained and incident.state in _KEEPS_STATE_WHEN_CONTAINED else to,
        acknowledged_at=_first(incident.acknowledged_at, now, to is _S.ACKNOWLEDGED),
        confirmed_at=_first(incident.confirmed_at, now, to is _S.CONFIRMED),
        contained_at=_first(incident.contained_at, now, is_contained),
        notified_at=_first(incident.notified_at, now, to is _S.NOTIFIED),
        closed_at=None if to is _S.OPEN else closed_at,
        reopened=incident.reopened + (to is _S.OPEN),
    )


def _first(known: datetime | None, now: datetime, happens: bool) -> datetime | None:
    """The first time stays."""
    return now if happens and known is None else known


def _check_allowed(incident: Incident, to: IncidentState) -> None:
    allowed = allowed_from(incident)
    if to in allowed:
        return
    choices = ", ".join(sorted(allowed))
    if to is _S.CONTAINED and incident.contained_at is not None:
        raise IncidentError("already contained", source=incident.id, hint=f"from {incident.state}: {choices}")
    if to is incident.state:
        raise IncidentError(f"already {to}", source=incident.id, hint=f"from here: {choices}")
    raise IncidentError(f"{incident.state} cannot become {to}", source=incident.id, hint=f"from here: {choices}")


def allowed_from(incident: Incident) -> frozenset[IncidentState]:
    """The states that may follow now."""
    allowed = ALLOWED[incident.state]
    contained_already = incident.state in _KEEPS_STATE_WHEN_CONTAINED and incident.contained_at is not None
    return allowed - {_S.CONTAINED} if contained_already else allowed


def _check_words(incident: Incident, actor: str, words: str, now: datetime) -> None:
    if now.utcoffset() != timedelta(0):
        raise IncidentError("the time of a change must be UTC", source=incident.id)
    if not actor.strip():
        raise IncidentError("a change needs a person behind it", source=incident.id)
    if len(words) > MAX_REASON_CHARS:
        raise IncidentError(
            f"{len(words)} characters are more than {MAX_REASON_CHARS}",
            source=incident.id,
            hint="keep them as evidence",
        )
