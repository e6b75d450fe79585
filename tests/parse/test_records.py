"""JSON records and the journal."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breachwatch.model import Block, LogSource, RawLine
from breachwatch.parse import parser_for
from breachwatch.parse.skipping import lines_of
from tests.parse.samples import CONTEXT, fields_of, parse_one


def test_a_record_keeps_its_own_fields_and_gains_its_place():
    event = parse_one(
        '{"@timestamp": "2026-02-01T10:00:00.5+07:00", "a": {"b": [1, null, true]}, "host.name": "db"}', "json"
    )
    assert event.at_utc == datetime(2026, 2, 1, 3, 0, 0, 500000, tzinfo=UTC)
    assert event.fields == {
        "@timestamp": "2026-02-01T10:00:00.5+07:00",
        "a": {"b": [1, None, True]},
        "host.name": "db",
        "log.file.path": "/var/log/x.log",
        "log.offset": 0,
    }
    assert event.logsource == LogSource()


@pytest.mark.parametrize(
    ("dataset", "logsource"),
    [
        ("nginx.access", LogSource("nginx", "webserver", "")),
        ("auditd.log", LogSource("auditd", "", "log")),
        ("system.auth", LogSource("linux", "", "auth")),
        ("", LogSource()),
    ],
)
def test_a_record_may_say_what_it_is(dataset, logsource):
    assert parse_one(json.dumps({"event": {"dataset": dataset}}), "json").logsource == logsource
    assert parse_one(json.dumps({"event.dataset": dataset}), "json").logsource == logsource


@pytest.mark.parametrize(
    ("record", "logsource"),
    [
        ({"product": "linux", "category": "process_creation"}, LogSource("linux", "process_creation", "")),
        ({"product": "linux", "service": "auditd"}, LogSource("linux", "", "auditd")),
        ({"product": "linux", "event.dataset": "nginx.access"}, LogSource("nginx", "webserver", "")),
        ({"product": 5, "category": None, "service": ["x"]}, LogSource()),
        ({"product": "x" * 129, "service": "sshd"}, LogSource("", "", "sshd")),
    ],
)
def test_a_record_without_a_dataset_may_name_its_source_part_by_part(record, logsource):
    assert parse_one(json.dumps(record), "json").logsource == logsource


@pytest.mark.parametrize(
    "value", ["2026-02-01T10:00:00Z", 1769940000, 1769940000.0, 1769940000000, 1769940000000000, 1769940000000000000]
)
def test_times_are_taken_in_every_unit(value):
    assert parse_one(json.dumps({"ts": value}), "json").at_utc == datetime(2026, 2, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize("value", ["yesterday", -5, 1e300, True, None, [], 10**30])
def test_a_time_that_cannot_be_falls_back_to_the_reference(value):
    assert parse_one(json.dumps({"time": value}), "json").at_utc == CONTEXT.reference_utc


@pytest.mark.parametrize(
    "line",
    ["", "[1]", "3", '"x"', '{"a": NaN}', '{"a": 1', "{" * 5000, '{"a":' * 3000 + "1" + "}" * 3000, b'{"a": "\xff"}',
     '{"a":' * 80 + "1" + "}" * 80],
)  # fmt: skip
def test_what_is_no_record_is_kept_with_the_reason(line):
    fields = fields_of(line, "json")
    assert fields["event.kind"] == "pipeline_error"
    assert str(fields["error.message"]).startswith("no JSON record")


def test_of_a_repeated_key_the_last_counts():
    assert fields_of('{"a": 1, "a": 2}', "json")["a"] == 2


def record(**fields) -> str:
    return json.dumps({"__REALTIME_TIMESTAMP": "1769940000123456", "_HOSTNAME": "db", **fields})


def test_a_journal_record_is_read_by_its_program():
    event = parse_one(
        record(
            SYSLOG_IDENTIFIER="sshd",
            _PID="7",
            _UID="0",
            _COMM="sshd",
            PRIORITY="6",
            MESSAGE="Failed password for root from 203.0.113.7 port 5 ssh2",
        ),
        "journal",
    )
    assert event.at_utc == datetime(2026, 2, 1, 10, 0, 0, 123456, tzinfo=UTC)
    wanted = {
        "event.action": "ssh_login",
        "source.ip": "203.0.113.7",
        "host.name": "db",
        "process.pid": 7,
        "log.level": "info",
    }
    assert wanted.items() <= event.fields.items()
    assert event.logsource.service == "sshd"
    assert "Failed password" in event.raw


def test_a_user_who_logs_as_sshd_is_not_believed():
    event = parse_one(
        record(
            SYSLOG_IDENTIFIER="sshd",
            _PID="7",
            _UID="1000",
            _COMM="logger",
            MESSAGE="Accepted password for root from 203.0.113.7 port 5 ssh2",
        ),
        "journal",
    )
    assert event.fields["journal.identifier_mismatch"] is True
    assert "source.ip" not in event.fields
    assert event.logsource.service == "syslog"
    sudo = record(
        SYSLOG_IDENTIFIER="sudo", _UID="1000", _COMM="sudo", MESSAGE="bob : TTY=x ; PWD=/ ; USER=root ; COMMAND=/x"
    )
    assert parse_one(sudo, "journal").fields["event.action"] == "sudo_command"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ([104, 105, 255, 0], "hi\\xff\\x00"),
        (None, ""),
        (["a", "b"], "a"),
        ([[1]], ""),
        (5, "5"),
        ([300], "300"),
        ({}, ""),
    ],
)
def test_messages_that_are_no_text_are_shown(message, text):
    assert fields_of(record(MESSAGE=message), "journal")["message"] == text


def test_journal_lines_have_no_file():
    line = RawLine(source="journal", data=record(MESSAGE="x", _COMM="y").encode(), cursor="s=1;i=2")
    event = parser_for("journal").parse(line, CONTEXT)[0]
    assert "log.file.path" not in event.fields
    assert "log.offset" not in event.fields
    again = parser_for("journal").parse(RawLine(source="journal", data=line.data, cursor="s=1;i=3"), CONTEXT)[0]
    assert event.id != again.id


@pytest.mark.parametrize(
    "line", ["{}", "x", '{"__REALTIME_TIMESTAMP": "x"}', '{"__REALTIME_TIMESTAMP": "' + "9" * 30 + '"}']
)
def test_what_is_no_journal_record_is_kept(line):
    assert fields_of(line, "journal")["event.kind"] == "pipeline_error"


@given(st.lists(st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"")), max_size=6), st.integers(0, 9))
def test_lines_of_a_part_of_a_block_are_those_of_the_block(lines, offset):
    block = Block(source="x", data=b"".join(line + b"\n" for line in lines), offset=offset, generation="g")
    assert list(lines_of(block, 0, len(block.data))) == list(block.lines())
