"""Syslog over TCP and TLS: whoever sends faster than we read has to wait. Source: RFC 6587, RFC 5425."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass

from breachwatch.errors import WatchError
from breachwatch.model import Gap, RawLine
from breachwatch.ports import Clock
from breachwatch.watch.frames import Frame, Frames
from breachwatch.watch.source import Progress
from breachwatch.watch.syslog import ListenSpec, Messages, bound_socket, peer_name

READ_BYTES = 65_536
HANDSHAKE_S = 10.0
"""A client that does not finish its TLS handshake by then is let go."""

IDLE_S = 60.0
"""When all places are taken, one that was silent for so long is given to the next sender."""

REPORT_S = 60.0
"""Failed handshakes and refused senders are told at most so often: port scans must not fill the trail."""


def tls_context(spec: ListenSpec) -> ssl.SSLContext:
    """TLS 1.2 or newer; with `client_ca` only senders with a certificate of it. Raises: WatchError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(spec.certificate, spec.key)
        if spec.client_ca:
            context.load_verify_locations(spec.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        why = getattr(error, "reason", "") or getattr(error, "strerror", "") or "unreadable"
        raise WatchError(f"the certificate or its key cannot be used: {why}", source=spec.name) from error
    return context


@dataclass(slots=True)
class _Connection:
    """One sender."""

    socket: socket.socket
    peer: str
    frames: Frames
    opened_s: float
    heard_s: float
    is_ready: bool
    """The TLS handshake is over, or there is none."""


class StreamSyslog:
    """Senders over TCP or TLS. What is not read stays in the kernel until the sender has to wait: none is dropped."""

    def __init__(self, spec: ListenSpec, *, clock: Clock, on_open: Callable[[int], None]) -> None:
        self.name = spec.name
        self._spec = spec
        self._clock = clock
        self._on_open = on_open
        self._tls = tls_context(spec) if spec.protocol == "tls" else None
        self._listener = bound_socket(spec)
        self._messages = Messages(spec.name, clock=clock, max_line_bytes=spec.max_line_bytes)
        self._connections: list[_Connection] = []
        self._troubles = 0
        self._trouble = ""
        self._next_report = 0.0
        on_open(self._listener.fileno())

    @property
    def port(self) -> int:
        """The port that is listened to (chosen by the kernel if 0 was asked for)."""
        return int(self._listener.getsockname()[1])

    def poll(self, budget_bytes: int) -> Iterator[RawLine | Gap]:
        """What senders have said; each gets its share, so that one who floods starves no other."""
        yield from self._accept()
        share = max(READ_BYTES, budget_bytes // max(1, len(self._connections)))
        left = budget_bytes
        for connection in self._connections.copy():
            if left <= 0:
                break
            used = 0
            while used < min(share, left):
                chunk = self._read(connection)
                if chunk is None:
                    break
                if not chunk:
                    yield from self._end(connection)
                    break
                used += len(chunk)
                for frame in connection.frames.feed(chunk):
                    yield from self._said(frame, connection)
            left -= used
            if used >= share:
                self._on_open(connection.socket.fileno())  # there may be more: wake again
        if left <= 0 and self._connections:
            self._connections.append(self._connections.pop(0))  # another sender is first next time
            for connection in self._connections:
                self._on_open(connection.socket.fileno())
        yield from self._report()

    def _said(self, frame: Frame, connection: _Connection) -> Iterator[RawLine | Gap]:
        if frame.data:
            yield from self._messages.line(frame.data, frame.length, connection.peer, is_partial=frame.is_partial)

    def _accept(self) -> Iterator[RawLine | Gap]:
        while True:
            if len(self._connections) >= self._spec.max_connections and not (yield from self._make_room()):
                self._note(f"all {self._spec.max_connections} places are taken: further senders wait")
                return
            try:
                accepted, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._note(f"a sender could not be accepted: {error.strerror}")
                return
            accepted.setblocking(False)
            self._admit(accepted, peer_name(address))

    def _admit(self, accepted: socket.socket, peer: str) -> None:
        now_s = self._clock.monotonic()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a host that died frees its place
        if self._tls is not None:
            accepted = self._tls.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
        frames = Frames(self._spec.max_line_bytes)
        self._connections.append(_Connection(accepted, peer, frames, now_s, now_s, self._tls is None))
        self._on_open(accepted.fileno())

    def _make_room(self) -> Generator[RawLine | Gap, None, bool]:
        """End the sender that was silent the longest; False if none was silent long enough."""
        oldest = min(self._connections, key=lambda connection: connection.heard_s)
        if self._clock.monotonic() - oldest.heard_s < IDLE_S:
            return False
        yield from self._end(oldest)
        return True

    def _read(self, connection: _Connection) -> bytes | None:
        """Bytes, b"" at the end of the connection, None when there is nothing now."""
        try:
            if not connection.is_ready:
                self._shake_hands(connection)
            chunk = connection.socket.recv(READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            now_s = self._clock.monotonic()
            if not connection.is_ready and now_s - connection.opened_s >= HANDSHAKE_S:
                self._note(f"{connection.peer} did not finish its TLS handshake")
                return b""
            return None
        except (OSError, ssl.SSLError) as error:
            if not connection.is_ready:
                why = getattr(error, "reason", None) or getattr(error, "strerror", None) or "closed"
                self._note(f"TLS handshake with {connection.peer} failed: {why}")
            return b""
        connection.heard_s = self._clock.monotonic()
        return chunk

    @staticmethod
    def _shake_hands(connection: _Connection) -> None:
        assert isinstance(connection.socket, ssl.SSLSocket)
        connection.socket.do_handshake()
        connection.is_ready = True

    def _end(self, connection: _Connection) -> Iterator[RawLine | Gap]:
        self._connections.remove(connection)
        with suppress(OSError):
            connection.socket.close()
        for frame in connection.frames.end():
            yield from self._said(frame, connection)

    def _note(self, why: str) -> None:
        self._troubles += 1
        self._trouble = why

    def _report(self) -> Iterator[Gap]:
        if not self._troubles or self._clock.monotonic() < self._next_report:
            return
        self._next_report = self._clock.monotonic() + REPORT_S
        more = f" ({self._troubles} times; this was the last)" if self._troubles > 1 else ""
        yield self._messages.gap("unreadable", self._trouble + more)
        self._troubles = 0

    def progress(self) -> Progress:
        """Nothing: what was read from a connection cannot be read again."""
        return Progress()

    def close(self) -> None:
        """Listen no more, and end all connections."""
        for connection in self._connections:
            with suppress(OSError):
                connection.socket.close()
        self._connections.clear()
        self._listener.close()
