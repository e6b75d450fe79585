from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breachwatch.model import LogSource
from breachwatch.model.passes import native
from breachwatch.parse.event import line_fields
from breachwatch.parse.timestamp import MAX_CACHED, access_time
from breachwatch.parse.web import USUAL_FIELDS, access_fields, plain_parts, usual_parts, usual_time
from tests.parse.samples import CONTEXT, fields_of, parse_one, raw_line

ALL = (1 << 12) - 1
AGENT = '"https://example.com/" "Mozilla/5.0 (X11)"'


def access(request: str, *, prefix: str = "203.0.113.7 - -", result: str = "200 512", rest: str = f" {AGENT}") -> str:
    return f'{prefix} [17/May/2025:10:05:03 +0200] "{request}" {result}{rest}'


def test_a_combined_line_has_all_its_fields():
    event = parse_one(access("GET /a/b.php?x=1&y=a+b HTTP/1.1", prefix="203.0.113.7 - bob"), "nginx")
    assert event.logsource == LogSource("nginx", "webserver", "")
    assert event.at_utc == datetime(2025, 5, 17, 8, 5, 3, tzinfo=UTC)
    wanted = {
        "event.action": "http_request",
        "event.category": ("web",),
        "event.type": ("access",),
        "event.outcome": "success",
        "source.ip": "203.0.113.7",
        "user.name": "bob",
        "http.request.method": "GET",
        "http.version": "1.1",
        "url.original": "/a/b.php?x=1&y=a+b",
        "url.path": "/a/b.php",
        "web.path_decoded": "/a/b.php",
        "url.query": "x=1&y=a+b",
        "web.query_decoded": "x=1&y=a b",
        "http.response.status_code": 200,
        "http.response.body.bytes": 512,
        "http.request.referrer": "https://example.com/",
        "user_agent.original": "Mozilla/5.0 (X11)",
    }
    assert wanted.items() <= event.fields.items()


@pytest.mark.parametrize(
    ("target", "path", "decoded"),
    [
        ("/%2e%2e/x", "/../x", "/../x"),
        ("/%252e%252e/x", "/%2e%2e/x", "/../x"),
        ("/%25252e%25252e/x", "/%252e%252e/x", "/../x"),
        ("/%c0%ae%c0%ae/x", "/../x", "/../x"),
        ("/%e0%80%ae/x", "/./x", "/./x"),
        ("/%u002e%u002e/x", "/../x", "/../x"),
        ("/\\x2e\\x2e/x", "/\\x2e\\x2e/x", "/../x"),
        ("/%zz%", "/%zz%", "/%zz%"),
        ("/%ff", "/\\xff", "/\\xff"),
        ("/caf%C3%A9", "/café", "/café"),
    ],
)
def test_paths_are_decoded_once_and_fully(target, path, decoded):
    fields = fields_of(access(f"GET {target} HTTP/1.1"), "apache")
    assert (fields["url.original"], fields["url.path"], fields["web.path_decoded"]) == (target, path, decoded)


