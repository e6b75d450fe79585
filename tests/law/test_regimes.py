from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import breachwatch.law
from breachwatch.errors import LawError
from breachwatch.law import Regime, duties, load_regimes
from breachwatch.model import Duty

FOLDER = Path(breachwatch.law.__file__).parent / "regimes"
HANOI = timezone(timedelta(hours=7))
DETECTED = datetime(2026, 11, 23, 2, 15, tzinfo=UTC)

HEAD = """\
schema: breachwatch.regimes/1
as_of: 2026-11-23
review: {status: unreviewed, by: null, on: null}
timestamps: {detected_at: first alert, aware_at: certainty}
recipients: {authority: the authority, subjects: the persons}
conditions: {grave: a grave case}
facts: {inc.description: what happened}
authorities: {xx-one: {name: The Authority, v: S}}
regimes:
- id: xx-law
  title: A law
  jurisdiction: XX
  status: {value: in_force, since: 2026-01-01, until: null, v: S}
  authorities: [xx-one]
  trigger: {events: [detected_at], v: S}
  stages:
"""


def shipped(name: str) -> tuple[Regime, ...]:
    return load_regimes((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), f"{name}.yaml")


def row(due: str, more: str = "") -> Regime:
    (regime,) = load_regimes(HEAD + f"  - {{id: first, to: [authority], due: {due}, v: S{more}}}\n", "law.yaml")
    return regime


def only(regime: Regime, instants: dict[str, datetime], **options) -> Duty:
    (duty,) = duties(regime, instants, **options)
    return duty


def test_the_shipped_rows_are_there_and_say_that_nobody_reviewed_them():
    assert [regime.id for name in ("vn", "eu") for regime in shipped(name)] == ["vn-pdpl-23", "vn-pdpl-29", "eu-gdpr"]
    for path in FOLDER.glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert "review: {status: unreviewed" in text
        assert "NOT LEGAL ADVICE" in text


def test_the_vietnamese_worked_timeline():
    found = {duty.stage: duty for duty in duties(shipped("vn")[0], {"detected_at": DETECTED}, tz=HANOI)}
    notice = found["authority_notice"]
    assert notice.due_at == datetime(2026, 11, 26, 9, 15, tzinfo=HANOI)
    assert notice.authorities == ("vn-mps-pdp",)
    assert "detected_at" in notice.basis
    assert found["processor_to_controller"].due_at == DETECTED
    assert found["written_record"].due_at is None
    assert "internal" in found["written_record"].why


def test_gdpr_counts_from_awareness_and_is_not_started_without():
    regime = shipped("eu")[0]
    unaware = {duty.stage: duty for duty in duties(regime, {"detected_at": DETECTED})}
    assert unaware["authority_notice"].due_at is None
    assert "aware_at" in unaware["authority_notice"].why
    aware = {duty.stage: duty for duty in duties(regime, {"aware_at": DETECTED})}
    assert aware["authority_notice"].due_at == DETECTED + timedelta(hours=72)
    assert aware["subject_notice"].condition == "high_risk"


def test_the_whole_research_file_loads_and_never_gives_a_date_without_a_reason(shared_data):
    path = shared_data.parent / "law" / "regimes.yaml"
    if not path.is_file():
        pytest.skip(f"research rows not found at {path}: set BREACHWATCH_TEST_DATA")
    text = path.read_text(encoding="utf-8")
    regimes = load_regimes(text, "regimes.yaml")
    assert len(regimes) == text.count("\n- id: ")
    names = text.split("timestamps:")[1].split("recipients:")[0].split("\n")
    instants = {line.split(":")[0].strip(): DETECTED for line in names if ":" in line}
    for regime in regimes:
        for duty in (*duties(regime, instants), *duties(regime, {})):
            assert (duty.due_at is None) == bool(duty.why)
            assert duty.due_at is None or (duty.starts_at is not None and duty.due_at >= duty.starts_at)
    shipped_rows = {regime.id: regime for name in ("vn", "eu") for regime in shipped(name)}
    for regime in regimes:
        if regime.id in shipped_rows:
            mine, theirs = shipped_rows[regime.id].stages, regime.stages
            assert [(stage.id, stage.to, stage.due.amount, stage.due.unit, stage.due.after) for stage in mine] == [
                (stage.id, stage.to, stage.due.amount, stage.due.unit, stage.due.after) for stage in theirs
            ]


