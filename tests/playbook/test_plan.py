from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from breachwatch.errors import ApprovalError
from breachwatch.model import Channel, Duty, Incident, IncidentState, Level, StepRun, StepState
from breachwatch.playbook.actions import (
    Action,
    MarkNotified,
    MarkNotifying,
    PageTeam,
    PrepareNotice,
    StartCampaign,
    WarnClock,
)
from breachwatch.playbook.plan import FRACTIONS, MAX_REPEAT_WAIT, Plan, check_approval, is_approved, plan, recorded
from tests.playbook.samples import DUTIES, SMALL, START, a_duty, an_incident

S = IncidentState
MINUTE = timedelta(minutes=1)


def a_run(step: str, state: StepState = StepState.DONE, n: int = 0, at: datetime = START, **changes) -> StepRun:
    run = StepRun(incident_id="INC-2026-000001", step=f"small/{step}", n=n, state=state, at_utc=at)
    return replace(run, **changes)


def steps_of(*runs: StepRun) -> dict[str, StepRun]:
    return {run.step: run for run in runs}


def ask(
    state: IncidentState = S.OPEN, *runs: StepRun, at: datetime = START, duties: tuple[Duty, ...] = (), **changes
) -> Plan:
    return plan(SMALL, an_incident(state, **changes), steps_of(*runs), duties, at)


def kinds(found: Plan) -> list[str]:
    return [type(action).__name__ for action in found.actions]


# --- escalation ---


def test_the_first_level_is_paged_at_once():
    found = ask()
    assert found.actions == (
        PageTeam(step="small/escalation.0.0", attempt=1, to="oncall", via=(Channel.CHAT, Channel.SMS)),
    )
    assert found.next_due == START + 5 * MINUTE


def test_the_next_level_waits_its_turn():
    paged = a_run("escalation.0.0", n=1)
    early = ask(S.OPEN, paged, at=START + 4 * MINUTE)
    assert (early.actions, early.next_due) == ((), START + 5 * MINUTE)
    late = ask(S.OPEN, paged, at=START + 5 * MINUTE)
    assert [action.to for action in late.actions if isinstance(action, PageTeam)] == ["boss"]
    assert late.next_due == START + 15 * MINUTE


def test_the_wait_counts_from_the_page_and_not_from_the_opening():
    """After the hub was down for a day, people get their time to answer instead of all levels at once."""
    found = ask(S.OPEN, a_run("escalation.0.0", n=1, at=START + timedelta(days=1)), at=START + timedelta(days=1))
    assert found.actions == ()


def test_the_last_level_goes_on_ever_more_slowly_until_somebody_answers():
    now, gaps = START, []
    runs: dict[str, StepRun] = {}
    for _ in range(20):
        found = plan(SMALL, an_incident(), runs, (), now)
        (page,) = found.actions
        assert isinstance(page, PageTeam)
        runs[page.step] = a_run(page.step.removeprefix("small/"), n=page.attempt, at=now)
        assert found.next_due is not None
        gaps.append(found.next_due - now)
        now = found.next_due
    assert gaps[:6] == [5 * MINUTE, 10 * MINUTE, 10 * MINUTE, 20 * MINUTE, 40 * MINUTE, 80 * MINUTE]
    assert gaps[-1] == MAX_REPEAT_WAIT


def test_a_wait_longer_than_the_cap_is_kept():
    slow = SMALL.model_copy(
        update={"escalation": (SMALL.escalation[0].model_copy(update={"wait": timedelta(hours=8)}),)}
    )
    found = plan(slow, an_incident(), steps_of(a_run("escalation.0.0", n=9)), (), START)
    assert found.next_due == START + timedelta(hours=8)


@pytest.mark.parametrize("state", [state for state in S if state is not S.OPEN])
def test_nobody_is_paged_once_somebody_answered(state):
    assert "PageTeam" not in kinds(ask(state, at=START + timedelta(days=3)))


def test_a_reopened_incident_escalates_anew():
    runs = (a_run("escalation.0.0", n=1), a_run("escalation.0.1", n=7))
    (page,) = ask(S.OPEN, *runs, at=START + timedelta(days=1), reopened=1).actions
    assert isinstance(page, PageTeam)
    assert (page.step, page.attempt) == ("small/escalation.1.0", 1)


def test_an_incident_that_it_is_not_for_is_left_alone():
    found = ask(severity=Level.LOW, duties=DUTIES, at=START + timedelta(days=9))
    assert (found.actions, found.next_due) == ((), None)


