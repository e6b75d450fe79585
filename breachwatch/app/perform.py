"""Playbook actions performed: pages leave, notices are prepared, approved campaigns start. The hub's second half.

The planner returns data; here it becomes rows. Each effect is one transaction with its audit entries, and the step row
written in it makes a second performance impossible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import blake2b, sha256
from typing import assert_never

from breachwatch.app.addressees import Addressees
from breachwatch.app.desk import NoticeDesk, facts_digest, in_words, incident_facts
from breachwatch.app.ingest import digest
from breachwatch.errors import AudienceError, TemplateError, VerificationError
from breachwatch.incident.lifecycle import transition
from breachwatch.model import (
    Campaign,
    CampaignKind,
    CampaignState,
    Channel,
    Entry,
    Incident,
    IncidentState,
    Person,
    StateChange,
    StepRun,
    StepState,
    StepValue,
)
from breachwatch.model.audit import EntryValue
from breachwatch.model.contact import AudienceProblem
from breachwatch.notify.campaign import address_of, first_deliveries
from breachwatch.playbook.actions import (
    Action,
    MarkNotified,
    MarkNotifying,
    PageTeam,
    PrepareNotice,
    StartCampaign,
    WarnClock,
)
from breachwatch.playbook.plan import is_approved, recorded
from breachwatch.ports import Clock, ContactVault
from breachwatch.store.hub import HubStore, HubTransaction

BATCH = 2_000
"""People put into the vault and the outbox at a time."""

TRY_AGAIN = timedelta(seconds=60)
"""When a notice that could not be prepared is tried again, unless facts are stated before."""

SHOWN_PROBLEMS = 20
"""Unusable rows of an audience that are named in the incident's history; all of them are counted."""

PAGE_TEMPLATES = {"vi": "page", "en": "page"}
PAGE_CHANNELS = (Channel.CHAT, Channel.EMAIL, Channel.SMS)


@dataclass(slots=True)
class _Gathered:
    """An audience as read: people in the vault, and the rows that make nobody."""

    ids: list[str] = field(default_factory=list)
    problems: int = 0
    shown: list[str] = field(default_factory=list)

    def take(self, problem: AudienceProblem) -> None:
        """Count a problem; the first ones are kept in words. They never hold a contact."""
        self.problems += 1
        if len(self.shown) < SHOWN_PROBLEMS:
            self.shown.append(f"{problem.source}: {problem.reason}")


