# ruff: noqa: E501  # real log lines stay in one piece
from __future__ import annotations

from datetime import UTC, datetime

import pytest

from breachwatch.model import LogSource
from tests.parse.samples import fields_of, parse_one

TAIL = ', client: 203.0.113.7, server: example.com, request: "GET / HTTP/1.1", host: "example.com"'


def nginx(message: str):
    return fields_of(f"2025/10/25 14:49:34 [error] 54053#7: *1 {message}", "nginx")


def test_an_apache_24_error_has_module_level_process_and_client():
    event = parse_one(
        "[Sun Sep 14 21:44:43.008606 2014] [authz_core:error] [pid 10691:tid 99] [client 203.0.113.7:44271] "
        "AH01630: client denied by server configuration: /x",
        "apache",
    )
    assert event.logsource == LogSource("apache", "webserver", "error")
    assert event.at_utc == datetime(2014, 9, 14, 21, 44, 43, 8606, tzinfo=UTC)
    wanted = {
        "event.action": "http_error",
        "event.outcome": "failure",
        "apache.error.module": "authz_core",
        "log.level": "error",
        "process.pid": 10691,
        "process.thread.id": 99,
        "source.ip": "203.0.113.7",
        "source.port": 44271,
        "message": "AH01630: client denied by server configuration: /x",
    }
    assert wanted.items() <= event.fields.items()


def test_an_apache_22_error_is_read_too():
    fields = fields_of(
        "[Wed Jul 17 23:20:45 2013] [error] [client 203.0.113.7] File does not exist: /[client 6.6.6.6]", "apache"
    )
    assert (fields["source.ip"], fields["log.level"]) == ("203.0.113.7", "error")
    notice = fields_of("[Wed Jul 17 23:20:45 2013] [notice] jk2_init() Found child 6725", "apache")
    assert (notice["event.outcome"], notice["message"]) == ("unknown", "jk2_init() Found child 6725")
    v6 = fields_of("[Wed Jul 17 23:20:45.1 2013] [ssl:error] [pid 1] [client [2001:db8::7]:443] AH1: x", "apache")
    assert "source.ip" not in v6 or v6["source.ip"] == "2001:db8::7"


@pytest.mark.parametrize(
    ("message", "user"),
    [
        ('user bob: authentication failure for "/basic": Password Mismatch', "bob"),
        ("AH01618: user bob not found: /basic/file", "bob"),
        ("AH01790: user `bob' in realm `private' not found: /x", "bob"),
        ("AH01792: user bob: password mismatch: /x", "bob"),
        ("client used wrong authentication scheme: /basic/file", None),
    ],
)
def test_a_refused_web_login_is_an_authentication_failure(message, user):
    fields = fields_of(f"[Wed Jul 17 22:18:52 2013] [error] [client 203.0.113.7] {message}", "apache")
    assert (fields["event.action"], fields["event.outcome"]) == ("http_authentication", "failure")
    assert fields.get("user.name") == user


def test_an_nginx_error_has_its_client_and_request():
    event = parse_one(f'2025/10/25 14:49:34 [error] 54053#7: *1 user "bob": password mismatch{TAIL}', "nginx")
    assert event.logsource == LogSource("nginx", "webserver", "error")
    wanted = {
        "event.action": "http_authentication",
        "user.name": "bob",
        "source.ip": "203.0.113.7",
        "http.request.method": "GET",
        "url.original": "/",
        "process.pid": 54053,
        "process.thread.id": 7,
        "nginx.error.connection_id": 1,
    }
    assert wanted.items() <= event.fields.items()


@pytest.mark.parametrize(
    ("message", "address"),
    [
        (f'open() "/x" failed (2: No such file){TAIL}', "203.0.113.7"),
        (f'open() "/x, client: 6.6.6.6" failed (2: No such file){TAIL}', "203.0.113.7"),
        (f'open() "/x, client: 6.6.6.6, server: a" failed (2: No such file){TAIL}', "203.0.113.7"),
        (f'limiting requests{TAIL}, referrer: "http://a, client: 6.6.6.6, server: s"', "203.0.113.7"),
        ("SSL_do_handshake() failed while SSL handshaking, client: 203.0.113.7, server: 0.0.0.0:443", "203.0.113.7"),
        ("accept() failed, client: 203.0.113.7", "203.0.113.7"),
        ("client 203.0.113.7:53044 connected to 0.0.0.0:25", "203.0.113.7"),
        ('client login failed: "x" while in http auth state, client: 203.0.113.7 using starttls, server: 0.0.0.0:587, login: "b"',
         "203.0.113.7"),
        ("worker process 7 exited", None),
    ],
)  # fmt: skip
def test_the_client_of_an_nginx_error_is_nginxs_own_word(message, address):
    assert nginx(message).get("source.ip") == address


@pytest.mark.parametrize(
    "message",
    [
        f'open() "/x, client: 6.6.6.6, server: a, request: "b" failed (2: No such file){TAIL}',
        f'limiting requests{TAIL}, referrer: "x", client: 6.6.6.6, server: s, request: "y"',
    ],
)
def test_where_the_client_is_not_certain_nobody_is_named(message):
    fields = nginx(message)
    assert "source.ip" not in fields
    assert "more than one client" in str(fields["error.message"])


def test_limits_are_failures_whatever_their_level():
    fields = fields_of(f"2025/08/01 14:32:27 [warn] 31733#31733: *21 delaying request, excess: 0.850{TAIL}", "nginx")
    assert (fields["event.action"], fields["event.outcome"]) == ("http_error", "failure")


@pytest.mark.parametrize(
    "line",
    ["[Wed Foo 17 22:18:52 2013] [error] x", "[Wed Jul 17 22:18:52 2013] nothing", "2025/99/01 14:32:27 [warn] 1#1: x",
     "2025/08/01 14:32:27 nothing"],
)  # fmt: skip
def test_a_broken_error_line_is_kept_with_the_reason(line):
    assert fields_of(line, "nginx")["event.kind"] == "pipeline_error"
