# ruff: noqa: E501  # real log lines stay in one piece
from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from breachwatch.model import LogSource
from breachwatch.parse import ParseContext, Parser, parser_for
from tests.parse.samples import CONTEXT, parse_all, parse_one, raw_line


@pytest.mark.parametrize(
    ("line", "at", "host", "name", "pid", "message"),
    [
        ("Feb 28 06:55:46 a sshd[7]: x", "2026-02-28T06:55:46", "a", "sshd", 7, "x"),
        ("Feb  8 06:55:46 a sshd[7]: x", "2026-02-08T06:55:46", "a", "sshd", 7, "x"),
        ("Feb 8 06:55:46 a sshd[7]: x", "2026-02-08T06:55:46", "a", "sshd", 7, "x"),
        ("Feb 28 06:55:46.123 a x[7]: y", "2026-02-28T06:55:46.123000", "a", "x", 7, "y"),
        ("<38>Feb 28 06:55:46 a x[7]: y", "2026-02-28T06:55:46", "a", "x", 7, "y"),
        ("Feb 28 2019 06:55:46 a x[7]: y", "2019-02-28T06:55:46", "a", "x", 7, "y"),
        ("Feb 28 06:55:46 <auth.info> a x[7]: y", "2026-02-28T06:55:46", "a", "x", 7, "y"),
        ("Feb 28 06:55:46 x[7]: y", "2026-02-28T06:55:46", "web01", "x", 7, "y"),
        ("Feb 28 06:55:46 kernel: [1.2] y", "2026-02-28T06:55:46", "web01", "kernel", None, "[1.2] y"),
        ("Feb 28 06:55:46 a kernel: [1.2] y", "2026-02-28T06:55:46", "a", "kernel", None, "[1.2] y"),
        ("Feb 28 06:55:46 2001:db8::1 x[7]: y", "2026-02-28T06:55:46", "2001:db8::1", "x", 7, "y"),
        ("Feb 28 06:55:46 a syslogd 1.4.1: restart.", "2026-02-28T06:55:46", "a", "syslogd 1.4.1", None, "restart."),
        ("Feb 28 06:55:46 a  -- root[24]: y", "2026-02-28T06:55:46", "a", "-- root", 24, "y"),
        ("Feb 28 06:55:46 a fw[19] <Info>: y", "2026-02-28T06:55:46", "a", "fw", 19, "y"),
        ("Feb 28 06:55:46 a /usr/sbin/x[19]: y", "2026-02-28T06:55:46", "a", "x", 19, "y"),
        ("Feb 28 06:55:46 a log_tag this is debug", "2026-02-28T06:55:46", "a", None, None, "log_tag this is debug"),
        ("Feb 28 06:55:46: --- words ---", "2026-02-28T06:55:46", "web01", None, None, "--- words ---"),
        ("2021-03-06T04:07:33.194677+00:00 a x[7]: y", "2021-03-06T04:07:33.194677", "a", "x", 7, "y"),
        ("2021-03-06T04:07:33+07:00 a x[7]: y", "2021-03-05T21:07:33", "a", "x", 7, "y"),
        ("2021-03-06T04:07:33Z a x[7]: y", "2021-03-06T04:07:33", "a", "x", 7, "y"),
        ("2021-03-06 04:07:33 a x[7]: y", "2021-03-06T04:07:33", "a", "x", 7, "y"),
        ("2016-12-31T23:59:60Z a x[7]: y", "2016-12-31T23:59:59", "a", "x", 7, "y"),
        ("2021-03-06T04:07:33.1Z ERR kernel: y", "2021-03-06T04:07:33.100000", "web01", "kernel", None, "y"),
        ("<15>1 2021-03-06T04:07:38.251122+00:00 a x 12 - - y", "2021-03-06T04:07:38.251122", "a", "x", 12, "y"),
        ('<15>1 2021-03-06T04:07:38Z a x - 1 [i a="b\\"]c"][j] y', "2021-03-06T04:07:38", "a", "x", None, "y"),
        ("<15>1 2021-03-06T04:07:38Z - - - - -", "2021-03-06T04:07:38", "web01", None, None, ""),
        ("<15>1 - a x 12 - - \ufeffy", "2026-03-01T12:00:00", "a", "x", 12, "y"),
        ("a x[12]: y", "2026-03-01T12:00:00", "a", "x", 12, "y"),
    ],
)
def test_every_dialect_gives_time_host_process_and_message(  # one column each
    line, at, host, name, pid, message
):
    event = parse_one(line)
    assert event.at_utc == datetime.fromisoformat(at).replace(tzinfo=UTC)
    found = [event.fields.get(key) for key in ("host.name", "process.name", "process.pid", "message")]
    assert found == [host, name, pid, message]
    assert event.fields["event.kind"] == "event"
    assert event.raw == line


@pytest.mark.parametrize(
    "line",
    ["", "   ", "\tmany syslog parsers.", "MMM 22 07:54:32 a x[1]: y", "Feb 30 06:55:46 a x[1]: y", "Foo 28 06:55:46 a x: y",
     "<15>1 yesterday a x 12 - - y", "2021-13-06T04:07:33Z a x[7]: y", "0001-01-01T00:00:00+14:00 a x[7]: y"],
)  # fmt: skip
def test_a_line_nobody_can_read_is_kept_with_the_reason(line):
    event = parse_one(line)
    assert event.fields["event.kind"] == "pipeline_error"
    assert event.fields["error.message"]
    assert event.fields["message"] == line.rstrip("\r\n")
    assert event.raw == line


def test_an_unreadable_line_has_the_time_of_the_line_before():
    parser = parser_for("syslog")
    before = parser.parse(raw_line("Feb 28 06:55:46 a x[1]: y"), CONTEXT)[0]
    assert parser.parse(raw_line("\tcontinued"), CONTEXT)[0].at_utc == before.at_utc


