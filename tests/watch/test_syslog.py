"""The syslog listeners with real sockets: framing, TLS, floods, slow readers, and senders who know the rules."""

from __future__ import annotations

import datetime as dt
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from breachwatch.app.clock import SystemClock
from breachwatch.app.pipeline import Pipeline, SourceFormat
from breachwatch.app.rules import rules_in
from breachwatch.detect.engine import Detector
from breachwatch.errors import WatchError
from breachwatch.model import Gap, RawLine
from breachwatch.watch.frames import Frames
from breachwatch.watch.syslog import ListenSpec, UdpSyslog
from breachwatch.watch.syslog_stream import StreamSyslog
from breachwatch.watch.wake import Wake
from tests.conftest import ROOT, FakeClock

MESSAGE = b"<34>Oct 11 22:14:15 web01 su[7]: 'su root' failed for anna on /dev/pts/8"
MODERN = "<165>1 2026-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time, xin chào".encode()


@dataclass
class Heard:
    """A listener that is polled."""

    listener: UdpSyslog | StreamSyslog
    lines: list[RawLine] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)

    def poll(self, budget: int = 1 << 20) -> int:
        seen = 0
        for item in self.listener.poll(budget):
            seen += 1
            if isinstance(item, Gap):
                self.gaps.append(item)
            else:
                self.lines.append(item)
        return seen

    def until(self, done: Callable[[], bool], seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, (len(self.lines), self.gaps)
            if not self.poll():
                select.select([], [], [], 0.005)

    def lines_until(self, count: int) -> list[bytes]:
        self.until(lambda: len(self.lines) >= count)
        return [line.data for line in self.lines]


Listen = Callable[..., Heard]


@pytest.fixture
def listen() -> Iterator[Listen]:
    made: list[Heard] = []

    def make(protocol: str, *, clock: FakeClock | SystemClock | None = None, **spec: object) -> Heard:
        chosen = ListenSpec(protocol=protocol, **{"address": "127.0.0.1", "port": 0, **spec})  # type: ignore[arg-type]
        kind = UdpSyslog if protocol == "udp" else StreamSyslog
        heard = Heard(kind(chosen, clock=clock or SystemClock(), on_open=lambda _: None))
        made.append(heard)
        return heard

    yield make
    for heard in made:
        heard.listener.close()


@pytest.fixture
def connect() -> Iterator[Callable[[Heard], socket.socket]]:
    made: list[socket.socket] = []

    def make(heard: Heard) -> socket.socket:
        made.append(socket.create_connection(("127.0.0.1", heard.listener.port)))
        return made[-1]

    yield make
    for item in made:
        item.close()


Connect = Callable[[Heard], socket.socket]


# -- framing


@settings(max_examples=150)
@given(
    messages=st.lists(
        st.tuples(
            st.booleans(),
            st.binary(max_size=200).map(lambda data: b"<13>" + data.replace(b"\n", b"_").rstrip(b"\r\0 \n") + b"x"),
        ),
        max_size=12,
    ),
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=8),
)
def test_messages_cut_anywhere_are_the_same_with_both_framings_mixed(messages, cuts):
    stream = b"".join(b"%d %b" % (len(data), data) if is_counted else data + b"\n" for is_counted, data in messages)
    frames, found, at, turn = Frames(4_096), [], 0, 0
    while at < len(stream):
        step = cuts[turn % len(cuts)]
        found += [frame.data for frame in frames.feed(stream[at : at + step])]
        at, turn = at + step, turn + 1
    assert list(frames.end()) == []
    assert found == [data for _, data in messages]


@settings(max_examples=150)
@given(
    stream=st.lists(
        st.sampled_from([b"1", b"9", b"0", b" ", b"<", b"\n", b"x", b"\0", b"\r", b"12 <1>"]), max_size=60
    ).map(b"".join)
)
def test_no_stream_makes_a_message_longer_than_the_limit_or_loses_a_letter(stream):
    frames = Frames(16)
    found = [*frames.feed(stream), *frames.end()]
    assert all(len(frame.data) <= 16 for frame in found)
    assert sum(frame.length for frame in found) <= len(stream)
    assert b"".join(frame.data for frame in found).count(b"x") == stream.count(b"x") or any(
        frame.length > len(frame.data) for frame in found
    )


