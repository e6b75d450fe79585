"""What people do: acknowledge, confirm, dismiss, approve, pause. Used by the command line (and later the console).

Every change is one transaction with its audit entry. Reasons and notes are free text: the trail holds their SHA-256,
the incident history the words.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from breachwatch.app.ingest import digest
from breachwatch.errors import ApprovalError, IncidentError, UsageError
from breachwatch.incident.lifecycle import transition
from breachwatch.model import (
    Campaign,
    CampaignKind,
    CampaignState,
    Entry,
    Incident,
    IncidentState,
    StateChange,
    StepRun,
    StepState,
)
from breachwatch.playbook.plan import check_approval, is_approved, is_escalation
from breachwatch.ports import Clock
from breachwatch.store.hub import HubStore, HubTransaction

_OVER = frozenset({IncidentState.CLOSED, IncidentState.DISMISSED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who does it: the person by name, and the account of the operating system that typed it."""

    name: str
    os_user: str
    roles: frozenset[str] = frozenset()

    @property
    def label(self) -> str:
        """As audit entries name them."""
        return f"usr:{self.name}"


@dataclass(slots=True)
class Operations:
    """The verbs of `breachwatch incident`, `playbook` and `notice`."""

    store: HubStore
    clock: Clock

    def change_state(self, incident_id: str, to: IncidentState, *, actor: Actor, reason: str) -> Incident:
        """Move an incident along its life. Raises: IncidentError, StoreError."""
        with self.store.transaction() as tx:
            incident = require_incident(tx, incident_id)
            now = self.clock.now()
            changed, change = transition(incident, to, actor=actor.label, reason=reason, now=now)
            tx.incidents.save(changed)
            tx.incidents.add_change(change)
            _end_pages(tx, changed, actor, now)
            tx.audit(
                Entry(
                    type=f"incident.{to}",
                    at_utc=now,
                    actor=actor.label,
                    incident_id=incident.id,
                    body={
                        "before": str(incident.state),
                        "after": str(to),
                        "reason_sha256": digest(reason),
                        "os_user": actor.os_user,
                    },
                )
            )
        return changed

    def note(self, incident_id: str, text: str, *, actor: Actor, facts: Mapping[str, str]) -> None:
        """Add words and facts to an incident. Raises: IncidentError, StoreError."""
        if not text and not facts:
            raise UsageError("nothing to note", hint="give a text or --fact NAME=VALUE")
        with self.store.transaction() as tx:
            incident = require_incident(tx, incident_id)
            now = self.clock.now()
            if text:
                self._change(tx, incident_id, actor, now, kind="note", reason=text)
                tx.audit(_entry("incident.note", now, actor, incident_id, text_sha256=digest(text)))
            for name, value in facts.items():
                tx.incidents.set_fact(incident_id, name, value, source=actor.label, at=now)
                self._change(tx, incident_id, actor, now, kind="fact", reason=f"{name}={value}")
                tx.audit(_entry("incident.fact", now, actor, incident_id, fact=name, value_sha256=digest(value)))
            if facts:
                tx.incidents.save(incident)  # a new revision: what was drafted from other facts is looked at again
                _hurry(tx, incident_id, now)

    def _change(
        self, tx: HubTransaction, incident_id: str, actor: Actor, now: datetime, *, kind: str, reason: str
    ) -> None:
        tx.incidents.add_change(
            StateChange(incident_id=incident_id, at_utc=now, actor=actor.label, kind=kind, reason=reason)
        )

    def approve(self, campaign_id: str, content_hash: str, *, actor: Actor) -> tuple[int, int]:
        """Approve exactly the content with this hash; returns how many approvals it has now, and how many it needs.

        Raises: ApprovalError (own request, wrong role, content changed since), StoreError.
        """
        with self.store.transaction() as tx:
            campaign = require_campaign(tx, campaign_id)
            if campaign.state is not CampaignState.AWAITING_APPROVAL:
                raise ApprovalError(f"campaign is {campaign.state}, not awaiting approval", source=campaign_id)
            if not hmac.compare_digest(content_hash.encode(), campaign.content_hash.encode()):
                raise ApprovalError(
                    "the content is not what was previewed",
                    source=campaign_id,
                    hint="run `breachwatch playbook preview` again and approve the hash it prints",
                )
            incident = require_incident(tx, campaign.incident_id)
            if incident.state in _OVER:
                raise ApprovalError(f"its incident is {incident.state}: nothing of it leaves", source=campaign_id)
            run = _awaiting(tx, campaign)
            need, roles = int(run.output.get("need") or 1), str(run.output.get("roles") or "").split(",")
            given = {approval.approver for approval in tx.steps.approvals(campaign_id, content_hash)}
            check_approval(
                campaign_id, approver=actor.label, roles=actor.roles, requester=campaign.created_by, given=given,
                allowed_roles=roles,
            )  # fmt: skip
            now = self.clock.now()
            tx.steps.add_approval(campaign_id, content_hash, actor.label, now, actor.os_user)
            tx.audit(
                _entry(
                    "notice.approved",
                    now,
                    actor,
                    campaign.incident_id,
                    campaign=campaign_id,
                    content=content_hash,
                    os_user=actor.os_user,
                )
            )
            if is_approved(need, campaign.created_by, {*given, actor.label}):
                tx.steps.put(replace(run, state=StepState.APPROVED, at_utc=now))
            return len(given) + 1, need

    def set_campaign(self, campaign_id: str, to: CampaignState, *, actor: Actor, reason: str) -> Campaign:
        """Pause, resume or cancel. Raises: IncidentError, StoreError."""
        allowed = {
            CampaignState.PAUSED: {CampaignState.RUNNING},
            CampaignState.RUNNING: {CampaignState.PAUSED},
            CampaignState.CANCELLED: {
                CampaignState.AWAITING_APPROVAL,
                CampaignState.RUNNING,
                CampaignState.PAUSED,
            },
        }[to]
        with self.store.transaction() as tx:
            campaign = require_campaign(tx, campaign_id)
            if campaign.state not in allowed:
                raise IncidentError(f"campaign is {campaign.state} and cannot become {to}", source=campaign_id)
            now = self.clock.now()
            tx.outbox.set_campaign_state(campaign_id, to)
            incident = require_incident(tx, campaign.incident_id)
            tx.incidents.save(incident)
            self._change(tx, incident.id, actor, now, kind="notice", reason=f"{campaign_id} {to}: {reason}")
            tx.audit(
                _entry(
                    f"campaign.{to}",
                    now,
                    actor,
                    campaign.incident_id,
                    campaign=campaign_id,
                    reason_sha256=digest(reason),
                )
            )
            return campaign