@pytest.mark.parametrize(
    ("due", "expected"),
    [
        ("{after: detected_at, amount: 72, unit: hours}", datetime(2026, 11, 26, 9, 15, tzinfo=HANOI)),
        ("{after: detected_at, amount: 3, unit: calendar_days}", datetime(2026, 11, 27, tzinfo=HANOI)),
        ("{after: detected_at, amount: 1, unit: months}", datetime(2026, 12, 24, tzinfo=HANOI)),
        ("{after: detected_at, unit: immediate}", DETECTED),
        ("{first_set_of: [aware_at, detected_at], amount: 1, unit: hours}", DETECTED + timedelta(hours=1)),
        (
            "{earliest_of: [{after: detected_at, amount: 4, unit: hours}, {after: aware_at, amount: 1, unit: hours}]}",
            DETECTED + timedelta(hours=4),
        ),
        (
            "{earliest_of: [{after: detected_at, amount: 4, unit: hours},"  # noqa: ISC004  # one flow mapping
            " {after: detected_at, amount: 2, unit: hours}]}",
            DETECTED + timedelta(hours=2),
        ),
    ],
)
def test_each_unit(due, expected):
    assert only(row(due), {"detected_at": DETECTED}, tz=HANOI).due_at == expected


def test_a_month_without_the_day_ends_on_its_last():
    end_of_january = datetime(2027, 1, 31, 3, tzinfo=UTC)
    due = only(row("{after: detected_at, amount: 1, unit: months}"), {"detected_at": end_of_january}).due_at
    assert due == datetime(2027, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("due", "why"),
    [
        ("{after: detected_at, amount: 4, unit: business_days}", "working days"),
        ("{unit: on_request}", "on request"),
        ("{unit: none_stated}", "states no time"),
        ("{unit: annual_date, month: 12, day: 25}", "every year"),
        ("{after: aware_at, amount: 4, unit: hours}", "aware_at is not known"),
        ('{after: "stage:first.submitted_at", amount: 4, unit: hours}', "stage:first.submitted_at is not known"),
        ("{earliest_of: [{after: aware_at, amount: 4, unit: hours}]}", "aware_at is not known"),
        ("{after: null, unit: immediate}", "no start recorded"),
        (
            "{after: detected_at, amount: 4, unit: hours, variants: [{when: grave, amount: 1, unit: business_days}]}",
            "working days",
        ),
    ],
)
def test_a_date_that_cannot_be_known_is_not_invented(due, why):
    duty = only(row(due), {"detected_at": DETECTED}, conditions=frozenset({"grave"}))
    assert (duty.due_at, duty.starts_at) == (None, duty.starts_at)
    assert why in duty.why


def test_a_chained_stage_starts_when_the_one_before_was_submitted():
    regime = row('{after: "stage:first.submitted_at", amount: 4, unit: hours}')
    assert only(regime, {"stage:first.submitted_at": DETECTED}).due_at == DETECTED + timedelta(hours=4)


def test_a_condition_that_holds_chooses_its_variant():
    regime = row("{after: detected_at, amount: 72, unit: hours, variants: [{when: grave, amount: 24, unit: hours}]}")
    assert only(regime, {"detected_at": DETECTED}).due_at == DETECTED + timedelta(hours=72)
    grave = only(regime, {"detected_at": DETECTED}, conditions=frozenset({"grave"}))
    assert grave.due_at == DETECTED + timedelta(hours=24)


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ("{value: not_yet_enforced, since: null, until: null, v: S}", "not_yet_enforced"),
        ("{value: in_force, since: 2026-11-24, until: null, v: S}", "only since 2026-11-24"),
        ("{value: in_force, since: null, until: 2026-11-22, v: S}", "only until 2026-11-22"),
        ("{value: in_force, since: null, until: 2026-11-23, v: S}", ""),
    ],
)
def test_a_row_is_judged_on_the_day_its_clock_starts(status, why):
    text = HEAD.replace("{value: in_force, since: 2026-01-01, until: null, v: S}", status)
    (regime,) = load_regimes(
        text + "  - {id: first, to: [authority], due: {after: detected_at, amount: 1, unit: hours}, v: S}\n", "law.yaml"
    )
    duty = only(regime, {"detected_at": DETECTED})
    assert (duty.due_at is None) == bool(why)
    assert why in duty.why


