from __future__ import annotations

import pytest

from breachwatch.errors import ParseError
from breachwatch.parse import FORMATS, detect_format, parser_for
from tests.parse.samples import CONTEXT, parse_one, raw_line

SAMPLES = {
    "syslog": b"Feb 28 06:55:46 a sshd[7]: Failed password for root from 203.0.113.7 port 3 ssh2",
    "syslog5424": b"<15>1 2021-03-06T04:07:38.251122+00:00 a x 12 - - y",
    "json": b'{"a": 1}',
    "journal": b'{"__REALTIME_TIMESTAMP": "1769940000123456", "MESSAGE": "x"}',
    "nginx": b'203.0.113.7 - - [17/May/2025:10:05:03 +0200] "GET / HTTP/1.1" 200 5',
    "apache": b"[Wed Jul 17 23:20:45 2013] [error] [client 203.0.113.7] x",
}
NGINX_ERROR = b"2025/08/01 14:32:27 [warn] 31733#31733: *21 x"


@pytest.mark.parametrize(("name", "line"), SAMPLES.items())
def test_each_format_is_found_by_its_lines(name, line):
    assert detect_format("/var/log/some.log", [b"", line, line]) == name
    assert parse_one(line, "auto").fields.get("event.kind", "event") == "event"


def test_the_path_tells_servers_apart_that_write_alike():
    assert detect_format("/var/log/apache2/access.log", [SAMPLES["nginx"]]) == "apache"
    assert detect_format("/var/log/httpd/access_log", [SAMPLES["nginx"]]) == "apache"
    assert detect_format("/var/log/nginx/access.log", [SAMPLES["nginx"]]) == "nginx"
    assert detect_format("/var/log/apache2/error.log", [NGINX_ERROR]) == "nginx"


def test_most_lines_win_and_nothing_known_stays_auto():
    assert detect_format("x", [SAMPLES["json"], SAMPLES["syslog"], SAMPLES["syslog"]]) == "syslog"
    assert detect_format("x", [b"\x00\x01", b"hello"]) == "auto"
    assert detect_format("x", []) == "auto"


def test_a_file_of_all_formats_is_read_line_by_line():
    parser = parser_for("auto")
    lines = [*SAMPLES.values(), NGINX_ERROR, b"srv sshd[3]: x", *reversed(SAMPLES.values())]
    for offset, line in enumerate(lines):
        event = parser.parse(raw_line(line, offset), CONTEXT)[0]
        assert event.fields.get("event.kind", "event") == "event", line


def test_an_unknown_line_has_the_time_of_the_line_before():
    parser = parser_for("auto")
    before = parser.parse(raw_line(SAMPLES["syslog"]), CONTEXT)[0]
    event = parser.parse(raw_line("\tcontinued"), CONTEXT)[0]
    assert event.at_utc == before.at_utc
    assert event.fields["event.kind"] == "pipeline_error"


def test_an_unknown_format_is_refused_with_the_known_ones():
    with pytest.raises(ParseError) as refused:
        parser_for("clay")
    assert all(name in str(refused.value) for name in FORMATS)


def test_every_format_makes_a_parser_of_its_name():
    assert {name: parser_for(name).format for name in FORMATS} == {name: name for name in FORMATS}