def test_queries_are_decoded_like_forms():
    fields = fields_of(access("GET /?q=%2527+or+1%253d1%3b\\x22 HTTP/1.1"), "apache")
    assert fields["web.query_decoded"] == "q=' or 1=1;\""
    assert fields["url.query"] == "q=%2527+or+1%253d1%3b\\x22"


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("203.0.113.7 - -", {"source.ip": "203.0.113.7"}),
        ("www.example.com 203.0.113.7 - -", {"source.ip": "203.0.113.7", "url.domain": "www.example.com"}),
        ("www.example.com:443 203.0.113.7 - bob", {"url.domain": "www.example.com", "user.name": "bob"}),
        ("10.0.0.2, 198.51.100.9 - -", {"source.ip": "10.0.0.2"}),
        ("10.0.0.2, 8.8.8.8 - -", {"source.ip": "8.8.8.8"}),
        ('"10.5.102.222, 8.8.8.8" 10.2.1.185 - bob', {"source.ip": "8.8.8.8", "user.name": "bob"}),
        ("203.0.113.7 -", {"source.ip": "203.0.113.7"}),
        ("203.0.113.7 - bob smith", {"source.ip": "203.0.113.7", "user.name": "bob smith"}),
        ("scan.example.net - -", {"source.address": "scan.example.net", "source.domain": "scan.example.net"}),
        ("unix: - -", {"source.address": "unix:"}),
        ("a.example, b.example - -", {"source.address": "a.example, b.example"}),
        ("203.0.113.7 - x [17/May/2025:10:05:03 +0200]", {"source.ip": "203.0.113.7"}),
        ("::ffff:203.0.113.7 - -", {"source.ip": "203.0.113.7", "source.address": "::ffff:203.0.113.7"}),
        ("999.0.113.7 - -", {"source.address": "999.0.113.7"}),
    ],
)
def test_the_client_is_found_in_every_prefix(prefix, expected):
    fields = fields_of(access("GET / HTTP/1.1", prefix=prefix), "apache")
    assert expected.items() <= fields.items()
    if "source.ip" not in expected and "user.name" not in expected:
        assert "source.ip" not in fields


@pytest.mark.parametrize(
    "request_line", ["", "-", "hello", "\\x16\\x03\\x01\\x01 \\x02", "GET", "get /x HTTP/1.1 ", "1 / HTTP/1.1"]
)
def test_a_malformed_request_is_kept_as_it_is(request_line):
    fields = fields_of(access(request_line, result="400 0"), "nginx")
    assert fields["event.action"] == "http_request"
    assert fields["event.outcome"] == "failure"
    assert "http.request.method" not in fields
    if request_line not in ("", "-"):
        assert fields["url.original"] == request_line


def test_targets_may_hold_blanks_and_absolute_urls():
    spaced = fields_of(access("GET /a b/c HTTP/1.1"), "nginx")
    assert (spaced["http.request.method"], spaced["url.path"]) == ("GET", "/a b/c")
    absolute = fields_of(access("GET http://u@example.org:8080/p?q HTTP/1.1"), "nginx")
    assert (absolute["url.domain"], absolute["url.path"], absolute["url.query"]) == ("example.org", "/p", "q")
    assert absolute["url.original"] == "http://u@example.org:8080/p?q"
    assert fields_of(access("CONNECT example.org:443 HTTP/1.1"), "nginx")["url.path"] == "example.org:443"
    assert fields_of(access("GET /old"), "nginx")["url.path"] == "/old"


def test_a_quoted_forgery_in_request_and_agent_stays_inside_its_field():
    forged = r"GET /\" 200 1 \"-\" \"x\" HTTP/1.1"
    fields = fields_of(access(forged, rest=r' "-" "a\" 6.6.6.6 - - [17/May/2025:10:05:03 +0200] \"GET /y"'), "apache")
    assert fields["http.response.status_code"] == 200
    assert fields["http.response.body.bytes"] == 512
    assert fields["source.ip"] == "203.0.113.7"
    assert str(fields["url.original"]).startswith(r"/\" 200")


@pytest.mark.parametrize(
    ("rest", "referrer", "agent"),
    [
        (r' "-" "/bin/bash -c \"sh -i\""', None, r"/bin/bash -c \"sh -i\""),
        (r' "a \"b\"" "c"', r"a \"b\"", "c"),
        (' "-" "a "b" c"', None, 'a "b" c'),
        (" 0.004", None, None),
        ("", None, None),
        (' "" ""', None, None),
    ],
)
def test_quotes_in_the_agent_never_hide_it(rest, referrer, agent):
    for target in ("/", "/%41"):
        fields = fields_of(access(f"GET {target} HTTP/1.1", rest=rest), "nginx")
        assert (fields.get("http.request.referrer"), fields.get("user_agent.original")) == (referrer, agent)


def test_a_server_that_escapes_nothing_is_still_read():
    fields = fields_of(access('GET /?q="x" HTTP/1.1'), "nginx")
    assert fields["url.original"] == '/?q="x"'
    assert fields["http.response.status_code"] == 200


