"""From a regime and the instants known so far to duties with due times. A missing start gives a reason, not a guess."""

from __future__ import annotations

import calendar
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from breachwatch.law.schema import Due, Regime, Stage, Unit
from breachwatch.model import Duty

_NO_DATE: dict[str, str] = {
    "on_request": "on request of the authority",
    "none_stated": "the law states no time; set an internal one",
    "business_days": "working days need the holidays of the country; set the date by hand",
    "annual_date": "every year on a date; not part of one incident",
}


def duties(
    regime: Regime,
    instants: Mapping[str, datetime],
    *,
    tz: tzinfo = UTC,
    conditions: frozenset[str] = frozenset(),
) -> tuple[Duty, ...]:
    """Every stage of `regime` with its due time in UTC, or the reason why there is none.

    Hours run through from the instant; days and months end at midnight in `tz`, the first day not counted, and are
    not moved off weekends or holidays: the earlier reading. A stage that only holds under a condition is given with
    `condition`; `conditions` known to hold choose variants.

    Source: Civil Code of Vietnam 2015, art. 146-148; Regulation (EEC, Euratom) 1182/71, art. 3.
    """
    return tuple(_duty(regime, stage, instants, tz, conditions) for stage in regime.stages)


def _duty(
    regime: Regime, stage: Stage, instants: Mapping[str, datetime], tz: tzinfo, conditions: frozenset[str]
) -> Duty:
    started: datetime | None
    due_at: datetime | None
    try:
        started, due_at, why = _due(stage.due, instants, tz, conditions)
    except OverflowError:  # a stated year of 1 or 9999
        started, due_at, why = None, None, "clock not started: its start lies outside the calendar"
    if started is not None and (not_law := regime.status.why_not(started.date())):
        started, due_at, why = None, None, not_law
    words = stage.due.text or stage.due.qualifier
    counted = " or ".join(stage.due.triggers()) or "no start"
    return Duty(
        regime=regime.id,
        stage=stage.id,
        recipients=stage.to,
        authorities=regime.authorities if "authority" in stage.to else (),
        starts_at=started,
        due_at=due_at,
        basis=f"{regime.title}; counted from {counted}" + (f"; {words}" if words else ""),
        condition=stage.when or "",
        why=why,
    )


def _due(
    due: Due, instants: Mapping[str, datetime], tz: tzinfo, conditions: frozenset[str]
) -> tuple[datetime | None, datetime | None, str]:
    """Start, due time, and why there is none."""
    if due.earliest_of:
        ends: list[tuple[datetime | None, datetime]] = [
            (_after(instants[one.after], one.amount, one.unit, tz), instants[one.after])
            for one in due.earliest_of
            if one.after in instants
        ]
        dated = [(end, start) for end, start in ends if end is not None]
        if dated:
            soonest, from_start = min(dated)
            return from_start, soonest, ""
        return None, None, _not_started(due)
    if due.unit is None or due.unit in _NO_DATE:
        return None, None, _NO_DATE.get(due.unit or "", "no unit")
    start = next((instants[name] for name in due.triggers() if name in instants), None)
    if start is None:
        return None, None, _not_started(due)
    amount, unit = due.amount or 0, due.unit
    for variant in due.variants:
        if variant.when in conditions:
            amount, unit = variant.amount, variant.unit
    end = _after(start, amount, unit, tz)
    return start, end, "" if end is not None else _NO_DATE.get(unit, "")


def _not_started(due: Due) -> str:
    return "clock not started: " + " or ".join(due.triggers() or ("no start recorded",)) + " is not known"


def _after(start: datetime, amount: int, unit: Unit, tz: tzinfo) -> datetime | None:
    if unit == "immediate":
        return start.astimezone(UTC)
    if unit == "hours":
        return (start + timedelta(hours=amount)).astimezone(UTC)
    day = start.astimezone(tz).date()
    if unit == "calendar_days":
        return _end_of(day + timedelta(days=amount), tz)
    if unit == "months":
        return _end_of(_months_later(day, amount), tz)
    return None


def _end_of(day: date, tz: tzinfo) -> datetime:
    """24:00 of a day."""
    return datetime.combine(day + timedelta(days=1), time(0), tzinfo=tz).astimezone(UTC)


def _months_later(day: date, months: int) -> date:
    """The same day of a later month; a month without that day ends on its last."""
    years, month = divmod(day.month - 1 + months, 12)
    year = day.year + years
    if year > date.max.year:
        raise OverflowError(year)
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))
