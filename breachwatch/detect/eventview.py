"""Events judged by generated code: what the reference says of them, several times faster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from breachwatch.detect.predicate import WHOLE, Generator, Predicate, Undecided, View, has_keywords, record_texts
from breachwatch.detect.reference import holds, searched_texts
from breachwatch.detect.rule import Condition, Rule
from breachwatch.detect.values import MAX_VALUE, Test, as_text, folded, members
from breachwatch.detect.verdicts import Memory, Verdicts
from breachwatch.model import Event

MISSING: Any = object()


Field = tuple[tuple[str, ...], frozenset[str]]
"""Names that a field goes by, and names under which it may stand nested."""


class _EventFields(View):
    """The fields of an event."""

    __slots__ = ("_event", "_fields", "_folds", "_lists", "_names", "_raws")

    def __init__(self, event: Event, names: Sequence[Field]) -> None:
        self._event = event
        self._fields = event.fields
        self._names = names
        self._raws: dict[int, Any] = {}
        self._lists: dict[int, Sequence[Any]] = {}
        self._folds: dict[int, Sequence[str]] = {}

    def __missing__(self, field: int) -> str | None:
        if field == WHOLE:
            whole = self[field] = folded("\0".join(self.texts()))
            return whole
        value = self._fields.get(self._names[field][0][0])
        if type(value) is not str:
            value = self.raw(field)
        if type(value) is not str or len(value) > MAX_VALUE:
            text = None if value is None else as_text(value)
            if text is None and value is not None:
                raise Undecided
            value = text
        if value is None:
            self[field] = None
            return None
        found = value.lower()
        if not found.isascii():
            found = folded(value)
        self[field] = found
        return found

    def raw(self, field: int) -> Any:
        """The single value of a field, None if it is missing or null. Raises: Undecided."""
        try:
            return self._raws[field]
        except KeyError:
            value = self._value(field)
        if value is MISSING:
            value = None
        elif type(value) is not str and isinstance(value, list | tuple | Mapping):
            raise Undecided
        self._raws[field] = value
        return value

    def there(self, field: int) -> bool:
        """The field is there, even as null. Raises: Undecided."""
        return self._value(field) is not MISSING

    def some(self, field: int, test: Test) -> bool:
        """One of the values of a field passes. Raises: Undecided."""
        return any(value is not None and test(value) for value in self._all(field))

    def folds(self, field: int) -> Sequence[str]:
        """The values of a field as folded texts. Raises: Undecided."""
        found = self._folds.get(field)
        if found is None:
            texts = map(as_text, self._all(field))
            found = self._folds[field] = tuple([folded(text) for text in texts if text is not None])
        return found

    def is_null(self, field: int) -> bool:
        """All values of a field are null, or it is missing. Raises: Undecided."""
        return all(value is None for value in self._all(field))

    def _all(self, field: int) -> Sequence[Any]:
        found = self._lists.get(field)
        if found is None:
            value = self._value(field)
            found = self._lists[field] = () if value is MISSING else tuple(members(value))
        return found

    def _value(self, field: int) -> Any:
        names, roots = self._names[field]
        fields = self._fields
        for name in names:
            if name in fields:
                return fields[name]
            if name == "@timestamp" or (roots and not roots.isdisjoint(fields)):
                raise Undecided  # it is there, but elsewhere
        return MISSING

    def texts(self) -> list[str]:
        """Every text of the event that keywords search."""
        raw, fields = self._event.raw, self._fields
        if raw[:1] != "{" or fields.get("message") == raw:  # a line of text, or a record that could not be read
            return list(searched_texts(self._event))
        return record_texts(fields)


WORTH_IT = 8
"""So often a rule is left to the reference before it gets code."""

MAX_COMBINATIONS = 4_096
"""Combinations of rules of which verdicts are remembered; an attacker could make any number."""

_PLAIN = frozenset((str, int, bool, type(None), type(MISSING)))
"""Types of single values that are the same if they are equal; 0.0 and -0.0 are equal, and other texts."""

_Types = tuple[type, ...]


class Judge:
    """The rules of a set as code, made for those that are asked for often."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules
        self._generator = Generator()
        self._predicates: dict[int, Predicate | None] = {}
        self._list_predicates: dict[int, Predicate | None] = {}
        """The same for events whose fields have several values."""
        self._names: list[Field] = []
        self._asked: Counter[int] = Counter()
        self._reads: dict[int, frozenset[int]] = {}
        """What the code of a rule reads."""
        self._wanted: dict[tuple[int, ...], tuple[str, ...]] = {}
        """All that the rules of a combination read, by any name; none: more than values of fields."""
        self._memories: dict[tuple[tuple[int, ...], _Types], Memory | None] = {}
        """By combination and types of values, for equal values may be of other types, and mean something else."""
        self._verdicts = Verdicts()

    def of_text(self, rules: tuple[int, ...], event: Event) -> Sequence[int]:
        """What `satisfied` gives for the event of a line of text, whose fields are flat: the same for equal values."""
        wanted = self._wanted.get(rules)
        if wanted is None:
            found = self.satisfied(rules, event)
            self._learn(rules)
            return found
        if not wanted:
            return self.satisfied(rules, event)
        value_of = event.fields.get
        read = tuple([value_of(name, MISSING) for name in wanted])
        types = tuple(map(type, read))
        try:
            memory = self._memories[rules, types]
        except KeyError:
            self._make_room()
            memory = self._memories[rules, types] = Memory(self._verdicts) if _PLAIN.issuperset(types) else None
        if memory is None:
            return self.satisfied(rules, event)
        memory.asked += 1
        verdict = memory.known.get(read)
        if verdict is None:
            verdict = tuple(self.satisfied(rules, event))
            if not memory.keep(read, verdict):
                self._memories[rules, types] = None
        return verdict

    def _make_room(self) -> None:
        if len(self._wanted) >= MAX_COMBINATIONS or len(self._memories) >= MAX_COMBINATIONS:
            self._wanted, self._memories, self._verdicts = {}, {}, Verdicts()

    def _learn(self, rules: tuple[int, ...]) -> None:
        """What these rules read, once all of them have code."""
        if not all(index in self._predicates for index in rules):
            return
        self._make_room()
        names: set[str] = set()
        if not any(has_keywords(self._rules[index].condition) for index in rules):
            names.update(*(self._names[field][0] for index in rules for field in self._reads.get(index, ())))
        is_known = all(index in self._reads for index in rules) and "@timestamp" not in names
        self._wanted[rules] = tuple(sorted(names)) if is_known else ()

    def satisfied(self, rules: Sequence[int], event: Event) -> list[int]:
        """Those of the rules, by position, whose condition the event satisfies."""
        predicates, found = self._predicates, []
        view: View | None = None
        for index in rules:
            try:
                predicate = predicates[index]
            except KeyError:
                self._asked[index] += 1
                predicate = self._made(index) if self._asked[index] >= WORTH_IT else None
            if view is None:
                view = _EventFields(event, self._names)
            try:
                if holds(self._rules[index].condition, event) if predicate is None else predicate(view):
                    found.append(index)
            except Undecided:
                if self._holds_of_lists(index, event, view):
                    found.append(index)
        return found

    def _holds_of_lists(self, index: int, event: Event, view: View) -> bool:
        """The same where fields have several values."""
        condition = self._rules[index].condition
        if index not in self._list_predicates:
            self._list_predicates[index] = self._generated(condition, lists=True)
        predicate = self._list_predicates[index]
        try:
            return holds(condition, event) if predicate is None else predicate(view)
        except Undecided:
            return holds(condition, event)

    def _made(self, index: int) -> Predicate | None:
        predicate = self._predicates[index] = self._generated(self._rules[index].condition, of=index)
        return predicate

    def _generated(self, condition: Condition, *, lists: bool = False, of: int | None = None) -> Predicate | None:
        found = self._generator.predicate(condition, lists=lists)
        if found is not None and of is not None:
            self._reads[of] = found[1]
        for names in list(self._generator.fields)[len(self._names) :]:
            parts = [name.split(".") for name in names]
            roots = frozenset(".".join(path[:length]) for path in parts for length in range(1, len(path)))
            self._names.append((names, roots))
        return None if found is None else found[0]
