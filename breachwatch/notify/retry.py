"""How long to wait and when to give up: tenacity's objects as policy for rows in the outbox.

They compute `due_at`; nothing sleeps, so a retry survives a crash and blocks nobody (facts/notify.md 3.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tenacity import (
    RetryCallState,
    Retrying,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential,
    wait_exponential_jitter,
    wait_fixed,
)
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from breachwatch.errors import AmbiguousDeliveryError, TransientDeliveryError
from breachwatch.model import CampaignKind

HOUR_S = 3_600.0
MAX_RETRY_AFTER_S = 6 * HOUR_S
"""A server may ask for patience, but not for ever."""

_RETRYING = Retrying()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """What happens after a try that did not hand the notice over."""

    wait: wait_base
    stop: stop_base
    """Whichever of tries and time is used up first: then the next channel is tried."""
    ambiguous_wait: wait_base
    ambiguous_stop: stop_base
    """After a connection lost behind the final dot: a legal notice is sent again, with the same Message-ID."""

    def delay_s(self, error: TransientDeliveryError, *, attempts: int, age_s: float) -> float | None:
        """Seconds until the next try; None: give up on this channel. `age_s` counts from the row's making."""
        state = RetryCallState(_RETRYING, None, (), {})
        state.attempt_number = max(1, attempts)
        state.start_time = 0.0
        state.outcome_timestamp = max(0.0, age_s)
        if isinstance(error, AmbiguousDeliveryError):
            return None if self.ambiguous_stop(state) else float(self.ambiguous_wait(state))
        if self.stop(state):
            return None
        asked = min(error.retry_after_s or 0.0, MAX_RETRY_AFTER_S)
        return max(float(self.wait(state)), asked)


POLICIES: Mapping[CampaignKind, RetryPolicy] = MappingProxyType(
    {
        # People sleep while this waits: a channel that does not work within minutes gives way to the next
        CampaignKind.PAGE: RetryPolicy(
            wait=wait_exponential(multiplier=5, min=5, max=60),
            stop=stop_after_attempt(6) | stop_after_delay(300),
            ambiguous_wait=wait_fixed(15),
            ambiguous_stop=stop_after_attempt(3),
        ),
        # Inside the shortest legal clock there must be time to go and file by hand
        CampaignKind.AUTHORITY: RetryPolicy(
            wait=wait_exponential_jitter(multiplier=20, max=900, jitter=10),
            stop=stop_after_attempt(60) | stop_after_delay(12 * HOUR_S),
            ambiguous_wait=wait_fixed(60),
            ambiguous_stop=stop_after_attempt(5),
        ),
        # RFC 5321 4.5.4.1 gives mail four to five days; a breach notice has less
        CampaignKind.CUSTOMERS: RetryPolicy(
            wait=wait_exponential_jitter(multiplier=30, max=HOUR_S, jitter=30),
            stop=stop_after_attempt(40) | stop_after_delay(48 * HOUR_S),
            ambiguous_wait=wait_exponential_jitter(multiplier=60, max=HOUR_S, jitter=30),
            ambiguous_stop=stop_after_attempt(5),
        ),
    }
)

_BREAKER = wait_exponential(multiplier=1, min=1, max=60)


def breaker_delay_s(failures: int) -> float:
    """How long a channel rests after `failures` times down in a row, before one delivery tries it again."""
    state = RetryCallState(_RETRYING, None, (), {})
    state.attempt_number = max(1, failures)
    return float(_BREAKER(state))