@pytest.mark.parametrize("year", [1, 9999])
def test_a_start_at_the_edge_of_the_calendar_gives_a_reason(year):
    at = datetime(year, 12, 31, 23, tzinfo=UTC) if year == 9999 else datetime(year, 1, 1, tzinfo=UTC)
    for unit in ("hours", "calendar_days", "months"):
        regime = row(f"{{after: detected_at, amount: 72, unit: {unit}}}")
        duty = only(regime, {"detected_at": at}, tz=timezone(-timedelta(hours=5)))
        assert (duty.due_at is None) == bool(duty.why)


STAGE = "  - {id: first, to: [authority], due: {after: detected_at, amount: 1, unit: hours}, v: S}\n"


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        (HEAD + STAGE.replace("hours", "fortnights"), 17, "unit"),
        (HEAD + STAGE.replace("amount: 1, unit: hours", "amount: 1"), 17, "needs `unit`"),
        (
            HEAD
            + STAGE.replace(
                "after: detected_at, amount: 1, unit: hours",
                "earliest_of: [{after: aware_at, amount: 1, unit: business_days}]",
            ),
            17,
            "'hours', 'calendar_days' or 'months'",
        ),
        (HEAD + STAGE.replace("amount: 1, ", ""), 17, "needs `amount`"),
        (HEAD + STAGE.replace("after: detected_at, ", ""), 17, "exactly one of"),
        (HEAD + STAGE.replace("after: detected_at", "after: detected"), 17, "start detected is not defined"),
        (HEAD + STAGE.replace("[authority]", "[autority]"), 17, "recipient autority"),
        (HEAD + STAGE.replace("v: S}", "when: ghost, v: S}"), 17, "condition ghost"),
        (HEAD + STAGE.replace("v: S}", "form: f1, v: S}"), 17, "form f1"),
        (HEAD + STAGE.replace("v: S}", "content: [f1], v: S}"), 17, "fact f1"),
        (HEAD + STAGE.replace("v: S}", "surprise: 1, v: S}"), 17, "surprise"),
        (HEAD + STAGE + STAGE, 16, "same id"),
        (HEAD.replace("events: [detected_at]", "events: [deteced_at]") + STAGE, 15, "trigger deteced_at"),
        (HEAD.replace("authorities: [xx-one]", "authorities: [xx-two]") + STAGE, 14, "authority xx-two"),
        (HEAD.replace("regimes/1", "regimes/2") + STAGE, 1, "schema"),
        (HEAD + STAGE + "- {}\n", 18, "id"),
        ("- 1\n", 1, "the file"),
        ("a: &b 1\n", 1, "anchors"),
    ],
)
def test_a_faulty_file_is_refused_with_its_line(text, line, what):
    with pytest.raises(LawError, match=what) as refused:
        load_regimes(text, "law.yaml")
    assert refused.value.source == f"law.yaml:{line}"


def test_a_row_twice_is_refused():
    text = HEAD + STAGE
    with pytest.raises(LawError, match="second row xx-law"):
        load_regimes(text + text[text.index("- id: xx-law") :], "law.yaml")


@given(st.integers(0, 2_000_000_000), st.integers(1, 400))
def test_hours_run_through_everything_and_days_never_end_before_them(second, amount):
    start = datetime(2026, 1, 2, tzinfo=UTC) + timedelta(seconds=second)
    hours = only(row(f"{{after: detected_at, amount: {amount}, unit: hours}}"), {"detected_at": start}, tz=HANOI)
    days = only(row(f"{{after: detected_at, amount: {amount}, unit: calendar_days}}"), {"detected_at": start}, tz=HANOI)
    assert hours.due_at == start + timedelta(hours=amount)
    assert days.due_at is not None
    assert timedelta(days=amount) <= days.due_at - start <= timedelta(days=amount + 1)
    assert days.due_at.astimezone(HANOI).time().isoformat() == "00:00:00"


def test_status_dates_are_dates():
    assert shipped("vn")[0].status.since == date(2026, 1, 1)
