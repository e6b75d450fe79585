"""JSON records, one a line: they keep their own names, and gain only where they were read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from breachwatch.model import Block, Event, FieldValue, LogSource, RawLine
from breachwatch.model.passes import native
from breachwatch.parse.context import Ahead, ParseContext, Place, Read
from breachwatch.parse.event import JOURNAL_SOURCE, MAX_LINE_BYTES, digest_of, event_id, unparsable, visible_text
from breachwatch.parse.memory import Memory
from breachwatch.parse.timestamp import iso

Fields = dict[str, FieldValue]

MAX_DEPTH = 64
"""Deeper nesting is refused: whoever walks the record later must not run out of stack."""

TIME_FIELDS = ("@timestamp", "timestamp", "time", "ts", "eventTime", "date")
"""Where records keep their time, most telling first."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECONDS_FROM = 10**11
_MICROSECONDS_FROM = 10**14
_NANOSECONDS_FROM = 10**17
"""An epoch this large cannot be in the unit before it until after the year 5000."""

_decoder = msgspec.json.Decoder()

REALTIME = '"__REALTIME_TIMESTAMP"'
"""`auto` reads a record that holds this as one of the journal."""

DATASETS: Mapping[str, LogSource] = {
    "nginx.access": LogSource("nginx", "webserver", ""),
    "nginx.error": LogSource("nginx", "webserver", "error"),
    "apache.access": LogSource("apache", "webserver", ""),
    "apache.error": LogSource("apache", "webserver", "error"),
    "system.auth": LogSource("linux", "", "auth"),
    "system.syslog": LogSource("linux", "", "syslog"),
}
"""Datasets whose Sigma log source is not simply `module.service`."""

LOGSOURCE_FIELDS = ("product", "category", "service")
"""Fields by which a record without `event.dataset` names its log source. Source: Sigma specification, log sources."""

_TELLING = frozenset((*TIME_FIELDS, "host", "host.name", "event", "event.dataset"))
"""Records without any of these say nothing of time, host and dataset."""

MAX_NAME = 128
"""A longer name of a log source is none."""

MAX_SOURCES = 1_024
"""Log sources that are remembered; input may name any number."""


class JsonParser:
    """One file of JSON records."""

    format = "json"

    def __init__(self, memory: Memory | None = None) -> None:
        self.memory = memory or Memory()

    def parse(self, line: RawLine, context: ParseContext) -> Sequence[Event]:
        """One event."""
        text = visible_text(line.data)
        record = decoded_record(line.data)
        if isinstance(record, str):
            source = LogSource()
            at_utc = self.memory.pass_over()
            return (unparsable(text, line, context, reason=record, at_utc=at_utc, logsource=source),)
        return (self._event(record, text, line, context),)

    def ahead(self, block: Block, context: ParseContext) -> Ahead | None:
        """How lines are read before it is their turn; None for want of compiled code."""
        if native is None or block.source == JOURNAL_SOURCE:
            return None
        memory, reference_utc = self.memory, context.reference_utc
        seed = digest_of(context.host, block.generation)
        fixed = block.source, block.offset, _decoder.decode, seed, context.host, _TELLING, _known

        def read(places: Sequence[Place]) -> Sequence[Read | None]:
            found: Sequence[Read | None] = native.json_lines(block.data, list(places), *fixed)
            return found

        def event_of(read: Read) -> Event:
            record, text, name, logsource = read
            if logsource is not None:
                at_utc = memory.at_utc or reference_utc
            else:
                at_utc = record_time(record, context) or memory.at_utc or reference_utc
                _name_host(record, context)
                logsource = logsource_of(record)
            memory.note(at_utc)
            return Event(id=name, at_utc=at_utc, logsource=logsource, fields=record, raw=text)

        return Ahead(read, event_of)

    def read(self, text: str, line: RawLine, context: ParseContext) -> Sequence[Event] | None:
        """The event of the line, or None where it is no JSON object."""
        record = decoded_record(line.data)
        return None if isinstance(record, str) else (self._event(record, text, line, context),)

    def _event(self, record: Fields, text: str, line: RawLine, context: ParseContext) -> Event:
        at_utc = record_time(record, context) or self.memory.at_utc or context.reference_utc
        self.memory.note(at_utc)
        fields = record
        if line.peer:
            fields["log.source.address"] = line.peer
        elif line.source != JOURNAL_SOURCE:
            fields["log.file.path"] = line.source
            fields["log.offset"] = line.offset
        _name_host(record, context)
        return Event(
            id=event_id(line, context.host), at_utc=at_utc, logsource=logsource_of(record), fields=fields, raw=text
        )


def _name_host(record: Fields, context: ParseContext) -> None:
    """Say whose record it is where it does not."""
    host = record.get("host")
    if not isinstance(host, str):
        nested = host.get("name") if isinstance(host, dict) else None
        if record.get("host.name", nested) is None:
            record["host.name"] = context.host