def test_a_forwarded_address_is_noted_but_never_the_source():
    fields = fields_of(access("GET / HTTP/1.1", rest=f' {AGENT} "198.51.100.1, 10.0.0.1"'), "nginx")
    assert (fields["source.ip"], fields["network.forwarded_ip"]) == ("203.0.113.7", "198.51.100.1")
    assert "network.forwarded_ip" not in fields_of(access("GET / HTTP/1.1", rest=f' {AGENT} "-"'), "nginx")
    slow = fields_of(access("GET /%41 HTTP/1.1", rest=f' {AGENT} "198.51.100.1"'), "nginx")
    assert slow["network.forwarded_ip"] == "198.51.100.1"


def test_other_layouts_of_the_same_servers_are_read():
    common = fields_of(access("GET / HTTP/1.1", rest="", result="200 -"), "apache")
    assert "http.response.body.bytes" not in common
    assert "user_agent.original" not in common
    tls = fields_of('[10/Aug/2018:09:45:56 +0200] 203.0.113.7 TLSv1.2 ECDHE "GET /x HTTP/1.1" 1375', "apache")
    assert (tls["tls.cipher"], tls["url.path"], tls["event.outcome"]) == ("ECDHE", "/x", "unknown")
    proxy = fields_of(
        '[24/Jan/2022:16:51:02 +0000] - 404 404 - GET http a.example "/x" [Client 203.0.113.7] [Length 192] [Gzip 3.10]'
        ' [Sent-to b] "curl" "-"',
        "nginx",
    )
    assert (proxy["url.domain"], proxy["url.path"], proxy["http.response.status_code"]) == ("a.example", "/x", 404)
    no_zone = parse_one('203.0.113.7 - - [27/Jun/2013:11:55:44] "GET / HTTP/1.1" 200 266', "apache")
    assert no_zone.at_utc == datetime(2013, 6, 27, 11, 55, 44, tzinfo=UTC)


@pytest.mark.parametrize(
    "stamp", ["99/May/2025:10:05:03 +0200", "17/Foo/2025:10:05:03 +0200", "17/May/2025:10:05:03 +9999"]
)
def test_a_time_that_cannot_be_is_not_made_up(stamp):
    event = parse_one(f'203.0.113.7 - - [{stamp}] "GET / HTTP/1.1" 200 1', "nginx")
    assert event.fields["event.kind"] == "pipeline_error" or "+9999" in stamp


TARGETS = st.text(alphabet="/abc.?=&+-_~:;,!'()*$%25e", min_size=1, max_size=40).map(lambda text: "/" + text)


@given(target=TARGETS, method=st.sampled_from(["GET", "POST", "PROPFIND"]), user=st.sampled_from(["-", "bob"]))
def test_the_quick_way_and_the_long_way_give_the_same_fields(target, method, user):
    text = access(f"{method} {target} HTTP/1.1", prefix=f"203.0.113.7 - {user}")
    quick = dict(parse_one(text, "nginx").fields)
    slow = line_fields(raw_line(text), "web01", text)
    assert access_fields(text, slow) == "17/May/2025:10:05:03 +0200"
    assert quick == slow


def test_a_log_of_many_seconds_stays_bounded():
    for second in range(3000):
        stamp = f"17/May/2025:10:{second // 60:02d}:{second % 60:02d} +0000"
        assert access_time(stamp, UTC) == datetime(2025, 5, 17, 10, second // 60, second % 60, tzinfo=UTC)
    assert access_time.cache_info().currsize <= MAX_CACHED


STAMPS = (
    "17/May/2025:10:05:03 +0200", "29/Feb/2024:00:00:00 -0000", "29/Feb/2023:00:00:00 +0000", "31/Apr/2023:00:00:00",
    "01/Jan/0001:00:00:00 +2359", "31/Dec/9999:23:59:59 -2359", "01/Jan/0000:00:00:00", "00/Jan/2000:00:00:00",
    "01/Jun/1900:24:00:00", "01/Jun/1900:23:60:00", "01/Jun/1900:23:59:99 +9999", "01/jun/1900:23:59:00 +0000",
    "29/Feb/1900:00:00:00", "29/Feb/2000:00:00:00", "\u0661\u0667/May/2025:10:05:03 +0200",
    "17/May/2025:10:05:03 0200 ", "01/Jan/0001:00:00:00", "31/Dec/9999:23:59:59",
)  # fmt: skip
CLIENTS = (
    "203.0.113.7",
    "256.1.1.1",
    "01.2.3.4",
    "1.2.3",
    "1.2.3.4.",
    "2001:db8::1",
    "host.example",
    "\u0661.2.3.4",
    "",
    '%2e""',
    "1.2.3.4,bob",
    "10.0.0.2,bob",
    '"1.2.3.4',
    "[17/May/2025:10:05:03",
    "-",
    "::",
)
PIECES = ("%2e", "%25", "+", "?", "&", "..", "\\x41", '"', " ", "é", "\u0663", "\0", "\n", "\r", "HTTP/1.1", "/")
WORDS = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=4).map("".join)