def test_what_it_began_with_it_stays_with():
    found = ask(S.OPEN, a_run("escalation.0.0", n=1), at=START + 5 * MINUTE, severity=Level.LOW)
    assert kinds(found) == ["PageTeam"]


def test_the_steps_of_another_playbook_are_none_of_its_own():
    other = replace(a_run("escalation.0.0", n=1), step="other/escalation.0.0")
    assert kinds(ask(S.OPEN, other)) == ["PageTeam"]


# --- notices ---


def test_confirming_brings_the_drafts():
    found = ask(S.CONFIRMED)
    authority, customers = found.actions
    assert isinstance(authority, PrepareNotice)
    assert isinstance(customers, PrepareNotice)
    assert (authority.step, authority.audience, authority.approvals_needed) == ("small/authority", "the-authority", 1)
    assert authority.roles == ("dpo", "ciso")
    assert customers.templates == {"vi": "customer", "en": "customer"}
    assert [(choice.channel, choice.if_undelivered) for choice in customers.channels] == [
        (Channel.EMAIL, False),
        (Channel.SMS, True),
    ]


@pytest.mark.parametrize("state", [S.OPEN, S.ACKNOWLEDGED, S.NOTIFIED, S.CLOSED, S.DISMISSED])
def test_only_a_confirmed_incident_gets_drafts(state):
    assert "PrepareNotice" not in kinds(ask(state))


def test_a_draft_that_failed_is_tried_again_at_its_time():
    failed = a_run("authority", StepState.WAITING, due_at=START + 5 * MINUTE)
    customers = a_run("customers", StepState.PREPARED)
    early = ask(S.CONFIRMED, failed, customers)
    assert (early.actions, early.next_due) == ((), START + 5 * MINUTE)
    assert "tried again" in early.waiting["small/authority"]
    assert kinds(ask(S.CONFIRMED, failed, customers, at=START + 5 * MINUTE)) == ["PrepareNotice"]
    assert kinds(ask(S.CONFIRMED, replace(failed, due_at=None), customers)) == ["PrepareNotice"]


def test_a_draft_waits_for_approval_and_says_for_whose():
    found = ask(S.CONFIRMED, a_run("authority", StepState.PREPARED), a_run("customers", StepState.PREPARED))
    assert found.actions == ()
    assert found.waiting["small/customers"] == "approval by 2 of dpo, not by the requester"


def test_an_approved_notice_starts_and_the_incident_is_notifying_before():
    found = ask(S.CONFIRMED, a_run("authority", StepState.APPROVED), a_run("customers", StepState.PREPARED))
    assert found.actions == (MarkNotifying(), StartCampaign(step="small/authority"))
    later = ask(S.NOTIFYING, a_run("authority", StepState.APPROVED), a_run("customers", StepState.PREPARED))
    assert later.actions == (StartCampaign(step="small/authority"),)


@pytest.mark.parametrize("state", [StepState.PREPARED, StepState.RUNNING, StepState.CANCELLED, StepState.WAITING])
def test_what_a_step_needs_has_to_be_done_first(state):
    need = a_run("authority", state, due_at=START + MINUTE)
    found = ask(S.NOTIFYING, need, a_run("customers", StepState.APPROVED))
    assert "StartCampaign" not in kinds(found)
    assert found.waiting["small/customers"] == f"needs authority ({state})"


def test_a_done_need_lets_it_go():
    found = ask(S.NOTIFYING, a_run("authority"), a_run("customers", StepState.APPROVED))
    assert found.actions == (StartCampaign(step="small/customers"),)


@pytest.mark.parametrize("state", [S.OPEN, S.ACKNOWLEDGED, S.CLOSED, S.DISMISSED])
def test_nothing_starts_while_nobody_confirms(state):
    paged = a_run("escalation.0.0", n=1)
    assert ask(state, paged, a_run("authority", StepState.APPROVED)).actions == ()


def test_an_approved_notice_still_leaves_when_the_incident_counts_as_notified():
    found = ask(S.NOTIFIED, a_run("authority"), a_run("customers", StepState.APPROVED))
    assert found.actions == (StartCampaign(step="small/customers"),)


def test_all_done_is_notified():
    done = (a_run("authority"), a_run("customers"))
    assert ask(S.NOTIFYING, *done).actions == (MarkNotified(),)
    assert ask(S.CONTAINED, *done).actions == (MarkNotifying(), MarkNotified())
    assert ask(S.NOTIFIED, *done).actions == ()


@pytest.mark.parametrize("state", [state for state in StepState if state is not StepState.DONE])
def test_one_notice_that_is_not_done_is_not_notified(state):
    found = ask(S.NOTIFYING, a_run("authority"), a_run("customers", state))
    assert "MarkNotified" not in kinds(found)


