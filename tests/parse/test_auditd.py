# ruff: noqa: E501  # real records stay in one piece
"""Audit records: parts become one event, in whatever order and company they come, and nothing an attacker names moves a field."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breachwatch.app.agent import packed_state, unpacked_state
from breachwatch.app.pipeline import Pipeline, SourceFormat
from breachwatch.detect.engine import Detector
from breachwatch.detect.ruleset import RuleSet
from breachwatch.model import Event, LogSource, RawLine
from breachwatch.parse.auditd import MAX_OPEN, MAX_PARTS, WAIT, AuditdParser
from breachwatch.parse.auditrecord import read_record, socket_address
from tests.parse.samples import CONTEXT, raw_line

EXECVE = [
    'type=SYSCALL msg=audit(1783414661.350:487): arch=c000003e syscall=59 success=yes exit=0 a0=5611113840f0 a1=56111137f110 a2=561111385020 a3=21 items=2 ppid=2176 pid=2221 auid=1000 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 tty=(none) ses=8 comm="sh" exe="/usr/bin/bash" key="exec"\x1dARCH=x86_64 SYSCALL=execve AUID="anna" UID="root" GID="root"',
    'type=EXECVE msg=audit(1783414661.350:487): argc=3 a0="/bin/sh" a1="-c" a2=67726570202D63202E202F6574632F686F73746E616D65',
    'type=CWD msg=audit(1783414661.350:487): cwd="/root"',
    'type=PATH msg=audit(1783414661.350:487): item=0 name="/bin/sh" inode=8437791 dev=fc:00 mode=0100755 ouid=0 ogid=0 rdev=00:00 nametype=NORMAL',
    'type=PATH msg=audit(1783414661.350:487): item=1 name="lib/ld.so" inode=27086311 dev=fc:00 mode=0100755 nametype=NORMAL',
    "type=PROCTITLE msg=audit(1783414661.350:487): proctitle=2F62696E2F7368002D630067726570202D63202E202F6574632F686F73746E616D65",
]
LOGIN = 'type=USER_LOGIN msg=audit(1783414613.119:441): pid=2124 uid=0 auid=4294967295 ses=4294967295 msg=\'op=login acct="root" exe="/usr/sbin/sshd" hostname=? addr=203.0.113.7 terminal=ssh res=failed\''


def lines_of(texts: Sequence[str]) -> list[RawLine]:
    lines, offset = [], 0
    for text in texts:
        lines.append(raw_line(text, offset))
        offset += len(text) + 1
    return lines


def read(texts: Sequence[str], *, finish: bool = True) -> list[Event]:
    parser = AuditdParser()
    events = [event for line in lines_of(texts) for event in parser.parse(line, CONTEXT)]
    return [*events, *(parser.flush(CONTEXT, everything=True) if finish else ())]


def test_the_parts_of_an_execution_are_one_event_with_its_whole_command_line():
    [event] = read(EXECVE, finish=False)
    assert event.logsource == LogSource("linux", "process_creation", "auditd")
    assert event.at_utc == datetime(2026, 7, 7, 8, 57, 41, 350000, tzinfo=UTC)
    wanted = {
        "process.command_line": "/bin/sh -c grep -c . /etc/hostname",
        "process.args": ("/bin/sh", "-c", "grep -c . /etc/hostname"),
        "process.title": "/bin/sh -c grep -c . /etc/hostname",
        "process.executable": "/usr/bin/bash",
        "process.pid": 2221,
        "process.parent.pid": 2176,
        "process.working_directory": "/root",
        "user.name": "root",
        "user.id": "0",
        "auditd.data.auid": "1000",
        "auditd.data.AUID": "anna",
        "auditd.data.key": "exec",
        "auditd.data.syscall": "execve",
        "auditd.data.a2": "grep -c . /etc/hostname",
        "auditd.message_type": ("SYSCALL", "EXECVE", "CWD", "PATH", "PROCTITLE"),
        "file.path": ("/bin/sh", "/root/lib/ld.so"),
        "event.category": ("process",),
        "event.type": ("start",),
        "event.outcome": "success",
    }
    assert {name: event.fields[name] for name in wanted} == wanted
    assert "auditd.data.a3" not in event.fields  # a register, not an argument
    assert event.raw.count("\n") == 5


def test_a_login_of_user_space_is_an_event_at_once():
    [event] = read([LOGIN], finish=False)
    assert event.fields["event.action"] == "user_login"
    assert event.fields["event.outcome"] == "failure"
    assert (event.fields["source.ip"], event.fields["user.name"]) == ("203.0.113.7", "root")
    assert event.fields["process.executable"] == "/usr/sbin/sshd"
    assert "auditd.session" not in event.fields


@pytest.mark.parametrize("number", [59, 221])
def test_a_system_call_is_named_by_its_number_and_machine(number):
    arch = {59: "c000003e", 221: "c00000b7"}[number]
    [event] = read(
        [f'type=SYSCALL msg=audit(1.0:1): arch={arch} syscall={number} success=no exit=-13 a0=1 uid=33 comm="x"']
    )
    assert event.fields["event.action"] == "execve"
    assert event.fields["event.outcome"] == "failure"
    assert event.logsource == LogSource("linux", "", "auditd")  # it was not started


def test_an_unknown_system_call_keeps_its_number():
    [event] = read(["type=SYSCALL msg=audit(1.0:1): arch=40000028 syscall=11 success=yes uid=1"])
    assert (event.fields["event.action"], event.fields["auditd.data.syscall"]) == ("11", "11")


@pytest.mark.parametrize(
    ("field", "kind", "value", "wanted"),
    [
        ("comm", "SYSCALL", "636174206D65", "cat me"),
        ("exe", "SYSCALL", "2F746D702F61206222", '/tmp/a b"'),
        ("name", "PATH", "2F746D702FE1BB87", "/tmp/ệ"),
        ("name", "PATH", "2F746D702FFF", "/tmp/\\xff"),
        ("proctitle", "PROCTITLE", "6C73002D6C00", "ls -l"),
        ("cmd", "USER_CMD", "636174202F6574632F736861646F77", "cat /etc/shadow"),
        ("acct", "USER_AUTH", "61206220", "a b "),
        ("a0", "EXECVE", "2D63", "-c"),
        ("a0", "SYSCALL", "2D63", "2D63"),
        ("pid", "SYSCALL", "1234", "1234"),
        ("comm", "SYSCALL", '"4142"', "4142"),
        ("comm", "SYSCALL", "abc", "abc"),
        ("comm", "SYSCALL", "41424", "41424"),
        ("a0[1]", "EXECVE", "41", "A"),
    ],
)
def test_hex_is_decoded_where_the_kernel_writes_hex_and_nowhere_else(field, kind, value, wanted):
    record = read_record(f"type={kind} msg=audit(1.5:7): x=1 {field}={value}")
    assert record is not None
    assert record.fields[field] == wanted


def test_a_long_argument_in_pieces_is_one():
    [event] = read(
        [
            'type=SYSCALL msg=audit(1.0:1): arch=c000003e syscall=59 success=yes uid=1 comm="x"',
            'type=EXECVE msg=audit(1.0:1): argc=3 a0="x" a1_len=4 a1[0]=4142',
            "type=EXECVE msg=audit(1.0:1): a1[1]=4344 a2=20",
        ]
    )
    assert event.fields["process.args"] == ("x", "ABCD", " ")


@pytest.mark.parametrize(
    ("saddr", "wanted"),
    [
        ("0200115CCB00710700000000", ("203.0.113.7", 4444)),
        ("0A0001BB0000000020010DB800000000000000000000000100000000", ("2001:db8::1", 443)),
        ("0A0001BB0000000000000000000000000000FFFFCB00710700000000", ("203.0.113.7", 443)),
        ("01002F72756E2F7800", ("unix", "/run/x")),
        ("0100002F40", ("unix", "@/@")),
        ("10000000", None),
        ("0200", None),
        ("zz", None),
        ("", None),
    ],
)
def test_socket_addresses_are_read(saddr, wanted):
    assert socket_address(saddr) == wanted


def test_a_connection_names_its_destination():
    [event] = read(
        [
            'type=SYSCALL msg=audit(1.0:1): arch=c000003e syscall=42 success=yes uid=33 comm="php"',
            "type=SOCKADDR msg=audit(1.0:1): saddr=0200115CCB00710700000000",
        ]
    )
    assert (event.fields["destination.ip"], event.fields["destination.port"]) == ("203.0.113.7", 4444)
    assert event.fields["event.category"] == ("network",)


def test_deleting_a_file_names_the_file_and_not_its_folder():
    [event] = read(
        [
            'type=SYSCALL msg=audit(1.0:1): arch=c000003e syscall=263 success=yes uid=0 comm="rm"',
            'type=CWD msg=audit(1.0:1): cwd="/var/log"',
            'type=PATH msg=audit(1.0:1): item=0 name="/var/log" nametype=PARENT',
            'type=PATH msg=audit(1.0:1): item=1 name="auth.log" nametype=DELETE',
        ]
    )
    assert event.fields["file.path"] == "/var/log/auth.log"
    assert event.fields["event.type"] == ("deletion",)


def execution(serial: int, at: float = 1783414661.35, end: bool = True) -> list[str]:
    parts = EXECVE if end else EXECVE[:-1]
    return [part.replace("1783414661.350:487", f"{at:.3f}:{serial}") for part in parts]


@settings(max_examples=80)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 12), single=st.integers(0, 4))
def test_parts_of_many_events_may_be_mixed_in_any_way(seed, count, single):
    chance = random.Random(seed)
    queues = [execution(serial) for serial in range(count)] + [
        [LOGIN.replace(":441)", f":{900 + n})")] for n in range(single)
    ]
    texts = []
    while queues:
        queue = chance.choice(queues)
        texts.append(queue.pop(0))
        queues = [queue for queue in queues if queue]
    events = read(texts, finish=False)
    assert len(events) == count + single
    whole = [event for event in events if event.fields["event.action"] == "execve"]
    assert {event.fields["auditd.sequence"] for event in whole} == {str(serial) for serial in range(count)}
    assert all(event.fields["process.command_line"] == "/bin/sh -c grep -c . /etc/hostname" for event in whole)
    assert len({event.id for event in events}) == len(events)


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), cut=st.integers(0, 60))
def test_a_restart_between_the_parts_of_an_event_makes_no_difference(seed, cut):
    chance = random.Random(seed)
    queues = [execution(serial) for serial in range(8)]
    texts = []
    while queues:
        queue = chance.choice(queues)
        texts.append(queue.pop(0))
        queues = [queue for queue in queues if queue]
    lines, how = lines_of(texts), SourceFormat(format=chance.choice(["auditd", "auto"]))

    def pipeline() -> Pipeline:
        return Pipeline(host="web01", detector=Detector(RuleSet()), now=lambda: CONTEXT.reference_utc)

    whole = pipeline()
    wanted = [event for line in lines for event, _ in whole.matches(line, how)]
    first = pipeline()
    found = [event for line in lines[:cut] for event, _ in first.matches(line, how)]
    correlations, unfinished = unpacked_state(packed_state(b"state", first.unfinished))
    assert correlations == b"state"
    second = pipeline()
    second.restore(unfinished)
    found += [event for line in lines[cut:] for event, _ in second.matches(line, how)]
    assert [event.id for event in found] == [event.id for event in wanted]
    assert [event.fields for event in found] == [event.fields for event in wanted]


def test_an_event_without_an_end_is_told_when_its_log_has_gone_on_for_two_seconds():
    texts = execution(1, end=False)
    later = LOGIN.replace("1783414613.119", "1783414663.351")
    assert [event.fields["event.action"] for event in read([*texts, later], finish=False)] == ["execve", "user_login"]


def test_an_event_without_an_end_is_told_two_seconds_after_its_last_part_came():
    parser = AuditdParser()
    for line in lines_of(execution(1, end=False)):
        assert parser.parse(line, CONTEXT) == []
    soon, late = (replace(CONTEXT, reference_utc=CONTEXT.reference_utc + WAIT + timedelta(seconds=s)) for s in (-1, 0))
    assert parser.flush(soon) == []
    [event] = parser.flush(late)
    assert event.fields["event.action"] == "execve"
    assert parser.flush(late) == []
    assert parser.waiting == []


def test_an_end_of_event_record_ends_an_event_and_is_none_itself():
    texts = [*execution(1, end=False), "type=EOE msg=audit(1783414661.350:1): "]
    assert len(read(texts, finish=False)) == 1
    assert read(["type=EOE msg=audit(1783414661.350:1): "]) == []


def test_a_part_that_comes_too_late_is_an_event_that_says_so():
    texts = [*execution(1), 'type=PATH msg=audit(1783414661.350:1): item=9 name="/etc/shadow" nametype=NORMAL']
    whole, late = read(texts, finish=False)
    assert late.fields["log.flags"] == ("late_part",)
    assert late.fields["file.path"] == "/etc/shadow"
    assert whole.id != late.id


def test_equal_serials_of_two_boots_and_of_two_nodes_are_different_events():
    texts = [*execution(1, at=1000.5, end=False)[:1], *execution(1, at=1000.6)[:1]]
    texts += [f"node={name} {execution(1, at=1000.6)[0]}" for name in ("a", "b")]
    events = read(texts)
    assert len(events) == 4
    assert [event.fields["host.name"] for event in events] == ["web01", "web01", "a", "b"]


def test_unfinished_events_are_bounded_and_say_that_they_are_cut():
    texts = [text for serial in range(MAX_OPEN + 10) for text in execution(serial, end=False)[:2]]
    events = read(texts, finish=False)
    assert len(events) == 10
    assert events[0].fields["log.flags"] == ("incomplete",)
    assert events[0].fields["process.args_count"] == 3


def test_an_event_of_endless_parts_is_bounded():
    first = execution(1, end=False)[:1]
    paths = [
        f'type=PATH msg=audit(1783414661.350:1): item={n} name="/x/{n}" nametype=NORMAL' for n in range(MAX_PARTS + 5)
    ]
    events = read([*first, *paths], finish=False)
    assert events[0].fields["log.flags"] == ("incomplete",)
    assert [event.fields["log.flags"] for event in events[1:]] == [("late_part",)] * 6
    assert len(events[0].raw) <= 65_536


@pytest.mark.parametrize(
    "forged",
    [
        'a" uid=0 acct="root',
        'x\' res=success acct="root" addr=198.51.100.1',
        "root' uid=1000 msg='op=login acct=",
    ],
)
def test_what_a_client_names_itself_moves_no_other_field(forged):
    encoded = forged.encode().hex().upper()
    text = LOGIN.replace('acct="root"', f"acct={encoded}")
    [event] = read([text])
    assert event.fields["user.name"] == forged
    assert event.fields["event.outcome"] == "failure"
    assert event.fields["source.ip"] == "203.0.113.7"
    assert event.fields["user.id"] == "0"


def test_a_program_cannot_replace_what_the_kernel_said_of_it():
    text = "type=USER_AUTH msg=audit(1.0:1): pid=7 uid=33 auid=33 ses=2 msg='op=x pid=1 uid=0 auid=0 acct=\"root\" res=success'"
    [event] = read([text])
    assert (event.fields["process.pid"], event.fields["user.id"], event.fields["auditd.data.auid"]) == (7, "33", "33")


@pytest.mark.parametrize(
    "text",
    ["", "type=", "type=CWD msg=audit(x:1): ", "Jan  1 00:00:00 a b: c", "type=CWD msg=audit(99999999999.1:1): a=b"],
)
def test_what_is_no_audit_record_is_kept_with_the_reason(text):
    events = read([text])
    if "99999999999" in text:
        assert len(events) == 1  # a time beyond 9999 would not fit
        return
    [event] = events
    assert event.fields["event.kind"] == "pipeline_error"
    assert event.logsource == LogSource("linux", "", "auditd")