@dataclass(slots=True)
class Performer:
    """Has actions done on this installation."""

    store: HubStore
    vault: ContactVault
    addressees: Addressees
    desk: NoticeDesk
    clock: Clock
    say: Callable[[str], None]

    def perform(self, action: Action, incident: Incident) -> None:
        """Do one action, once. Raises: StoreError, AuditError (then nothing of it happened)."""
        run = recorded(action, incident, now=self.clock.now())
        match action:
            case PageTeam():
                assert run is not None
                self._page(incident, run, action.to, action.via, {})
            case WarnClock():
                assert run is not None
                self._page(incident, run, action.to, action.via, {"note.page": _warning(action)})
            case PrepareNotice():
                assert run is not None
                self._prepare(incident, run, action)
            case StartCampaign():
                self._start(incident, action.step)
            case MarkNotifying():
                self._mark(incident, IncidentState.NOTIFYING, "approved notices begin to leave")
            case MarkNotified():
                self._mark(incident, IncidentState.NOTIFIED, "every notice is done")
            case _:
                assert_never(action)

    # -- pages ----------------------------------------------------------------------------------------------------

    def _page(self, incident: Incident, run: StepRun, to: str, via: Sequence[Channel], more: dict[str, str]) -> None:
        people, channels = self._reachable(to, via)
        if not people:
            why = "nobody of the team has an address on a channel that is set up"
            self._give_up(incident, run, f"nobody could be paged: {why}")
            return
        ids = self.vault.put(people)
        try:
            notice = self.desk.freeze(PAGE_TEMPLATES, incident_facts(incident, more), ids, channels)
        except TemplateError as error:
            self._give_up(incident, run, f"nobody could be paged: {error}")
            return
        now = self.clock.now()
        campaign = Campaign(
            id=campaign_id(incident.id, run.step, run.n),
            incident_id=incident.id,
            step=run.step,
            kind=CampaignKind.PAGE,
            state=CampaignState.RUNNING,
            content_hash=notice.content_hash,
            audience_count=len(people),
            channels=channels,
            created_at=now,
            created_by="system",
        )
        with self.store.transaction() as tx:
            present = tx.incidents.get(incident.id)
            if present is None or present.state is not incident.state:
                return  # somebody answered meanwhile: the playbook is asked anew
            if not tx.steps.add(replace(run, output={"campaign": campaign.id, "to": to})):
                return
            tx.outbox.add_campaign(campaign, notice.content)
            for person_id, person in zip(ids, people, strict=True):
                rows = first_deliveries(self.desk.renderer, campaign, person_id, person, now=now, every=True)
                tx.outbox.add_deliveries(rows)
            body: dict[str, EntryValue] = {"step": run.step, "n": run.n, "to": to, "campaign": campaign.id}
            tx.audit(_entry("page.called", now, incident, **body))
            self._note(tx, incident, now, "page", f"{to} called ({run.step}, {run.n})")

    def _reachable(self, to: str, via: Sequence[Channel]) -> tuple[list[Person], tuple[Channel, ...]]:
        """Who is meant, by the playbook's channels or else by any; where none of them can be reached, everybody."""
        known, team = self.addressees, self.addressees.team(to)
        for people, wanted in ((team, via), (team, PAGE_CHANNELS), (known.everybody(), PAGE_CHANNELS)):
            channels = known.channels(wanted)
            if any(address_of(person, channel) for person in people for channel in channels):
                return people, channels
        return [], ()

    def _give_up(self, incident: Incident, run: StepRun, reason: str) -> None:
        """A page that cannot leave is said and on record, and the escalation goes on."""
        now = self.clock.now()
        with self.store.transaction() as tx:
            if tx.steps.add(replace(run, output={"reason": reason})):
                tx.audit(_entry("page.failed", now, incident, step=run.step, n=run.n, reason_sha256=digest(reason)))
                self._note(tx, incident, now, "page", reason)
        self.say(f"breachwatch hub: {incident.id}: {reason}")

    # -- notices --------------------------------------------------------------------------------------------------

    def _prepare(self, incident: Incident, run: StepRun, action: PrepareNotice) -> None:
        """Freeze audience and words. What is missing leaves the step waiting, with the reason in the history."""
        with self.store.reading() as view:
            stated = view.incidents.facts(incident.id)
            drafts = view.outbox.campaigns(incident_id=incident.id, step=action.step)
            requester = _requester(view, incident)
        channels = self.addressees.channels([choice.channel for choice in action.channels])
        if not channels:
            self._wait(incident, run, "none of its channels is set up: see [smtp], [sms] and [[chat]]")
            return
        try:
            gathered = self._gather(action)
            facts = self._facts(incident, stated, action)
            notice = self.desk.freeze(action.templates, facts, gathered.ids, channels)
        except (AudienceError, TemplateError, VerificationError) as error:
            self._wait(incident, run, str(error))
            return
        now = self.clock.now()
        campaign = Campaign(
            id=campaign_id(incident.id, action.step, len(drafts)),
            incident_id=incident.id,
            step=action.step,
            kind=action.kind,
            state=CampaignState.AWAITING_APPROVAL,
            content_hash=notice.content_hash,
            audience_count=len(gathered.ids),
            channels=channels,
            created_at=now,
            created_by=requester,
        )
        with self.store.transaction() as tx:
            for left in drafts:  # a draft that a crash or a new fact left behind
                if left.state is CampaignState.AWAITING_APPROVAL:
                    tx.outbox.set_campaign_state(left.id, CampaignState.CANCELLED)
            tx.outbox.add_campaign(campaign, notice.content)
        self._enqueue(campaign, gathered.ids, now)
        self._prepared(incident, run, action, campaign, gathered, facts_digest(stated))

    def _gather(self, action: PrepareNotice) -> _Gathered:
        """Read the audience into the vault. Raises: AudienceError (unreadable, or nobody in it)."""
        gathered = _Gathered()
        for people in _batches(self._people(action), gathered):
            gathered.ids.extend(self.vault.put(people))
        if not gathered.ids:
            raise AudienceError("nobody is in the audience", source=action.audience, hint="check its source")
        return gathered

    def _people(self, action: PrepareNotice) -> Iterator[Person | AudienceProblem]:
        if action.kind is CampaignKind.AUTHORITY:
            return iter([self.addressees.authority(action.audience)])
        return self.addressees.audience(action.audience)

    def _facts(self, incident: Incident, stated: dict[str, str], action: PrepareNotice) -> dict[str, str]:
        facts = incident_facts(incident, stated)
        if action.kind is CampaignKind.AUTHORITY:
            facts["authority.name"] = self.addressees.authority(action.audience).name
        return facts

    def _enqueue(self, campaign: Campaign, ids: Sequence[str], now: datetime) -> None:
        """One row per person, in batches; nothing leaves while the campaign awaits approval."""
        for start in range(0, len(ids), BATCH):
            part = ids[start : start + BATCH]
            people = self.vault.get(part)
            rows = [
                row
                for person_id in part
                if person_id in people
                for row in first_deliveries(self.desk.renderer, campaign, person_id, people[person_id], now=now)
            ]
            with self.store.transaction() as tx:
                tx.outbox.add_deliveries(rows)

    def _prepared(
        self,
        incident: Incident,
        run: StepRun,
        action: PrepareNotice,
        campaign: Campaign,
        gathered: _Gathered,
        facts: str,
    ) -> None:
        now = self.clock.now()
        output: dict[str, StepValue] = {
            "campaign": campaign.id,
            "content": campaign.content_hash,
            "facts_sha256": facts,
            "need": action.approvals_needed,
            "roles": ",".join(action.roles),
        }
        with self.store.transaction() as tx:
            tx.steps.put(replace(run, at_utc=now, output=output))
            body: dict[str, EntryValue] = {
                "step": run.step,
                "campaign": campaign.id,
                "content": campaign.content_hash,
                "audience": campaign.audience_count,
                "unusable_rows": gathered.problems,
            }
            tx.audit(_entry("notice.prepared", now, incident, **body))
            words = f"{run.step}: notice to {campaign.audience_count} prepared as {campaign.id}, awaits approval"
            self._note(tx, incident, now, "notice", words)
            if gathered.problems:
                said = "; ".join(gathered.shown) + ("; …" if gathered.problems > len(gathered.shown) else "")
                self._note(
                    tx, incident, now, "notice", f"{run.step}: {gathered.problems} faults in the audience: {said}"
                )

    def _wait(self, incident: Incident, run: StepRun, reason: str) -> None:
        now = self.clock.now()
        with self.store.transaction() as tx:
            known = tx.steps.get(incident.id, run.step)
            told = known is not None and known.state is StepState.WAITING and known.output.get("reason") == reason
            waiting = replace(
                run, state=StepState.WAITING, at_utc=now, due_at=now + TRY_AGAIN, output={"reason": reason}
            )
            tx.steps.put(waiting)
            if not told:
                self._note(tx, incident, now, "notice", f"{run.step} cannot be prepared: {reason}")
                tx.audit(_entry("notice.waiting", now, incident, step=run.step, reason_sha256=digest(reason)))

    def _start(self, incident: Incident, step: str) -> None:
        """Let a notice leave, if what is stored still is what enough other people approved."""
        now = self.clock.now()
        with self.store.transaction() as tx:
            run = tx.steps.get(incident.id, step)
            if run is None or run.state is not StepState.APPROVED:
                return
            campaign = tx.outbox.campaign(str(run.output.get("campaign")))
            if campaign is None or campaign.state is not CampaignState.AWAITING_APPROVAL:
                return
            given = {one.approver for one in tx.steps.approvals(campaign.id, campaign.content_hash)}
            unchanged = sha256(tx.outbox.content(campaign.id)).hexdigest() == campaign.content_hash
            if not unchanged or not is_approved(int(run.output.get("need") or 1), campaign.created_by, given):
                tx.steps.put(replace(run, state=StepState.PREPARED, at_utc=now))
                tx.audit(_entry("notice.refused", now, incident, step=step, campaign=campaign.id))
                self._note(tx, incident, now, "notice", f"{step}: not what was approved; it does not leave")
                return
            tx.outbox.set_campaign_state(campaign.id, CampaignState.RUNNING)
            tx.steps.put(replace(run, state=StepState.RUNNING, at_utc=now))
            body: dict[str, EntryValue] = {"campaign": campaign.id, "content": campaign.content_hash}
            tx.audit(_entry("campaign.running", now, incident, step=step, **body))
            self._note(tx, incident, now, "notice", f"{step}: {campaign.id} begins to leave")

    def _mark(self, incident: Incident, to: IncidentState, reason: str) -> None:
        now = self.clock.now()
        with self.store.transaction() as tx:
            present = tx.incidents.get(incident.id)
            if present is None or present.state is to:
                return
            changed, change = transition(present, to, actor="system", reason=reason, now=now)
            tx.incidents.save(changed)
            tx.incidents.add_change(change)
            tx.audit(_entry(f"incident.{to}", now, incident, before=str(present.state), after=str(to)))

    # -- what became of them --------------------------------------------------------------------------------------

    def settle(self, incident: Incident) -> bool:
        """Move steps on with their campaigns, and void drafts whose facts have changed; True if anything moved."""
        moved = False
        with self.store.reading() as view:
            runs = [run for run in view.steps.latest(incident.id).values() if "campaign" in run.output]
            facts = facts_digest(view.incidents.facts(incident.id))
        for run in runs:
            if run.state in {StepState.PREPARED, StepState.APPROVED, StepState.RUNNING}:
                moved = self._settle_one(incident, run, facts) or moved
        return moved

    def _settle_one(self, incident: Incident, known: StepRun, facts: str) -> bool:
        now = self.clock.now()
        with self.store.reading() as view:
            campaign = view.outbox.campaign(str(known.output["campaign"]))
        if campaign is None:
            return False
        ended = {CampaignState.DONE: StepState.DONE, CampaignState.CANCELLED: StepState.CANCELLED}.get(campaign.state)
        is_void = ended is None and known.state is not StepState.RUNNING and known.output.get("facts_sha256") != facts
        if ended is None and not is_void:
            return False
        with self.store.transaction() as tx:
            run = tx.steps.get(incident.id, known.step)
            if run is None or run.state is not known.state or run.output != known.output:
                return False  # a person was faster: look again
            if ended is not None:
                tx.steps.put(replace(run, state=ended, at_utc=now))
                tx.audit(_entry(f"step.{ended}", now, incident, step=run.step, campaign=campaign.id))
                return True
            tx.outbox.set_campaign_state(campaign.id, CampaignState.CANCELLED)
            reason = "facts have changed since the draft"
            tx.steps.put(replace(run, state=StepState.WAITING, at_utc=now, due_at=now, output={"reason": reason}))
            tx.audit(_entry("notice.voided", now, incident, step=run.step, campaign=campaign.id))
            self._note(tx, incident, now, "notice", f"{run.step}: {campaign.id} is void: {reason}")
        return True

    def _note(self, tx: HubTransaction, incident: Incident, now: datetime, kind: str, words: str) -> None:
        tx.incidents.add_change(
            StateChange(incident_id=incident.id, at_utc=now, actor="system", kind=kind, reason=words[:10_000])
        )