def test_priorities_become_levels():
    assert parse_one("<34>Feb 28 06:55:46 a x[1]: y").fields["log.level"] == "crit"
    assert parse_one("<34>1 2021-03-06T04:07:38Z a x 12 - - y").fields["log.syslog.priority"] == 34
    assert parse_one("2021-03-06T04:07:33.1Z ERR kernel: y").fields["log.level"] == "err"


def at(line: str, parser: Parser, context: ParseContext) -> datetime:
    return parser.parse(raw_line(line), context)[0].at_utc


def test_without_a_year_a_line_is_never_more_than_a_day_ahead():
    parser = parser_for("syslog")
    assert at("Mar  2 11:00:00 a x: y", parser, CONTEXT) == datetime(2026, 3, 2, 11, tzinfo=UTC)
    assert at("Mar  3 11:00:00 a x: y", parser, CONTEXT) == datetime(2025, 3, 3, 11, tzinfo=UTC)
    assert at("Feb 29 11:00:00 a x: y", parser, CONTEXT) == datetime(2024, 2, 29, 11, tzinfo=UTC)
    new_year = ParseContext(host="h", reference_utc=datetime(2025, 12, 31, 23, 30, tzinfo=UTC))
    assert at("Jan  1 00:10:00 a x: y", parser_for("syslog"), new_year) == datetime(2026, 1, 1, 0, 10, tzinfo=UTC)


def test_the_reference_may_move_on_under_a_daemon():
    parser = parser_for("syslog")
    assert at("Mar  1 11:00:00 a x: y", parser, CONTEXT).year == 2026
    later = ParseContext(host="h", reference_utc=datetime(2027, 3, 1, 12, tzinfo=UTC))
    at("Feb 28 11:00:00 a x: y", parser, later)
    assert at("Mar  1 11:00:00 a x: y", parser, later).year == 2027


def test_a_given_year_counts_on_from_december_to_january():
    context = ParseContext(host="h", reference_utc=CONTEXT.reference_utc, year=2019)
    parser = parser_for("syslog")
    stamps = ["Dec 30 10:00:00", "Dec 31 23:59:59", "Jan  1 00:00:01", "Dec 31 23:59:59", "Jan  1 00:00:02", "Mar  1 00:00:00",
              "Feb 28 23:00:00", "Feb 29 01:00:00", "Dec 31 23:59:59", "Jan  1 00:00:01", "Jan  1 00:00:01"]  # fmt: skip
    years = [at(f"{stamp} a x: y", parser, context).year for stamp in stamps]
    assert years == [2019, 2019, 2020, 2019, 2020, 2020, 2020, 2020, 2020, 2021, 2021]


def test_a_leap_day_in_a_common_year_keeps_its_place():
    context = ParseContext(host="h", reference_utc=CONTEXT.reference_utc, year=2019)
    assert at("Feb 29 01:00:00 a x: y", parser_for("syslog"), context) == datetime(2019, 3, 1, 1, tzinfo=UTC)


def test_local_times_become_utc():
    context = ParseContext(host="h", reference_utc=CONTEXT.reference_utc, tz=ZoneInfo("Asia/Ho_Chi_Minh"))
    parser = parser_for("syslog")
    assert at("Feb 28 06:00:00 a x: y", parser, context) == datetime(2026, 2, 27, 23, tzinfo=UTC)
    assert at("2026-02-28T06:00:00 a x: y", parser, context) == datetime(2026, 2, 27, 23, tzinfo=UTC)
    assert at("2026-02-28T06:00:00-0500 a x: y", parser, context) == datetime(2026, 2, 28, 11, tzinfo=UTC)
    moved = ParseContext(host="h", reference_utc=CONTEXT.reference_utc, tz=timezone(timedelta(hours=1)))
    assert at("Feb 28 06:00:00 a x: y", parser, moved) == datetime(2026, 2, 28, 5, tzinfo=UTC)


def test_thousands_of_distinct_seconds_are_read_in_bounded_memory():
    parser = parser_for("syslog")
    for second in range(5000):
        stamp = datetime(2026, 2, 1, tzinfo=UTC) + timedelta(seconds=second)
        assert at(f"{stamp:%b %d %H:%M:%S} a x: y", parser, CONTEXT) == stamp


def test_last_message_repeated_stands_for_the_one_before():
    parser = parser_for("syslog")
    parser.parse(raw_line("Feb 28 06:55:46 a sshd[7]: Failed password for root from 203.0.113.7 port 3 ssh2"), CONTEXT)
    events = parser.parse(raw_line("Feb 28 06:55:49 a last message repeated 3 times", 90), CONTEXT)
    assert [event.fields["source.ip"] for event in events] == ["203.0.113.7"] * 3
    assert {event.fields["event.action"] for event in events} == {"ssh_login"}


def test_repeats_of_programs_nobody_reads_stay_one_event():
    assert len(parse_all("Feb 28 06:55:46 a rsyslogd: message repeated 76 times: [-- MARK --]")) == 1
    assert len(parse_all("Feb 28 06:55:46 a last message repeated 3 times")) == 1


def test_a_generic_message_is_still_an_event():
    event = parse_one("Feb 28 06:55:46 a dhclient: PRC: Renewing lease")
    assert event.logsource == LogSource("linux", "", "syslog")
    assert event.fields["event.action"] == "syslog_message"
    assert "event.outcome" not in event.fields


def test_many_forged_tags_do_not_fill_the_memory():
    parser = parser_for("syslog")
    for number in range(5000):
        parser.parse(raw_line(f"Feb 28 06:55:46 a t{number}: y"), CONTEXT)
    assert len(vars(parser)["_readers"]) <= 4096
