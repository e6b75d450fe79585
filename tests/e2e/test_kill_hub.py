"""A campaign to 10,000 people under twenty kill -9 of the hub, through the command line and real processes."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select

from breachwatch.model import Event, Level, LogSource, Match, RuleRef, Signal, SignalKind
from breachwatch.store.agent import SqliteAgentStore
from breachwatch.store.audit import SqlAuditTiles
from breachwatch.store.database import open_database, sqlite_url
from breachwatch.store.outbox import campaign_table, delivery_table
from tests.e2e.harness import Installation, stop, wait_until
from tests.sinks import index, sink

PEOPLE = 10_000
KILLS = 20
WINDOW = 100
"""`max_unrecorded` of the engine: what one kill can send twice."""

CONFIG = """
[playbooks]
use = ["eu-gdpr"]

[smtp]
host = "127.0.0.1"
port = {port}
tls = "none"
sender = "security@shop.example"

[[team.people]]
name = "linh"
email = "linh@shop.example"
roles = ["analyst"]

[[team.people]]
name = "quang"
email = "quang@shop.example"
roles = ["dpo"]

[team.groups]
security = ["linh"]
management = ["quang"]

[letterhead]
name = "Example Shop JSC"
address = "1 Example Street"
registration = "0100000000"
tax_code = "0100000000"
hotline = "1900 0000"
email = "privacy@shop.example"
website = "https://shop.example"
privacy_contact = "Data protection officer, privacy@shop.example"
signatory = "Director"
verify_url = "https://shop.example/incident"

[authorities.eu-lead-sa]
name = "Authority"
email = "authority@sa.example"

[audiences.customers]
csv = "{csv}"
"""

FACTS = {
    "inc.description": "An outsider placed a web shell.", "data.categories": "name, e-mail", "data.records": "10000",
    "eff.consequences": "Unwanted calls.", "act.done": "Server isolated.", "act.planned": "A review.",
    "advice.protect": "Be careful.", "inc.place": "The shop.", "inc.actors": "Unknown.",
}  # fmt: skip


def a_break_in(state: Path) -> None:
    """What an agent would have said."""
    now = datetime.now(UTC)
    event = Event(
        id="e1", at_utc=now, logsource=LogSource("linux", "", "sshd"),
        fields={"source.ip": "203.0.113.66", "host.name": "web01"},
    )  # fmt: skip
    rule = RuleRef(id="r-test", title="Web shell", level=Level.CRITICAL, group_by=("source.ip",))
    match = Match(id="m-test", rule=rule, event=event)
    store = SqliteAgentStore(state / "agent.db")
    store.append_signals([Signal(id=match.id, kind=SignalKind.MATCH, at_utc=now, host="web01", match=match)])
    store.close()


def campaigns(installed: Installation) -> dict[str, dict[str, object]]:
    return {str(item["notice"]): item for item in installed.json("notice", "list") if item["state"] != "cancelled"}


@pytest.mark.timeout(400)
@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("LONG_TESTS"), reason="long: set LONG_TESTS=1")
def test_ten_thousand_people_are_told_once_under_twenty_kills(tmp_path: Path) -> None:
    csv = tmp_path / "customers.csv"
    rows = "".join(f"KH-{n},Nguyễn Văn {n},kh{n}@customers.example,\n" for n in range(PEOPLE))
    csv.write_text("id,name,email,phone\n" + rows, encoding="utf-8")
    with sink("smtp", tmp_path / "sink") as port:
        installed = Installation(tmp_path, CONFIG.format(port=port, csv=csv))
        installed.state.mkdir(mode=0o700)
        a_break_in(installed.state)
        process = installed.start("hub")
        try:
            process = story(installed, process, tmp_path / "sink")
        finally:
            assert stop(process) == 0, installed.read_log()
    people = Counter(str(to) for item in index(tmp_path / "sink") for to in item["to"])  # type: ignore[attr-defined]
    customers = {address for address in people if address.endswith("@customers.example")}
    assert len(customers) == PEOPLE, "somebody was missed"
    copies = sum(people[address] for address in customers) - PEOPLE
    assert copies <= KILLS * WINDOW
    ids = {str(item["message_id"]) for item in index(tmp_path / "sink") if customers & set(item["to"])}  # type: ignore[call-overload]
    assert len(ids) == PEOPLE, "a copy went out under another Message-ID"
    print(f"{KILLS} kills, {copies} copies")
    assert campaigns(installed)["customers"]["deliveries"] == {"accepted": PEOPLE}
    installed.call("audit", "verify")
    assert ids == delivered(installed.state / "hub.db")


def delivered(database: Path) -> set[str]:
    """Message ids of customers that the trail says were accepted, each after an intent of its own."""
    engine = open_database(sqlite_url(database))
    intended: set[str] = set()
    accepted: set[str] = set()
    with engine.connect() as plain:
        tiles = SqlAuditTiles(plain.execution_options(reads_only=True))
        for data in tiles.entries(0, tiles.size()):
            entry = json.loads(data)
            if entry["type"] == "notify.intent":
                intended.add(entry["body"]["message_id"])
            elif entry["type"] == "notify.outcome":
                assert entry["body"]["message_id"] in intended
                if entry["body"]["result"] == "accepted":
                    accepted.add(entry["body"]["message_id"])
        customers = select(delivery_table.c.message_id).join(campaign_table).where(campaign_table.c.kind == "customers")
        ours = set(plain.scalars(customers))
    engine.dispose()
    return accepted & ours


def story(installed: Installation, process, sunk: Path):
    """Confirm, approve, and kill the hub again and again while it sends; returns the process that is left."""
    wait_until(lambda: bool(installed.json("incident", "list")), what="the incident opens")
    incident = str(installed.json("incident", "list")[0]["id"])
    installed.call("incident", "ack", incident, "--as", "linh")
    facts = [part for name, value in FACTS.items() for part in ("--fact", f"{name}={value}")]
    installed.call("incident", "confirm", incident, "--as", "linh", *facts)
    awaiting = "awaiting_approval"
    wait_until(
        lambda: [campaigns(installed).get(kind, {}).get("state") for kind in ("authority", "customers")]
        == [awaiting] * 2,
        timeout_s=60, what="both notices are prepared",
    )  # fmt: skip
    prepared = campaigns(installed)["customers"]
    refused = ("playbook", "approve", str(prepared["id"]), "--hash", str(prepared["content_hash"]), "--as", "linh")
    installed.call(*refused, check=(3,))
    for kind in ("authority", "customers"):
        item = campaigns(installed)[kind]
        installed.call("playbook", "approve", str(item["id"]), "--hash", str(item["content_hash"]), "--as", "quang")
    chance = random.Random(7)
    for _ in range(KILLS):
        wanted = len(index(sunk)) + chance.randrange(20, PEOPLE // KILLS - 100)
        deadline = time.monotonic() + 20
        while len(index(sunk)) < wanted and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process = installed.start("hub")
    wait_until(lambda: campaigns(installed)["customers"]["state"] == "done", timeout_s=90, what="everybody is told")
    wait_until(lambda: installed.json("incident", "list")[0]["state"] == "notified", what="the incident is notified")
    return process
