"""Error logs of nginx and Apache (2.2 and 2.4)."""

from __future__ import annotations

import re
from datetime import datetime, tzinfo

from breachwatch.model import FieldValue, LogSource
from breachwatch.parse.address import set_source, set_source_port, split_port
from breachwatch.parse.timestamp import apache_error, slashed

Fields = dict[str, FieldValue]

_APACHE_TIME = re.compile(r"\[([A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d{1,6})? \d{4})\] ")
_APACHE = re.compile(
    r"\[(?:(?P<module>[\w-]{0,64}):)?(?P<level>[a-z0-9]{2,16})\] "
    r"(?:\[pid (?P<pid>\d{1,10})(?::tid (?P<tid>\d{1,20}))?\] )?"
    r"(?:\([\w-]{1,32}\)[^\[\]:]{1,128}: )?(?:\[(?:client|remote) (?P<client>[^\]\s]{1,256})\] )?(?P<message>.*)",
    re.DOTALL,
)
_NGINX_TIME = re.compile(r"(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) ")
_NGINX = re.compile(
    r"\[(?P<level>[a-z]{2,8})\] (?P<pid>\d{1,10})#(?P<tid>\d{1,20}): (?:\*(?P<connection>\d{1,20}) )?(?P<message>.*)",
    re.DOTALL,
)
_NGINX_CLIENT = re.compile(
    r", client: ([^\s,\"]{1,256})(?: using \w{1,16})?, server: [^,\"]{0,1024}"
    r"(?=$|, (?:request|login|upstream|host|referrer|subrequest): )",
    re.DOTALL,
)
_NGINX_STRICT = re.compile(
    r', client: ([^\s,"]{1,256})(?: using \w{1,16})?, server: [^,"]{0,1024}'
    r'(?:, (?:request|login|subrequest|upstream|host|referrer): (?:"[^"]*"|[^\s",]{1,256}))*$'
)
_NGINX_LAST_CLIENT = re.compile(r', client: ([^\s,"]{1,256})$')
_NGINX_CONNECTED = re.compile(r"client (\S{1,64}) connected to ")
_NGINX_LOGIN = re.compile(r', login: "([^"]{1,256})"')
_NGINX_REQUEST = re.compile(r', request: "([A-Z][A-Za-z_-]{0,31}) ([^"\s]{1,8192})(?: HTTP/(\d(?:\.\d)?))?"')

_NO_LOGIN = re.compile(
    r"(?:AH\d{5}: )?(?:Digest: )?user [`'\"]?(?P<user>.{0,256}?)[`'\"]?"
    r"(?:: (?:authentication failure|password mismatch)| not found"
    r"| in realm [`'].{0,256}' not found| was not found in )"
    r"|(?:AH\d{5}: )?client used wrong authentication scheme"
    r"|client login failed: ",
    re.IGNORECASE,
)
_FAILED_LEVELS = frozenset({"error", "crit", "alert", "emerg"})
_REFUSALS = ("limiting requests", "delaying request", "limiting connections", "access forbidden", "client login failed")


class WebErrorReader:
    """The error log of one product."""

    def __init__(self, product: str) -> None:
        self.logsource = LogSource(product, "webserver", "error")

    def read(self, text: str, fields: Fields, tz: tzinfo) -> datetime | None:
        """Adds the fields of an error line; returns its instant, None where it is none."""
        if (found := _APACHE_TIME.match(text)) is not None:
            at_utc = apache_error(found[1], tz)
            return at_utc if at_utc is not None and _apache(text[found.end() :], fields) else None
        if (found := _NGINX_TIME.match(text)) is not None:
            at_utc = slashed(found[1], tz)
            return at_utc if at_utc is not None and _nginx(text[found.end() :], fields) else None
        return None

    def read_message(self, message: str, fields: Fields) -> None:
        """The same without the time that syslog already gave; anything else stays a plain message."""
        if (found := _NGINX_TIME.match(message) or _APACHE_TIME.match(message)) is not None:
            message = message[found.end() :]
        if not (_nginx(message, fields) or _apache(message, fields)):
            fields["event.category"], fields["event.type"] = ("web",), ("info",)
            fields["event.action"] = "http_message"


def _apache(text: str, fields: Fields) -> bool:
    """`[authz_core:error] [pid 10691] [client 192.0.2.7:44271] AH01630: client denied by server configuration: /x`."""
    found = _APACHE.fullmatch(text)
    if found is None:
        return False
    if found["module"]:
        fields["apache.error.module"] = found["module"]
    if found["pid"]:
        fields["process.pid"] = int(found["pid"])
    if found["tid"]:
        fields["process.thread.id"] = int(found["tid"])
    if found["client"]:
        address, port = split_port(found["client"])
        set_source(fields, address)
        set_source_port(fields, port)
    _error_event(fields, found["level"], found["message"])
    return True


def _nginx(text: str, fields: Fields) -> bool:
    """`[error] 2833#0: *16336 open() "/x" failed (2: No such file or directory), client: 192.0.2.7, server: ...`."""
    found = _NGINX.fullmatch(text)
    if found is None:
        return False
    fields["process.pid"], fields["process.thread.id"] = int(found["pid"]), int(found["tid"])
    if found["connection"]:
        fields["nginx.error.connection_id"] = int(found["connection"])
    message = found["message"]
    client = nginx_client(message)
    if client is None and message.count(", client: ") > 1:
        fields["error.message"] = "the line names more than one client: its source is not certain"
    if client is not None:
        address, port = split_port(client)
        set_source(fields, address)
        set_source_port(fields, port)
    if (login := _NGINX_LOGIN.search(message)) is not None:
        fields["user.name"] = login[1]
    requests = _NGINX_REQUEST.findall(message)
    if len(requests) == 1:
        fields["http.request.method"], fields["url.original"] = requests[0][0], requests[0][1]
    _error_event(fields, found["level"], message)
    return True


def nginx_client(message: str) -> str | None:
    """The client of an nginx error message, None where it is not certain.

    nginx escapes nothing here: the file name before and the request and referrer behind `, client: ` may hold forged
    copies. Read from the left, loosely, and in full grammar; only where both agree is the answer known.
    """
    if ", client: " not in message:
        connected = _NGINX_CONNECTED.match(message)
        return connected[1] if connected is not None else None
    loose = _NGINX_CLIENT.search(message)
    if message.count(", client: ") == 1:
        lone = loose or _NGINX_LAST_CLIENT.search(message)
        return lone[1] if lone is not None else None
    strict = _NGINX_STRICT.search(message)
    if loose is None or strict is None or loose.start() != strict.start():
        return None
    return loose[1]


def _error_event(fields: Fields, level: str, message: str) -> None:
    fields["message"], fields["log.level"] = message, level
    refused = _NO_LOGIN.match(message)
    if refused is not None:
        fields["event.category"], fields["event.type"] = ("web", "authentication"), ("error", "start")
        fields["event.action"], fields["event.outcome"] = "http_authentication", "failure"
        if refused["user"]:
            fields["user.name"] = refused["user"]
        return
    failed = level in _FAILED_LEVELS or any(refusal in message for refusal in _REFUSALS)
    fields["event.category"], fields["event.type"] = ("web",), ("error",)
    fields["event.action"], fields["event.outcome"] = "http_error", "failure" if failed else "unknown"
