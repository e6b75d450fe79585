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


READ = """title: {title}
id: 50713921-0000-4000-8000-0000000000{number}
logsource: {{product: {product}}}
detection: {{s: {{action: told}}, condition: s}}
"""
WINDOW = """title: Three
id: 50713921-0000-4000-8000-000000000099
correlation: {type: event_count, rules: [50713921-0000-4000-8000-000000000002], timespan: 1h, condition: {gte: 3}}
"""


@pytest.mark.parametrize("any_logsource", [True, False])
@pytest.mark.parametrize("more", [(), (WINDOW,)])
def test_judged_events_are_fed_as_others_are(any_logsource, more):
    texts = [READ.format(title=f"t{number}", number=f"{number:02}", product=product)
             for number, product in enumerate(["linux", "mac", "linux", "linux"])]  # fmt: skip
    rules = loaded(*texts, *more)
    one, other = (Detector(rules, any_logsource=any_logsource) for _ in range(2))
    told = 0
    for number in range(12):
        event = an_event(("linux", "mac", "other")[number % 3])
        satisfied = ((0, 1, 2), (1,), (2, 3), ())[number % 4]
        found = one.feed_judged(event, satisfied)
        assert found == other.feed(event, other.meant(satisfied, event.logsource))
        told += len(found)
    assert told >= 4
    assert one.snapshot() == other.snapshot()
