"""SMS through an HTTP gateway that takes JSON: eSMS, SpeedSMS, Twilio-like services, a company's own.

The request id is the delivery's id, the same in every try, so a gateway that knows it sends once.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import re
import select
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn
from urllib.parse import urlsplit

from breachwatch.errors import (
    AmbiguousDeliveryError,
    ChannelDownError,
    ConfigError,
    PermanentDeliveryError,
    TransientDeliveryError,
)
from breachwatch.model import Accepted, OutgoingMessage

MAX_ANSWER_BYTES = 65_536
REQUEST_ID_HEADER = "Idempotency-Key"

ID_FIELDS = ("id", "message_id", "messageId", "sid", "SMSID", "tranId")
"""Where gateways put their id, the first found wins; `id_field` names another."""

_OURS = frozenset({401, 403, 404, 405, 407})
"""Wrong token or address: about us, so nobody is given up for it."""

_PROVIDER_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}\Z")
_PLACEHOLDER = re.compile(r"\{(to|text|request_id)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SmsSettings:
    """The gateway."""

    url: str = field(repr=False)
    """Not shown: some gateways want secrets in it."""
    token: str = field(default="", repr=False)
    """The whole value of the Authorization header, or a bare token (then sent as `Bearer ...`)."""
    timeout_s: float = 20.0
    body: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType({"to": "{to}", "text": "{text}", "request_id": "{request_id}"})
    )
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_file: Path | None = None
    id_field: str = ""
    ok_field: str = ""
    """Gateways that answer 200 to everything say in a field whether it worked (eSMS: `CodeResult`)."""
    ok_values: tuple[str, ...] = ()


class SmsGatewayChannel:
    """`ports.ChannelSender` for one gateway; used by one thread."""

    def __init__(self, settings: SmsSettings) -> None:
        parts = urlsplit(settings.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError("sms.url is no http(s) address")
        if parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise ConfigError("telephone numbers and tokens are sent over https only", hint="set sms.url to https://")
        self._settings = settings
        self._host, self._port, self._tls = parts.hostname, parts.port, parts.scheme == "https"
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._connection: http.client.HTTPConnection | None = None

    def send(self, message: OutgoingMessage) -> Accepted:
        """Hand one text to the gateway. Raises: the four kinds of DeliveryError."""
        connection = self._ready()
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Accept": "application/json",
            REQUEST_ID_HEADER: message.message_id,
            **self._settings.headers,
        }
        if self._settings.token:
            token = self._settings.token
            headers["Authorization"] = token if " " in token else f"Bearer {token}"
        try:
            connection.request("POST", self._path, body=self._body(message), headers=headers)
            answer = connection.getresponse()
            body = answer.read(MAX_ANSWER_BYTES)
            if not answer.isclosed():
                self.close()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            code = "timeout" if isinstance(error, TimeoutError) else "lost"
            # `from None`: the library's error may repeat the address with its secrets
            raise AmbiguousDeliveryError("the SMS gateway did not answer the request", code=code) from None
        return self._judge(answer, body)

    def close(self) -> None:
        """Drop the connection; also ends a `send` that waits in another thread."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if connection.sock is not None:
                with suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _body(self, message: OutgoingMessage) -> bytes:
        values = {
            "to": message.to,
            "text": message.payload.decode("utf-8"),
            "request_id": message.message_id,
        }
        # one pass over the template: a `{to}` inside a text stays what it is
        filled = {
            key: _PLACEHOLDER.sub(lambda found: values[found[1]], value) for key, value in self._settings.body.items()
        }
        return json.dumps(filled, ensure_ascii=True).encode("ascii")

    def _judge(self, answer: http.client.HTTPResponse, body: bytes) -> Accepted:
        status, code = answer.status, f"http {answer.status}"
        if status == 429:  # noqa: PLR2004
            wait = _retry_after_s(answer)
            raise ChannelDownError("the SMS gateway asks to slow down", code=code, retry_after_s=wait)
        if status >= 500:  # noqa: PLR2004
            raise TransientDeliveryError("the SMS gateway failed", code=code, retry_after_s=_retry_after_s(answer))
        if status in _OURS or 300 <= status < 400:  # noqa: PLR2004  # redirects would carry the token elsewhere
            raise ChannelDownError("the SMS gateway refuses us", code=code, hint="check sms.url and sms.token")
        if status >= 400:  # noqa: PLR2004
            raise PermanentDeliveryError("the SMS gateway refused the message", code=code)
        fields = _fields(body)
        if self._settings.ok_field:
            said = str(fields.get(self._settings.ok_field, ""))
            if said not in self._settings.ok_values:
                shown = said if _PROVIDER_ID.match(said) else "unknown"
                raise PermanentDeliveryError("the SMS gateway refused the message", code=f"{code} {shown}")
        names = (self._settings.id_field,) if self._settings.id_field else ID_FIELDS
        found = next((str(fields[name]) for name in names if fields.get(name)), "")
        return Accepted(code=code, provider_id=found if _PROVIDER_ID.match(found) else "")

    def _ready(self) -> http.client.HTTPConnection:
        """A connection that is open. Raises: ChannelDownError."""
        connection = self._connection
        if connection is not None and connection.sock is not None and not _answers_unasked(connection.sock):
            return connection
        self.close()
        timeout_s = self._settings.timeout_s
        if self._tls:
            context = ssl.create_default_context(cafile=self._settings.ca_file)
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s, context=context)
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        self._connection = connection
        try:
            connection.connect()
        except ssl.SSLCertVerificationError as error:
            self._down(f"its certificate is refused: {error.verify_message}", "tls")
        except OSError as error:
            self._down(error.strerror or "no answer", "unreachable")
        return connection

    def _down(self, why: str, code: str) -> NoReturn:
        self.close()
        where = f"{self._host}:{self._port or ('443' if self._tls else '80')}"
        raise ChannelDownError(f"SMS gateway cannot be reached: {why}", code=code, source=where) from None


def _fields(body: bytes) -> Mapping[str, object]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if isinstance(answer, dict) and isinstance(answer.get("data"), dict):
        return {**answer["data"], **answer}
    return answer if isinstance(answer, dict) else {}


def _retry_after_s(answer: http.client.HTTPResponse) -> float | None:
    """Seconds that the server asks for. Source: RFC 9110 10.2.3 (seconds or a date)."""
    asked = (answer.getheader("Retry-After") or "").strip()
    if asked.isascii() and asked.isdigit():
        return float(asked[:9])
    if asked:
        try:
            served = parsedate_to_datetime(answer.getheader("Date") or "")
            return max(0.0, (parsedate_to_datetime(asked) - served).total_seconds())
        except (ValueError, TypeError):
            return None
    return None


def _answers_unasked(sock: socket.socket) -> bool:
    poller = select.poll()
    poller.register(sock, select.POLLIN | select.POLLHUP)
    return bool(poller.poll(0))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
