# ruff: noqa: E501  # real log lines stay in one piece
from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from breachwatch.model import FileChange, FileRecord, Gap, LogSource
from breachwatch.parse import event_from_change, event_from_gap

AT = datetime(2026, 2, 1, tzinfo=UTC)
BEFORE = FileRecord(
    path=b"/srv/www/a.php", type="file", mode=0o100644, uid=33, gid=33, nlink=1, device=1, inode=7, size=10,
    mtime_ns=1_769_940_000_123_456_789, ctime_ns=1, sha256="aa",
)  # fmt: skip
AFTER = replace(BEFORE, mode=0o104755, size=11, sha256="bb")


def change(**fields) -> FileChange:
    base = {"path": b"/srv/www/a.php", "action": "modified", "before": BEFORE, "after": AFTER, "changed": ("sha256", "mode"),
            "severity": "high", "tags": ("T1505.003",), "seen_at": AT}  # fmt: skip
    return FileChange(**{**base, **fields})


def test_a_change_says_what_the_file_is_now_and_what_it_was():
    event = event_from_change(change(), host="web01")
    assert event.logsource == LogSource("linux", "file_event", "")
    assert event.at_utc == AT
    wanted = {
        "event.category": ("file",),
        "event.type": ("change",),
        "event.action": "modified",
        "file.path": "/srv/www/a.php",
        "file.name": "a.php",
        "file.directory": "/srv/www",
        "file.extension": "php",
        "file.type": "file",
        "file.mode": "4755",
        "file.uid": "33",
        "file.size": 11,
        "file.inode": "7",
        "file.mtime": "2026-02-01T10:00:00.123456Z",
        "file.hash.sha256": "bb",
        "integrity.changed": ("sha256", "mode"),
        "integrity.severity": "high",
        "integrity.techniques": ("T1505.003",),
        "integrity.setuid": True,
        "integrity.before.sha256": "aa",
        "host.name": "web01",
    }
    assert wanted.items() <= event.fields.items()
    assert "/srv/www/a.php modified" in event.raw


@pytest.mark.parametrize(("action", "kind"), [("created", "creation"), ("deleted", "deletion"), ("replaced", "change")])
def test_each_action_has_its_ecs_type(action, kind):
    assert event_from_change(change(action=action), host="h").fields["event.type"] == (kind,)


def test_odd_names_times_and_links_do_no_harm():
    link = replace(BEFORE, type="symlink", link_target=b"/x\xff", mtime_ns=2**70, sha256="")
    fields = event_from_change(change(path=b"/\xffn\x00\n", before=None, after=link), host="h").fields
    assert fields["file.path"] == "/\\xffn\\x00"
    assert fields["file.target_path"] == "/x\\xff"
    assert "file.mtime" not in fields
    assert "file.extension" not in fields
    assert fields["file.directory"] == "/"
    gone = event_from_change(change(action="deleted", before=None, after=None), host="h").fields
    assert "file.mode" not in gone
    assert event_from_change(change(path=b"/etc/.env"), host="h").fields.get("file.extension") is None


def test_the_same_change_is_one_event_and_another_is_another():
    first = event_from_change(change(), host="h").id
    assert first == event_from_change(change(seen_at=datetime(2026, 2, 2, tzinfo=UTC)), host="h").id
    others = [change(action="replaced"), change(after=replace(AFTER, sha256="cc")), change(path=b"/srv/www/b.php")]
    ids = {event_from_change(other, host="h").id for other in others} | {
        event_from_change(change(), host="i").id,
        first,
    }
    assert len(ids) == 5


def test_a_gap_is_an_event_with_its_reason():
    event = event_from_gap(
        Gap(source="/var/log/auth.log", reason="truncated", at_utc=AT, lost_bytes=5, detail="x"), host="h"
    )
    assert event.logsource == LogSource("linux", "log_integrity", "")
    wanted = {
        "event.action": "log_truncated",
        "file.path": "/var/log/auth.log",
        "file.name": "auth.log",
        "integrity.lost_bytes": 5,
    }
    assert wanted.items() <= event.fields.items()
    assert event.fields["message"] == "/var/log/auth.log: truncated (5 bytes): x"
    journal = event_from_gap(Gap(source="journal", reason="vanished", at_utc=AT), host="h").fields
    assert "file.path" not in journal