def decoded_record(data: bytes) -> Fields | str:
    """The object of a line, or why there is none. Of a repeated key the last one counts, as everywhere."""
    try:
        record = _decoder.decode(data[:MAX_LINE_BYTES])
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        return f"no JSON record: {error}"[:256]
    except RecursionError:
        return "no JSON record: nested too deeply"
    if not isinstance(record, dict):
        return "no JSON record: not an object"
    if data.count(b"{") + data.count(b"[") >= MAX_DEPTH and _too_deep(record):
        return f"no JSON record: nested deeper than {MAX_DEPTH}"
    return record


def _too_deep(record: FieldValue) -> bool:
    level: list[FieldValue] = [record]
    for _ in range(MAX_DEPTH):
        below: list[FieldValue] = []
        for value in level:
            if isinstance(value, dict):
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
        if not below:
            return False
        level = below
    return True


def flat(record: Mapping[str, FieldValue], name: str) -> FieldValue:
    """A field by its dotted name, written flat or nested."""
    if name in record:
        return record[name]
    first, _, rest = name.partition(".")
    value = record.get(first)
    if value is None or not rest:
        return value
    for part in rest.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def record_time(record: Mapping[str, FieldValue], context: ParseContext) -> datetime | None:
    """The instant a record names, from text or epoch; None where it names none that can be."""
    for name in TIME_FIELDS:
        value = record.get(name)
        if value is None:
            continue
        if isinstance(value, str):
            moment = iso(value[:64], context.tz)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            moment = epoch_time(value)
        else:
            continue
        if moment is not None:
            return moment
    return None


def time_in(data: bytes, context: ParseContext) -> datetime | None:
    """The instant that the record of a line names, all that is remembered of it; None: the line has to be parsed.

    Records of the journal, which `auto` reads otherwise, are never skipped (`dirty_words` of the form).
    """
    record = decoded_record(data)
    return None if isinstance(record, str) else record_time(record, context)


def epoch_time(value: float) -> datetime | None:
    """Seconds, milli-, micro- or nanoseconds since 1970; which of them, the size tells."""
    for start, unit in ((_NANOSECONDS_FROM, 1e9), (_MICROSECONDS_FROM, 1e6), (_MILLISECONDS_FROM, 1e3), (0, 1.0)):
        if value >= start:
            try:
                return _EPOCH + timedelta(seconds=value / unit)
            except (OverflowError, ValueError):
                return None
    return None


def logsource_of(record: Mapping[str, FieldValue]) -> LogSource:
    """What the record itself says it is: by `event.dataset` or else by fields with the names that Sigma gives them."""
    if "event" not in record and "event.dataset" not in record:
        return _named(record.get("product"), record.get("category"), record.get("service"))
    dataset = flat(record, "event.dataset")
    if isinstance(dataset, str) and dataset:
        known = DATASETS.get(dataset)
        if known is not None:
            return known
        product, _, service = dataset[:MAX_NAME].partition(".")
        return LogSource(product, "", service)
    return _named(*map(record.get, LOGSOURCE_FIELDS))


def _named(product: object, category: object, service: object) -> LogSource:
    try:
        return _known[product, category, service]
    except (KeyError, TypeError):  # not seen yet, or no text at all
        return _remembered(_name(product), _name(category), _name(service))


_known: dict[tuple[object, object, object], LogSource] = {}
"""By their names, None where there is none: so nearly all records name it."""


def _remembered(product: str, category: str, service: str) -> LogSource:
    if len(_known) >= MAX_SOURCES:
        _known.clear()
    found = LogSource(product, category, service)
    _known[product or None, category or None, service or None] = found
    return found


def _name(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= MAX_NAME else ""


_Source = msgspec.defstruct(
    "_Source",
    [
        ("f0", Any, msgspec.UNSET),
        ("f1", Any, msgspec.UNSET),
        *((f"f{n + 2}", Any, None) for n in range(len(LOGSOURCE_FIELDS))),
    ],
    rename={f"f{number}": name for number, name in enumerate(("event.dataset", "event", *LOGSOURCE_FIELDS))},
    gc=False,
)
_NO_DATASET = (msgspec.UNSET, msgspec.UNSET)
_source_decoder = msgspec.json.Decoder(_Source)


def source_in(data: bytes) -> LogSource | None:
    """The log source of a line, of which no more is read; None where it cannot be told so."""
    try:
        record = _source_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError):
        return None
    values = msgspec.structs.astuple(record)
    if values[:2] == _NO_DATASET:
        return _named(*values[2:])
    named = zip(_Source.__struct_encode_fields__, values, strict=True)
    return logsource_of({name: value for name, value in named if value is not msgspec.UNSET})
