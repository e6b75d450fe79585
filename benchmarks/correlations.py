"""What noise costs a correlation: one group, every event counted, no window ever satisfied.

    python -m benchmarks.correlations

Prints events per CPU second, median of five, for a group that holds few events and for one that is full. The limit
beside them is `event_count`, whose windows are only counted.
"""

from __future__ import annotations

import statistics
import time
from datetime import UTC, datetime, timedelta

from breachwatch.detect.engine import Detector
from breachwatch.detect.load import load_rules
from breachwatch.detect.ruleset import RuleSet, RuleText
from breachwatch.model import Event, LogSource

START = datetime(2026, 3, 1, tzinfo=UTC)
SIZES = (100, 1_000, 10_000)
RUNS = 5

KINDS = {
    "event_count": "{gte: 40000}",
    "value_count": "{field: v, gte: 5}",
    "value_sum": "{field: v, gte: 1000000}",
    "value_avg": "{field: v, gte: 5}",
    "value_percentile": "{field: v, percentile: 90, gte: 5}",
    "temporal": "",
    "temporal_ordered": "",
}


def rules_of(kind: str, condition: str) -> RuleSet:
    """Two rules, of which the noise matches the first, and a correlation over them."""
    texts = [
        f"title: {name}\nname: {name}\nid: 11111111-1111-4111-8111-11111111111{number}\nlogsource:\n  product: linux\n"
        f"detection:\n  s:\n    a: {number}\n  condition: s\n"
        for number, name in enumerate(("first", "second"))
    ]
    lines = f"title: c\ncorrelation:\n  type: {kind}\n  rules: [first, second]\n  group-by: [src]\n  timespan: 1h\n"
    text = "---\n".join([*texts, lines + (f"  condition: {condition}\n" if condition else "")])
    loaded = load_rules([RuleText("rules.yml", text)])
    if loaded.refused:
        raise loaded.refused[0]
    return loaded


def rate(rules: RuleSet, size: int) -> float:
    """Events per CPU second while the group holds `size` events and gains a tenth more."""
    detector = Detector(rules)
    count = size + max(100, size // 10)
    events = [
        Event(id=f"{serial:032x}", at_utc=START + timedelta(seconds=serial / 10), logsource=LogSource("linux"),
              fields={"a": 0, "src": "203.0.113.9", "v": 1})
        for serial in range(count)
    ]  # fmt: skip
    for event in events[:size]:
        detector.feed(event)
    started = time.process_time()
    for event in events[size:]:
        detector.feed(event)
    return (count - size) / (time.process_time() - started)


def main() -> None:
    """Print the table."""
    print(f"{'correlation':<18}" + "".join(f"{f'{size:,} held':>16}" for size in SIZES) + "   events per CPU second")
    for kind, condition in KINDS.items():
        rules = rules_of(kind, condition)
        figures = [statistics.median(rate(rules, size) for _ in range(RUNS)) for size in SIZES]
        print(f"{kind:<18}" + "".join(f"{figure:>16,.0f}" for figure in figures))


if __name__ == "__main__":
    main()
