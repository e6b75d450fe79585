"""The Linux audit log: the parts of one event, which have a serial in common, become one event.

Parts come one line each, mixed with those of other events. An event is whole with its PROCTITLE or EOE record, or when
none of its parts came for two seconds. Source: auditd(8), auparse of linux-audit/audit-userspace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from breachwatch.model import Event, FieldValue, RawLine
from breachwatch.parse.audit_ecs import AUDITD, ecs_fields
from breachwatch.parse.auditrecord import AuditRecord, read_record
from breachwatch.parse.context import ParseContext
from breachwatch.parse.event import MAX_LINE_BYTES, event_id, line_fields, unparsable, visible_text
from breachwatch.parse.memory import Memory

PARTS = frozenset({
    "SYSCALL", "PATH", "IPC", "SOCKETCALL", "SOCKADDR", "CWD", "EXECVE", "IPC_SET_PERM", "MQ_OPEN", "MQ_SENDRECV",
    "MQ_NOTIFY", "MQ_GETSETATTR", "KERNEL_OTHER", "FD_PAIR", "OBJ_PID", "BPRM_FCAPS", "CAPSET", "MMAP",
    "NETFILTER_PKT", "NETFILTER_CFG", "SECCOMP", "PROCTITLE", "FEATURE_CHANGE", "KERN_MODULE", "FANOTIFY",
    "TIME_INJOFFSET", "TIME_ADJNTPVAL", "BPF", "URINGOP", "OPENAT2", "DM_CTRL", "DM_EVENT", "AVC", "SELINUX_ERR",
    "AVC_PATH", "MAC_POLICY_LOAD", "MAC_STATUS", "MAC_CONFIG_CHANGE", "CONFIG_CHANGE", "LOGIN", "TTY",
    "INTEGRITY_DATA", "INTEGRITY_RULE",
})  # fmt: skip
"""Records of the kernel, which may have others beside them. All others (`USER_LOGIN`, ...) are an event each."""

LAST = frozenset({"PROCTITLE", "EOE"})

WAIT = timedelta(seconds=2)
"""As `end_of_event_timeout` of auditd."""

MAX_OPEN = 128
"""Unfinished events; the kernel mixes as many as there are processors."""

MAX_PARTS = 256
"""Parts of one event: a rule may watch hundreds of paths."""

MAX_OPEN_BYTES = 4 << 20
"""Of all unfinished events together."""

REMEMBERED = 1_024
"""Finished serials: a part that comes later is an event of its own that says so."""

Key = tuple[str, datetime, str]


@dataclass(slots=True)
class _Open:
    """An event that may have more parts."""

    arrived_utc: datetime
    """By the host's clock, when its last part came."""
    lines: list[RawLine] = field(default_factory=list)
    records: list[AuditRecord] = field(default_factory=list)
    size: int = 0
    is_cut: bool = False


class AuditdParser:
    """One audit log. `flush` gives what waited long enough; the caller asks now and then, and at the end."""

    format = "auditd"

    def __init__(self, memory: Memory | None = None) -> None:
        self.memory = memory or Memory()
        self._open: dict[Key, _Open] = {}
        self._done: dict[Key, None] = {}
        self._size = 0

    def parse(self, line: RawLine, context: ParseContext) -> Sequence[Event]:
        """Events that this line makes whole: none, its own, or older ones too."""
        text = visible_text(line.data)
        events = self.read(text, line, context)
        if events is not None:
            return events
        reason = "no audit record" if text else "empty line"
        return (unparsable(text, line, context, reason=reason, at_utc=self.memory.pass_over(), logsource=AUDITD),)

    def read(self, text: str, line: RawLine, context: ParseContext) -> Sequence[Event] | None:
        """The same, or None where the line is no audit record."""
        record = read_record(text)
        if record is None:
            return None
        self.memory.note(record.at_utc)
        key = record.event_key
        events = self._overdue(record.at_utc, context)
        waiting = self._open.get(key)
        if record.type == "EOE":
            return events + (self._finish(key, context) if waiting is not None else [])
        if waiting is None and (record.type not in PARTS or key in self._done):
            flags = ("late_part",) if key in self._done else ()
            return [*events, _event([line], [record], context, flags)]
        if waiting is None:
            waiting = self._open[key] = _Open(context.reference_utc)
        self._add(waiting, line, record, context)
        if record.type in LAST or len(waiting.lines) >= MAX_PARTS:
            waiting.is_cut = record.type not in LAST
            events += self._finish(key, context)
        return events + self._crowd_out(context)

    def _add(self, waiting: _Open, line: RawLine, record: AuditRecord, context: ParseContext) -> None:
        waiting.lines.append(line)
        waiting.records.append(record)
        waiting.arrived_utc = context.reference_utc
        waiting.size += len(line.data)
        self._size += len(line.data)

    @property
    def is_holding(self) -> bool:
        """True while an event is unfinished."""
        return bool(self._open)

    @property
    def waiting(self) -> Sequence[RawLine]:
        """Lines of unfinished events, to be parsed again after a restart."""
        return [line for item in self._open.values() for line in item.lines]

    def flush(self, context: ParseContext, *, everything: bool = False) -> Sequence[Event]:
        """Events whose last part came two seconds ago (or all that wait): auditd wrote no more of them."""
        old = [
            key for key, item in self._open.items() if everything or context.reference_utc - item.arrived_utc >= WAIT
        ]
        return [event for key in old for event in self._finish(key, context)]

    def _overdue(self, at_utc: datetime, context: ParseContext) -> list[Event]:
        """Events that the log itself has left behind."""
        events: list[Event] = []
        while self._open:
            key = next(iter(self._open))
            if key[1] + WAIT > at_utc:
                break
            events += self._finish(key, context)
        return events

    def _crowd_out(self, context: ParseContext) -> list[Event]:
        events: list[Event] = []
        while self._open and (len(self._open) > MAX_OPEN or self._size > MAX_OPEN_BYTES):
            key = next(iter(self._open))
            self._open[key].is_cut = True
            events += self._finish(key, context)
        return events

    def _finish(self, key: Key, context: ParseContext) -> list[Event]:
        item = self._open.pop(key)
        self._size -= item.size
        self._done[key] = None
        if len(self._done) > REMEMBERED:
            del self._done[next(iter(self._done))]
        return [_event(item.lines, item.records, context, ("incomplete",) if item.is_cut else ())]


def _event(
    lines: Sequence[RawLine], records: Sequence[AuditRecord], context: ParseContext, flags: tuple[str, ...]
) -> Event:
    """Named by its first part: reading the log again gives the same name, whatever came when."""
    raw = "\n".join(visible_text(line.data) for line in lines)[:MAX_LINE_BYTES]
    fields: dict[str, FieldValue] = line_fields(lines[0], records[0].node or context.host, raw)
    if flags:
        fields["log.flags"] = flags
    logsource = ecs_fields(records, fields)
    return Event(
        id=event_id(lines[0], context.host), at_utc=records[0].at_utc, logsource=logsource, fields=fields, raw=raw
    )