def test_a_line_that_begins_with_digits_is_no_length():
    frames = Frames(4_096)
    found = list(frames.feed(b"2026-08-24T05:14:15Z web01 app: started\n12 little birds\n5 <1>hi\n"))
    assert [frame.data for frame in found] == [
        b"2026-08-24T05:14:15Z web01 app: started",
        b"12 little birds",
        b"<1>hi"[:5],
    ]


def test_a_counted_message_may_hold_line_feeds():
    frames = Frames(4_096)
    assert [frame.data for frame in frames.feed(b"9 <1>a\nb\ncd10 <2>next..x")] == [b"<1>a\nb\ncd", b"<2>next..x"]


def test_a_message_of_a_gigabyte_takes_no_memory():
    frames = Frames(1_024)
    found = list(frames.feed(b"200000000 <1>"))
    chunk = b"x" * (1 << 20)
    for _ in range(200):
        found += frames.feed(chunk)
    assert [(len(frame.data), frame.length) for frame in found] == [(1_024, 200_000_000)]


# -- UDP


def test_datagrams_become_lines_with_their_sender(listen: Listen):
    heard = listen("udp")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for data in (MESSAGE, MODERN + b"\n", b"", b"\n", MESSAGE):
            sender.sendto(data, ("127.0.0.1", heard.listener.port))
        assert heard.lines_until(3) == [MESSAGE, MODERN, MESSAGE]
        assert heard.lines[0].peer == f"127.0.0.1:{sender.getsockname()[1]}"
    assert heard.gaps == []
    assert heard.lines[0].source.startswith("syslog+udp://127.0.0.1:")


def test_equal_messages_are_different_events(listen: Listen):
    heard = listen("udp")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(3):
            sender.sendto(MESSAGE, ("127.0.0.1", heard.listener.port))
        heard.lines_until(3)
    pipeline = Pipeline(host="hub", detector=Detector(rules_in([])), now=SystemClock().now)
    events = [event for line in heard.lines for event, _ in pipeline.matches(line, SourceFormat(format="syslog"))]
    assert len({event.id for event in events}) == 3
    assert events[0].fields["log.source.address"] == heard.lines[0].peer
    assert "log.file.path" not in events[0].fields
    assert events[0].fields["host.name"] == "web01"


def test_a_datagram_beyond_the_limit_is_cut_and_says_so(listen: Listen):
    heard = listen("udp", max_line_bytes=1_024)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"<1>" + b"y" * 9_000, ("127.0.0.1", heard.listener.port))
        heard.until(lambda: bool(heard.gaps))
    assert (len(heard.lines[0].data), heard.lines[0].length_bytes) == (1_024, 9_003)
    assert (heard.gaps[0].reason, heard.gaps[0].lost_bytes) == ("line_cut", 7_979)


def test_a_flood_of_datagrams_is_counted_to_the_last_one(listen: Listen):
    heard = listen("udp", receive_buffer_bytes=65_536)
    sent = 20_000
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number in range(sent):
            sender.sendto(b"<13>Oct 11 22:14:15 web01 app[7]: number=%06d" % number, ("127.0.0.1", heard.listener.port))
            if number % 4_000 == 0:
                heard.poll()

        def dropped() -> int:
            return sum(int(gap.detail.split()[0]) for gap in heard.gaps)

        heard.until(lambda: len(heard.lines) + dropped() >= sent)
    assert len(heard.lines) + dropped() == sent
    assert dropped() > 1_000
    assert {gap.reason for gap in heard.gaps} == {"overflow"}
    assert len(heard.gaps) < 20  # a flood of datagrams is no flood of records
    pipeline = Pipeline(host="hub", detector=Detector(rules_in([ROOT / "rules"])), now=SystemClock().now)
    assert [match.rule.title for _, found in pipeline.matches(heard.gaps[0], SourceFormat()) for match in found]


def test_a_port_that_is_taken_is_one_clear_error(listen: Listen):
    heard = listen("udp")
    with pytest.raises(WatchError, match="cannot listen: Address already in use"):
        listen("udp", port=heard.listener.port)
    tcp = listen("tcp")
    with pytest.raises(WatchError, match="cannot listen: Address already in use"):
        listen("tcp", port=tcp.listener.port)


def test_it_listens_on_ipv6_too(listen: Listen):
    try:
        heard = listen("udp", address="::1")
    except WatchError:
        pytest.skip("no IPv6 here")
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        sender.sendto(MESSAGE, ("::1", heard.listener.port))
        heard.lines_until(1)
    assert heard.lines[0].peer.startswith("[::1]:")


