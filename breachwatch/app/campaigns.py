"""Campaigns for people to look at: what waits, what was sent, to the byte."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from breachwatch.app.clock import SystemClock
from breachwatch.app.desk import NoticeDesk, open_desk
from breachwatch.app.operate import require_campaign
from breachwatch.app.state import StateLayout
from breachwatch.app.wiring import open_hub_store
from breachwatch.audit.vault import Vault
from breachwatch.config.settings import Settings
from breachwatch.errors import StoreError, VerificationError
from breachwatch.model import Campaign, Channel, Delivery, DeliveryState, OutgoingMessage, Person
from breachwatch.notify.campaign import FrozenNotice, preview
from breachwatch.store.hub import HubStore
from breachwatch.store.vault import SqliteVaultRows

SAMPLE_NAMES = {"vi": "Nguyễn Văn A", "en": "Jane Sample"}
"""Whom a preview is addressed to: nobody real, so that looking at a notice shows no contact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignView:
    """One campaign with how its deliveries stand."""

    campaign: Campaign
    deliveries: dict[str, int]


@dataclass(slots=True)
class CampaignDesk:
    """Reads campaigns, and builds their messages with the code that sends them."""

    store: HubStore
    desk: NoticeDesk
    rows: SqliteVaultRows
    vault: Vault

    @classmethod
    def open(cls, settings: Settings) -> CampaignDesk:
        """On this installation. Raises: StoreError, AuditError, TemplateError."""
        layout = StateLayout(Path(settings.state.directory))
        store = open_hub_store(settings)
        rows = SqliteVaultRows(layout.vault_db)
        return cls(store, open_desk(settings, layout), rows, Vault(rows, layout.keys))

    def close(self) -> None:
        """Release the files."""
        self.rows.close()
        self.store.close()

    def every(self, incident_id: str | None = None) -> list[CampaignView]:
        """Every campaign (of one incident), the most urgent first."""
        with self.store.reading() as view:
            return [
                CampaignView(
                    campaign=campaign,
                    deliveries={state.name.lower(): n for state, n in view.outbox.counts(campaign.id).items()},
                )
                for campaign in view.outbox.campaigns(incident_id=incident_id)
            ]

    def show(self, campaign_id: str) -> tuple[CampaignView, list[Delivery]]:
        """One campaign and the people whom no channel reached. Raises: IncidentError."""
        with self.store.reading() as view:
            campaign = require_campaign(view, campaign_id)
            counts = {state.name.lower(): n for state, n in view.outbox.counts(campaign_id).items()}
            return CampaignView(campaign=campaign, deliveries=counts), view.outbox.undeliverable(campaign_id)

    def preview(self, campaign_id: str) -> tuple[Campaign, list[OutgoingMessage]]:
        """The bytes for a person who does not exist, per language and channel. Raises: IncidentError, TemplateError."""
        with self.store.reading() as view:
            campaign = require_campaign(view, campaign_id)
            content = view.outbox.content(campaign_id)
        if sha256(content).hexdigest() != campaign.content_hash:
            raise VerificationError("the stored content is not what its hash says", source=campaign_id)
        notice = self.desk.renderer.open(content)
        return campaign, [
            self._sample(notice, campaign, language, channel)
            for language in sorted(notice.names)
            for channel in campaign.channels
        ]

    def _sample(self, notice: FrozenNotice, campaign: Campaign, language: str, channel: Channel) -> OutgoingMessage:
        person = Person(
            ref="sample",
            name=SAMPLE_NAMES.get(language, SAMPLE_NAMES["en"]),
            email="sample@recipient.invalid",
            phone="+10000000000",
            language=language,
            extra={"chat": "sample"},
        )
        return preview(
            self.desk.renderer,
            notice,
            campaign_id=campaign.id,
            person_id="sample",
            person=person,
            channel=channel,
            date=SystemClock().now(),
        )

    def export(self, campaign_id: str, folder: Path) -> Iterator[tuple[Path, bool]]:
        """Write every message that was sent, built again; with each, whether its bytes are those recorded as sent.

        Raises: IncidentError, TemplateError, StoreError.
        """
        with self.store.reading() as view:
            campaign = require_campaign(view, campaign_id)
            notice = self.desk.renderer.open(view.outbox.content(campaign_id))
            sent = [row for row in view.outbox.deliveries(campaign_id, [DeliveryState.ACCEPTED]) if row.sent_at]
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for row in sent:
                person = self.vault.get([row.person_id]).get(row.person_id)
                if person is None or row.sent_at is None:
                    continue  # erased: their notice is gone with them, its hash stays in the trail
                message = preview(
                    self.desk.renderer,
                    notice,
                    campaign_id=campaign.id,
                    person_id=row.person_id,
                    person=person,
                    channel=row.channel,
                    date=row.sent_at,
                )
                path = folder / f"{row.person_id}.{'eml' if row.channel is Channel.EMAIL else f'{row.channel}.txt'}"
                path.write_bytes(message.payload)
                yield path, sha256(message.payload).hexdigest() == row.sent_sha256
        except OSError as error:
            raise StoreError(f"cannot write the export: {error.strerror}", source=str(folder)) from error


def campaign_object(view: CampaignView) -> dict[str, object]:
    """The `campaign` line of `--json`."""
    campaign = view.campaign
    return {
        "kind": "campaign",
        "id": campaign.id,
        "incident": campaign.incident_id,
        "step": campaign.step,
        "notice": str(campaign.kind),
        "state": str(campaign.state),
        "content_hash": campaign.content_hash,
        "audience_count": campaign.audience_count,
        "channels": [str(channel) for channel in campaign.channels],
        "created_at": campaign.created_at.isoformat(),
        "created_by": campaign.created_by,
        "deliveries": view.deliveries,
    }
