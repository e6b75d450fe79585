"""The nouns of BreachWatch as frozen values. No behaviour that needs a file, a clock or a network."""

from breachwatch.model.audit import Entry
from breachwatch.model.baseline import (
    KEPT_JOURNAL,
    BaselineHead,
    BaselineUpdate,
    Deviation,
    DirectoryRow,
    JournalEntry,
    Seal,
    SealedLeaf,
)
from breachwatch.model.duty import Duty
from breachwatch.model.event import Event, FieldValue, LogSource
from breachwatch.model.incident import Incident, IncidentState, Severity, StateChange
from breachwatch.model.match import Level, Match, RuleRef, Window
from breachwatch.model.notice import (
    Accepted,
    Campaign,
    CampaignKind,
    CampaignState,
    Channel,
    Delivery,
    DeliveryResult,
    DeliveryState,
    OutgoingMessage,
    Person,
)
from breachwatch.model.signal import Signal, SignalKind
from breachwatch.model.source import Block, Checkpoint, FileChange, FileRecord, Gap, RawLine, Writer
from breachwatch.model.step import Approval, StepRun, StepState, StepValue

__all__ = [
    "KEPT_JOURNAL",
    "Accepted",
    "Approval",
    "BaselineHead",
    "BaselineUpdate",
    "Block",
    "Campaign",
    "CampaignKind",
    "CampaignState",
    "Channel",
    "Checkpoint",
    "Delivery",
    "DeliveryResult",
    "DeliveryState",
    "Deviation",
    "DirectoryRow",
    "Duty",
    "Entry",
    "Event",
    "FieldValue",
    "FileChange",
    "FileRecord",
    "Gap",
    "Incident",
    "IncidentState",
    "JournalEntry",
    "Level",
    "LogSource",
    "Match",
    "OutgoingMessage",
    "Person",
    "RawLine",
    "RuleRef",
    "Seal",
    "SealedLeaf",
    "Severity",
    "Signal",
    "SignalKind",
    "StateChange",
    "StepRun",
    "StepState",
    "StepValue",
    "Window",
    "Writer",
]