# -- TCP


def test_both_framings_over_tcp(listen: Listen, connect: Connect):
    heard = listen("tcp")
    connect(heard).sendall(MESSAGE + b"\n" + MODERN + b"\r\n")
    connect(heard).sendall(b"%d %b%d %b" % (len(MODERN), MODERN, len(MESSAGE), MESSAGE))
    assert sorted(heard.lines_until(4)) == sorted([MESSAGE, MODERN] * 2)
    assert heard.gaps == []


def test_a_message_without_end_counts_when_the_connection_ends(listen: Listen, connect: Connect):
    heard = listen("tcp")
    sender = connect(heard)
    sender.sendall(MESSAGE + b"\n<1>half")
    heard.lines_until(1)
    sender.close()
    assert heard.lines_until(2)[1] == b"<1>half"
    assert [line.is_partial for line in heard.lines] == [False, True]


def test_a_sender_that_resets_the_connection_ends_only_its_own(listen: Listen, connect: Connect):
    heard = listen("tcp")
    other = connect(heard)
    rude = socket.create_connection(("127.0.0.1", heard.listener.port))
    rude.sendall(b"<1>rude\n")
    heard.lines_until(1)
    rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    rude.close()
    other.sendall(b"<1>polite\n")
    assert heard.lines_until(2) == [b"<1>rude", b"<1>polite"]


def test_a_sender_faster_than_the_reader_has_to_wait_and_loses_nothing(listen: Listen, connect: Connect):
    heard = listen("tcp")
    sender = connect(heard)
    total = 60_000
    sent = []

    def send() -> None:
        for number in range(0, total, 100):
            batch = [
                b"<13>Oct 11 22:14:15 web01 app[7]: number=%06d %s\n" % (n, b"x" * 200)
                for n in range(number, number + 100)
            ]
            sender.sendall(b"".join(batch))
            sent.append(number)

    thread = threading.Thread(target=send)
    thread.start()
    stalled = -1
    while stalled != len(sent):  # nobody reads: the kernel's buffers fill, and the sender stops
        stalled = len(sent)
        time.sleep(0.3)
    assert 0 < len(sent) < total // 100
    heard.until(lambda: len(heard.lines) >= total, seconds=60)
    thread.join()
    assert [int(line.data.split(b"number=")[1][:6]) for line in heard.lines] == list(range(total))
    assert heard.gaps == []


def test_one_sender_who_floods_starves_no_other(listen: Listen, connect: Connect):
    heard = listen("tcp")
    flood, quiet = connect(heard), connect(heard)
    flood.setblocking(False)
    block = b"<13>flood " + b"x" * 990 + b"\n"
    while select.select([], [flood], [], 0)[1]:
        flood.send(block * 60)
    quiet.sendall(b"<13>little\n")
    time.sleep(0.05)
    heard.poll(budget=200_000)
    heard.poll(budget=200_000)
    assert b"<13>little" in [line.data for line in heard.lines]
    assert heard.gaps == []


def test_when_all_places_are_taken_the_silent_give_way_and_it_is_said(
    listen: Listen, connect: Connect, clock: FakeClock
):
    heard = listen("tcp", clock=clock, max_connections=2)
    silent, busy = connect(heard), connect(heard)
    busy.sendall(b"<1>a\n")
    silent.sendall(b"<1>unfini")
    heard.lines_until(1)
    third = connect(heard)
    third.sendall(b"<1>third\n")
    heard.until(lambda: bool(heard.gaps))
    assert "places are taken" in heard.gaps[0].detail
    clock.advance(50)
    busy.sendall(b"<1>b\n")
    heard.lines_until(2)
    clock.advance(20)
    assert heard.lines_until(4)[2:] == [b"<1>unfini", b"<1>third"]
    assert heard.lines[2].is_partial


