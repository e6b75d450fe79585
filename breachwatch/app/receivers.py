"""Demo receivers on loopback: an SMTP server, an SMS gateway and a chat webhook that keep what they are given.

For `breachwatch demo` and for tests; nothing here is meant to face a network. Mails are saved as received
(`mail/*.eml`, the envelope in `X-Envelope-*` lines on top), SMS and chat messages as JSON (`sms/`, `chat/`).
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field
from pathlib import Path

MAX_LINE_BYTES = 65_536
MAX_MAIL_BYTES = 10_000_000
MAX_REQUEST_BYTES = 1_000_000
_ADDRESS = re.compile(rb"<([^<>]{0,320})>")
_END = b"\r\n.\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """One accepted mail."""

    number: int
    sender: str
    recipients: tuple[str, ...]
    data: bytes


@dataclass(slots=True)
class MailPolicy:
    """How the SMTP receiver answers: what it offers, whom it refuses, what it does with mail."""

    bounce: Collection[str] = ()
    on_mail: Callable[[Envelope], None] = lambda _mail: None
    extensions: tuple[str, ...] = ("PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "SIZE 10000000")
    received: int = 0
    open: set[asyncio.Transport] = field(default_factory=set)
    """Connections to end when the receiver stops."""

    def rcpt_reply(self, address: str) -> str:
        """The answer to RCPT TO."""
        return "550 5.1.1 no such mailbox" if address in self.bounce else "250 2.1.5 Ok"

    def mail_reply(self, envelope: Envelope) -> str:
        """The answer to a whole mail."""
        return f"250 2.0.0 Ok: queued as {envelope.number:08X}"


class SmtpReceiver(asyncio.Protocol):
    """One SMTP connection. Source: RFC 5321, RFC 2920."""

    def __init__(self, policy: MailPolicy) -> None:
        self.policy = policy
        self.transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._in_data = False
        self._sender = ""
        self._recipients: list[str] = []
        self._have_sender = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.policy.open.add(transport)
        self.reply("220 receiver.invalid ESMTP demo receiver")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        del exc
        if self.transport is not None:
            self.policy.open.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        """Take commands and mails as they come."""
        self._buffer += data
        while self._take_mail() if self._in_data else self._take_command():
            pass
        if len(self._buffer) > MAX_MAIL_BYTES and self.transport is not None:
            self.transport.abort()

    def reply(self, *lines: str) -> None:
        """Write one reply."""
        if self.transport is not None and not self.transport.is_closing():
            code = lines[-1][:3]
            texts = [f"{code}-{line[4:]}" for line in lines[:-1]] + [lines[-1]]
            self.transport.write("".join(f"{text}\r\n" for text in texts).encode("ascii"))

    def _take_command(self) -> bool:
        end = self._buffer.find(b"\n")
        if end < 0:
            if len(self._buffer) > MAX_LINE_BYTES and self.transport is not None:
                self.transport.abort()
            return False
        line = bytes(self._buffer[:end]).rstrip(b"\r")
        del self._buffer[: end + 1]
        self.command(line[:4].upper().decode("ascii", "replace"), line)
        return self.transport is not None and not self.transport.is_closing()

    def command(self, verb: str, line: bytes) -> None:
        """Answer one command."""
        if verb == "MAIL":
            found = _ADDRESS.search(line)
            self._sender = found[1].decode("utf-8", "replace") if found else ""
            nested, self._have_sender = self._have_sender, True
            self.reply("503 5.5.1 nested MAIL" if nested else "250 2.1.0 Ok")
        elif verb == "RCPT":
            found = _ADDRESS.search(line)
            address = found[1].decode("utf-8", "replace") if found else ""
            said = self.policy.rcpt_reply(address)
            if said.startswith("2"):
                self._recipients.append(address)
            self.reply(said)
        elif verb == "DATA":
            self._in_data = bool(self._recipients)
            self.reply("354 End with <CR><LF>.<CR><LF>" if self._in_data else "554 5.5.1 no valid recipients")
        elif verb == "EHLO":
            self.reply("250 receiver.invalid", *(f"250 {name}" for name in self.policy.extensions))
        elif verb == "QUIT":
            self.reply("221 2.0.0 Bye")
            if self.transport is not None:
                self.transport.close()
        elif verb in {"RSET", "HELO", "NOOP"}:
            self._reset()
            self.reply("250 2.0.0 Ok")
        else:
            self.reply("502 5.5.2 not implemented")

    def _take_mail(self) -> bool:
        if self._buffer.startswith(b".\r\n"):
            data, rest = b"", 3
        else:
            end = self._buffer.find(_END)
            if end < 0:
                return False
            data, rest = bytes(self._buffer[: end + 2]), end + len(_END)
        del self._buffer[:rest]
        self._in_data = False
        if data.startswith(b"."):
            data = data[1:]
        self.policy.received += 1
        envelope = Envelope(
            number=self.policy.received,
            sender=self._sender,
            recipients=tuple(self._recipients),
            data=data.replace(b"\r\n..", b"\r\n."),
        )
        self._reset()
        self.mail(envelope)
        return True

    def mail(self, envelope: Envelope) -> None:
        """Keep a mail and answer."""
        said = self.policy.mail_reply(envelope)
        if said.startswith("2"):
            self.policy.on_mail(envelope)
        self.reply(said)

    def _reset(self) -> None:
        self._sender, self._have_sender, self._recipients = "", False, []


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request as received."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class HttpReceiver:
    """Answers POSTs one after another on kept connections. Source: RFC 9112, as much as clients here need."""

    answer: Callable[[Request], tuple[int, dict[str, str], bytes]]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while (request := await _read_request(reader)) is not None:
                status, headers, body = self.answer(request)
                head = [f"HTTP/1.1 {status} -", f"Content-Length: {len(body)}"]
                head += [f"{name}: {value}" for name, value in headers.items()]
                writer.write(("\r\n".join(head) + "\r\n\r\n").encode("latin-1") + body)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass  # the peer went away or spoke no HTTP: its connection ends
        finally:
            writer.close()


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *rest = head.decode("latin-1").split("\r\n")
    method, path, _version = first.split(" ", 2)
    pairs = (line.partition(":") for line in rest if line)
    headers = {name.strip().lower(): value.strip() for name, _colon, value in pairs}
    length = int(headers.get("content-length", "0"))
    if not 0 <= length <= MAX_REQUEST_BYTES:
        raise ValueError("body too large")
    body = await reader.readexactly(length)
    return Request(method=method, path=path, headers=headers, body=body)


def eml(envelope: Envelope) -> bytes:
    """A mail with its envelope on top, as saved."""
    recipients = ", ".join(envelope.recipients)
    head = f"X-Envelope-From: {envelope.sender}\r\nX-Envelope-To: {recipients}\r\n"
    return head.encode("utf-8") + envelope.data


@dataclass(slots=True)
class DemoReceivers:
    """The three receivers in a thread of their own; they keep everything below `folder`."""

    folder: Path
    bounce: Collection[str] = ()
    smtp_port: int = 0
    http_port: int = 0
    _loop: asyncio.AbstractEventLoop | None = None
    _thread: threading.Thread | None = None
    _counts: dict[str, int] = field(default_factory=dict)
    _servers: list[asyncio.Server] = field(default_factory=list)
    _policy: MailPolicy = field(default_factory=MailPolicy)

    def start(self) -> None:
        """Listen on free ports of 127.0.0.1, which `smtp_port` and `http_port` then name. Raises: OSError."""
        for kind in ("mail", "sms", "chat"):
            (self.folder / kind).mkdir(parents=True, exist_ok=True)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="demo-receivers", daemon=True)
        self._thread.start()
        self._call(self._listen())

    def stop(self) -> None:
        """Stop listening."""
        if self._loop is None or self._thread is None:
            return
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = None

    def _call(self, work: Coroutine[object, object, None]) -> None:
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        policy = self._policy = MailPolicy(bounce=self.bounce, on_mail=self._keep_mail)
        smtp = await loop.create_server(lambda: SmtpReceiver(policy), "127.0.0.1", 0)
        http = await asyncio.start_server(HttpReceiver(self._answer).serve, "127.0.0.1", 0)
        self._servers = [smtp, http]
        self.smtp_port = smtp.sockets[0].getsockname()[1]
        self.http_port = http.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        for transport in list(self._policy.open):
            transport.abort()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # lets aborted transports close their sockets

    def _keep_mail(self, envelope: Envelope) -> None:
        self._keep("mail", "eml", eml(envelope))

    def _answer(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        kind = request.path.strip("/").partition("/")[0].partition("?")[0]
        if request.method != "POST" or kind not in {"sms", "chat"}:
            return 404, {}, b""
        try:
            body = json.loads(request.body)
        except ValueError:
            return 400, {}, b'{"error": "not JSON"}'
        number = self._keep(kind, "json", json.dumps(body, ensure_ascii=False, indent=1).encode("utf-8"))
        return 200, {"Content-Type": "application/json"}, json.dumps({"id": f"{kind}-{number}"}).encode("ascii")

    def _keep(self, kind: str, suffix: str, data: bytes) -> int:
        number = self._counts[kind] = self._counts.get(kind, 0) + 1
        fresh = self.folder / kind / f"new-{number}"
        fresh.write_bytes(data)
        fresh.rename(self.folder / kind / f"{number:05d}.{suffix}")
        return number
