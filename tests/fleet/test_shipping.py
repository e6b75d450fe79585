"""Shipping without a server: order, halving, acknowledging, retention and the cap."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from breachwatch.app.retention import PRUNE_EVERY_S, Retention
from breachwatch.app.state import StateLayout
from breachwatch.app.telemetry import start_telemetry
from breachwatch.config.settings import load_settings
from breachwatch.errors import ConfigError, FleetError, RequestRefusedError
from breachwatch.fleet.client import ServerSettings, TelemetryServer
from breachwatch.fleet.documents import Document, document
from breachwatch.fleet.shipper import BATCH, READER, Shipper
from breachwatch.store.agent import SqliteAgentStore
from tests.e2e.harness import wait_until
from tests.fleet.samples import AT, match_signal


class FakeServer:
    """Keeps each id once; some ids spoil every request they are in."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        self.spoilers: set[str] = set()
        self.refused: dict[str, str] = {}
        self.is_away = False
        self.sizes: list[int] = []

    def create(self, documents: Sequence[Document]) -> dict[str, str]:
        if self.is_away:
            raise FleetError("away")
        self.sizes.append(sum(len(item.source) for item in documents))
        ids = [item.id for item in documents]
        if self.spoilers & set(ids):
            raise RequestRefusedError("answered 400")
        self.stored += [item for item in ids if item not in self.refused and item not in self.stored]
        return {item: self.refused[item] for item in ids if item in self.refused}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteAgentStore]:
    made = SqliteAgentStore(tmp_path / "agent.db")
    yield made
    made.close()


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def refused() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def shipper(store, server, clock, refused) -> Shipper:
    return Shipper(
        spool=store,
        server=server,
        clock=clock,
        prefix="bw",
        on_refused=lambda signal, reason: refused.append((signal.id, reason)),
    )


def test_everything_is_shipped_once_and_in_order(store, server, shipper):
    ids = [f"m{number}" for number in range(BATCH + 10)]
    store.append_signals(match_signal(name) for name in ids)
    assert [shipper.ship(), shipper.ship(), shipper.ship()] == [BATCH, 10, 0]
    assert server.stored == ids


def test_nothing_is_acknowledged_that_the_server_did_not_confirm(store, server, shipper):
    store.append_signals([match_signal("m")])
    server.is_away = True
    with pytest.raises(FleetError):
        shipper.ship()
    assert store.acknowledged(READER) == 0
    server.is_away = False
    assert shipper.ship() == 1
    assert server.stored == ["m"]


def test_one_document_that_spoils_its_request_is_found_and_passed_over(store, server, shipper, refused):
    store.append_signals(match_signal(f"m{number}") for number in range(100))
    server.spoilers = {"m37"}
    assert shipper.ship() == 100
    assert refused == [("m37", "answered 400")]
    assert len(server.stored) == 99


def test_a_server_that_refuses_every_request_makes_us_wait_not_lose(store, server, shipper, refused):
    store.append_signals(match_signal(f"m{number}") for number in range(8))
    server.spoilers = {f"m{number}" for number in range(8)}
    with pytest.raises(FleetError, match="takes none of 8"):
        shipper.ship()
    assert refused == []
    assert store.acknowledged(READER) == 0


def test_a_refused_document_is_told_before_it_is_acknowledged(store, server, clock):
    def fail(*_: object) -> None:
        raise RuntimeError("the disk is full")

    store.append_signals([match_signal("m")])
    server.refused = {"m": "400 document_parsing_exception"}
    shipper = Shipper(spool=store, server=server, clock=clock, prefix="bw", on_refused=fail)
    with pytest.raises(RuntimeError):
        shipper.ship()
    assert store.acknowledged(READER) == 0


def test_large_signals_travel_in_several_requests(store, server, shipper):
    store.append_signals(match_signal(f"m{number}", message="x" * 60_000) for number in range(200))
    assert shipper.ship() == 200
    assert len(server.sizes) > 2
    assert max(server.sizes) <= 4 << 20


def test_old_signals_go_only_after_every_reader_took_them(store, clock):
    store.append_signals([match_signal("old", at=clock.now() - timedelta(days=100)), match_signal("new")])
    retention = Retention(store, clock, 90, ("hub", READER))

    def left() -> list[str]:
        clock.advance(PRUNE_EVERY_S)
        retention.tick()
        return [signal.id for signal in store.read_signals(after=0, limit=9)]

    assert left() == ["old", "new"]
    store.acknowledge("hub", 2)
    assert left() == ["old", "new"]
    store.acknowledge(READER, 2)
    assert left() == ["new"]


def test_without_elasticsearch_telemetry_holds_up_no_pruning(store, clock, tmp_path):
    config = tmp_path / "breachwatch.toml"
    config.write_text(f'[state]\ndirectory = "{tmp_path}"\n')
    store.append_signals([match_signal("old", at=clock.now() - timedelta(days=100))])
    store.acknowledge(READER, 0)  # a server was configured once
    store.acknowledge("hub", 1)
    assert start_telemetry(load_settings(config), StateLayout(tmp_path), print) is None
    Retention(store, clock, 90, ("hub",)).tick()
    assert store.read_signals(after=0, limit=9) == []


