"""The plans of one set of rules: one for each form of lines and scope, fitted to the lines, kept from start to start.

Which of several sound witnesses is looked for changes only the speed. So a plan is fitted to the first lines there are
(fitting.py), again when these were few, and again when lines hold much more of what it looks for than they did.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from typing import Protocol

import msgspec

from breachwatch.detect.byprogram import ByProgram
from breachwatch.detect.eventview import Judge
from breachwatch.detect.fitting import EXPRESSION_WORK, Choice, Fitting, cost_of
from breachwatch.detect.hits import Tally
from breachwatch.detect.partial import Programs
from breachwatch.detect.plan import Look, Plan, Scope, in_scope
from breachwatch.detect.prefilter import StaleError, backend, counting_backend, version
from breachwatch.detect.ruleset import RuleSet
from breachwatch.detect.stored import StoredPlan, restored_plan, stored_plan
from breachwatch.detect.witness import Pattern
from breachwatch.model.rawform import RawForm

FEW_BYTES = 64 << 10
"""Lines of a source that has fewer are searched by a scanner that is made fast and runs slowly."""

SAMPLE_BYTES = 1 << 20
"""Most that the first plan is fitted to."""

AGAIN_BYTES = 128 << 10
"""What the next ones are fitted to."""

DRIFT = 2.0
"""So many times the expected work is no reason to fit again."""

FEW_WORK = 0.5
"""Work per line that is none either."""

FIT_WORK = 250
"""About half of what fitting costs for each rule: it is done when so much was wasted."""

WINDOW_BYTES = 4 << 20
"""Where lines are as expected, what was is forgotten after so many bytes."""

MAX_PLANS = 256
"""Plans that are held: JSON input may name any number of log sources."""

MAX_PATIENCE = 1 << 6
"""What has to be wasted doubles with each fit, up to so many times: whoever writes the lines cannot make us fit all the
time, and what fitting costs is about what was wasted before."""


class PlanStore(Protocol):
    """Keeps plans between starts."""

    def load(self, key: str) -> bytes | None:
        """What was kept under the key, unchanged, by ourselves; None for anything else."""
        ...

    def keep(self, key: str, data: bytes) -> None:
        """Keep it if that is possible."""
        ...


@dataclass(slots=True)
class _Running:
    """A plan, what it was expected to cost, and the lines to fit the next one to."""

    plan: Plan
    expected: float
    """Work per byte (`Plan.work`)."""
    few: float
    """Work per byte that is no reason to fit again."""
    patience: int = 1
    is_collecting: bool = False
    lines: list[bytes] = field(default_factory=list)
    size_bytes: int = 0
    is_slow: bool = False
    """Its scanner is for few lines."""

    def collect(self, data: bytes, most: int) -> bool:
        """Keep lines for the next fit; true when there are enough of them."""
        part = data[: most - self.size_bytes]
        self.lines.append(part)
        self.size_bytes += len(part)
        return self.size_bytes >= most

    @property
    def rate(self) -> float:
        """Work per byte in this window."""
        return self.plan.work / max(1, self.plan.scanned_bytes)

    @property
    def wasted(self) -> float:
        """Work in this window beyond what is no reason to fit again."""
        return self.plan.work - DRIFT * max(self.expected, self.few) * self.plan.scanned_bytes

    def watch(self) -> None:
        """Begin to collect lines if too much was wasted."""
        if self.wasted > FIT_WORK * self.patience * len(self.plan.rules):
            self.is_collecting = True
        elif self.wasted > 0 or self.plan.scanned_bytes < WINDOW_BYTES:
            return
        self.plan.work = self.plan.scanned_bytes = 0


class Selector:
    """Which lines a set of rules has to look at."""

    def __init__(self, rules: RuleSet, *, library: str | None = None, store: PlanStore | None = None) -> None:
        """`library`: the only scanner to be used; by default the best that are installed."""
        self._rules = rules
        self._library = backend() if library is None else library
        self._fast_made = counting_backend() if library is None else library
        self._store = store
        self._plans: dict[tuple[str, Scope], _Running] = {}
        self._programs: dict[tuple[str, Scope], Programs | ByProgram] = {}
        self.fits = 0
        """Plans made so far."""
        self.looked_at: Counter[int] | None = None
        """Lines that the scan let through for each rule, by position; counted once it is a counter."""

    @cached_property
    def judge(self) -> Judge:
        """The rules as code over events."""
        return Judge(self._rules.rules)

    @property
    def is_able(self) -> bool:
        """False where no scanner is installed: then every line is read."""
        return bool(self._library)

    def plan(self, form: RawForm, scope: Scope, data: bytes = b"") -> Plan:
        """The plan for lines of this form, of which `data` are the next ones."""
        key = (form.name, scope)
        found = self._plans.get(key)
        if found is None:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            found = self._restored(form, scope, is_slow=False)
            if found is None and len(data) < FEW_BYTES:
                found = self._restored(form, scope, is_slow=True)
            found = self._plans[key] = found or self._fitted(form, scope, data)
            if found.is_slow:
                found.collect(data, FEW_BYTES)
        elif found.is_slow:
            if found.collect(data, FEW_BYTES):
                found = self._plans[key] = self._fitted(form, scope, b"".join(found.lines))
        elif found.is_collecting:
            if found.collect(data, AGAIN_BYTES):
                found = self._plans[key] = self._refitted(form, scope, found)
        else:
            found.watch()
        return found.plan

    def look(self, form: RawForm, scope: Scope, data: bytes, tally: Tally | None = None) -> Look:
        """Lines that a rule may match, as far as the bytes of these lines tell. `data` holds whole lines.

        `tally`: lines that are known to match some rules may be counted there instead of given.
        """
        plan, programs = self.plan(form, scope, data), self._narrowing(form, scope)
        return plan.look(data, None if programs is None else programs.judged, self.looked_at, tally)

    def _narrowing(self, form: RawForm, scope: Scope) -> Programs | ByProgram | None:
        """What judges lines without parsing them, as far as their log source, which a parser tells, allows."""
        is_told = scope.is_routed and not form.escapes_json and form.usual is None
        if form.is_values or (is_told and not form.programs):
            return None
        key = (form.name, scope)
        found = self._programs.get(key)
        if found is None:
            rules = self._rules.rules
            found = ByProgram(rules, form, scope) if is_told else Programs(rules, form)
            self._programs[key] = found
        return found

    def cost(self, pattern: Pattern, rate: float | None) -> float:
        """Price of a pattern, given its hits per line in a sample; None: it was not counted."""
        return cost_of(pattern, rate)

    def expression_work(self, sample_bytes: int) -> float:
        """What searching for an expression costs per byte, in hits, once a plan is fitted to so much."""
        return EXPRESSION_WORK if self._library == "hyperscan" and sample_bytes >= FEW_BYTES else math.inf

    # -- making plans ---------------------------------------------------------------------------------------------

    def _choice(self, form: RawForm, scope: Scope, sample: bytes) -> Choice:
        self.fits += 1
        rules = self._rules.rules
        fitting = Fitting(
            rules,
            form,
            sample,
            library=self._fast_made,
            cost=self.cost,
            expression_work=self.expression_work(len(sample)),
        )
        return fitting.choice(in_scope(rules, form, scope), routed=scope.is_routed)

    def _fitted(self, form: RawForm, scope: Scope, sample: bytes) -> _Running:
        """The first plan: a lasting one where there are enough lines to fit it to."""
        choice = self._choice(form, scope, sample[:SAMPLE_BYTES])
        is_slow = len(sample) < FEW_BYTES and self._fast_made != self._library
        found = self._running(form, scope, choice, is_slow=is_slow)
        self._keep(form, scope, found)
        return found

    def _refitted(self, form: RawForm, scope: Scope, old: _Running) -> _Running:
        """A plan for the lines collected, or the old one if that one would be hardly better."""
        choice = self._choice(form, scope, b"".join(old.lines))
        patience = min(2 * old.patience, MAX_PATIENCE)
        if choice.work_per_byte * DRIFT > old.rate:
            return replace(
                old,
                expected=max(old.expected, old.rate),
                patience=patience,
                is_collecting=False,
                lines=[],
                size_bytes=0,
            )
        found = self._running(form, scope, choice, is_slow=False)
        found.patience = patience
        self._keep(form, scope, found)
        return found

    def _running(self, form: RawForm, scope: Scope, choice: Choice, *, is_slow: bool) -> _Running:
        plan = Plan(
            self._rules.rules,
            form,
            scope,
            witnesses=choice.witnesses,
            backend=self._backend(is_slow=is_slow),
        )
        return _Running(plan, choice.work_per_byte, FEW_WORK * choice.lines_per_byte, is_slow=is_slow)

    # -- from start to start --------------------------------------------------------------------------------------

    @cached_property
    def _content(self) -> str:
        """The same only for the same rules."""
        return self._rules.key or sha256(msgspec.msgpack.encode(self._rules.rules)).hexdigest()

    def _backend(self, *, is_slow: bool) -> str:
        return self._fast_made if is_slow else self._library

    def _key(self, form: RawForm, scope: Scope, *, is_slow: bool) -> str:
        return "\0".join((self._content, form.name, repr(scope), version(self._backend(is_slow=is_slow))))

    def _keep(self, form: RawForm, scope: Scope, found: _Running) -> None:
        if self._store is not None:
            saved = StoredPlan(dict(found.plan.witnesses), found.expected, found.few, found.plan.compiled())
            self._store.keep(self._key(form, scope, is_slow=found.is_slow), stored_plan(saved))

    def _restored(self, form: RawForm, scope: Scope, *, is_slow: bool) -> _Running | None:
        """The plan that an earlier start kept."""
        data = None if self._store is None else self._store.load(self._key(form, scope, is_slow=is_slow))
        saved = None if data is None else restored_plan(data)
        rules = self._rules.rules
        if saved is None or list(saved.witnesses) != in_scope(rules, form, scope):
            return None
        backend = self._backend(is_slow=is_slow)
        plan = Plan(rules, form, scope, witnesses=saved.witnesses, backend=backend, compiled=saved.compiled)
        try:
            plan.compile()
        except StaleError:
            return None
        return _Running(plan, saved.expected, saved.few, is_slow=is_slow and backend != self._library)
