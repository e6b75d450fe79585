"""A hub of a test's own: real configuration, SQLite files and outbox, a clock that only the test moves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from breachwatch.app.hub import Hub
from breachwatch.app.operate import Actor, Operations
from breachwatch.app.state import StateLayout, prepare_state
from breachwatch.config.settings import load_settings
from breachwatch.model import (
    Campaign,
    CampaignState,
    DeliveryState,
    Event,
    IncidentState,
    Level,
    LogSource,
    Match,
    RuleRef,
    Signal,
    SignalKind,
    StepRun,
)
from breachwatch.store.agent import SqliteAgentStore
from tests.conftest import FakeClock
from tests.notify.installation import LETTERHEAD

PLAYBOOK = """\
playbook: mine
version: 1
title: Personal-data breach
applies: {when: 'incident.severity >= "high"'}
escalation:
- {to: security, via: [email], wait: 5m}
- {to: management, via: [email], wait: 10m, repeat: 2}
clocks: []
on_confirm:
- id: authority
  notice: {kind: authority, to: sa, templates: {en: authority}, channels: [email]}
  approve: {need: 1, roles: [dpo], not: [requester]}
- id: customers
  notice: {kind: customers, audience: customers, templates: {en: customer, vi: customer}, channels: [email]}
  needs: [authority]
  approve: {need: 1, roles: [dpo], not: [requester]}
"""

CONFIG = """
[state]
directory = "{root}/state"

[host]
name = "web01"

[playbooks]
directories = ["{root}/playbooks"]
use = ["mine"]

[smtp]
host = "127.0.0.1"
port = {port}
tls = "none"
sender = "security@shop.example"

[[team.people]]
name = "linh"
email = "linh@shop.example"
roles = ["analyst", "dpo"]

[[team.people]]
name = "quang"
email = "quang@shop.example"
roles = ["dpo"]

[team.groups]
security = ["linh"]
management = ["quang"]

[authorities.sa]
name = "Authority"
email = "authority@sa.example"

[audiences.customers]
csv = "{root}/customers.csv"

[letterhead]
"""

FACTS = {
    "inc.description": "An outsider placed a web shell.", "data.categories": "name, e-mail", "data.records": "3",
    "eff.consequences": "Unwanted calls.", "act.done": "Server isolated.", "act.planned": "A review.",
    "advice.protect": "Be careful.", "inc.place": "The shop.", "inc.actors": "Unknown.", "subj.count": "3",
}  # fmt: skip

LINH = Actor(name="linh", os_user="test", roles=frozenset({"analyst", "dpo"}))
QUANG = Actor(name="quang", os_user="test", roles=frozenset({"dpo"}))


@dataclass
class Desk:
    """The hub, what people do to it, and what it says."""

    root: Path
    port: int = 1
    clock: FakeClock = field(default_factory=FakeClock)
    said: list[str] = field(default_factory=list)
    change: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.root / "playbooks").mkdir()
        (self.root / "playbooks" / "mine.yaml").write_text(PLAYBOOK)
        if not (self.root / "customers.csv").exists():
            people = "".join(f"KH-{n},Khách {n},kh{n}@customers.example\n" for n in range(3))
            (self.root / "customers.csv").write_text("id,name,email\n" + people, encoding="utf-8")
        self.config = self.root / "breachwatch.toml"
        letterhead = "".join(f'{name} = "{value}"\n' for name, value in LETTERHEAD.items())
        text = CONFIG.format(root=self.root, port=self.port) + letterhead
        for old, new in self.change.items():
            assert old in text
            text = text.replace(old, new)
        self.config.write_text(text, encoding="utf-8")
        self.layout: StateLayout = prepare_state(self.root / "state")
        self.open()

    def open(self) -> None:
        self.hub = Hub(load_settings(self.config), self.layout, self.clock, self.said.append)
        self.verbs = Operations(self.hub.store, self.clock)

    def close(self) -> None:
        self.hub.close()

    # -- what happens ---------------------------------------------------------------------------------------------

    def break_in(self, address: str = "203.0.113.66") -> str:
        """What an agent says of a web shell; gives the incident that opens."""
        before = set(self.incidents())
        event = Event(
            id=f"e-{address}", at_utc=self.clock.now(), logsource=LogSource("linux", "", "sshd"),
            fields={"source.ip": address, "host.name": "web01"},
        )  # fmt: skip
        rule = RuleRef(id="r-test", title="Web shell", level=Level.CRITICAL, group_by=("source.ip",))
        match = Match(id=f"m-{address}", rule=rule, event=event)
        store = SqliteAgentStore(self.layout.agent_db)
        store.append_signals(
            [Signal(id=match.id, kind=SignalKind.MATCH, at_utc=event.at_utc, host="web01", match=match)]
        )
        store.close()
        self.settle()
        (opened,) = set(self.incidents()) - before
        return opened

    def settle(self) -> None:
        """Let the hub do everything it can do now."""
        for _ in range(50):
            if self.hub.tick() == 0:
                return
        raise AssertionError("the hub never comes to rest")

    def send(self, condition: Callable[[], bool], what: str) -> None:
        """Let the outbox work until something is so."""
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come true"
            if self.hub._engine.tick() == 0:
                time.sleep(0.005)
            self.settle()

    def confirm(self, incident: str, facts: Mapping[str, str] = FACTS) -> None:
        """Linh takes note, states facts and confirms: the requester of the notices."""
        self.verbs.change_state(incident, IncidentState.ACKNOWLEDGED, actor=LINH, reason="")
        if facts:
            self.verbs.note(incident, "", actor=LINH, facts=facts)
        self.verbs.change_state(incident, IncidentState.CONFIRMED, actor=LINH, reason="")
        self.settle()

    def approve(self, campaign: Campaign, actor: Actor = QUANG) -> None:
        self.verbs.approve(campaign.id, campaign.content_hash, actor=actor)

    # -- what is so -----------------------------------------------------------------------------------------------

    def incidents(self) -> list[str]:
        with self.hub.store.reading() as view:
            return sorted(view.incidents.revisions(frozenset(IncidentState)))

    def campaigns(self, incident: str, step: str | None = None) -> list[Campaign]:
        with self.hub.store.reading() as view:
            found = view.outbox.campaigns(incident_id=incident, step=step)
        return sorted(found, key=lambda one: one.created_at)

    def draft(self, incident: str, step: str) -> Campaign:
        """The one campaign of a step that awaits approval."""
        found = self.campaigns(incident, f"mine/{step}")
        (waiting,) = [one for one in found if one.state is CampaignState.AWAITING_APPROVAL]
        return waiting

    def step(self, incident: str, name: str) -> StepRun:
        with self.hub.store.reading() as view:
            return view.steps.latest(incident)[f"mine/{name}"]

    def counts(self, campaign: Campaign) -> dict[DeliveryState, int]:
        with self.hub.store.reading() as view:
            return dict(view.outbox.counts(campaign.id))

    def history(self, incident: str) -> list[str]:
        with self.hub.store.reading() as view:
            return [change.reason for change in view.incidents.changes(incident)]

    def trail(self) -> list[str]:
        """Types of the entries, in order."""
        with self.hub.store.reading() as view:
            tiles = view.audit_tiles
            return [json.loads(entry)["type"] for entry in tiles.entries(0, tiles.size())]
