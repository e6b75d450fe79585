"""What `breachwatch incident show` tells the people who have to act on it."""

from __future__ import annotations

from datetime import UTC, datetime

from breachwatch.app.state import prepare_state
from breachwatch.app.wiring import open_hub_store_at
from breachwatch.model import StateChange
from tests.e2e.harness import Installation
from tests.store.test_incidents import an_incident


def test_the_reason_why_a_notice_waits_is_shown_to_its_end(tmp_path):
    installed = Installation(tmp_path)
    store = open_hub_store_at(prepare_state(installed.state), origin="breachwatch.invalid/web01")
    incident = an_incident()
    reason = (
        "authority cannot be prepared: "
        + "/a/long/folder" * 12
        + "/authority.vi.txt.j2:9: missing inc.place, inc.actors"
    )
    with store.transaction() as tx:
        tx.incidents.insert(incident)
        tx.incidents.add_change(
            StateChange(incident_id=incident.id, at_utc=datetime(2026, 1, 5, tzinfo=UTC), actor="system", kind="notice",
                        reason=reason)
        )  # fmt: skip
    store.close()
    assert reason in installed.call("incident", "show", incident.id)