def campaign_id(incident_id: str, step: str, n: int) -> str:
    """Derived, so that a repeated performance meets its own row: `cmp-` and 12 hex digits."""
    return "cmp-" + blake2b(f"{incident_id}\0{step}\0{n}".encode(), digest_size=6).hexdigest()


def _batches(people: Iterator[Person | AudienceProblem], gathered: _Gathered) -> Iterator[list[Person]]:
    batch: list[Person] = []
    for item in people:
        if isinstance(item, AudienceProblem):
            gathered.take(item)
            continue
        batch.append(item)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _requester(view: HubTransaction, incident: Incident) -> str:
    """Whoever confirmed the incident last asked for its notices: they may not approve them."""
    confirmed = [change for change in view.incidents.changes(incident.id) if change.after == IncidentState.CONFIRMED]
    return confirmed[-1].actor if confirmed else "system"


def _warning(action: WarnClock) -> str:
    """One line for a page: which legal clock, how much of it is used up, until when."""
    used = "is OVERDUE since" if action.fraction >= 1 else f"has used {action.fraction:.0%} of its time; due"
    return f"Legal clock {action.regime} {action.stage} {used} {in_words(action.due_at)}."


def _entry(kind: str, now: datetime, incident: Incident, **body: EntryValue) -> Entry:
    return Entry(type=kind, at_utc=now, incident_id=incident.id, body=body)