def test_a_notice_of_another_playbook_under_way_holds_the_end():
    other = replace(a_run("x", StepState.PREPARED), step="other/customers")
    assert ask(S.NOTIFYING, a_run("authority"), a_run("customers"), other).actions == ()


# --- clocks ---


@pytest.mark.parametrize(("hours", "fraction"), [(36, 0.5), (54, 0.75), (64.8, 0.9), (72, 1.0), (500, 1.0)])
def test_a_clock_is_warned_of_at_each_part_of_its_time(hours, fraction):
    found = ask(S.ACKNOWLEDGED, at=START + timedelta(hours=hours), duties=DUTIES)
    (warning,) = found.actions
    assert isinstance(warning, WarnClock)
    assert (warning.regime, warning.stage, warning.fraction) == ("law", "authority_notice", fraction)
    assert (warning.to, warning.via) == ("boss", (Channel.SMS,))
    assert warning.due_at == START + timedelta(hours=72)


def test_before_that_it_says_when_to_look():
    found = ask(S.ACKNOWLEDGED, duties=DUTIES)
    assert (found.actions, found.next_due) == ((), START + timedelta(hours=36))


def test_a_clock_without_a_date_says_why_and_one_without_a_duty_too():
    assert ask(S.ACKNOWLEDGED, duties=DUTIES).waiting["small/clock.law.open_end"] == "the law states no time"
    assert "no such duty" in ask(S.ACKNOWLEDGED).waiting["small/clock.law.authority_notice"]


def test_an_immediate_duty_is_overdue_from_the_first_minute():
    (warning,) = ask(S.ACKNOWLEDGED, duties=(a_duty(hours=0),)).actions
    assert isinstance(warning, WarnClock)
    assert warning.fraction == 1.0


def test_a_clock_that_is_met_is_silent():
    late = START + timedelta(days=9)
    found = ask(S.NOTIFYING, a_run("authority"), a_run("customers", StepState.PREPARED), at=late, duties=DUTIES)
    assert found.actions == ()
    assert "small/clock.law.authority_notice" not in found.waiting


@pytest.mark.parametrize("state", list(S))
def test_clocks_run_from_the_opening_to_the_end_whatever_the_state(state):
    found = ask(state, a_run("escalation.0.0", n=1), at=START + timedelta(days=9), duties=DUTIES)
    assert ("WarnClock" in kinds(found)) == (state not in {S.NOTIFIED, S.CLOSED, S.DISMISSED})


@given(st.lists(st.floats(0, 200, allow_nan=False), min_size=1, max_size=12).map(sorted))
def test_whenever_the_hub_looks_every_clock_is_warned_once_per_part_and_never_backwards(hours):
    runs: dict[str, StepRun] = {}
    warned: list[float] = []
    for hour in hours:
        now = START + timedelta(hours=hour)
        for action in plan(SMALL, an_incident(S.ACKNOWLEDGED), runs, DUTIES, now).actions:
            assert isinstance(action, WarnClock)
            warned.append(action.fraction)
            run = recorded(action, an_incident(), now=now)
            assert run is not None
            runs[run.step] = run
    assert warned == sorted(set(warned))
    reached = [fraction for fraction in FRACTIONS if timedelta(hours=72) * fraction <= timedelta(hours=hours[-1])]
    assert (warned[-1] if warned else None) == (reached[-1] if reached else None)


# --- idempotence ---


class World:
    """What is written down: the incident and its steps. Performs actions as `app` does, or dies before it can."""

    def __init__(self) -> None:
        self.now = START
        self.incident: Incident = an_incident()
        self.steps: dict[str, StepRun] = {}
        self.written: set[tuple[str, int]] = set()
        self.started: list[str] = []

    def look(self) -> Plan:
        return plan(SMALL, self.incident, self.steps, DUTIES, self.now)

    def perform(self, action: Action) -> None:
        run = recorded(action, self.incident, now=self.now)
        if run is not None:
            if not isinstance(action, StartCampaign):
                assert (run.step, run.n) not in self.written, "performed twice"
                self.written.add((run.step, run.n))
            self.steps[run.step] = run
        if isinstance(action, StartCampaign):
            self.started.append(action.step)
        elif isinstance(action, MarkNotifying):
            self.incident = msgspec.structs.replace(self.incident, state=S.NOTIFYING)
        elif isinstance(action, MarkNotified):
            self.incident = msgspec.structs.replace(self.incident, state=S.NOTIFIED)