def test_listeners_wake_whoever_waits(connect: Connect):
    wake = Wake()
    heards = [
        Heard(
            kind(ListenSpec(protocol=protocol, address="127.0.0.1", port=0), clock=SystemClock(), on_open=wake.listen)
        )
        for protocol, kind in (("udp", UdpSyslog), ("tcp", StreamSyslog))
    ]
    udp, tcp = heards
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(MESSAGE, ("127.0.0.1", udp.listener.port))
            assert wake.wait(5)
            udp.lines_until(1)
        sender = connect(tcp)
        assert wake.wait(5)
        tcp.poll()
        while wake.wait(0):
            tcp.poll()
        sender.sendall(b"<1>x\n" * 50_000)
        assert wake.wait(5)
        tcp.poll(budget=65_536)  # more is left in the kernel: it wakes again
        assert wake.wait(5)
        tcp.lines_until(50_000)
    finally:
        for heard in heards:
            heard.listener.close()
        wake.close()


# -- TLS


@dataclass
class Papers:
    """An authority, a server and a client."""

    ca: Path
    cert: Path
    key: Path
    client_cert: Path
    client_key: Path
    other_cert: Path
    other_key: Path


def _write(folder: Path, name: str, issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    )
    certificate = builder.sign(issuer[1] if issuer else key, hashes.SHA256())
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / f"{name}.key").write_bytes(private)
    return certificate, key


@pytest.fixture(scope="module")
def papers(tmp_path_factory) -> Papers:
    folder = tmp_path_factory.mktemp("papers")
    authority = _write(folder, "ca", None)
    _write(folder, "server", authority)
    _write(folder, "client", authority)
    _write(folder, "other", None)
    return Papers(
        folder / "ca.pem", folder / "server.pem", folder / "server.key", folder / "client.pem", folder / "client.key",
        folder / "other.pem", folder / "other.key",
    )  # fmt: skip


def send_tls(port: int, papers: Papers, payload: bytes, *, cert: Path | None = None, key: Path | None = None) -> str:
    """Send from a thread's point of view: connects, sends, says goodbye. Returns the error, if any."""
    context = ssl.create_default_context(cafile=str(papers.ca))
    if cert and key:
        context.load_cert_chain(cert, key)
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as sender,
        ):
            sender.sendall(payload)
            sender.unwrap()
    except (OSError, ssl.SSLError) as error:
        return type(error).__name__
    return ""


class Sending(threading.Thread):
    def __init__(self, *arguments: object, **named: object) -> None:
        super().__init__()
        self._call = lambda: send_tls(*arguments, **named)  # type: ignore[arg-type]
        self.error = ""

    def run(self) -> None:
        self.error = self._call()


def test_messages_over_tls(listen: Listen, papers: Papers):
    heard = listen("tls", certificate=str(papers.cert), key=str(papers.key))
    sending = Sending(heard.listener.port, papers, (b"%d %b" % (len(MODERN), MODERN)) * 2_000)
    sending.start()
    assert heard.lines_until(2_000) == [MODERN] * 2_000
    heard.until(lambda: not sending.is_alive())
    assert heard.gaps == []


@pytest.mark.parametrize("who", ["client", "nobody", "other"])
def test_with_a_client_authority_only_its_senders_are_heard(listen: Listen, papers: Papers, who: str):
    heard = listen("tls", certificate=str(papers.cert), key=str(papers.key), client_ca=str(papers.ca))
    certificates = {"client": (papers.client_cert, papers.client_key), "other": (papers.other_cert, papers.other_key)}
    cert, key = certificates.get(who, (None, None))
    sending = Sending(heard.listener.port, papers, MESSAGE + b"\n", cert=cert, key=key)
    sending.start()
    if who == "client":
        assert heard.lines_until(1) == [MESSAGE]
    heard.until(lambda: not sending.is_alive())
    sending.join()
    if who != "client":
        heard.until(lambda: bool(heard.gaps))
        assert heard.lines == []
        assert heard.gaps[0].reason == "unreadable"
        assert "TLS handshake with 127.0.0.1" in heard.gaps[0].detail


def test_noise_instead_of_a_handshake_hurts_nobody_and_is_told_once(listen: Listen, connect: Connect, papers: Papers):
    heard = listen("tls", certificate=str(papers.cert), key=str(papers.key))
    for _ in range(5):
        connect(heard).sendall(b"GET / HTTP/1.0\r\n\r\n")
    sending = Sending(heard.listener.port, papers, MESSAGE + b"\n")
    sending.start()
    assert heard.lines_until(1) == [MESSAGE]
    heard.until(lambda: not sending.is_alive() and bool(heard.gaps))
    sending.join()
    assert len(heard.gaps) == 1


