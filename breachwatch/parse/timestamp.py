"""Times as logs write them, to aware UTC. One cached conversion per second of log, not one per line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache

from breachwatch.parse.context import ParseContext

MONTHS = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), start=1
    )
}

SKEW = timedelta(days=1)
"""How far ahead of the reference a line may be before it is taken for last year's: clocks and zones differ."""

STEP_BACK = timedelta(days=7)
"""A December line this close before a January one is late, not eleven months early."""

ALMOST_A_YEAR = timedelta(days=364)
"""Until so long after it, an instant found is the newest with its stamp, whatever lines came between."""

MAX_CACHED = 2048
"""Distinct seconds remembered per file; more would only help logs that jump about."""

LEAP_SEARCH_YEARS = 8
"""29 February: the last leap year is at most this far back (1896 to 1904)."""

_STAMP = re.compile(r"([A-Z][a-z]{2}) ([ \d]\d) (\d\d):(\d\d):(\d\d)", re.ASCII)
_CLF = re.compile(r"(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d):(\d\d):(\d\d)(?: ([+-])(\d\d)(\d\d))?", re.ASCII)
_ISO = re.compile(r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?(Z|[+-]\d\d(?::?\d\d)?)?", re.ASCII)
_APACHE_ERROR = re.compile(
    r"(?:[A-Z][a-z]{2} )?([A-Z][a-z]{2}) ([ \d]\d) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))? (\d{4})", re.ASCII
)
_SLASHED = re.compile(r"(\d{4})/(\d\d)/(\d\d) (\d\d):(\d\d):(\d\d)", re.ASCII)


def utc(
    year: int, month: int, day: int, clock: tuple[int, int, int], *, tz: tzinfo, microsecond: int = 0
) -> datetime | None:
    """The instant in UTC, or None where there is no such time; a leap second counts as the second before."""
    hour, minute, second = clock
    try:
        local = datetime(year, month, day, hour, minute, min(second, 59), microsecond, tzinfo=tz)
        return local.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


class YearlessClock:
    """`Dec 10 06:55:46` to instants: remembers the running year of one file (RFC 3164 section 4.1.2 names none)."""

    def __init__(self) -> None:
        self._cache: dict[str, datetime | None] = {}
        self._tz: tzinfo | None = None
        self._first_year: int | None = None
        self._year = 0
        self._last: datetime | None = None

    def at(self, stamp: str, context: ParseContext) -> datetime | None:
        """The instant of a 15-character stamp, or None where it is no time."""
        if context.tz is self._tz and context.year == self._first_year:
            known = self._cache.get(stamp)
            if known is not None and (
                context.year is not None or -SKEW <= context.reference_utc - known < ALMOST_A_YEAR
            ):
                return known
            return self._remember(stamp, context)
        self._tz, self._first_year = context.tz, context.year
        self._last, self._year = None, context.year or 0
        self._cache.clear()
        return self._remember(stamp, context)

    def _remember(self, stamp: str, context: ParseContext) -> datetime | None:
        if len(self._cache) >= MAX_CACHED:
            self._cache.clear()
        found = _STAMP.fullmatch(stamp)
        month = MONTHS.get(found[1]) if found else None
        if found is None or month is None:
            return None
        day, clock = int(found[2]), (int(found[3]), int(found[4]), int(found[5]))
        if context.year is None:
            moment = _newest_before(month, day, clock, context)
        else:
            before = self._last
            moment = self._running(month, day, clock, context.tz)
            if moment is None or (self._last is not None and moment < self._last):
                return moment  # a late line from before the turn of the year: wrong to remember a year later
            if before is None or (before.year, before.month) != (moment.year, moment.month):
                self._cache.clear()  # a sparse log comes to the same second of the next year
        self._cache[stamp] = moment
        return moment

    def _running(self, month: int, day: int, clock: tuple[int, int, int], tz: tzinfo) -> datetime | None:
        last = self._last
        if last is not None and last.month == 1 and month == 12:  # noqa: PLR2004
            before = utc(self._year - 1, month, day, clock, tz=tz)
            if before is not None and last - before < STEP_BACK:
                return before
        if last is not None and last.month >= 11 and month <= 2:  # noqa: PLR2004  # a quiet turn of the year
            self._year += 1
            self._cache.clear()
        moment = utc(self._year, month, day, clock, tz=tz)
        if moment is None and (month, day) == (2, 29):
            moment = utc(self._year, 3, 1, clock, tz=tz)  # the given year has none: keep the order of lines
        if moment is not None:
            self._last = moment
        return moment


def _newest_before(month: int, day: int, clock: tuple[int, int, int], context: ParseContext) -> datetime | None:
    """The newest such instant that is not more than a day after the reference."""
    limit = context.reference_utc + SKEW
    for back in range(-1, LEAP_SEARCH_YEARS + 1):
        moment = utc(context.reference_utc.year - back, month, day, clock, tz=context.tz)
        if moment is not None and moment <= limit:
            return moment
    return None


def iso(text: str, tz: tzinfo) -> datetime | None:
    """`2021-03-06T04:07:33.194677+00:00` and its relatives. Source: RFC 3339."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return _iso_loose(text, tz)
    if moment.tzinfo is UTC:
        return moment
    try:
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=tz)).astimezone(UTC)
    except OverflowError:
        return None


def _iso_loose(text: str, tz: tzinfo) -> datetime | None:
    """What `fromisoformat` refuses: a leap second, a decimal comma, an offset of hours only."""
    found = _ISO.fullmatch(text)
    if found is None:
        return None
    zone: tzinfo = tz
    if offset := found[8]:
        zone = UTC if offset == "Z" else _offset(offset[0], offset[1:3], offset[3:].lstrip(":") or "0")
    microsecond = int((found[7] or "0")[:6].ljust(6, "0"))
    return utc(
        int(found[1]),
        int(found[2]),
        int(found[3]),
        (int(found[4]), int(found[5]), int(found[6])),
        tz=zone,
        microsecond=microsecond,
    )


@lru_cache(MAX_CACHED)
def _offset(sign: str, hours: str, minutes: str) -> tzinfo:
    span = timedelta(hours=int(hours), minutes=int(minutes))
    if span >= timedelta(days=1):
        return UTC
    return timezone(-span if sign == "-" else span)


@lru_cache(MAX_CACHED)
def is_access_time(stamp: str) -> bool:
    """True if it is a time in every zone; false at the ends of time, where that depends on the zone."""
    return stamp[7:11] not in ("0001", "9999") and _clf(stamp, UTC) is not None


@lru_cache(MAX_CACHED)
def access_time(stamp: str, tz: tzinfo) -> datetime | None:
    """`17/May/2015:10:05:03 +0000` to an instant, None where it is no time; `tz` is for a stamp that names no offset.

    One conversion per distinct second.
    """
    return _clf(stamp, tz)


def _clf(stamp: str, tz: tzinfo) -> datetime | None:
    found = _CLF.fullmatch(stamp)
    if found is None or (month := MONTHS.get(found[2])) is None:
        return None
    clock = (int(found[4]), int(found[5]), int(found[6]))
    zone = _offset(found[7], found[8], found[9]) if found[7] else tz
    return utc(int(found[3]), month, int(found[1]), clock, tz=zone)


def apache_error(text: str, tz: tzinfo) -> datetime | None:
    """`Wed Jul 17 23:20:45.033528 2013` (2.4) and the same without fraction (2.2)."""
    found = _APACHE_ERROR.fullmatch(text)
    if found is None or (month := MONTHS.get(found[1])) is None:
        return None
    clock = (int(found[3]), int(found[4]), int(found[5]))
    return utc(int(found[7]), month, int(found[2]), clock, tz=tz, microsecond=int((found[6] or "").ljust(6, "0")))


def slashed(text: str, tz: tzinfo) -> datetime | None:
    """`2016/10/25 14:49:34`, the time of nginx's error log."""
    found = _SLASHED.fullmatch(text)
    if found is None:
        return None
    clock = (int(found[4]), int(found[5]), int(found[6]))
    return utc(int(found[1]), int(found[2]), int(found[3]), clock, tz=tz)
