"""What a rule alone makes of an event: the match, its id, and for whom it is asked."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import blake2b

import pytest

from breachwatch.detect.engine import Detector
from breachwatch.model import Event, LogSource, Match
from tests.detect.sigma import loaded

RULE = """title: Told
id: 50713921-0000-4000-8000-00000000ba5e
logsource: {product: linux}
detection: {s: {action: told}, condition: s}
"""


def an_event(product: str) -> Event:
    fields = {"action": "told"}
    return Event(id="é1", at_utc=datetime(2026, 2, 3, tzinfo=UTC), logsource=LogSource(product), fields=fields)


def test_a_match_is_what_its_parts_say_and_its_id_comes_from_rule_and_event():
    rules = loaded(RULE)
    event = an_event("linux")
    ref = rules.rules[0].ref
    mark = blake2b(ref.id.encode(), digest_size=8).hexdigest()
    assert Detector(rules).feed(event) == [Match(id=mark + "é1", rule=ref, event=event, event_ids=("é1",))]


@pytest.mark.parametrize(
    ("product", "any_logsource", "found"), [("linux", False, 1), ("mac", False, 0), ("mac", True, 1)]
)
def test_rules_picked_by_a_plan_are_told_only_where_their_log_source_fits(product, any_logsource, found):
    detector = Detector(loaded(RULE), any_logsource=any_logsource)
    event = an_event(product)
    assert len(detector.feed(event)) == found
    assert len(detector.feed(event, detector.meant((0,), event.logsource))) == found
    assert detector.feed(event, detector.meant((), event.logsource)) == []
