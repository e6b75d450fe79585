"""Access logs of nginx and Apache: common, combined, vhost_combined and their usual extensions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, tzinfo
from functools import lru_cache
from ipaddress import ip_address

from breachwatch.model import Event, FieldValue, LogSource, RawLine
from breachwatch.model.passes import native
from breachwatch.model.rawform import Parts
from breachwatch.parse.address import ip_of, is_ipv4, set_source
from breachwatch.parse.context import ParseContext
from breachwatch.parse.encoding import fully_decoded, percent_decoded
from breachwatch.parse.event import event_id, line_fields, unparsable, visible_text
from breachwatch.parse.memory import Memory
from breachwatch.parse.timestamp import access_time, is_access_time
from breachwatch.parse.weberror import WebErrorReader

Fields = dict[str, FieldValue]

WEB = ("web",)
ACCESS = ("access",)

_QUOTED = r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"'
_TIME = r"\[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d(?: [+-]\d{4})?)\]"
_RESULT = r" (\d{3}) (\d{1,18}|-)"

_PLAIN = re.compile(
    r'([^ ]+) - ([^ "]+) \[(?P<stamp>[^]"]{20,26})\] "([A-Z]{1,32}) (/[^ "\\?]*)(?:\?([^ "\\]*))? HTTP/(\d(?:\.\d)?)"'
    r" (\d{3}) (\d{1,18}|-)"
    r'(?: "([^"\\]*)" "([^"\\]*)"( .*)?)?',
    re.ASCII | re.DOTALL,
)
"""The shape of nearly every line: nothing escaped. Its fields are set in one go; whatever looks different goes the long
way, which gives the same fields (a test compares the two).

