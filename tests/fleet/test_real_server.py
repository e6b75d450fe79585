"""Against the real Elasticsearch, killed and restarted while signals flow."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from breachwatch.app.clock import SystemClock
from breachwatch.app.pipeline import heartbeat_signal
from breachwatch.app.state import StateLayout
from breachwatch.app.telemetry import Telemetry, start_telemetry
from breachwatch.config.settings import load_settings
from breachwatch.errors import FleetError
from breachwatch.fleet.client import ServerSettings, TelemetryServer
from breachwatch.fleet.documents import document
from breachwatch.fleet.indices import index_template, template_name
from breachwatch.fleet.shipper import READER
from breachwatch.model import Signal
from breachwatch.store.agent import SqliteAgentStore
from tests.e2e.harness import Installation, kill_group, stop, wait_until
from tests.fleet.elastic import ElasticServer, server_on_free_port
from tests.fleet.samples import AT, HOST, HOSTILE, SURROGATES, match_signal, of_fields

pytestmark = [pytest.mark.elastic, pytest.mark.slow, pytest.mark.timeout(400)]

SHIP = (
    "import sys, threading; from pathlib import Path\n"
    "from breachwatch.app.state import StateLayout; from breachwatch.app.telemetry import start_telemetry\n"
    "from breachwatch.config.settings import load_settings\n"
    "settings = load_settings(Path(sys.argv[1]))\n"
    "start_telemetry(settings, StateLayout(Path(settings.state.directory)), lambda text: print(text, flush=True))\n"
    "threading.Event().wait()"
)
"""A process that ships until it is killed."""


@pytest.fixture(scope="module")
def server() -> Iterator[ElasticServer]:
    made = server_on_free_port()
    try:
        made.run("start", "plain")
        yield made
    finally:
        made.run("stop")


@pytest.fixture
def reader(server: ElasticServer) -> Iterator[Elasticsearch]:
    client = Elasticsearch(server.run("url"), request_timeout=30)
    yield client
    client.close()


class Site:
    """One state directory that ships to the server under a prefix of its own."""

    def __init__(self, root: Path, url: str, prefix: str) -> None:
        self.prefix = prefix
        self.config = root / "breachwatch.toml"
        self.config.write_text(
            f'[state]\ndirectory = "{root}"\n[host]\nname = "{HOST}"\n'
            f'[elasticsearch]\nurl = "{url}"\nindex_prefix = "{prefix}"\n'
        )
        self.layout = StateLayout(root)
        self.store = SqliteAgentStore(self.layout.agent_db)
        self.said: list[str] = []

    def start(self) -> Telemetry:
        telemetry = start_telemetry(load_settings(self.config), self.layout, self.said.append)
        assert telemetry is not None
        return telemetry

    def everything(self) -> list[Signal]:
        return list(self.store.read_signals(after=0, limit=1_000_000))

    def is_shipped(self) -> bool:
        return self.store.acknowledged(READER) == max(signal.seq for signal in self.everything())


@pytest.fixture
def site(tmp_path: Path, server: ElasticServer, request: pytest.FixtureRequest) -> Iterator[Site]:
    made = Site(tmp_path, server.run("url"), f"t{abs(hash(request.node.name)) % 10**9}")
    yield made
    made.store.close()


def refresh(reader: Elasticsearch, prefix: str) -> None:
    """All that was written can be searched; an index that was just made has no shard to search yet."""
    reader.cluster.health(index=f"{prefix}-*", wait_for_status="yellow", timeout="25s")
    reader.indices.refresh(index=f"{prefix}-*")


def stored(reader: Elasticsearch, prefix: str) -> list[tuple[str, str]]:
    """(index, id) of every document, however many there are."""
    refresh(reader, prefix)
    point = reader.open_point_in_time(index=f"{prefix}-*", keep_alive="1m")["id"]
    found: list[tuple[str, str]] = []
    after: dict[str, Any] = {}
    while True:
        page = reader.search(
            pit={"id": point, "keep_alive": "1m"}, size=5_000, sort=[{"_shard_doc": "asc"}], source=False, **after
        )["hits"]["hits"]
        if not page:
            reader.close_point_in_time(id=point)
            return found
        found += [(hit["_index"], hit["_id"]) for hit in page]
        after = {"search_after": page[-1]["sort"]}


class Writer(threading.Thread):
    """Commits new signals until told to stop, as an agent does: matches over two years, and heartbeats."""

    def __init__(self, path: Path) -> None:
        super().__init__(name="writer")
        self._path, self._halt = path, threading.Event()
        self.made: set[str] = set()

    def run(self) -> None:
        store = SqliteAgentStore(self._path)
        try:
            number = 0
            while not self._halt.wait(0.1):
                batch = [
                    match_signal(f"m{number + i}", at=AT.replace(year=2025 + i % 2, month=1 + i % 3)) for i in range(9)
                ]
                batch.append(heartbeat_signal(host=HOST, at_utc=datetime.fromtimestamp(1.8e9 + number, UTC)))
                store.append_signals(batch)
                self.made |= {signal.id for signal in batch}
                number += 9
        finally:
            store.close()

    def end(self) -> None:
        self._halt.set()
        self.join()


def test_nothing_is_lost_or_doubled_while_server_and_shipper_are_killed(server, site, reader, tmp_path):
    log = tmp_path / "shipper.log"
    writer = Writer(site.layout.agent_db)
    writer.start()
    shipper = ship(site, log)
    try:
        for survives in (False, False, True):
            before = site.store.acknowledged(READER)
            wait_until(is_past(site, before + 200), timeout_s=90, what="shipping")
            server.run("kill")
            if not survives:
                shipper.kill()
                shipper.wait()
                shipper = ship(site, log)
            wait_until(lambda: changes(log)[-1:] == ["away"], what="away")
            server.run("restart")
            wait_until(lambda: changes(log)[-1:] == ["back"], timeout_s=90, what="back")
        heard = changes(log)
        shipper.kill()  # once more at any moment, with the server there
        shipper.wait()
        shipper = ship(site, log)
        writer.end()
        wait_until(site.is_shipped, timeout_s=90, what="the rest")
    finally:
        writer.end()
        shipper.kill()
        shipper.wait()
    found = stored(reader, site.prefix)
    ids = [identity for _, identity in found]
    signals = {signal.id for signal in site.everything()}
    assert len(writer.made) > 1_000
    assert writer.made <= signals
    assert len(ids) == len(set(ids)), "stored twice"
    assert set(ids) == signals
    assert len({index for index, _ in found}) == 8  # six months of matches, heartbeats, daemon records
    assert heard == ["away", "back", "away", "back"]


def changes(log: Path) -> list[str]:
    """What the shipper that writes this log said of the server, in order."""
    return re.findall(r"server (away|back)", log.read_text())


def ship(site: Site, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen([sys.executable, "-c", SHIP, str(site.config)], stdout=output)


def is_past(site: Site, seq: int) -> Callable[[], bool]:
    return lambda: site.store.acknowledged(READER) >= seq


def test_the_server_takes_every_hostile_document_and_finds_it_by_its_fields(site, server, reader):
    url = server.run("url")
    client = TelemetryServer(ServerSettings(url=url))
    try:
        assert client.put_template(template_name(site.prefix), index_template(site.prefix))
        signals = [of_fields(f"h{number}", fields) for number, fields in enumerate(HOSTILE.values())]
        signals += [of_fields("surrogates", SURROGATES), match_signal("year-1", at=datetime(1, 1, 1, tzinfo=UTC))]
        signals += [match_signal("year-9999", at=datetime(9999, 12, 31, tzinfo=UTC))]
        signals.append(match_signal("plain", source__ip="192.0.2.77", sshd__method="password", source__port=22))
        documents = [document(item, prefix=site.prefix, ingested_at=SystemClock().now()) for item in signals]
        for _ in range(2):  # the second time everything is there already
            assert client.create(documents) == {}
    finally:
        client.close()
    assert len(stored(reader, site.prefix)) == len(signals)
    for query in ('source.ip:"192.0.2.0/24"', 'breachwatch.fields.sshd.method:"password"', "source.port:[22 TO 22]"):
        hits = reader.search(index=f"{site.prefix}-*", q=f"({query}) AND _id:plain")["hits"]["hits"]
        assert [hit["_id"] for hit in hits] == ["plain"], query
    mapping = reader.indices.get_mapping(index=f"{site.prefix}-alerts-2026.03").body
    assert "sshd" not in str(mapping)


def test_a_document_that_the_mapping_refuses_is_recorded_and_holds_up_nothing(site, reader):
    mappings = {"properties": {"rule": {"properties": {"id": {"type": "long"}}}}}
    settings = {"index.mapping.ignore_malformed": False}
    reader.indices.create(index=f"{site.prefix}-alerts-2026.03", mappings=mappings, settings=settings)
    rules = {"good-1": "1", "bad": "not a number", "good-2": "2"}
    site.store.append_signals([match_signal(name, rule_id=rule) for name, rule in rules.items()])
    telemetry = site.start()
    try:
        wait_until(site.is_shipped, what="shipping")
    finally:
        telemetry.close()
    (record,) = [signal for signal in site.everything() if signal.action == "telemetry_refused"]
    assert "match bad: 400 document_parsing_exception" in record.detail
    assert "not a number" not in record.detail
    assert {identity for _, identity in stored(reader, site.prefix)} == {"good-1", "good-2", record.id}


def test_trouble_of_the_server_is_never_taken_for_a_fault_of_the_document(site, reader, server):
    reader.cluster.put_settings(persistent={"cluster.max_shards_per_node": 1})
    client = TelemetryServer(ServerSettings(url=server.run("url")))
    try:
        with pytest.raises(FleetError, match="400 validation_exception"):
            client.create([document(match_signal("m"), prefix=site.prefix, ingested_at=AT)])
    finally:
        reader.cluster.put_settings(persistent={"cluster.max_shards_per_node": None})
        client.close()


LOGIN = "Nov 26 10:00:0{} web01 sshd[1]: Failed password for root from 192.0.2.9 port 4{} ssh2\n"


@pytest.mark.parametrize("command", ["agent", "run"])
def test_a_log_line_reaches_the_server_and_the_daemon_stops_cleanly(command, server, reader, tmp_path):
    prefix = f"e2e-{command}"
    log = tmp_path / "auth.log"
    log.touch()
    installed = Installation(
        tmp_path,
        f'[[watch.logs]]\npath = "{log}"\nformat = "syslog"\n\n'
        f'[elasticsearch]\nurl = "{server.run("url")}"\nindex_prefix = "{prefix}"\n',
    )
    process = installed.start(command)
    try:
        wait_until((installed.state / "agent.alive").exists, timeout_s=60, what="the agent")
        with log.open("a") as file:
            file.writelines(LOGIN.format(number, number) for number in range(9))

        def has_arrived() -> bool:
            refresh(reader, prefix)
            query = 'rule.id:* AND source.ip:"192.0.2.9" AND event.kind:alert'
            found = reader.search(index=f"{prefix}-*", q=query)["hits"]["hits"]
            return any("Failed password for root" in hit["_source"]["message"] for hit in found)

        wait_until(has_arrived, timeout_s=60, what="the match in Elasticsearch")
        assert stop(process) == 0, installed.read_log()
    finally:
        kill_group(process)
    assert "telemetry" not in installed.read_log()
