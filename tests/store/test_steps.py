from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from sqlalchemy import Connection, text

from breachwatch.errors import StoreError
from breachwatch.model import Approval, Incident, Level, StepRun, StepState
from breachwatch.store.incidents import IncidentTable
from breachwatch.store.steps import StepTable

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)


def a_run(step: str = "vn/authority", n: int = 0, state: StepState = StepState.PREPARED, **changes) -> StepRun:
    return replace(StepRun(incident_id="INC-1", step=step, n=n, state=state, at_utc=START), **changes)


@pytest.fixture
def steps(connection: Connection) -> StepTable:
    incident = Incident(id="INC-1", title="t", severity=Level.HIGH, opened_at=START, first_seen=START, last_seen=START)
    IncidentTable(connection).insert(incident)
    IncidentTable(connection).insert(msgspec.structs.replace(incident, id="INC-2"))
    return StepTable(connection)


def test_a_step_is_recorded_once(steps: StepTable):
    first = a_run(output={"campaign": "c1", "people": 3, "draft": True, "why": None})
    assert steps.add(first)
    assert not steps.add(a_run(state=StepState.RUNNING))
    assert steps.get("INC-1", "vn/authority") == first
    assert steps.get("INC-1", "vn/customers") is None


def test_the_latest_run_of_each_step_is_what_counts(steps: StepTable):
    for n in (1, 3, 2):
        steps.add(a_run("vn/escalation.0.0", n, StepState.DONE))
    steps.add(a_run())
    steps.add(a_run(incident_id="INC-2"))
    assert {step: run.n for step, run in steps.latest("INC-1").items()} == {"vn/authority": 0, "vn/escalation.0.0": 3}
    assert [run.n for run in steps.history("INC-1")] == [0, 1, 2, 3]
    last, first = steps.get("INC-1", "vn/escalation.0.0"), steps.get("INC-1", "vn/escalation.0.0", 1)
    assert last is not None
    assert first is not None
    assert (last.n, first.n) == (3, 1)


def test_a_step_moves_on_but_an_ended_one_stays_ended(steps: StepTable):
    for state in (StepState.WAITING, StepState.PREPARED, StepState.APPROVED, StepState.RUNNING, StepState.DONE):
        steps.put(a_run(state=state, output={"now": str(state)}))
        assert steps.get("INC-1", "vn/authority") == a_run(state=state, output={"now": str(state)})
    for state in (StepState.RUNNING, StepState.CANCELLED):
        with pytest.raises(StoreError, match=f"done and cannot become {state}"):
            steps.put(a_run(state=state))
    steps.put(a_run("vn/customers", state=StepState.CANCELLED))
    with pytest.raises(StoreError, match="cancelled"):
        steps.put(a_run("vn/customers", state=StepState.APPROVED))


def test_what_is_due_comes_first_due_first_and_ended_steps_never(steps: StepTable):
    steps.add(a_run("a", due_at=START + timedelta(minutes=2)))
    steps.add(a_run("b", due_at=START + timedelta(minutes=1), state=StepState.WAITING))
    steps.add(a_run("c", due_at=START, state=StepState.DONE))
    steps.add(a_run("d"))
    assert [run.step for run in steps.due(START + timedelta(minutes=2))] == ["b", "a"]
    assert [run.step for run in steps.due(START + timedelta(minutes=2), limit=1)] == ["b"]
    assert steps.due(START) == []


def test_one_person_approves_one_content_once(steps: StepTable):
    assert steps.add_approval("c1", "hash1", "usr:lan", START, "lan")
    assert not steps.add_approval("c1", "hash1", "usr:lan", START + timedelta(hours=1), "root")
    assert steps.add_approval("c1", "hash1", "usr:minh", START + timedelta(hours=1), "minh")
    assert steps.add_approval("c1", "hash2", "usr:lan", START, "lan")
    assert steps.approvals("c1", "hash1") == [
        Approval(campaign_id="c1", content_hash="hash1", approver="usr:lan", at_utc=START, os_user="lan"),
        Approval(
            campaign_id="c1",
            content_hash="hash1",
            approver="usr:minh",
            at_utc=START + timedelta(hours=1),
            os_user="minh",
        ),
    ]
    assert steps.approvals("c2", "hash1") == []


def test_a_step_of_no_incident_is_no_step(steps: StepTable, connection: Connection):
    from breachwatch.store.database import store_errors

    with pytest.raises(StoreError), store_errors("a step"), connection.begin_nested():
        steps.add(a_run(incident_id="INC-9"))


def test_an_unheard_of_state_is_an_error(steps: StepTable, connection: Connection):
    steps.add(a_run())
    connection.execute(text("UPDATE step_run SET state = 'levitating'"))
    with pytest.raises(StoreError, match="newer"):
        steps.latest("INC-1")