def test_a_client_that_never_finishes_its_handshake_is_let_go(
    listen: Listen, connect: Connect, papers: Papers, clock: FakeClock
):
    heard = listen("tls", clock=clock, certificate=str(papers.cert), key=str(papers.key))
    idle = connect(heard)
    heard.poll()
    heard.poll()
    clock.advance(11)
    heard.until(lambda: bool(heard.gaps))
    assert "did not finish its TLS handshake" in heard.gaps[0].detail
    idle.settimeout(5)
    assert idle.recv(1) == b""


def test_old_versions_of_tls_are_refused(listen: Listen, papers: Papers):
    heard = listen("tls", certificate=str(papers.cert), key=str(papers.key))
    context = heard.listener._tls  # type: ignore[union-attr]
    assert context is not None
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_a_certificate_that_cannot_be_used_is_one_clear_error(listen: Listen, papers: Papers):
    with pytest.raises(WatchError, match="cannot be used"):
        listen("tls", certificate=str(papers.cert), key=str(papers.client_key))


# -- who sent it


def test_nobody_continues_the_repeated_message_of_another(listen: Listen):
    pipeline = Pipeline(host="hub", detector=Detector(rules_in([])), now=SystemClock().now)
    how = SourceFormat(format="syslog")

    def line(text: str, peer: str, number: int) -> RawLine:
        return RawLine(source="syslog+udp://x:1", data=text.encode(), offset=number, generation="g", peer=peer)

    failed = "<38>Oct 11 22:14:15 web01 sshd[7]: Failed password for root from 203.0.113.7 port 22 ssh2"
    repeated = "<38>Oct 11 22:14:16 web01 last message repeated 900 times"
    assert len(list(pipeline.parse(line(failed, "192.0.2.1:514", 1), how))) == 1
    assert len(list(pipeline.parse(line(repeated, "192.0.2.66:514", 2), how))) == 1
    assert len(list(pipeline.parse(line(repeated, "192.0.2.1:999", 3), how))) == 900


def test_the_memory_of_senders_is_bounded():
    from breachwatch.app.pipeline import MAX_PEERS

    pipeline = Pipeline(host="hub", detector=Detector(rules_in([])), now=SystemClock().now)
    for number in range(MAX_PEERS + 50):
        peer = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:514"
        line = RawLine(source="syslog+udp://x:1", data=MESSAGE, offset=number, generation="g", peer=peer)
        assert list(pipeline.parse(line, SourceFormat(format="auto")))
    assert len(pipeline._parsers) <= MAX_PEERS
    assert len(pipeline._assemblers) <= MAX_PEERS


def test_a_sender_that_is_forgotten_leaves_its_unfinished_events_behind():
    from breachwatch.app.pipeline import MAX_PEERS

    pipeline = Pipeline(host="hub", detector=Detector(rules_in([])), now=SystemClock().now)
    part = b'type=SYSCALL msg=audit(1783414661.350:487): arch=c000003e syscall=59 success=yes uid=0 comm="sh"'
    how = SourceFormat(format="auditd")
    for number in range(MAX_PEERS + 5):
        peer = f"10.0.{number >> 8}.{number & 255}:514"
        line = RawLine(source="syslog+udp://x:1", data=part, offset=number, generation="g", peer=peer)
        assert list(pipeline.matches(line, how)) == []
    assert len(list(pipeline.late_matches())) == 5
    assert len(list(pipeline.late_matches(everything=True))) == MAX_PEERS


def test_parts_from_one_sender_survive_a_restart_between_them():
    how = SourceFormat(format="auditd")

    def line(text: str, number: int) -> RawLine:
        return RawLine(source="syslog+tcp://x:1", data=text.encode(), offset=number, generation="g", peer="192.0.2.1:9")

    first = Pipeline(host="hub", detector=Detector(rules_in([])), now=SystemClock().now)
    begin = 'type=SYSCALL msg=audit(1783414661.350:487): arch=c000003e syscall=59 success=yes uid=0 comm="sh"'
    assert list(first.matches(line(begin, 1), how)) == []
    second = Pipeline(host="hub", detector=Detector(rules_in([])), now=SystemClock().now)
    second.restore(first.unfinished)
    end = "type=PROCTITLE msg=audit(1783414661.350:487): proctitle=6C73"
    [(event, _)] = second.matches(line(end, 2), how)
    assert event.fields["auditd.message_type"] == ("SYSCALL", "PROCTITLE")
