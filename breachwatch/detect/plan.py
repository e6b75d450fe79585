"""What to look for in the lines of one form, and which rules a line then is a candidate for.

The promise: a rule that matches a line is among the candidates that `Plan.candidates` gives for it. Tests compare that
with the reference; `Sampler` (sample.py) does so on live data.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from breachwatch.detect.foreign import foreign_lines
from breachwatch.detect.guard import Guards
from breachwatch.detect.hits import JUDGED, WEIGHT, Entry, Hit, Judged, Line, Tally, new_hits
from breachwatch.detect.prefilter import Scanner, scanner
from breachwatch.detect.rule import Condition, Rule, applies
from breachwatch.detect.witness import Cost, Extractor, Pattern, Witness, literal, prior
from breachwatch.model import LogSource
from breachwatch.model.passes import ODD, lowered, native, survey
from breachwatch.model.rawform import RawForm

MAX_LINE_BYTES = 65_536
"""Parsers cut longer lines, which may tear a character: such a line is a candidate for every rule."""

MAX_SETS = 8_192
"""Combinations of hits that are remembered; an attacker could make any number."""

WORTH_IT = 24
"""So often lines have the same hits before more is asked of them; the oftener, the more combinations there were."""

FREE_ASKS = 64
"""So many combinations are asked about in any case; then one more for every so many lines that were dismissed: making
out what to ask costs as much as reading these."""

LINE_WORK = 20
"""What a hit costs beside the rules that it makes candidates, which count one each."""

SEEN = 12
MAX_SEEN_BYTES = 4_096
"""Of so many lines, no longer than this, is learnt what is worth asking."""

MAX_KEPT_BYTES = 4 << 20
"""Of all the lines that are kept for that: whoever writes the lines may make any number of combinations."""

KEYWORDS: Any = None if native is None else native.Keywords

REMEMBERING: frozenset[Any] = frozenset() if native is None else frozenset((native.Remembered, native.Keywords))
"""Types of what may know the rules that a line matches; collecting the hits asks them."""

EVERY: tuple[int, ...] | None = None
"""Stands for all rules of a plan: the line is not what it seems."""


Candidate = tuple[int, int, "tuple[int, ...] | None", bool, "Hit | None"]
"""A line that may match: where it begins, and where the next one does; positions of the rules that it may match, or
EVERY; whether the conditions of these hold; the patterns that are in it, all of them, or None if these are not known.