def _awaiting(tx: HubTransaction, campaign: Campaign) -> StepRun:
    """The step that waits for approval of this campaign. Raises: ApprovalError."""
    run = tx.steps.get(campaign.incident_id, campaign.step)
    if run is None or run.state is not StepState.PREPARED or run.output.get("campaign") != campaign.id:
        raise ApprovalError("nothing waits for this approval any more", source=campaign.id)
    return run


def _end_pages(tx: HubTransaction, incident: Incident, actor: Actor, now: datetime) -> None:
    """Once somebody answers, nobody else is called; once it is over, no clock is warned of either."""
    if incident.state is IncidentState.OPEN:
        return
    for campaign in tx.outbox.campaigns([CampaignState.RUNNING, CampaignState.PAUSED], incident_id=incident.id):
        if campaign.kind is CampaignKind.PAGE and (incident.state in _OVER or is_escalation(campaign.step)):
            tx.outbox.set_campaign_state(campaign.id, CampaignState.CANCELLED)
            tx.audit(_entry("campaign.cancelled", now, actor, incident.id, campaign=campaign.id, step=campaign.step))


def _hurry(tx: HubTransaction, incident_id: str, now: datetime) -> None:
    """Notices that waited for facts are tried now."""
    for run in tx.steps.latest(incident_id).values():
        if run.state is StepState.WAITING:
            tx.steps.put(replace(run, due_at=now))


def _entry(kind: str, now: datetime, actor: Actor, incident_id: str, **body: str) -> Entry:
    return Entry(type=kind, at_utc=now, actor=actor.label, incident_id=incident_id, body=dict(body))


def require_incident(tx: HubTransaction, incident_id: str) -> Incident:
    """The incident, or an error that says how to find one. Raises: IncidentError."""
    incident = tx.incidents.get(incident_id)
    if incident is None:
        raise IncidentError("no such incident", source=incident_id, hint="`breachwatch incident list` shows them")
    return incident


def require_campaign(tx: HubTransaction, campaign_id: str) -> Campaign:
    """The campaign, or an error that says how to find one. Raises: IncidentError."""
    campaign = tx.outbox.campaign(campaign_id)
    if campaign is None:
        raise IncidentError("no such campaign", source=campaign_id, hint="`breachwatch notice list` shows them")
    return campaign
