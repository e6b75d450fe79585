# ruff: noqa: E501, Q000  # real log lines stay in one piece
"""Whoever attacks the host writes its logs."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breachwatch.model import RawLine
from breachwatch.parse import FORMATS, Assembler, event_id, parser_for
from tests.parse.samples import CONTEXT, raw_line

HEADS = [
    b"", b"Feb 28 06:55:46 a sshd[7]: ", b"Feb 28 06:55:46 a sudo: ", b"Feb 28 06:55:46 a su: ", b"Feb 28 06:55:46 a CRON[1]: ",
    b"Feb 28 06:55:46 a useradd[1]: ", b"Feb 28 06:55:46 a login[1]: ", b"Feb 28 06:55:46 a app: ", b"Feb 28 06:55:46 a nginx: ",
    b"<34>1 2021-03-06T04:07:38Z a x 1 - ", b"2021-03-06T04:07:33Z a sshd[7]: ", b"203.0.113.7 - - [17/May/2025:10:05:03 +0200] ",
    b"[Wed Jul 17 23:20:45 2013] [error] ", b"2025/08/01 14:32:27 [error] 1#1: *2 ", b'{"__REALTIME_TIMESTAMP": "1", "MESSAGE": ',
    b"Feb 28 06:55:46 a sshd[7]: Failed password for ", b"Feb 28 06:55:46 a sshd[7]: pam_unix(sshd:auth): authentication failure; ",
]  # fmt: skip
TAILS = st.one_of(
    st.binary(max_size=120),
    st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(
        st.sampled_from(
            [
                b"from ",
                b"port 22 ",
                b"ssh2",
                b" 1.2.3.4 ",
                b"user ",
                b'"',
                b"\\",
                b"[",
                b"] ",
                b"%25",
                b"; ",
                b"COMMAND=",
                b"(",
                b")",
            ]
        ),
        max_size=20,
    ).map(b"".join),
)
OFFSETS = st.integers(min_value=0, max_value=2**40)


@settings(max_examples=400)
@given(head=st.sampled_from(HEADS), tail=TAILS, offset=OFFSETS, kind=st.sampled_from(sorted(FORMATS)))
def test_no_bytes_whatever_raise_or_vanish(head, tail, offset, kind):
    parser = parser_for(kind)
    for event in (events := parser.parse(raw_line(head + tail, offset), CONTEXT)):
        assert event.at_utc.utcoffset() is not None
        assert isinstance(event.id, str)
        assert all(isinstance(name, str) for name in event.fields)
        json.dumps(event.raw)
    waiting = parser.waiting if isinstance(parser, Assembler) else ()
    assert len(events) + len(waiting) >= 1


@settings(max_examples=200)
@given(user=st.text(alphabet=st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=60))
def test_no_user_name_moves_the_address(user):
    line = f"Feb 28 06:55:46 a sshd[7]: Failed password for invalid user {user} from 203.0.113.7 port 5 ssh2"
    fields = parser_for("sshd").parse(raw_line(line), CONTEXT)[0].fields
    assert (fields["source.ip"], fields["source.port"]) == ("203.0.113.7", 5)


HOSTILE = [
    b"Feb 28 06:55:46 a sshd[7]: Failed password for invalid user " + b" from 1.2.3.4 port 22 ssh2: RSA x" * 2000,
    b"Feb 28 06:55:46 a sshd[7]: Failed password for invalid user " + b" from" * 13000,
    b"Feb 28 06:55:46 a sshd[7]: Connection closed by invalid user " + b" 1.2.3.4 port 22 [preauth]" * 2400,
    b"Feb 28 06:55:46 a sshd[7]: Bad protocol version identification '" + b"' from 1.2.3.4 port 1" * 3000,
    b"Feb 28 06:55:46 a sshd[7]: refused connect from " + b" (1.2.3.4" * 6000,
    b"Feb 28 06:55:46 a sshd[7]: Disconnecting invalid user " + b" 1.2.3.4 port 1: Change" * 2700,
    b"Feb 28 06:55:46 a sshd[7]: pam_unix(sshd:auth): authentication failure; " + b" rhost=1.2.3.4 user=" * 3000,
    b"Feb 28 06:55:46 a sshd[7]: message repeated 3 times: [" + b"[" * 60000,
    b"Feb 28 06:55:46 a sshd[7]: error: " + b"error: " * 9000,
    b"Feb 28 06:55:46 a sudo: bob : " + b" ; TTY=x ; PWD=" * 4000 + b"COMMAND=",
    b"Feb 28 06:55:46 a app: " + b"auth login password " * 3000,
    b"Feb 28 06:55:46 a app: login failed " + b"1.2.3." * 10000,
    b"Feb 28 06:55:46 a app: login failed " + b"a:b:" * 15000,
    b"Feb 28 06:55:46 " + b"a" * 65000,
    b"Feb 28 06:55:46 " + b"a b" * 20000,
    b"Feb 28 06:55:46 " + b"a " * 30000 + b"x[1]: y",
    b"<34>1 2021-03-06T04:07:38Z a x 1 - " + b'[i a="\\' * 9000,
    b'203.0.113.7 - - [17/May/2025:10:05:03 +0200] "GET /' + b'\\"' * 30000,
    b'203.0.113.7 - - [17/May/2025:10:05:03 +0200] "GET /' + b'" 200 5 ' * 8000,
    b"203.0.113.7 - " + b"[17/May/2025:10:05:03 +0200] " * 2200,
    b"1.2.3.4 " * 8000,
    b'203.0.113.7 - - [17/May/2025:10:05:03 +0200] "GET /' + b"%25" * 21000 + b' HTTP/1.1" 200 5',
    b'203.0.113.7 - - [17/May/2025:10:05:03 +0200] "GET /?' + b"%u0" * 21000 + b' HTTP/1.1" 200 5 "-" "-"' + b' "' * 100,
    b"2025/08/01 14:32:27 [error] 1#1: *2 x" + b", client: 1.2.3.4, server: a" * 2300,
    b"2025/08/01 14:32:27 [error] 1#1: *2 x" + b', client: 1.2.3.4, server: a, request: "' * 1600,
    b'2025/08/01 14:32:27 [error] 1#1: *2 x, client: a, server: b' + b', request: "x"' * 4500 + b"!",
    b"2025/08/01 14:32:27 [error] 1#1: *2 user " + b"' in realm `" * 5000,
    b"[Wed Jul 17 23:20:45 2013] [error] " + b"(22)x" * 12000,
    b"[24/Jan/2022:16:51:02 +0000] - 404 404 - GET http a " + b'"x" [Client 1.2.3.4] ' * 3000,
    b'{"a":' * 13000,
    b"{" + b'"a":1,' * 10000,
    b"type=SYSCALL msg=audit(1684329817.579:2995): " + b"a=" * 30000,
    b"type=EXECVE msg=audit(1684329817.579:2995): " + b" ".join(b"a%d=41" % n for n in range(7000)),
    b"type=USER_CMD msg=audit(1684329817.579:2995): msg='" + b'cmd="' * 12000 + b"'" * 2000,
    b"type=PROCTITLE msg=audit(1684329817.579:2995): proctitle=" + b"41" * 32000 + b"x",
    b"\xff" * 65536,
    b"\x00" * 65536,
]  # fmt: skip


@pytest.mark.parametrize("line", HOSTILE, ids=lambda line: repr(line[:70]))
def test_a_hostile_line_of_64_kib_costs_milliseconds(line):
    for kind in sorted(FORMATS):
        assert min(seconds_to_parse(kind, line) for _ in range(3)) < 0.25, kind


def seconds_to_parse(kind: str, line: bytes) -> float:
    """CPU; the best of several runs counts, because a collection of garbage may fall into one."""
    parser = parser_for(kind)
    started = time.process_time()
    events = parser.parse(raw_line(line), CONTEXT)
    assert events or (isinstance(parser, Assembler) and parser.waiting)
    return time.process_time() - started


def test_a_line_beyond_the_limit_is_cut_and_says_so():
    event = parser_for("syslog").parse(raw_line(b"Feb 28 06:55:46 a x: " + b"y" * 10_000_000), CONTEXT)[0]
    assert len(event.raw) == 65_536
    assert event.fields["log.flags"] == ("truncated",)
    cut = RawLine(source="x", data=b"Feb 28 06:55:46 a x: y", length_bytes=99)
    assert parser_for("syslog").parse(cut, CONTEXT)[0].fields["log.flags"] == ("truncated",)


def test_undecodable_bytes_and_nul_are_shown():
    event = parser_for("syslog").parse(raw_line(b"Feb 28 06:55:46 a x: \xff\x00\xc3\xa9\r"), CONTEXT)[0]
    assert event.raw == "Feb 28 06:55:46 a x: \\xff\\x00é"
    assert event.fields["message"] == "\\xff\\x00é"


@given(
    first=st.tuples(
        st.text(max_size=5), st.text(max_size=5), OFFSETS, st.binary(max_size=5), st.text(max_size=5), OFFSETS
    ),
    second=st.tuples(
        st.text(max_size=5), st.text(max_size=5), OFFSETS, st.binary(max_size=5), st.text(max_size=5), OFFSETS
    ),
)
def test_ids_are_equal_only_for_equal_content(first, second):
    def name(content):
        host, generation, offset, data, cursor, ordinal = content
        line = RawLine(source="x", data=data, offset=offset, generation=generation, cursor=cursor)
        return event_id(line, host, ordinal)

    assert (name(first) == name(second)) == (first == second)
    assert name(first) == name(first)