def test_what_exceeds_the_cap_is_the_oldest(store):
    store.append_signals(match_signal(f"m{number}") for number in range(10))
    (size,) = {len(row[0]) for row in store._connection.execute("SELECT body FROM signal")}
    assert store.beyond(READER, 10 * size) == (0, 0)
    assert store.beyond(READER, 10 * size - 1) == (1, 1)
    assert store.beyond(READER, 4 * size) == (6, 6)
    store.acknowledge(READER, 3)
    assert store.beyond(READER, 4 * size) == (6, 3)
    assert store.beyond(READER, 7 * size) == (0, 0)


def test_a_full_spool_gives_up_the_oldest_with_a_gap_record(store, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    config = tmp_path / "breachwatch.toml"
    config.write_text(
        f'[state]\ndirectory = "{tmp_path}"\n'
        f'[elasticsearch]\nurl = "http://127.0.0.1:{port}"\nspool_cap_bytes = {1 << 20}\n'
    )
    store.append_signals(match_signal(f"m{number}", message="x" * 60_000) for number in range(30))
    said: list[str] = []
    telemetry = start_telemetry(load_settings(config), StateLayout(tmp_path), said.append)
    assert telemetry is not None
    try:
        wait_until(lambda: any("server away" in text for text in said), what="away")
    finally:
        telemetry.close()
    (gap,) = [signal.gap for signal in store.read_signals(after=0, limit=99) if signal.gap]
    given_up = store.acknowledged(READER)
    assert gap.reason == "spool_full"
    assert gap.detail.startswith(f"{given_up} signals up to {given_up} ")
    assert 10 < given_up < 20
    assert len(said) == 2


ANSWERS = {
    b'{"items":[]}': "does not say what became of each",
    b'{"items":[{"create":{"_id":"other","status":201}}]}': "other documents",
    b"[]": "does not say",
    b'{"items":[{"create":{"_id":"m","status":429,"error":{"type":"es_rejected"}}}]}': "429 es_rejected",
    b'{"items":[{"create":{"_id":"m","status":403,"error":{"type":"security_exception"}}}]}': "403 security_exception",
    b'{"items":[{"create":{"_id":"m","status":400,"error":{"type":"validation_exception"}}}]}': "400 validation",
    b"<html>": "does not say",
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_only_a_clear_yes_counts(answer):
    with answering(200, answer) as url, pytest.raises(FleetError, match=ANSWERS[answer]):
        send_one(url)


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_no_other_status_is_blamed_on_the_document(status):
    with answering(status, b'{"error":{"type":"t"}}') as url, pytest.raises(FleetError, match=f"{status} t") as error:
        send_one(url)
    assert not isinstance(error.value, RequestRefusedError)


@pytest.mark.parametrize("status", [400, 413])
def test_a_request_refused_as_a_whole_can_be_halved(status):
    with answering(status, b"<html>too large</html>") as url, pytest.raises(RequestRefusedError, match=str(status)):
        send_one(url)


def test_an_older_server_is_named_as_the_reason():
    body = b'{"error":{"type":"media_type_header_exception"}}'
    with answering(400, body) as url, pytest.raises(FleetError, match="elasticsearch<9") as error:
        send_one(url)
    assert not isinstance(error.value, RequestRefusedError)


def test_something_else_than_elasticsearch_is_never_believed():
    good = b'{"items":[{"create":{"_id":"m","status":201}}]}'
    with answering(200, good, product="") as url, pytest.raises(FleetError, match="not Elasticsearch"):
        send_one(url)
    with answering(200, good) as url:
        assert send_one(url) == {}


def test_a_ca_file_that_is_none_is_refused_at_once(tmp_path):
    (tmp_path / "text.pem").write_text("no certificate")
    with pytest.raises(ConfigError):
        TelemetryServer(ServerSettings(url="https://127.0.0.1:1", ca_file=tmp_path / "text.pem"))
    with pytest.raises(ConfigError):
        TelemetryServer(ServerSettings(url="https://127.0.0.1:1", ca_file=tmp_path / "none.pem"))


def send_one(url: str) -> dict[str, str]:
    client = TelemetryServer(ServerSettings(url=url, timeout_s=10))
    try:
        return client.create([document(match_signal("m"), prefix="bw", ingested_at=AT)])
    finally:
        client.close()


@contextmanager
def answering(status: int, body: bytes, product: str = "Elasticsearch") -> Iterator[str]:
    """A web server with one answer."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-type", "text/html" if body.startswith(b"<") else "application/json")
            self.send_header("content-length", str(len(body)))
            if product:
                self.send_header("x-elastic-product", product)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{web.server_port}"
        finally:
            web.shutdown()
            thread.join()
