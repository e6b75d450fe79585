"""What all syslog listeners have in common, and the one for UDP. Source: RFC 5424, RFC 3164, RFC 5426; socket(7)."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from breachwatch.errors import WatchError
from breachwatch.model import Gap, RawLine
from breachwatch.ports import Clock
from breachwatch.watch.framing import whole_characters
from breachwatch.watch.source import Progress

SO_RCVBUFFORCE = 33
SO_MEMINFO = 55
SK_MEMINFO_DROPS = 8
"""Place of the count of dropped datagrams in what SO_MEMINFO gives. Source: linux/sock_diag.h, since Linux 4.12."""

DATAGRAM_BYTES = 65_536
REPORT_S = 1.0
"""Drops are told at most so often: a flood must not become a flood of records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenSpec:
    """One entry of `watch.syslog`."""

    protocol: str
    """udp, tcp or tls."""
    address: str
    port: int
    max_line_bytes: int = 65_536
    receive_buffer_bytes: int = 8 << 20
    max_connections: int = 256
    certificate: str = ""
    key: str = ""
    client_ca: str = ""

    @property
    def name(self) -> str:
        """How it is called in events."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"syslog+{self.protocol}://{host}:{self.port}"


class Messages:
    """Makes lines of messages: each gets a name of its own, for the network is never read twice."""

    def __init__(self, source: str, *, clock: Clock, max_line_bytes: int) -> None:
        self.source = source
        self._clock = clock
        self._max = max_line_bytes
        self._generation = os.urandom(8).hex()
        self._number = 0

    def line(self, data: bytes, length: int, peer: str, *, is_partial: bool = False) -> Iterator[RawLine | Gap]:
        """The message, and a gap for what was cut off."""
        head = whole_characters(data[: self._max]) if length > self._max else data
        self._number += 1
        yield RawLine(
            source=self.source, data=head, offset=self._number, generation=self._generation, length_bytes=length,
            is_partial=is_partial, peer=peer,
        )  # fmt: skip
        if length > len(head):
            yield self.gap("line_cut", f"a message of {peer} has {length} bytes", lost_bytes=length - len(head))

    def gap(self, reason: str, detail: str, *, lost_bytes: int | None = None) -> Gap:
        """Something that could not be seen."""
        return Gap(
            source=self.source, reason=reason, at_utc=self._clock.now(), lost_bytes=lost_bytes, detail=detail
        )  # fmt: skip


def bound_socket(spec: ListenSpec) -> socket.socket:
    """A socket at the address of the settings, not blocking. Raises: WatchError."""
    kind = socket.SOCK_DGRAM if spec.protocol == "udp" else socket.SOCK_STREAM
    family = socket.AF_INET6 if ":" in spec.address else socket.AF_INET
    made = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if spec.protocol != "udp":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((spec.address, spec.port))
        if spec.protocol != "udp":
            made.listen(128)
    except (OSError, OverflowError) as error:
        made.close()
        why = getattr(error, "strerror", "") or str(error)
        hint = "another syslog daemon may listen there; ports below 1024 need CAP_NET_BIND_SERVICE"
        raise WatchError(f"cannot listen: {why}", source=spec.name, hint=hint) from error
    return made


def peer_name(address: tuple[str, int] | tuple[str, int, int, int]) -> str:
    """`203.0.113.7:514` or `[2001:db8::1]:514`."""
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class UdpSyslog:
    """Datagrams, one message each. The kernel counts what it had to drop, and that count becomes a gap."""

    def __init__(self, spec: ListenSpec, *, clock: Clock, on_open: Callable[[int], None]) -> None:
        self.name = spec.name
        self._clock = clock
        self._socket = bound_socket(spec)
        self._enlarge(spec.receive_buffer_bytes)
        self._messages = Messages(spec.name, clock=clock, max_line_bytes=spec.max_line_bytes)
        self._told = self._dropped()
        self._next_report = 0.0
        self._on_open = on_open
        on_open(self._socket.fileno())

    @property
    def port(self) -> int:
        """The port that is listened to (chosen by the kernel if 0 was asked for)."""
        return int(self._socket.getsockname()[1])

    def _enlarge(self, size: int) -> None:
        """As large as asked where we may, else as the kernel's limit allows."""
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    def _dropped(self) -> int:
        try:
            info = self._socket.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 4 * (SK_MEMINFO_DROPS + 1))
        except OSError:
            return 0
        return int(struct.unpack_from("I", info, 4 * SK_MEMINFO_DROPS)[0]) if len(info) > 4 * SK_MEMINFO_DROPS else 0

    def poll(self, budget_bytes: int) -> Iterator[RawLine | Gap]:
        """Datagrams that are there, and what was dropped before them."""
        left = budget_bytes
        while left > 0:
            try:
                data, address = self._socket.recvfrom(DATAGRAM_BYTES)
            except BlockingIOError:
                break
            except OSError:
                left -= DATAGRAM_BYTES  # an ICMP error of somebody we never wrote to; bounded, should it stay
                continue
            left -= max(len(data), 1)
            message = data.rstrip(b"\r\n\0")
            if message:
                yield from self._messages.line(message, len(message), peer_name(address))
        if left <= 0:
            self._on_open(self._socket.fileno())  # there may be more: wake again
        yield from self._report()

    def _report(self) -> Iterator[Gap]:
        now_s = self._clock.monotonic()
        dropped = self._dropped()
        if dropped == self._told or now_s < self._next_report:
            return
        count, self._told = (dropped - self._told) & 0xFFFFFFFF, dropped
        self._next_report = now_s + REPORT_S
        yield self._messages.gap("overflow", f"{count} datagrams came faster than they were read, and were dropped")

    def progress(self) -> Progress:
        """Nothing: a datagram that was read cannot be read again."""
        return Progress()

    def close(self) -> None:
        """Listen no more."""
        with suppress(OSError):
            self._socket.close()
