"""E-mail by SMTP: one kept connection per sender, commands pipelined where the server allows it.

smtplib shakes hands (EHLO, STARTTLS, AUTH); the mail transaction is written out here, because what a reply means for
the person depends on where in the transaction it came. Source: RFC 5321, RFC 2920 (pipelining), RFC 3463 (codes).
"""

from __future__ import annotations

import ipaddress
import re
import select
import smtplib
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from breachwatch.errors import (
    AmbiguousDeliveryError,
    ChannelDownError,
    ConfigError,
    PermanentDeliveryError,
    TransientDeliveryError,
)
from breachwatch.model import Accepted, OutgoingMessage

MAX_REPLY_LINES = 100
MAX_REPLY_LINE_BYTES = 2_048
"""RFC 5321 4.5.3.1.5 says 512; some servers explain themselves at length."""

RECEIVE_BYTES = 4_096

_CODE = re.compile(rb"([2-5]\d\d)(?:[ -]([245]\.\d{1,3}\.\d{1,3})(?=\s|\Z))?")
_QUEUED = re.compile(rb"(?:queued as|[Ii]d[=:]?) *<?([A-Za-z0-9._-]{1,64})")
_POLICY_OF_SENDER = frozenset({530, 534, 535, 538, 454})
"""Authentication and TLS demands, wherever they come: they are about us, not about the person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpSettings:
    """The relay that notices leave through."""

    host: str
    port: int = 587
    tls: str = "starttls"
    """starttls, implicit or none. Never downgraded."""
    user: str = ""
    password: str = field(default="", repr=False)
    ca_file: Path | None = None
    timeout_s: float = 30.0
    sender: str = ""
    """Envelope sender: where bounces go."""
    helo: str = ""


@dataclass(frozen=True, slots=True)
class _Reply:
    code: int
    text: bytes

    @property
    def recorded(self) -> str:
        """`550 5.1.1`: the text is left out, for it may repeat the address."""
        found = _CODE.match(self.text)
        return " ".join(part.decode("ascii") for part in found.groups() if part) if found else str(self.code)


class _Wire:
    """Bytes to and lines from one socket after the hand-shake, with as few system calls as there can be."""

    def __init__(self, sock: socket.socket, timeout_s: float) -> None:
        self.sock = sock
        self._received = b""
        if not isinstance(sock, ssl.SSLSocket):
            # the kernel keeps the time limit: Python's own would cost a poll() before every call
            limit = struct.pack("ll", int(timeout_s), int(timeout_s % 1 * 1e6))
            sock.settimeout(None)
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                sock.setsockopt(socket.SOL_SOCKET, option, limit)

    def write(self, data: bytes) -> None:
        """Raises: OSError; TimeoutError."""
        try:
            self.sock.sendall(data)
        except BlockingIOError:
            raise TimeoutError from None

    def reply(self) -> _Reply:
        """One reply, however many lines it has. Raises: OSError (broken, timed out, no SMTP)."""
        for _line in range(MAX_REPLY_LINES):
            while (end := self._received.find(b"\n")) < 0:
                self._receive()
            line, self._received = self._received[:end], self._received[end + 1 :]
            if len(line) > MAX_REPLY_LINE_BYTES or not line[:3].isdigit():
                break
            if line[3:4] != b"-":
                return _Reply(int(line[:3]), line)
        raise ConnectionAbortedError

    def _receive(self) -> None:
        try:
            data = self.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            raise TimeoutError from None
        if not data or len(self._received) > MAX_REPLY_LINE_BYTES:
            raise ConnectionResetError
        self._received += data

    def is_quiet(self) -> bool:
        """Whether the idle server neither said nor ended anything: only then is the connection to be trusted."""
        if self._received:
            return False
        poller = select.poll()  # select() refuses descriptors above 1,023
        poller.register(self.sock, select.POLLIN | select.POLLHUP)
        return not poller.poll(0)


class _StaleError(Exception):
    """The kept connection was gone before the message went out: safe to try on a new one."""


class SmtpChannel:
    """`ports.ChannelSender` for one SMTP server; used by one thread."""

    def __init__(self, settings: SmtpSettings) -> None:
        if not settings.host or not settings.sender:
            raise ConfigError("no mail server or sender", hint="set smtp.host and smtp.sender")
        if settings.tls not in {"starttls", "implicit", "none"}:
            raise ConfigError("smtp.tls is starttls, implicit or none")
        if settings.tls == "none" and settings.password and not _is_loopback(settings.host):
            raise ConfigError(
                "a password is never sent without TLS to another host", hint='set smtp.tls to "starttls" or "implicit"'
            )
        self._settings = settings
        self._smtp: smtplib.SMTP | None = None
        self._wire: _Wire | None = None
        self._pipelining = False
        self._needs_reset = False
        self._pause = threading.Event()

    def send(self, message: OutgoingMessage) -> Accepted:
        """Hand one message to the server. Raises: the four kinds of DeliveryError."""
        body = _dot_stuffed(message.payload)
        if self._wire is not None and not self._wire.is_quiet():
            self.close()
        kept = self._wire is not None
        try:
            return self._transaction(message.to, body, kept=kept)
        except _StaleError:
            self.close()
            return self._transaction(message.to, body, kept=False)

    def close(self) -> None:
        """Drop the connection; also ends a `send` that waits in another thread."""
        smtp, self._smtp, self._wire = self._smtp, None, None
        self._needs_reset = False
        if smtp is not None and smtp.sock is not None:
            with suppress(OSError):  # it may be gone already
                smtp.sock.shutdown(socket.SHUT_RDWR)
            smtp.close()

    # -- one mail transaction -------------------------------------------------------------------------------------

    def _transaction(self, to: str, body: bytes, *, kept: bool) -> Accepted:
        wire = self._wire or self._connect()
        with self._lost_before_the_end(kept=kept):
            self._envelope(wire, to)
        try:
            wire.write(body)
        except OSError as error:
            # the final dot is the end of this write; what of it arrived cannot be known
            self._ambiguous("the connection broke while the message was sent", error)
        try:
            reply = wire.reply()
        except OSError as error:
            self._ambiguous("the server did not answer to the message", error)
        self._judge(reply, "message")
        found = _QUEUED.search(reply.text)
        return Accepted(code=reply.recorded, provider_id=found[1].decode("ascii") if found else "")

    def _envelope(self, wire: _Wire, to: str) -> None:
        """MAIL, RCPT and DATA up to the server's go-ahead."""
        commands = [f"MAIL FROM:<{self._settings.sender}>", f"RCPT TO:<{to}>", "DATA"]
        if self._needs_reset:
            wire.write(b"RSET\r\n")
            wire.reply()
        if self._pipelining:
            wire.write("".join(f"{command}\r\n" for command in commands).encode("ascii"))
            # 421 may come instead of any answer, and then none follows: each is judged for it at once
            mail, rcpt, data = self._open_reply(wire), self._open_reply(wire), self._open_reply(wire)
        else:
            mail = rcpt = data = _ask(wire, commands[0])
            if mail.code < 400:  # noqa: PLR2004
                rcpt = data = _ask(wire, commands[1])
            if rcpt.code < 400:  # noqa: PLR2004
                data = _ask(wire, commands[2])
        self._needs_reset = mail.code >= 400 or rcpt.code >= 400 or data.code != 354  # noqa: PLR2004
        if self._needs_reset and data.code == 354:  # noqa: PLR2004  # RFC 2920 3.1: no recipient, yet it wants data
            _ask(wire, ".")
        self._judge(mail, "sender")
        self._judge(rcpt, "recipient")
        if data.code != 354:  # noqa: PLR2004
            self._judge(data, "data")
            raise TransientDeliveryError("the server did not ask for the message", code=data.recorded)

    def _open_reply(self, wire: _Wire) -> _Reply:
        reply = wire.reply()
        if reply.code == 421:  # noqa: PLR2004
            self._judge(reply, "connection")
        return reply

    def _judge(self, reply: _Reply, about: str) -> None:
        """Nothing for a yes. Raises: what the no means."""
        if reply.code < 400:  # noqa: PLR2004
            return
        said = f"the mail server refused the {about}"
        if reply.code == 421:  # noqa: PLR2004  # RFC 5321 3.8: it closes the connection now
            self.close()
            raise ChannelDownError(f"{said} and closes", code=reply.recorded)
        if reply.code in _POLICY_OF_SENDER or (about == "sender" and reply.code >= 500):  # noqa: PLR2004
            raise ChannelDownError(said, code=reply.recorded, hint="check smtp.user, smtp.password, smtp.sender")
        if reply.code >= 500:  # noqa: PLR2004
            raise PermanentDeliveryError(said, code=reply.recorded)
        raise TransientDeliveryError(f"{said} for now", code=reply.recorded)

    @contextmanager
    def _lost_before_the_end(self, *, kept: bool) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            timed_out = isinstance(error, TimeoutError)
            self.close()
            if kept and not timed_out:
                raise _StaleError from error
            # `from None`: smtplib's errors repeat what the server said, and that may be a contact
            what = "the mail server does not answer" if timed_out else "the mail server broke the connection"
            raise ChannelDownError(what, code="timeout" if timed_out else "lost") from None

    def _ambiguous(self, what: str, error: Exception) -> NoReturn:
        self.close()
        code = "timeout after data" if isinstance(error, TimeoutError) else "lost after data"
        raise AmbiguousDeliveryError(what, code=code) from None

    # -- the connection -------------------------------------------------------------------------------------------

    def _connect(self) -> _Wire:
        """A connection that is ready for mail. Raises: ChannelDownError."""
        # One more try, at once: a relay that restarts resets what it has accepted but not greeted
        retrying = Retrying(
            retry=retry_if_exception_type(ConnectionResetError),
            stop=stop_after_attempt(2),
            wait=wait_fixed(0.1),
            sleep=self._rest,
            reraise=True,
        )
        try:
            return retrying(self._handshake)
        except smtplib.SMTPAuthenticationError as error:
            self._down("log-in was refused", f"{error.smtp_code}", "check smtp.user and smtp.password")
        except smtplib.SMTPNotSupportedError:
            self._down("it does not offer what is configured (STARTTLS or AUTH)", "unsupported", "check smtp.tls")
        except ssl.SSLCertVerificationError as error:
            self._down(f"its certificate is refused: {error.verify_message}", "tls", "check smtp.host and smtp.ca_file")
        except ssl.SSLError as error:
            self._down(f"TLS failed: {error.reason}", "tls", "check smtp.tls and smtp.port")
        except smtplib.SMTPResponseException as error:
            self._down("it refused the greeting", str(error.smtp_code))
        except (OSError, smtplib.SMTPException) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            self._down(f"cannot be reached: {reason}", "unreachable", "check smtp.host and smtp.port")

    def _rest(self, seconds: float) -> None:
        self._pause.wait(seconds)

    def _down(self, what: str, code: str, hint: str | None = None) -> NoReturn:
        self.close()
        where = f"{self._settings.host}:{self._settings.port}"
        raise ChannelDownError(f"mail server: {what}", code=code, source=where, hint=hint) from None

    def _handshake(self) -> _Wire:
        settings = self._settings
        helo = settings.helo or settings.sender.rpartition("@")[2]
        context = ssl.create_default_context(cafile=settings.ca_file) if settings.tls != "none" else None
        if settings.tls == "implicit":
            smtp: smtplib.SMTP = smtplib.SMTP_SSL(local_hostname=helo, timeout=settings.timeout_s, context=context)
        else:
            smtp = smtplib.SMTP(local_hostname=helo, timeout=settings.timeout_s)
        self._smtp = smtp
        smtp._host = settings.host  # type: ignore[attr-defined]  # noqa: SLF001  # what TLS checks the certificate for
        code, text = smtp.connect(settings.host, settings.port)
        if code != 220:  # noqa: PLR2004
            raise smtplib.SMTPConnectError(code, text)
        smtp.ehlo_or_helo_if_needed()
        if settings.tls == "starttls":
            smtp.starttls(context=context)
            smtp.ehlo_or_helo_if_needed()
        if settings.user or settings.password:
            smtp.login(settings.user, settings.password)
        self._pipelining = smtp.has_extn("pipelining")
        self._needs_reset = False
        if smtp.sock is None:
            raise ConnectionResetError
        self._wire = _Wire(smtp.sock, settings.timeout_s)
        return self._wire


def _ask(wire: _Wire, command: str) -> _Reply:
    wire.write(f"{command}\r\n".encode("ascii"))
    return wire.reply()


def _dot_stuffed(payload: bytes) -> bytes:
    """The message with its end mark. Source: RFC 5321 4.5.2."""
    body = payload.replace(b"\r\n.", b"\r\n..")
    if body.startswith(b"."):
        body = b"." + body
    return body + (b".\r\n" if body.endswith(b"\r\n") else b"\r\n.\r\n")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
