"""Playbook actions performed: pages leave, notices are prepared, approved campaigns start. The hub's second half.

The planner returns data; here it becomes rows. Each action is one transaction with its audit entries, and the step row
written in it makes a second performance impossible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from breachwatch.app.ingest import digest
from breachwatch.errors import AudienceError, BreachWatchError, TemplateError
from breachwatch.model import (
    Campaign,
    CampaignKind,
    CampaignState,
    Channel,
    Entry,
    Incident,
    Person,
    StepRun,
)
from breachwatch.ports import Clock, ContactVault
from breachwatch.store.hub import HubStore, HubTransaction

ENQUEUE_BATCH = 2_000
"""People put into the vault and the outbox at a time."""
