"""A campaign on disk for tests: hub database, vault, frozen notice; and a process that sends it and can be killed.

python -m tests.notify.installation FOLDER SMTP_PORT [HTTP_PORT]
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from breachwatch.app.clock import SystemClock
from breachwatch.audit.keys import load_or_create_signer
from breachwatch.audit.log import TransparencyLog
from breachwatch.audit.vault import Vault
from breachwatch.model import Campaign, CampaignKind, CampaignState, Channel, Person
from breachwatch.notify.campaign import FrozenNotice, NoticeRenderer, first_deliveries, freeze
from breachwatch.notify.channels.email import SmtpChannel, SmtpSettings
from breachwatch.notify.channels.sms import SmsGatewayChannel, SmsSettings
from breachwatch.notify.outbox import OutboxEngine
from breachwatch.notify.template import load_templates
from breachwatch.ports import ChannelSender
from breachwatch.store.database import metadata, open_database, sqlite_url
from breachwatch.store.hub import HubStore
from breachwatch.store.vault import SqliteVaultRows

LETTERHEAD = {
    "name": "Cửa hàng Mẫu JSC", "address": "1 Example Street, Hà Nội", "registration": "0100000000",
    "tax_code": "0100000000", "hotline": "1900 0000", "email": "privacy@shop.example",
    "website": "https://shop.example", "privacy_contact": "Data protection officer, privacy@shop.example",
    "signatory": "Director", "verify_url": "https://shop.example/incident",
}  # fmt: skip
FACTS = {
    "inc.reference": "INC-2026-000001", "inc.title": "SSH break-in", "inc.severity": "critical",
    "inc.detected": "2026-01-05 08:00 UTC", "inc.occurred": "2026-01-05 07:58 UTC", "inc.place": "shop01",
    "inc.description": "An outsider logged in over SSH & placed a <web shell>.", "inc.actors": "Unknown outsider",
    "data.categories": "name, e-mail address", "data.records": "2000", "subj.count": "2000",
    "eff.consequences": "Unwanted calls.", "act.done": "The server was taken off the network.",
    "act.planned": "An outside review.", "advice.protect": "Hãy cẩn thận với cuộc gọi lạ.",
}  # fmt: skip
NOW = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)


class Installed:
    """Stores, vault and renderer on one folder; opening it again is a restart."""

    def __init__(self, folder: Path) -> None:
        keys = folder / "keys"
        keys.mkdir(mode=0o700, exist_ok=True)
        self.db = open_database(sqlite_url(folder / "hub.db"))
        metadata.create_all(self.db)
        self.signer = load_or_create_signer(keys, "test.invalid/hub")
        self.store = HubStore(self.db, TransparencyLog(self.signer))
        self.rows = SqliteVaultRows(folder / "vault.db")
        self.vault = Vault(self.rows, keys)
        self.renderer = NoticeRenderer(key=b"k" * 32, domain="shop.example")

    def add(
        self,
        people: Sequence[Person],
        *,
        campaign_id: str = "c1",
        kind: CampaignKind = CampaignKind.CUSTOMERS,
        name: str = "customer",
        channels: Sequence[Channel] = (Channel.EMAIL, Channel.SMS),
        state: CampaignState = CampaignState.RUNNING,
        now: datetime = NOW,
        every: bool = False,
    ) -> FrozenNotice:
        """A campaign to these people, enqueued."""
        ids = self.vault.put(people)
        notice = freeze(
            templates=load_templates(), names={"vi": name, "en": name}, letterhead=LETTERHEAD, facts=FACTS,
            person_ids=ids, channels=channels, sender="security@shop.example", sender_name="Cửa hàng Mẫu",
            reply_to="privacy@shop.example",
        )  # fmt: skip
        campaign = Campaign(
            id=campaign_id, incident_id="INC-2026-000001", step="p/customers", kind=kind, state=state,
            content_hash=notice.content_hash, audience_count=len(people), channels=tuple(channels), created_at=now,
            created_by="usr:linh",
        )  # fmt: skip
        with self.store.transaction() as tx:
            tx.outbox.add_campaign(campaign, notice.content)
            rows = [
                row
                for person_id, person in zip(ids, people, strict=True)
                for row in first_deliveries(self.renderer, campaign, person_id, person, now=now, every=every)
            ]
            tx.outbox.add_deliveries(rows)
        return notice

    def entries(self) -> Iterable[Mapping[str, object]]:
        """The audit trail as documents."""
        import json

        with self.store.reading() as view:
            trail = view.audit_tiles
            return [json.loads(entry) for entry in trail.entries(0, trail.size())]

    def close(self) -> None:
        self.rows.close()
        self.db.dispose()


def people(count: int) -> list[Person]:
    """Customers with an e-mail address and a telephone each."""
    return [
        Person(
            ref=f"KH-{number}", name=f"Nguyễn Văn {number}", email=f"kh{number}@customers.example",
            phone=f"+849{number:08d}", language="vi" if number % 2 else "en",
        )
        for number in range(count)
    ]  # fmt: skip


def channels(smtp_port: int, http_port: int = 0, timeout_s: float = 30.0) -> dict[Channel, type[ChannelSender]]:
    """Factories for the sinks on these ports."""
    smtp = SmtpSettings(
        host="127.0.0.1", port=smtp_port, tls="none", sender="security@shop.example", timeout_s=timeout_s
    )
    made: dict[Channel, object] = {Channel.EMAIL: lambda: SmtpChannel(smtp)}
    if http_port:
        sms = SmsSettings(url=f"http://127.0.0.1:{http_port}/sms", timeout_s=timeout_s)
        made[Channel.SMS] = lambda: SmsGatewayChannel(sms)
    return made  # type: ignore[return-value]


def main(folder: Path, smtp_port: int, http_port: int) -> None:
    """Send until told to stop."""
    installed = Installed(folder)
    clock = SystemClock()
    worker = f"hub-{os.getpid()}-{clock.now().timestamp()}"
    engine = OutboxEngine(
        installed.store, installed.vault, channels(smtp_port, http_port), installed.renderer, clock=clock,
        worker_id=worker,
    )  # fmt: skip
    engine.recover()
    stop, wake = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: (stop.set(), wake.set()))  # type: ignore[func-returns-value]
    engine.run(stop, wake)
    engine.close()
    installed.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