USUAL = {
    "client": ("203.0.113.7", CLIENTS),
    "user": ("-", ("bob", "-", "a b")),
    "stamp": (STAMPS[0], STAMPS),
    "method": ("GET", ("P" * 32, "P" * 33, "Get")),
    "path": ("a/b.php", ()),
    "query": ("?x=1", ("", "?", "?a?b")),
    "version": ("1.1", ("2", "1.", "10", "1.1.1")),
    "status": ("200", ("20", "2000", "\u0662\u0660\u0660")),
    "size": ("512", ("-", "0", "9" * 18, "9" * 19, "")),
    "tail": (' "-" "curl/8"', ("", ' "-" ""', ' "" "x" "1.2.3.4"', ' "/a" "x" y', ' "/a" "x"y', ' "/a"')),
}


@st.composite
def access_lines(draw) -> str:
    """Of the usual shape, but for a part or two."""
    parts = {name: usual for name, (usual, _) in USUAL.items()}
    for name in draw(st.sets(st.sampled_from(sorted(USUAL)), max_size=2)):
        parts[name] = draw(WORDS | st.sampled_from(USUAL[name][1] or ("",)))
    line = '{client} - {user} [{stamp}] "{method} /{path}{query} HTTP/{version}" {status} {size}{tail}'.format(**parts)
    return line if draw(st.integers(0, 9)) else line[: draw(st.integers(0, len(line)))]


@given(access_lines(), st.integers(0, (1 << 12) - 1))
def test_compiled_and_in_python_the_same_parts_are_found(line, wanted):
    if native is not None:
        assert native.access_parts(line, wanted) == plain_parts(line, wanted)
        assert native.access_parts(line + "\ud800", wanted) is None


@pytest.mark.parametrize("stamp", STAMPS)
def test_a_time_read_from_the_parts_is_the_one_that_the_parser_reads(stamp):
    line = f'203.0.113.7 - - [{stamp}] "GET /a HTTP/1.1" 200 1'
    assert usual_parts(line, ALL) == plain_parts(line, ALL)
    for zone in (UTC, timezone(timedelta(hours=14)), timezone(-timedelta(hours=12))):
        read = usual_time(line, zone)
        assert read is None or read == parse_one(line, "nginx", replace(CONTEXT, tz=zone)).at_utc


@given(access_lines())
def test_a_field_read_from_the_parts_is_the_one_that_the_parser_reads(line):
    parts = plain_parts(line, ALL)
    if parts is None or "\n" in line or line != line.rstrip("\r"):
        return
    event = parse_one(line, "nginx")
    assert event.logsource == LogSource("nginx", "webserver", "")
    for name, (of, read) in USUAL_FIELDS.items():
        assert read(*[parts[number] for number in of]) == event.fields.get(name), name


def test_most_lines_of_a_corpus_are_of_the_usual_shape():
    lines = [access("GET /a?b=c HTTP/1.1"), access("HEAD / HTTP/2", rest=""), access("GET /x HTTP/1.0", result="304 -")]
    assert [plain_parts(line, 1 << 7) for line in lines] == [("200",), ("200",), ("304",)]
