"""File changes and gaps as events, so that rules speak of them like of any log line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import blake2b

from breachwatch.model import Event, FieldValue, FileChange, FileRecord, Gap, LogSource
from breachwatch.parse.event import EVENT_ID_BYTES, JOURNAL_SOURCE, visible_text

FILE_EVENT = LogSource("linux", "file_event", "")
LOG_INTEGRITY = LogSource("linux", "log_integrity", "")

_TYPES = {"created": "creation", "deleted": "deletion"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Fields = dict[str, FieldValue]


def _identity(*parts: str) -> str:
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=EVENT_ID_BYTES).hexdigest()


def event_from_change(change: FileChange, *, host: str) -> Event:
    """`/etc/passwd modified: sha256, mtime, size`, with what is known of the file now (or was, if it is gone)."""
    path = visible_text(change.path)
    directory, _, name = path.rpartition("/")
    changed = ",".join(change.changed)
    fields: Fields = {
        "host.name": host,
        "message": f"{path} {change.action}" + (f": {changed.replace(',', ', ')}" if changed else ""),
        "event.kind": "event",
        "event.category": ("file",),
        "event.type": (_TYPES.get(change.action, "change"),),
        "event.action": change.action,
        "event.outcome": "success",
        "file.path": path,
        "file.name": name,
        "file.directory": directory or "/",
        "integrity.changed": tuple(change.changed),
        "integrity.severity": change.severity,
        "integrity.techniques": tuple(change.tags),
    }
    _reasons(fields, change)
    stem, dot, extension = name.rpartition(".")
    if dot and stem:
        fields["file.extension"] = extension
    record = change.after or change.before
    if record is not None:
        _record_fields(fields, record)
    if change.before is not None and change.after is not None:
        _before_fields(fields, change.before)
    states = _state(change.before), _state(change.after)
    if not any(states) and change.writer is not None:
        states = str(change.writer.pid), change.seen_at.isoformat()  # of a process, not of a file
    identity = _identity("change", host, path, change.action, changed, *states)
    return Event(id=identity, at_utc=change.seen_at, logsource=FILE_EVENT, fields=fields, raw=str(fields["message"]))


def _reasons(fields: Fields, change: FileChange) -> None:
    """Who vouches for it, what found it, who wrote it: only what is known."""
    for name, value in (
        ("integrity.explained_by", change.explained_by),
        ("integrity.probably_by", change.probably_by),
        ("integrity.channel", change.channel),
        ("integrity.diff", change.diff),
    ):
        if value:
            fields[name] = value
    if change.writer is not None:
        fields["process.pid"] = change.writer.pid
        if change.writer.executable:
            fields["process.executable"] = change.writer.executable
            fields["process.name"] = change.writer.executable.rpartition("/")[2]
        if change.writer.user:
            fields["user.name"] = change.writer.user


def _record_fields(fields: Fields, record: FileRecord) -> None:
    fields["file.type"] = record.type
    fields["file.mode"] = f"{record.mode & 0o7777:04o}"
    fields["file.uid"], fields["file.gid"] = str(record.uid), str(record.gid)
    fields["file.size"], fields["file.inode"] = record.size, str(record.inode)
    try:
        mtime = _EPOCH + timedelta(microseconds=record.mtime_ns // 1000)
        fields["file.mtime"] = mtime.isoformat().replace("+00:00", "Z")
    except OverflowError:
        pass  # a time no calendar has: touch -d can write it, an event need not carry it
    if record.sha256:
        fields["file.hash.sha256"] = record.sha256
    if record.link_target:
        fields["file.target_path"] = visible_text(record.link_target)
    fields["integrity.setuid"] = bool(record.mode & 0o6000) and record.type == "file"
    fields["integrity.state"] = record.state


def _before_fields(fields: Fields, record: FileRecord) -> None:
    """What it was, for the reader who has to judge."""
    fields["integrity.before.mode"] = f"{record.mode & 0o7777:04o}"
    fields["integrity.before.uid"] = str(record.uid)
    fields["integrity.before.size"] = record.size
    if record.sha256:
        fields["integrity.before.sha256"] = record.sha256


def _state(record: FileRecord | None) -> str:
    """All that tells one state of a file from another, for the event's identity."""
    if record is None:
        return ""
    return (
        f"{record.type}|{record.mode}|{record.uid}|{record.gid}|{record.nlink}|{record.device}|{record.inode}|{record.size}"
        f"|{record.mtime_ns}|{record.ctime_ns}|{record.sha256}|{record.link_target.hex()}|{record.state}"
        f"|{record.flags}|{record.xattrs}"
    )


def identity_of(gap: Gap) -> tuple[str, ...]:
    """What makes it one record: what it is about, else everything it says."""
    if gap.about:
        return gap.source, gap.reason, gap.about
    lost = "" if gap.lost_bytes is None else str(gap.lost_bytes)
    return gap.source, gap.reason, gap.at_utc.isoformat(), lost, gap.detail


def event_from_gap(gap: Gap, *, host: str) -> Event:
    """`log_truncated` and its kin: what could not be seen is evidence too."""
    lost = f" ({gap.lost_bytes} bytes)" if gap.lost_bytes is not None else ""
    message = f"{gap.source}: {gap.reason}{lost}" + (f": {gap.detail}" if gap.detail else "")
    fields: Fields = {
        "host.name": host,
        "message": message,
        "event.kind": "event",
        "event.category": ("file",),
        "event.type": ("info",),
        "event.action": f"log_{gap.reason}",
        "event.outcome": "unknown",
    }
    if gap.source != JOURNAL_SOURCE:
        fields["file.path"] = fields["log.file.path"] = gap.source
        fields["file.name"] = gap.source.rpartition("/")[2]
    if gap.lost_bytes is not None:
        fields["integrity.lost_bytes"] = gap.lost_bytes
    return Event(
        id=_identity("gap", host, *identity_of(gap)),
        at_utc=gap.at_utc,
        logsource=LOG_INTEGRITY,
        fields=fields,
        raw=message,
    )