No class of its own: there may be one for every line.
"""

Judging = Callable[[tuple[int, ...], "Hit", bytes, "Plan"], tuple[int, ...] | None]
"""Those of the rules that a line, without its line feed, satisfies, by what this plan found in it; None: not known."""


class Look(NamedTuple):
    """What there is in a block."""

    lines: int
    candidates: list[Candidate]


class Scope(NamedTuple):
    """Which rules a source is for."""

    logsource: LogSource | None = None
    """All its events are of this log source; None: the parser says of each."""
    any_logsource: bool = False
    """Every rule is tried, whatever its log source."""

    @property
    def is_routed(self) -> bool:
        """Events are of various log sources, and rules are for some."""
        return not self.any_logsource and self.logsource is None


class Plan:
    """Patterns of all the rules that lines of one form can match."""

    def __init__(
        self,
        rules: Sequence[Rule],
        form: RawForm,
        scope: Scope,
        *,
        cost: Cost = prior,
        witnesses: Mapping[int, Witness | None] | None = None,
        backend: str | None = None,
        compiled: Sequence[bytes] = (),
    ) -> None:
        """`witnesses`: those of all the rules in scope, where they are chosen already.

        `compiled`: what `compiled` gave for the same patterns.
        """
        self.form = form
        if witnesses is None:
            extractor = Extractor(form, cost)
            witnesses = {
                index: extractor.of_rule(rules[index], routed=scope.is_routed) for index in in_scope(rules, form, scope)
            }
        self.witnesses = witnesses
        self.rules = tuple(witnesses)
        self.open = tuple(index for index, witness in self.witnesses.items() if witness is None)
        """Rules about which the bytes of a line say nothing: every line is a candidate for these."""
        by_pattern: dict[Pattern, list[int]] = {}
        for index, witness in self.witnesses.items():
            for pattern in witness or ():
                by_pattern.setdefault(pattern, []).append(index)
        self.patterns = [
            *sorted(by_pattern),
            *map(literal, form.dirty_words),
            *(
                Pattern(is_regex=True, data=one.regex.encode("ascii"), needs=one.needs, flag=one.flag)
                for one in form.dirty
            ),
        ]
        self._rules_of = [by_pattern[pattern] for pattern in self.patterns[: len(by_pattern)]]
        self._dirty = len(by_pattern)
        """Patterns from this number on make a line dirty."""
        self._backend = backend
        self._compiled = compiled
        more = 1 + len(self.patterns) - self._dirty  # one stands for what is dirty without any pattern
        self._weights = array(WEIGHT, [*(LINE_WORK + len(found) for found in self._rules_of), *[0] * more])
        self._found = new_hits()
        self.work = 0
        """Work that hits made so far, as `LINE_WORK` counts it, and bytes scanned."""
        self.scanned_bytes = 0
        self._literals = frozenset(pattern for pattern in by_pattern if not pattern.is_regex)
        self._last_known: tuple[Hit, tuple[frozenset[Pattern], frozenset[Pattern]]] | None = None
        self._clearings = 0
        self._guards = Guards(rules, form, routed=scope.is_routed)
        self._sets: dict[Hit, Entry] = {}
        self.kept_bytes = 0
        """Lines that are kept to learn from."""
        self._asks = self._dismissed = 0

    def look(  # noqa: C901  # run for every line with a hit: calls would cost more than what they do
        self,
        data: bytes,
        judge: Judging | None = None,
        looked_at: Counter[int] | None = None,
        tally: Tally | None = None,
    ) -> Look:
        """Lines that may match, in order. `data` holds whole lines, each with its line feed.

        `judge`: asked of each of them. `looked_at`: counts, by rule, the lines that the scan let through.
        `tally`: lines that are known to match some rules may be counted there instead of given.
        """
        count, flags = survey(data)
        self._scan(data, flags)
        can_tally = looked_at is None and not self.open
        told = tally if can_tally else None
        lines, work, dismissed = self._found.lines(data, self._weights, self._sets, told, can_tally)
        self.work += work
        self.scanned_bytes += len(data)
        found: list[Candidate] = []
        known, entry_of = self._sets.get, self._entry
        for line in self._with_others(data, lines) if self.open else lines:
            if len(line) == JUDGED:
                found.append(line)
                continue
            start, end, hit, entry = line
            rules, narrow = entry or entry_of(hit)
            if type(narrow) is _Unasked:  # an earlier line of this block may have had it asked since
                rules, narrow = known(hit) or (rules, narrow)
            if narrow is True:
                if looked_at is not None:
                    looked_at.update(entry_of(hit)[0] or ())
                found.append((start, end, rules, True, None))
                continue
            if narrow is not None and type(narrow) not in REMEMBERING:
                rules = narrow(data[start:end])
            if rules == ():
                dismissed += 1
                continue
            if looked_at is not None:
                looked_at.update(self.rules if rules is None else rules)
            verdict = None if judge is None or rules is None else judge(rules, hit, data[start : end - 1], self)
            if verdict is None:
                found.append((start, end, rules, False, hit))
            elif verdict:
                found.append((start, end, verdict, True, None))
                if type(narrow) is _Unasked:
                    narrow.matched += 1
        self._dismissed += dismissed
        return Look(count, found)

    @cached_property
    def _scanner(self) -> Scanner:
        """Compiled when first needed. Raises: StaleError."""
        compiled, self._compiled = self._compiled, ()
        return scanner(self.patterns, self._backend, compiled)

    def compile(self) -> None:
        """Do it now. Raises: StaleError."""
        self._scanner  # noqa: B018  # a property that compiles

    def compiled(self) -> list[bytes]:
        """The scanner as bytes, if it has such a form. Raises: StaleError."""
        return self._scanner.saved()

    def _scan(self, data: bytes, flags: int) -> None:
        """Collect what is in there."""
        found, dirty = self._found, self._dirty
        self._scanner.scan(data, found, flags)
        if data[:1] in (b"\n", b"\r"):
            found.add(1, dirty)
        for stop in _long_lines(data):
            found.add(stop, dirty)
        if flags & ODD:
            for stop in (*foreign_lines(data, digits=self.form.digits_fold), *_nuls(data)):
                found.add(stop, dirty)

    def _entry(self, hit: Hit) -> Entry:
        """The rules of which a line with these hits is a candidate, and what dismisses some of them."""
        known = self._sets.get(hit)  # another line of the same block may have had them first
        if known is not None:
            return known
        numbers = (hit,) if isinstance(hit, int) else hit
        entry: Entry
        if not numbers:
            entry = self.open, None
        elif max(numbers) >= self._dirty:
            entry = EVERY, None
        else:
            rules = tuple(sorted(frozenset(self.open).union(*(self._rules_of[number] for number in numbers))))
            entry = rules, _Unasked(self, hit, rules, WORTH_IT << self._clearings)
        if len(self._sets) >= MAX_SETS:
            self._sets.clear()
            self._clearings += 1
            self.kept_bytes = 0
        self._sets[hit] = entry
        return entry

    @property
    def may_ask(self) -> bool:
        """True if asking about more combinations is worth it, as far as it was till now."""
        return self._asks < FREE_ASKS + self._dismissed // FREE_ASKS

    def ask(self, hit: Hit, rules: tuple[int, ...], seen: Sequence[bytes]) -> Entry:
        """From now on, ask more of lines with these hits, of which some were `seen`, in lower case."""
        self._asks += 1
        there, absent = self._known(hit)
        entry = self._sets[hit] = self._guards.narrow(rules, there, absent, seen)
        return entry

    def leave(self, hit: Hit, rules: tuple[int, ...]) -> tuple[int, ...]:
        """From now on, ask nothing of lines with these hits: most of them match. Gives the rules."""
        self._sets[hit] = rules, None
        return rules

    def remember(self, hit: Hit, rules: tuple[int, ...], remembered: Any) -> None:
        """From now on, ask what is remembered of lines with these hits, if nothing else dismisses any of the rules.

        Words decide about all of the rules: where they are remembered, nothing else has to dismiss any.
        """
        before, narrow = self._sets.get(hit, (None, None))
        is_free = narrow is None or type(narrow) in REMEMBERING
        if before == rules and (is_free or (type(narrow) is not _Unasked and type(remembered) is KEYWORDS)):
            self._sets[hit] = rules, remembered

    def simplified(self, index: int, hit: Hit) -> Condition:
        """The condition of a rule without what cannot hold in lines with these hits, and only these."""
        return self._guards.simplified(index, *self._known(hit))

    def _known(self, hit: Hit) -> tuple[frozenset[Pattern], frozenset[Pattern]]:
        """The patterns that lines with these hits hold, and the literals that they do not hold."""
        if self._last_known is None or self._last_known[0] != hit:
            there = frozenset(self.patterns[number] for number in ((hit,) if isinstance(hit, int) else hit))
            self._last_known = hit, (there, self._literals - there)
        return self._last_known[1]

    def _with_others(self, data: bytes, lines: list[Line | Judged]) -> Iterator[Line | Judged]:
        """The same, and all other lines, for the open rules.

        Among these are lines that were dismissed for every rule, open ones too: looked at in vain, and never wrongly.
        """
        at = 0
        for line in lines:
            yield from _lines(data, at, line[0])
            yield line
            at = line[1]
        yield from _lines(data, at, len(data))


class _Unasked:
    """Stands for what dismisses rules of lines with these hits, until such lines came often enough."""

    __slots__ = ("_hit", "_many", "_plan", "_rules", "_seen", "_times", "matched")

    def __init__(self, plan: Plan, hit: Hit, rules: tuple[int, ...], times: int) -> None:
        self._plan = plan
        self._hit = hit
        self._rules = rules
        self._times = self._many = times
        self._seen: list[bytes] = []
        self.matched = 0
        """Of these lines, those that were found to match: no guard would have dismissed them."""

    def __call__(self, line: bytes) -> tuple[int, ...]:
        self._times -= 1
        plan = self._plan
        if self._times < SEEN and len(line) <= MAX_SEEN_BYTES and plan.kept_bytes < MAX_KEPT_BYTES:
            self._seen.append(lowered(line))
            plan.kept_bytes += len(line)
        if self._times > 0:
            return self._rules
        seen, self._seen = self._seen, []
        plan.kept_bytes -= min(plan.kept_bytes, sum(map(len, seen)))
        if 2 * self.matched > self._many:
            return plan.leave(self._hit, self._rules)
        if not plan.may_ask:
            self._times = self._many = WORTH_IT
            self.matched = 0
            return self._rules
        rules, narrow = plan.ask(self._hit, self._rules, seen)
        return narrow(line) if narrow is not None else rules or ()


def in_scope(rules: Sequence[Rule], form: RawForm, scope: Scope) -> list[int]:
    """Positions of the rules that lines of this form can match there."""
    return [index for index, rule in enumerate(rules) if _in_scope(rule, form, scope)]


def _in_scope(rule: Rule, form: RawForm, scope: Scope) -> bool:
    if scope.any_logsource:
        return True
    if scope.logsource is not None:
        return applies(rule.logsource, scope.logsource)
    return not form.sources or any(applies(rule.logsource, source) for source in form.sources)


def _lines(data: bytes, start: int, stop: int) -> Iterator[Line]:
    while start < stop:
        end = data.find(b"\n", start, stop) + 1 or stop
        yield start, end, frozenset(), None
        start = end


def _nuls(data: bytes) -> Iterable[int]:
    """Offset behind a NUL of each line that holds one."""
    at = data.find(b"\0")
    while at >= 0:
        yield at + 1
        at = data.find(b"\0", data.find(b"\n", at) + 1 or len(data))


def _long_lines(data: bytes) -> Iterable[int]:
    """Offset behind some byte of each line that is longer than parsers read."""
    start, size = 0, len(data)
    while size - start > MAX_LINE_BYTES:
        before = data.rfind(b"\n", start, start + MAX_LINE_BYTES + 1)
        if before >= 0:
            start = before + 1
            continue
        yield start + 1
        start = data.find(b"\n", start) + 1 or size
