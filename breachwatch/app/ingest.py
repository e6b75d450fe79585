"""Signals become incidents: the hub's first half. One transaction carries a batch, its audit entries and the cursor."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from breachwatch.incident.grouping import absorb, match_keys, open_incident, place
from breachwatch.model import Entry, Gap, Incident, Match, Signal, SignalKind, StateChange
from breachwatch.model.audit import EntryValue
from breachwatch.ports import Clock, SignalStore
from breachwatch.store.hub import HubStore, HubTransaction

READER = "hub"
"""Under this name the hub acknowledges signals."""

BATCH = 500
"""Signals per transaction: bounds the writer's lock and the work a crash repeats."""


@dataclass(slots=True)
class Ingest:
    """Reads what agents said since the last committed cursor and folds it into incidents."""

    signals: SignalStore
    store: HubStore
    clock: Clock

    def tick(self) -> int:
        """Take one batch; returns how many signals were new. Raises: StoreError, AuditError."""
        with self.store.reading() as view:
            cursor = view.incidents.signal_cursor(READER)
        batch = self.signals.read_signals(after=cursor, limit=BATCH)
        if not batch:
            return 0
        with self.store.transaction() as tx:
            if tx.incidents.signal_cursor(READER) != cursor:
                return 0  # another hub process was faster; its batch is this one
            for signal in batch:
                self._take(tx, signal)
            tx.incidents.set_signal_cursor(READER, batch[-1].seq)
        self.signals.acknowledge(READER, batch[-1].seq)
        return len(batch)

    def _take(self, tx: HubTransaction, signal: Signal) -> None:
        now = self.clock.now()
        agent = f"agent:{signal.host}"
        if signal.match is not None:
            self._match(tx, signal.match, agent, now)
        elif signal.gap is not None:
            tx.audit(Entry(type="watch.gap", at_utc=now, actor=agent, body=gap_body(signal.gap)))
        elif signal.kind is SignalKind.DAEMON:
            tx.audit(Entry(type=f"daemon.{signal.action}", at_utc=now, actor=agent, body=daemon_body(signal)))

    def _match(self, tx: HubTransaction, match: Match, agent: str, now: datetime) -> None:
        if tx.incidents.incident_of_match(match.id) is not None:
            return  # told twice: it counts once
        incident = self._incident_for(tx, match, now)
        if incident is None:
            return
        tx.incidents.add_match(incident.id, match)
        body: dict[str, EntryValue] = {"match": match.id, "rule": match.rule.id, "level": str(match.rule.level)}
        tx.audit(Entry(type="incident.match", at_utc=now, actor=agent, incident_id=incident.id, body=body))

    def _incident_for(self, tx: HubTransaction, match: Match, now: datetime) -> Incident | None:
        """The incident that this match joins or opens; None if it may only join and there is none."""
        joined = place(match, tx.incidents.open_with_keys(match_keys(match)))
        if joined is not None:
            return tx.incidents.save(absorb(joined, match))
        if not match.rule.opens_incident:
            return None
        incident = open_incident(match, incident_id=tx.incidents.next_id(now.year), now=now)
        tx.incidents.insert(incident)
        change = StateChange(
            incident_id=incident.id, at_utc=now, actor="system", kind="state", reason=match.rule.title, after="open"
        )
        tx.incidents.add_change(change)
        body: dict[str, EntryValue] = {
            "rule": match.rule.id,
            "severity": str(incident.severity),
            "first_seen": incident.first_seen.isoformat(),
        }
        tx.audit(Entry(type="incident.opened", at_utc=now, incident_id=incident.id, body=body))
        return incident


def gap_body(gap: Gap) -> dict[str, EntryValue]:
    """A gap without what an attacker may have put into names: the source by its hash, the reason in clear."""
    return {"source_sha256": digest(gap.source), "reason": gap.reason, "lost_bytes": gap.lost_bytes}


def daemon_body(signal: Signal) -> dict[str, EntryValue]:
    """What a daemon said of itself; its words by their hash, for they may name files of the host."""
    return {"signal": signal.id, "detail_sha256": digest(signal.detail)}


def digest(text: str) -> str:
    """SHA-256 of a text, hex: names a thing in the audit trail without repeating it."""
    return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