Servers escape quotes inside quotes, so what a client sends cannot end a field."""
_ACCESS_ANY_PREFIX = re.compile(
    rf'("?[^"\[]*+"?[^"]*?) ?{_TIME} {_QUOTED}{_RESULT}(?: {_QUOTED} {_QUOTED}( .*)?|[^"]*)', re.DOTALL
)
_HEAD_UNESCAPED = re.compile(rf'([^"]*?) ?{_TIME} "')
_RESULT_UNESCAPED = re.compile(r'( HTTP/\d(?:\.\d)?)?" (\d{3}) (\d{1,18}|-)(?= "|$)')
"""Servers that escape nothing: the request ends at the first `" status size`, best after a protocol version."""
_SSL_REQUEST = re.compile(rf"{_TIME} (\S{{1,256}}) (\S{{1,32}}) (\S{{1,64}}) {_QUOTED} (\d{{1,18}}|-)")
_PROXY_MANAGER = re.compile(
    rf"{_TIME} (?:(?:-|[A-Z]{{1,16}}) )?(?:(?:\d{{3}}|-) )?(\d{{3}}) - ([A-Z]{{1,16}}) (https?) (\S{{1,256}})"
    rf" {_QUOTED} \[Client (\S{{1,64}})\]"
    rf" \[Length (\d{{1,18}}|-)\] \[Gzip [^\]]{{1,16}}\](?: \[Sent-to [^\]]{{1,256}}\])? {_QUOTED} {_QUOTED}"
)
_WORD = re.compile(r"[A-Za-z0-9.:_-]+")
_METHOD = re.compile(r"[A-Z][A-Za-z_-]{0,31}", re.ASCII)
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,15}://([^/?#]*)([^?#]*)")
_FORWARDED = re.compile(r'"([^"]{2,512})"')


@lru_cache(maxsize=64)
def _is_method(text: str) -> bool:
    return _METHOD.fullmatch(text) is not None


class WebParser:
    """One access or error log of nginx or Apache."""

    def __init__(self, product: str, memory: Memory | None = None) -> None:
        self.format = product
        self.memory = memory or Memory()
        self._access = LogSource(product, "webserver", "")
        self._errors = WebErrorReader(product)

    def parse(self, line: RawLine, context: ParseContext) -> Sequence[Event]:
        """One event."""
        text = visible_text(line.data)
        events = self.read(text, line, context)
        if events is not None:
            return events
        reason = "neither an access nor an error log line" if text else "empty line"
        at_utc = self.memory.pass_over()
        return (unparsable(text, line, context, reason=reason, at_utc=at_utc, logsource=self._access),)

    def read(self, text: str, line: RawLine, context: ParseContext) -> Sequence[Event] | None:
        """The event of the line, or None where it has another shape."""
        found = _PLAIN.fullmatch(text)
        if found is not None:
            address, user, stamp, method, path, query, version, status, size, referrer, agent, rest = found.groups()
            source = ip_of(address)
            at_utc = access_time(stamp, context.tz)
            if source is not None and at_utc is not None:
                self.memory.note(at_utc)
                fields = line_fields(line, context.host, text)
                fields["event.category"] = WEB
                fields["event.type"] = ACCESS
                fields["event.action"] = "http_request"
                fields["event.outcome"] = "success" if status < "400" else "failure"
                fields["source.address"] = address
                fields["source.ip"] = source
                fields["http.request.method"] = method
                fields["http.version"] = version
                fields["http.response.status_code"] = int(status)
                set_path(fields, path)
                if size != "-":
                    fields["http.response.body.bytes"] = int(size)
                if user != "-":
                    fields["user.name"] = user
                if query is None:
                    fields["url.original"] = path
                else:
                    fields["url.original"] = f"{path}?{query}"
                    query_fields(fields, query)
                if referrer and referrer != "-":
                    fields["http.request.referrer"] = referrer
                if agent and agent != "-":
                    fields["user_agent.original"] = agent
                if rest:
                    forwarded_fields(fields, rest)
                return (
                    Event(
                        id=event_id(line, context.host), at_utc=at_utc, logsource=self._access, fields=fields, raw=text
                    ),
                )
        return self._read_slowly(text, line, context)

    def _read_slowly(self, text: str, line: RawLine, context: ParseContext) -> Sequence[Event] | None:
        fields = line_fields(line, context.host, text)
        stamp = access_fields(text, fields)
        if stamp is not None:
            at_utc, logsource = access_time(stamp, context.tz), self._access
        else:
            at_utc = self._errors.read(text, fields, context.tz)
            logsource = self._errors.logsource
        if at_utc is None:
            return None
        self.memory.note(at_utc)
        return (Event(id=event_id(line, context.host), at_utc=at_utc, logsource=logsource, fields=fields, raw=text),)


def access_fields(text: str, fields: Fields) -> str | None:
    """The fields of an access line of whatever dialect; returns its time as written, None for other lines."""
    found = _ACCESS_ANY_PREFIX.fullmatch(text)
    parts = found.groups() if found is not None else _unescaped_parts(text)
    if parts is not None:
        prefix, stamp, request, status, size, referrer, agent, rest = parts
        assert prefix is not None
        assert request is not None
        prefix_fields(fields, prefix.strip())
        request_fields(fields, request, status, size)
        agent_fields(fields, referrer, agent, rest)
        return str(stamp)
    found = _SSL_REQUEST.fullmatch(text)
    if found is not None:
        stamp, address, protocol, cipher, request, size = found.groups()
        set_source(fields, address)
        fields["tls.cipher"], fields["tls.version_protocol"] = cipher, protocol
        request_fields(fields, request, None, size)
        return str(stamp)
    found = _PROXY_MANAGER.fullmatch(text)
    if found is not None:
        stamp, status, method, scheme, domain, target, address, size, agent, referrer = found.groups()
        set_source(fields, address)
        request_fields(fields, f"{method} {target} HTTP/", status, size)
        del fields["http.version"]
        fields["url.domain"], fields["url.scheme"] = domain, scheme
        agent_fields(fields, referrer, agent, "")
        return str(stamp)
    return None


def _unescaped_parts(text: str) -> tuple[str | None, ...] | None:
    """Prefix, time, request, status, size, referrer, agent and rest of a line in which quotes are not escaped."""
    head = _HEAD_UNESCAPED.match(text)
    if head is None:
        return None
    ends = list(_RESULT_UNESCAPED.finditer(text, head.end()))
    if not ends:
        return None
    end = next((found for found in ends if found[1]), ends[0])
    request = text[head.end() : end.start()] + (end[1] or "")
    referrer, _, agent = text[end.end() :].removeprefix(' "').removesuffix('"').partition('" "')
    return head[1], head[2], request, end[2], end[3], referrer, agent, ""


def prefix_fields(fields: Fields, prefix: str) -> None:
    """What stands before the time: `vhost:80 198.51.100.7 - bob`, `"10.0.0.2, 198.51.100.7" 10.2.1.185 - -`."""
    words = prefix.replace('"', "").replace(",", " ").split()
    while words and words[-1] == "-":
        words.pop()
    addresses = [word for word in words if ip_of(word) is not None]
    if addresses:
        first = words.index(addresses[0])
        if first == 1:
            fields["url.domain"] = split_domain(words[0])
        client = addresses[0]
        if len(addresses) > 1:
            client = next((address for address in addresses if _is_global(address)), client)
        set_source(fields, client)
        after = words[words.index(addresses[-1]) + 1 :]
        if after and after[0] == "-":
            after = after[1:]
        if after:
            fields["user.name"] = " ".join(after)
    elif words:
        set_source(fields, ", ".join(word for word in words if word != "-") if "," in prefix else words[0])


def _is_global(address: str) -> bool:
    return ip_address(ip_of(address) or address).is_global


def split_domain(text: str) -> str:
    """A virtual host without its port."""
    name, colon, port = text.rpartition(":")
    return name if colon and port.isdecimal() else text


def request_fields(fields: Fields, request: str, status: str | None, size: str | None) -> None:
    """`GET /index.html?x=1 HTTP/1.1` and its answer."""
    fields["event.category"] = WEB
    fields["event.type"] = ACCESS
    fields["event.action"] = "http_request"
    if status is not None:
        code = int(status)
        fields["http.response.status_code"] = code
        fields["event.outcome"] = "success" if code < 400 else "failure"  # noqa: PLR2004  # RFC 9110 15.5
    else:
        fields["event.outcome"] = "unknown"
    if size is not None and size != "-":
        fields["http.response.body.bytes"] = int(size)
    method, _, rest = request.partition(" ")
    target, space, protocol = rest.rpartition(" ")
    if not space or protocol[:5] != "HTTP/":
        target, protocol = rest, ""
    if not target or not _is_method(method):
        if request not in ("", "-"):
            fields["url.original"] = fields["url.path"] = request
            fields["web.path_decoded"] = fully_decoded(request)
        return
    fields["http.request.method"] = method
    if protocol:
        fields["http.version"] = protocol[5:]
    url_fields(fields, target)


def url_fields(fields: Fields, target: str) -> None:
    """The target as logged, and what an application may make of it."""
    fields["url.original"] = target
    if target[0] != "/" and (absolute := _ABSOLUTE.match(target)) is not None:
        fields["url.domain"] = split_domain(absolute[1].rpartition("@")[2])
        target = (absolute[2] or "/") + target[absolute.end() :]
    path, mark, query = target.partition("?")
    set_path(fields, path)
    if mark:
        query_fields(fields, query)


def set_path(fields: Fields, path: str) -> None:
    """The path, decoded once and as far as it goes."""
    if "%" in path or "\\" in path:
        once = fields["url.path"] = percent_decoded(path)
        fields["web.path_decoded"] = fully_decoded(path) if "%" in once or "\\" in path else once
    else:
        fields["url.path"] = fields["web.path_decoded"] = path


def decoded_path(path: str) -> str:
    """The path decoded as far as it goes."""
    return fully_decoded(path) if "%" in path or "\\" in path else path


def query_fields(fields: Fields, query: str) -> None:
    """The query as logged, and decoded like a form."""
    fields["url.query"] = query
    fields["web.query_decoded"] = decoded_query(query)


def decoded_query(query: str) -> str:
    """The query decoded like a form."""
    plain = "%" not in query and "+" not in query and "\\" not in query
    return query if plain else fully_decoded(query, plus_is_space=True)


def plain_parts(text: str, wanted: int) -> Parts | None:
    """Some groups of `_PLAIN`, where a line of its shape has a client and a time that need no second look.

    The client is an address as `WebParser.read` takes it; or nobody is logged in, and it is one word, in which the long
    way finds nothing but a source.
    """
    found = _PLAIN.fullmatch(text)
    if found is None or "\0" in text:
        return None
    parts = found.groups()
    is_client = is_ipv4(parts[0]) or (parts[1] == "-" and _WORD.fullmatch(parts[0]) is not None)
    if not is_client or not is_access_time(parts[2]):
        return None
    return tuple([part for number, part in enumerate(parts) if wanted >> number & 1])


usual_parts = plain_parts if native is None else native.access_parts
"""The compiled ones where there are any."""


def usual_time(text: str, tz: tzinfo) -> datetime | None:
    """The instant of such a line; `tz` is for a stamp that names no offset."""
    parts = usual_parts(text, 1 << _PLAIN.groupindex["stamp"] - 1)
    return None if parts is None else access_time(parts[0], tz)


def _said(part: str | None) -> str | None:
    """A part that is empty or `-` where there is nothing."""
    return None if part == "-" else part or None


USUAL_FIELDS: Mapping[str, tuple[tuple[int, ...], Callable[..., FieldValue]]] = {
    "user.name": ((1,), _said),
    "http.request.method": ((3,), str),
    "http.version": ((6,), str),
    "http.response.status_code": ((7,), int),
    "http.response.body.bytes": ((8,), lambda size: None if size == "-" else int(size)),
    "http.request.referrer": ((9,), _said),
    "user_agent.original": ((10,), _said),
    "url.original": ((4, 5), lambda path, query: path if query is None else f"{path}?{query}"),
    "url.path": ((4,), lambda path: percent_decoded(path) if "%" in path or "\\" in path else path),
    "web.path_decoded": ((4,), decoded_path),
    "url.query": ((5,), lambda query: query),
    "web.query_decoded": ((5,), lambda query: None if query is None else decoded_query(query)),
}
"""Fields of such a line that need no other, as `WebParser.read` gives them (a test compares)."""


def agent_fields(fields: Fields, referrer: str | None, agent: str | None, rest: str | None) -> None:
    """Referrer, user agent and what follows them."""
    if referrer and referrer != "-":
        fields["http.request.referrer"] = referrer
    if agent and agent != "-":
        fields["user_agent.original"] = agent
    if rest:
        forwarded_fields(fields, rest)


def forwarded_fields(fields: Fields, rest: str) -> None:
    """The address that log formats with `$http_x_forwarded_for` append: the client wrote it, so never the source."""
    if (found := _FORWARDED.search(rest)) is not None:
        first = ip_of(found[1].partition(",")[0].strip())
        if first is not None:
            fields["network.forwarded_ip"] = first


def _read_message(product: str, message: str, fields: Fields) -> LogSource:
    if access_fields(message, fields) is not None:
        return LogSource(product, "webserver", "")
    errors = WebErrorReader(product)
    errors.read_message(message, fields)
    return errors.logsource


def read_nginx_message(message: str, fields: Fields) -> LogSource:
    """What nginx sent to syslog: access or error lines."""
    return _read_message("nginx", message, fields)


def read_apache_message(message: str, fields: Fields) -> LogSource:
    """What Apache sent to syslog: access or error lines."""
    return _read_message("apache", message, fields)