class PlannerMachine(RuleBasedStateMachine):
    """People, time and crashes in any order; what must never happen never does."""

    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.approved: set[str] = set()

    @rule(minutes=st.integers(1, 3_000))
    def time_passes(self, minutes: int) -> None:
        self.world.now += minutes * MINUTE

    @rule(crash_after=st.integers(0, 3))
    def the_hub_looks(self, crash_after: int) -> None:
        """It performs some of the actions and dies; each one performed is written down."""
        for action in itertools.islice(self.world.look().actions, crash_after):
            self.world.perform(action)

    @rule()
    def the_hub_works_undisturbed(self) -> None:
        for _ in range(20):
            actions = self.world.look().actions
            if not actions:
                return
            for action in actions:
                self.world.perform(action)
        raise AssertionError("it never comes to rest")

    @rule(to=st.sampled_from([S.OPEN, S.ACKNOWLEDGED, S.CONFIRMED, S.CONTAINED, S.CLOSED, S.DISMISSED]))
    def people_change_the_state(self, to: IncidentState) -> None:
        again = to is S.OPEN and self.world.incident.state is not S.OPEN
        self.world.incident = msgspec.structs.replace(
            self.world.incident, state=to, reopened=self.world.incident.reopened + again
        )

    @rule(step=st.sampled_from(["small/authority", "small/customers"]))
    def a_second_person_approves(self, step: str) -> None:
        run = self.world.steps.get(step)
        if run is not None and run.state is StepState.PREPARED:
            self.world.steps[step] = replace(run, state=StepState.APPROVED)
            self.approved.add(step)

    @rule(step=st.sampled_from(["small/authority", "small/customers"]), to=st.sampled_from(["done", "cancelled"]))
    def a_campaign_ends(self, step: str, to: str) -> None:
        run = self.world.steps.get(step)
        if run is not None and (
            run.state is StepState.RUNNING or (to == "cancelled" and run.state is not StepState.DONE)
        ):
            self.world.steps[step] = replace(run, state=StepState(to))

    @invariant()
    def nothing_unapproved_starts_and_nothing_starts_twice(self) -> None:
        if hasattr(self, "world"):
            assert set(self.world.started) <= self.approved
            assert len(self.world.started) == len(set(self.world.started))

    @invariant()
    def asking_twice_gives_the_same_answer(self) -> None:
        if hasattr(self, "world"):
            assert self.world.look() == self.world.look()

    @invariant()
    def a_rest_has_an_end_while_something_is_to_come(self) -> None:
        if not hasattr(self, "world"):
            return
        found = self.world.look()
        assert found.next_due is None or found.next_due > self.world.now
        if self.world.incident.state is S.OPEN and not found.actions:
            assert found.next_due is not None


TestPlanner = PlannerMachine.TestCase


# --- four eyes ---


def approve(approver: str = "usr:minh", roles: tuple[str, ...] = ("dpo",), requester: str = "usr:lan",
            given: tuple[str, ...] = (), **options) -> None:  # fmt: skip
    check_approval("small/customers", approver, roles, requester, given, **options)


def test_a_second_person_with_the_role_may_approve():
    approve()
    approve(roles=("analyst", "ciso"))
    approve(roles=("legal",), allowed_roles=("legal",))
    approve(given=("usr:hoa",))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"approver": "usr:lan"}, "asked for this notice yourself"),
        ({"approver": " USR:Lan "}, "asked for this notice yourself"),
        ({"roles": ()}, "roles may not"),
        ({"roles": ("analyst",)}, "dpo"),
        ({"allowed_roles": ()}, "nobody"),
        ({"given": ("usr:minh",)}, "before"),
        ({"given": ("Usr:Minh",)}, "before"),
        ({"approver": " "}, "known person"),
        ({"requester": ""}, "known requester"),
    ],
)
def test_anybody_else_may_not(changes: Mapping[str, object], what):
    with pytest.raises(ApprovalError, match=what) as refused:
        approve(**changes)  # type: ignore[arg-type]
    assert refused.value.source == "small/customers"


@pytest.mark.parametrize(
    ("need", "given", "enough"),
    [
        (1, [], False),
        (1, ["usr:minh"], True),
        (1, ["usr:lan"], False),
        (1, ["USR:LAN", " "], False),
        (2, ["usr:minh", "usr:MINH"], False),
        (2, ["usr:minh", "usr:hoa"], True),
        (2, ["usr:minh", "usr:lan"], False),
        (0, ["usr:minh"], False),
    ],
)
def test_enough_are_that_many_different_people_without_the_requester(need, given, enough):
    assert is_approved(need, "usr:lan", given) is enough
