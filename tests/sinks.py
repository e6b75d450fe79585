"""Servers that tests send to: SMTP and HTTP with every bad habit, each runnable as a process of its own.

    python -m tests.sinks smtp --port 0 --folder X [--bodies] [--reject A] [--defer A] [--hang A] [--die-after N] ...
    python -m tests.sinks http --port 0 --folder X [--status N] [--retry-after S] [--fail-first N]

Prints `PORT <n>` when it listens. What it accepted is in `<folder>/index.jsonl`, one line each, written before the
answer goes out; with --bodies also as `<folder>/<n>.eml`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from breachwatch.app.receivers import Envelope, HttpReceiver, MailPolicy, Request, SmtpReceiver, eml

ROOT = Path(__file__).resolve().parent.parent
_MESSAGE_ID = re.compile(rb"^Message-ID: <([^>]*)>", re.MULTILINE)


@dataclass(slots=True)
class Habits(MailPolicy):
    """What this server does to whom; addresses are compared whole."""

    folder: Path = Path()
    bodies: bool = False
    reject: frozenset[str] = frozenset()
    defer: frozenset[str] = frozenset()
    hang: frozenset[str] = frozenset()
    refuse_content: bool = False
    hang_at_greeting: bool = False
    hang_after_dot: bool = False
    close_after_dot: int = 0
    """The first so many mails are taken, and the connection closed instead of an answer."""
    die_after: int = 0
    """The connection ends after so many mails."""
    closing: bool = False
    """421 to every MAIL."""
    user: str = ""
    password: str = ""
    tls: ssl.SSLContext | None = None
    no_pipelining: bool = False
    index: object = None

    def rcpt_reply(self, address: str) -> str:
        if address in self.reject:
            return f"550 5.1.1 <{address}> no such mailbox"
        if address in self.defer:
            return f"451 4.7.1 <{address}> try again later"
        return "250 2.1.5 Ok"

    def mail_reply(self, envelope: Envelope) -> str:
        if self.refuse_content:
            return "554 5.7.1 content refused"
        return MailPolicy.mail_reply(self, envelope)

    def keep(self, envelope: Envelope) -> None:
        found = _MESSAGE_ID.search(envelope.data)
        line = {"to": list(envelope.recipients), "message_id": found[1].decode() if found else "", "n": envelope.number}
        self.index.write(json.dumps(line) + "\n")  # type: ignore[attr-defined]
        self.index.flush()  # type: ignore[attr-defined]
        if self.bodies:
            (self.folder / f"{envelope.number:06d}.eml").write_bytes(eml(envelope))


class BadServer(SmtpReceiver):
    """An SMTP server with habits, STARTTLS and AUTH."""

    policy: Habits

    def __init__(self, policy: Habits) -> None:
        super().__init__(policy)
        self._taken = 0
        self._encrypted = False
        self._known = not policy.user

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self.policy.hang_at_greeting or self._encrypted:
            self.transport = transport  # type: ignore[assignment]
            self.policy.open.add(transport)  # type: ignore[arg-type]
            return
        super().connection_made(transport)

    def command(self, verb: str, line: bytes) -> None:
        habits = self.policy
        if verb == "EHLO":
            offered = [name for name in habits.extensions if not (habits.no_pipelining and name == "PIPELINING")]
            if habits.tls and not self._encrypted:
                offered.append("STARTTLS")
            if habits.user and (self._encrypted or not habits.tls):
                offered.append("AUTH PLAIN LOGIN")
            self.reply("250 sink.invalid", *(f"250 {name}" for name in offered))
        elif verb == "STAR" and habits.tls and not self._encrypted:
            self.reply("220 2.0.0 go ahead")
            self._upgrading = asyncio.ensure_future(self._upgrade(habits.tls))
        elif verb == "AUTH":
            self._authenticate(line)
        elif verb == "MAIL" and not self._known:
            self.reply("530 5.7.0 Authentication required")
        elif verb == "MAIL" and habits.closing:
            self.reply("421 4.3.2 closing")
            self.transport.close()  # type: ignore[union-attr]
        elif verb == "RCPT" and any(f"<{address}>".encode() in line for address in habits.hang):
            return
        else:
            super().command(verb, line)

    async def _upgrade(self, context: ssl.SSLContext) -> None:
        self._encrypted = True
        loop = asyncio.get_running_loop()
        try:
            upgraded = await loop.start_tls(self.transport, self, context, server_side=True)  # type: ignore[arg-type]
        except (OSError, ssl.SSLError):
            return
        self.transport = upgraded
        self.policy.open.add(upgraded)  # type: ignore[arg-type]

    def _authenticate(self, line: bytes) -> None:
        given = base64.b64decode(line.split()[-1]) if line.upper().startswith(b"AUTH PLAIN ") else b""
        expected = f"\0{self.policy.user}\0{self.policy.password}".encode()
        self._known = given == expected
        self.reply("235 2.7.0 welcome" if self._known else "535 5.7.8 wrong")

    def mail(self, envelope: Envelope) -> None:
        habits = self.policy
        self._taken += 1
        if habits.hang_after_dot:
            habits.on_mail(envelope)
            return
        if habits.close_after_dot > 0:
            habits.close_after_dot -= 1
            habits.on_mail(envelope)
            self.transport.abort()  # type: ignore[union-attr]
            return
        super().mail(envelope)
        if habits.die_after and self._taken >= habits.die_after:
            self.transport.close()  # type: ignore[union-attr]


@dataclass(slots=True)
class Gateway:
    """An HTTP gateway that fails as told and keeps requests in `index.jsonl`."""

    folder: Path
    status: int = 200
    retry_after: str = ""
    fail_first: int = 0
    body: str = '{"id": "gw-1"}'
    token: str = ""
    seen: int = 0
    index: object = field(default=None)

    def answer(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        self.seen += 1
        line = {"path": request.path, "headers": request.headers, "body": request.body.decode("utf-8", "replace")}
        self.index.write(json.dumps(line) + "\n")  # type: ignore[attr-defined]
        self.index.flush()  # type: ignore[attr-defined]
        headers = {"Retry-After": self.retry_after} if self.retry_after else {}
        if self.token and request.headers.get("authorization") != self.token:
            return 401, {}, b""
        if self.seen <= self.fail_first:
            return 503, headers, b""
        return self.status, headers, self.body.encode()


@contextmanager
def sink(kind: str, folder: Path, *options: str) -> Iterator[int]:
    """A sink as a process; gives its port."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.sinks", kind, "--folder", str(folder), *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("PORT "), line
        yield int(line.split()[1])
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def index(folder: Path) -> list[dict[str, object]]:
    """What a sink took, in order."""
    path = folder / "index.jsonl"
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""  # the sink may be writing its last line
    return [json.loads(line) for line in whole.splitlines()]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["smtp", "http"])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True)
    for name in ("--reject", "--defer", "--hang"):
        parser.add_argument(name, action="append", default=[])
    for name in ("--bodies", "--refuse-content", "--hang-at-greeting", "--hang-after-dot", "--closing"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--no-pipelining", action="store_true")
    for name in ("--die-after", "--close-after-dot", "--fail-first"):
        parser.add_argument(name, type=int, default=0)
    for name in ("--user", "--password", "--certificate", "--retry-after", "--token"):
        parser.add_argument(name, default="")
    parser.add_argument("--implicit-tls", action="store_true")
    parser.add_argument("--status", type=int, default=200)
    parser.add_argument("--body", default='{"id": "gw-1"}')
    return parser.parse_args()


async def _serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    context = None
    if options.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate)
    with (options.folder / "index.jsonl").open("a", encoding="utf-8") as written:
        if options.kind == "http":
            gateway = Gateway(
                folder=options.folder, status=options.status, retry_after=options.retry_after,
                fail_first=options.fail_first, body=options.body, token=options.token, index=written,
            )  # fmt: skip
            server: asyncio.Server = await asyncio.start_server(
                HttpReceiver(gateway.answer).serve, "127.0.0.1", options.port, ssl=context
            )
        else:
            habits = Habits(
                folder=options.folder, bodies=options.bodies, reject=frozenset(options.reject),
                defer=frozenset(options.defer), hang=frozenset(options.hang), refuse_content=options.refuse_content,
                hang_at_greeting=options.hang_at_greeting, hang_after_dot=options.hang_after_dot,
                close_after_dot=options.close_after_dot, die_after=options.die_after, closing=options.closing,
                user=options.user, password=options.password, tls=None if options.implicit_tls else context,
                no_pipelining=options.no_pipelining, index=written,
            )  # fmt: skip
            habits.on_mail = habits.keep
            server = await loop.create_server(
                lambda: BadServer(habits), "127.0.0.1", options.port, ssl=context if options.implicit_tls else None
            )
        print("PORT", server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(_arguments()))
