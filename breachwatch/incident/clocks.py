"""The instants that legal clocks run from. They only ever move earlier: nothing here can buy time.

Confirmation starts no clock; it gates the sending.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from breachwatch.errors import IncidentError
from breachwatch.model import Incident

STATED = frozenset(
    {
        "occurred_at",
        "detected_at",
        "pd_detected_at",
        "suspected_at",
        "aware_at",
        "reasonable_belief_at",
        "assessed_notifiable_at",
        "classified_major_at",
        "materiality_determined_at",
        "breach_determined_at",
        "ransom_paid_at",
        "info_available_at",
        "remediated_at",
    }
)
"""Facts by which a person states when something happened. Source: the `timestamps` of the regimes data."""


def instants(incident: Incident, facts: Mapping[str, str] | None = None) -> dict[str, datetime]:
    """Name of a clock start to its instant (UTC); a start that is not known is absent, never invented.

    - `occurred_at`: the first event of the incident.
    - `detected_at`: the earliest known detection. The first match says when there was something to detect and
      `opened_at` when it was recorded; in doubt the earlier counts, also when the hub was down between the two.
    - `aware_at`: when a person first took note (acknowledged), unless an earlier awareness is stated.
    - facts of these names (ISO 8601 with offset) move a start earlier, never later.

    Raises: IncidentError (a stated time that cannot be read).
    """
    earliest = min(incident.first_seen, incident.opened_at)
    found = {"occurred_at": incident.first_seen, "detected_at": earliest}
    aware = [at for at in (incident.acknowledged_at, incident.confirmed_at) if at is not None]
    if aware:
        found["aware_at"] = min(aware)
    if incident.confirmed_at is not None:
        found["confirmed_at"] = incident.confirmed_at
    if incident.contained_at is not None:
        found["contained_at"] = incident.contained_at
    for name in STATED.intersection(facts or ()):
        stated = _stated(incident, name, (facts or {})[name])
        found[name] = min(stated, found.get(name, stated))
    return found


def _stated(incident: Incident, name: str, text: str) -> datetime:
    try:
        stated = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise IncidentError(
            f"fact {name} is not a time", source=incident.id, hint="for example 2026-11-23T09:15:00+07:00"
        ) from error
    if stated.tzinfo is None:
        raise IncidentError(f"fact {name} has no offset from UTC", source=incident.id, hint="add Z or +07:00")
    return stated.astimezone(UTC)
