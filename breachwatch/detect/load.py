"""Loading Sigma rules: pySigma parses, we keep a small form. A refused rule is named and never stops its neighbours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import yaml

from breachwatch.detect.correlate import COUNTS, MAX_EVENTS
from breachwatch.detect.fields import names_for
from breachwatch.detect.garbage import uncollected
from breachwatch.detect.rule import And, Condition, Correlation, Keyword, Not, Or, Rule, Text
from breachwatch.detect.ruleset import RuleSet, RuleText
from breachwatch.detect.safety import sigma_policy
from breachwatch.detect.values import COMPARE
from breachwatch.errors import RuleError
from breachwatch.model import Level, LogSource, RuleRef

if TYPE_CHECKING:
    from sigma.correlations import SigmaCorrelationRule
    from sigma.filters import SigmaFilter
    from sigma.rule import SigmaRule

MAX_ALIASES = 100
"""YAML aliases per file: more is an attempt to blow up memory."""

MAX_NODES = 100_000
"""Keys and values of one document, aliases written out: ten thousand branches take less than half of it."""

MAX_DEPTH = 100
"""Lists and mappings within each other. PyYAML composes each within the one around it: many crash the process."""

DEEP = re.compile(rf"^[ \t?:-]{{{MAX_DEPTH}}}", re.MULTILINE)
"""What a line begins with whose block stands so deep: no more than two blocks begin in one column."""

FILTER_NAME = re.compile(r"(?!(?:not|and|or|all|any|of|them)$)[A-Za-z][A-Za-z0-9_-]*")
"""Names that pySigma can put its own before, where it applies a filter to a rule."""

MAX_TEXT = 2_000_000
"""Characters per rule file."""

STATE_FORM = 2
"""Of saved windows: those of an older form are not taken over."""

DURATION = re.compile(r"(\d{1,6})([smhd])")
UNIT_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
OWN_KEY = "breachwatch"
"""Top-level mapping of a rule with what Sigma has no word for: incident keys."""

RANGE_KEY = "breachwatch.range"
"""Further bounds of a correlation: the specification allows ranges, pySigma 2.0 takes one comparison."""

STRING, MAPPING, SEQUENCE = (f"tag:yaml.org,2002:{kind}" for kind in ("str", "map", "seq"))
"""Tags of nodes. Source: YAML 1.1, tag repository."""

OWN_FIELDS = {"group_by", "within", "opens_incident"}
ACTIONS = {"global", "reset", "repeat"}


@dataclass(frozen=True, slots=True)
class _Document:
    source: str
    line: int
    content: dict[str, Any]
    text: str
    is_tree: bool
    """No part of it is an alias of another."""

    @property
    def where(self) -> str:
        return f"{self.source}:{self.line}"

    @property
    def is_plain(self) -> bool:
        """A rule that others may refer to, no correlation or filter."""
        return not self.content.keys() & {"correlation", "filter"}


def load_rules(texts: Sequence[RuleText], placeholders: Mapping[str, tuple[str, ...]] | None = None) -> RuleSet:
    """Every rule of these files, or why it is refused. `placeholders` are the values of `|expand`."""
    with uncollected(stays=True):
        return _Loader(placeholders or {}).load(texts)


class _Loader:
    def __init__(self, placeholders: Mapping[str, tuple[str, ...]]) -> None:
        self.placeholders = placeholders
        self.refused: list[RuleError] = []
        self.seen: dict[str, str] = {}
        self.only_read: set[str] = set()
        """Ids of what correlations read without `generate`: its own matches are told nobody."""

    def load(self, texts: Sequence[RuleText]) -> RuleSet:
        documents = [document for text in texts for document in self._documents(text)]
        found = list(self._items(one for one in documents if not one.is_plain))
        from sigma.correlations import SigmaCorrelationRule
        from sigma.filters import SigmaFilter

        filters = [item for item, doc in found if isinstance(item, SigmaFilter) and self._is_sound(item, doc)]
        related = [(item, doc) for item, doc in found if isinstance(item, SigmaCorrelationRule)]
        plain: Iterable[tuple[Any, _Document]] = self._items(one for one in documents if one.is_plain)
        if related:
            plain = list(plain)
            related = self._resolve([item for item, _ in plain], related)
        rules = [rule for item, doc in plain if (rule := self._rule(item, doc, filters)) is not None]
        correlations = self._correlations(related, {rule.ref.id: rule.logsource for rule in rules})
        only_read = self.only_read
        rules = [replace(rule, emits=False) if rule.ref.id in only_read else rule for rule in rules]
        correlations = [replace(one, emits=False) if one.ref.id in only_read else one for one in correlations]
        content = sha256()
        for text in texts:
            content.update(text.source.encode() + b"\0" + text.text.encode("utf-8", "replace") + b"\0")
        return RuleSet(
            rules=tuple(rules),
            correlations=tuple(correlations),
            refused=tuple(self.refused),
            fingerprint=content.hexdigest(),
        )

    def _items(self, documents: Iterable[_Document]) -> Iterator[tuple[Any, _Document]]:
        """What pySigma makes of them, one by one: what is used up at once costs least."""
        return ((item, document) for document in documents for item in self._parse(document))

    # -- text to documents ----------------------------------------------------------------------------------------

    def _documents(self, text: RuleText) -> list[_Document]:
        if len(text.text) > MAX_TEXT or text.text.count("*") > MAX_TEXT:
            self._refuse(text.source, f"the file is larger than {MAX_TEXT} characters")
            return []
        documents: list[_Document] = []
        is_tree = "&" not in text.text  # no anchor, so no alias
        is_small = is_tree and len(text.text) < MAX_NODES // 2  # a character makes two nodes at most: `,` in `{a,}`
        try:
            if deep := _too_deep(text.text):
                self._refuse(f"{text.source}:{deep}", f"more than {MAX_DEPTH} lists and mappings within each other")
                return []
            nodes = list(yaml.compose_all(text.text, Loader=yaml.CSafeLoader))
            if text.text.count("*") > MAX_ALIASES and _alias_count(text.text) > MAX_ALIASES:
                self._refuse(text.source, f"more than {MAX_ALIASES} YAML aliases", "write the values out")
                return []
            for node in nodes:
                if node is None:
                    continue
                line = node.start_mark.line + 1
                if not is_small and _written_out(node, {}) > MAX_NODES:
                    self._refuse(f"{text.source}:{line}", f"more than {MAX_NODES} keys and values", "split the rule")
                    continue
                content = _construct(node, is_tree=is_tree)
                if not isinstance(content, dict):
                    self._refuse(f"{text.source}:{line}", "a rule is a mapping of keys to values")
                    continue
                documents.append(_Document(text.source, line, content, text.text, is_tree))
        except Exception as error:  # noqa: BLE001  # a boundary: no file may keep the others from being read
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else 1
            problem = getattr(error, "problem", None) or _said(error).splitlines()[0]
            self._refuse(f"{text.source}:{line}", f"not valid YAML: {problem}")
            return []
        return _with_actions(documents)

    def _parse(self, document: _Document) -> list[Any]:
        own = document.content.get(OWN_KEY)
        content = {key: value for key, value in document.content.items() if key != OWN_KEY}
        content, bounds = _without_range(content)
        with self._refusing(document):
            found, errors = _read(document, content)
            for error in errors:
                raise error
            if not found:
                raise RuleError("neither a rule, a correlation nor a filter")
            for item in found:
                item.custom_attributes[OWN_KEY] = own
                item.custom_attributes[RANGE_KEY] = bounds
            return found
        return []

    # -- rules ----------------------------------------------------------------------------------------------------

    def _is_sound(self, item: SigmaFilter, document: _Document) -> bool:
        """A filter that cannot be asked is refused itself, not the rules that it is about."""
        from breachwatch.detect.convert import condition_of

        with self._refusing(document):
            for name in item.filter.detections:
                if not FILTER_NAME.fullmatch(name):
                    raise RuleError(f"the part '{name}' of a filter needs a name that begins with a letter")
            condition_of(item.filter, item.logsource, self.placeholders)
            return True
        return False

    def _rule(self, item: SigmaRule, document: _Document, filters: list[Any]) -> Rule | None:
        from breachwatch.detect.convert import condition_of

        with self._refusing(document):
            for narrowing in filters:
                item = narrowing.apply_on_rule(item)
            ref = self._ref(item, document, ("host.name",))
            source = item.logsource
            return Rule(
                ref=ref,
                logsource=LogSource(source.product or "", source.category or "", source.service or ""),
                condition=condition_of(item.detection, source, self.placeholders),
                source=document.where,
                name=item.name or "",
            )
        return None

    def _ref(self, item: SigmaRule | SigmaCorrelationRule, document: _Document, keys: tuple[str, ...]) -> RuleRef:
        name = str(item.id) if item.id else item.name or f"unnamed-{sha256(item.title.encode()).hexdigest()[:16]}"
        if name in self.seen:
            raise RuleError(f"id {name} is already used at {self.seen[name]}", hint="every rule needs an id of its own")
        own = _own_fields(item.custom_attributes.get(OWN_KEY))
        self.seen[name] = document.where
        return RuleRef(
            id=name,
            title=item.title or "",
            level=Level(item.level.name.lower()) if item.level else Level.MEDIUM,
            tags=tuple(str(tag) for tag in item.tags),
            author=item.author or "",
            group_by=own.get("group_by", keys),
            within_s=own.get("within", 86_400.0),
            opens_incident=own.get("opens_incident", True),
        )

    # -- correlations ---------------------------------------------------------------------------------------------

    def _resolve(
        self, plain: list[Any], related: list[tuple[Any, _Document]]
    ) -> list[tuple[SigmaCorrelationRule, _Document]]:
        """Bind references; a correlation whose rule is missing is refused. Referenced ones come first."""
        from sigma.collection import SigmaCollection

        everything = SigmaCollection([*plain, *(item for item, _ in related)], resolve_references=False)
        bound = []
        for item, document in related:
            with self._refusing(document):
                item.resolve_rule_references(everything)
                bound.append((item, document))
        return bound

    def _correlations(
        self, related: list[tuple[SigmaCorrelationRule, _Document]], known: dict[str, LogSource]
    ) -> list[Correlation]:
        done: list[Correlation] = []
        waiting = related
        while waiting:
            later = []
            for item, document in waiting:
                references = [_identity(reference.rule) for reference in item.referenced_rules]
                if all(name in known for name in references):
                    if (made := self._correlation(item, document, references)) is not None:
                        known[made.ref.id] = known[references[0]]
                        if not item.generate:
                            self.only_read.update(references)
                        made = replace(made, names=_names(made, known))
                        done.append(made)
                else:
                    later.append((item, document))
            if len(later) == len(waiting):
                for _item, document in later:
                    self._refuse(
                        document.where, _titled(document, "a rule it refers to was refused, or it refers to itself")
                    )
                break
            waiting = later
        return done

    def _correlation(
        self, item: SigmaCorrelationRule, document: _Document, references: list[str]
    ) -> Correlation | None:
        with self._refusing(document):
            if not references:
                raise RuleError("the correlation names no rule")
            group_by = tuple(item.group_by or ())
            return _build_correlation(item, self._ref(item, document, group_by or ("host.name",)), references, document)
        return None

    @contextmanager
    def _refusing(self, document: _Document) -> Iterator[None]:
        """Whatever is wrong with one document, the others are read."""
        try:
            yield
        except RuleError as error:
            self._refuse(_place(document, error.message), _titled(document, error.message), error.hint)
        except Exception as error:  # noqa: BLE001  # a boundary: pySigma stumbles over what it does not expect
            self._refuse(_place(document, _said(error)), _titled(document, _said(error)))

    def _refuse(self, where: str, reason: str, hint: str | None = None) -> None:
        self.refused.append(RuleError(" ".join(reason.split()), source=where, hint=hint))


def _identity(rule: Any) -> str:
    return str(rule.id) if rule.id else rule.name or f"unnamed-{sha256(rule.title.encode()).hexdigest()[:16]}"


def _build_correlation(item: Any, ref: RuleRef, references: list[str], document: _Document) -> Correlation:
    kind = item.type.name.lower()
    condition = item.condition
    expression: Condition | None = None
    extended = hasattr(condition, "expression")
    if extended:
        if kind == "temporal_ordered":
            raise RuleError("an ordered correlation cannot have an expression as its condition")
        named = {reference.reference: _identity(reference.rule) for reference in item.referenced_rules}
        expression = _expression(condition.parsed, named)
        bounds, fields, percentile = (("gte", 1.0),), (), 50.0
    else:
        bounds = ((condition.op.name.lower(), float(condition.count)), *item.custom_attributes.get(RANGE_KEY, ()))
        named = condition.fieldref
        fields = () if named is None else (named,) if isinstance(named, str) else tuple(named)
        percentile = float(50 if condition.percentile is None else condition.percentile)
    identities = {reference.reference: _identity(reference.rule) for reference in item.referenced_rules}
    aliases = {
        alias.alias: {identities.get(key.reference, key.reference): name for key, name in alias.mapping.items()}
        for alias in item.aliases.aliases.values()
    }
    if not all(isinstance(text, str) for name, named in aliases.items() for text in (name, *named, *named.values())):
        raise RuleError("an alias, the rules it is for and their fields are named by text")
    if kind in COUNTS and any(op in {"gt", "gte", "eq"} and limit > MAX_EVENTS / 2 for op, limit in bounds):
        most = MAX_EVENTS // 2
        raise RuleError(f"counts above {most} are not kept in memory: this could never fire", hint="shorten timespan")
    text = repr(
        (STATE_FORM, kind, references, item.timespan.seconds, item.group_by, aliases, bounds, fields, str(condition))
    )
    return Correlation(
        ref=ref,
        type=kind,
        rules=tuple(references),
        timespan_s=float(item.timespan.seconds),
        group_by=tuple(item.group_by or ()),
        aliases=aliases,
        bounds=bounds,
        fields=fields,
        percentile=percentile,
        expression=expression,
        source=document.where,
        name=item.name or "",
        digest=sha256(text.encode()).hexdigest()[:16],
    )


def _names(correlation: Correlation, known: Mapping[str, LogSource]) -> dict[str, dict[str, tuple[str, ...]]]:
    """For each rule that is read: its fields that our parsers keep under other names."""
    named: dict[str, dict[str, tuple[str, ...]]] = {}
    for rule in correlation.rules:
        source = known[rule]
        also = names_for(source.category, source.product, source.service)
        fields = {correlation.aliases.get(name, {}).get(rule, name) for name in correlation.group_by}
        if found := {name: also[name] for name in sorted(fields | set(correlation.fields)) if name in also}:
            named[rule] = found
    return named


def _expression(node: Any, named: Mapping[str, str]) -> Condition:
    """An extended temporal condition; its leaves are rule ids in `Keyword.text`. Raises: RuleError."""
    kind = type(node).__name__
    if kind == "CorrelationConditionAND":
        return And(tuple(_expression(part, named) for part in node.args))
    if kind == "CorrelationConditionOR":
        return Or(tuple(_expression(part, named) for part in node.args))
    if kind == "CorrelationConditionNOT":
        return Not(_expression(node.args[0], named))
    if node.reference not in named:
        raise RuleError(f"the condition names the rule '{node.reference}', which is not among its rules")
    return Keyword(Text(()), named[node.reference])


def _without_range(content: dict[str, Any]) -> tuple[dict[str, Any], tuple[tuple[str, float], ...]]:
    """A correlation with the first comparison of its range only, and the others. Source: Sigma v2.1 correlations."""
    correlation = content.get("correlation")
    condition = correlation.get("condition") if isinstance(correlation, dict) else None
    if not isinstance(correlation, dict) or not isinstance(condition, dict):
        return content, ()
    comparisons = [name for name in condition if name in COMPARE and _is_number(condition[name])]
    others = tuple((name, float(condition[name])) for name in comparisons[1:])
    kept = {name: value for name, value in condition.items() if name not in comparisons[1:]}
    return {**content, "correlation": {**correlation, "condition": kept}}, others


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300  # noqa: PLR2004


def _own_fields(own: Any) -> dict[str, Any]:
    """The `breachwatch:` mapping, checked. Raises: RuleError."""
    if own is None:
        return {}
    if not isinstance(own, dict) or set(own) - OWN_FIELDS:
        raise RuleError(f"`{OWN_KEY}:` takes {', '.join(sorted(OWN_FIELDS))}", hint="see docs/sigma.md")
    fields: dict[str, Any] = {}
    if "group_by" in own:
        names = own["group_by"]
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise RuleError(f"`{OWN_KEY}.group_by` is a list of field names")
        fields["group_by"] = tuple(names)
    if "within" in own:
        found = DURATION.fullmatch(str(own["within"]))
        if not found:
            raise RuleError(f"`{OWN_KEY}.within` is a duration such as 24h")
        fields["within"] = float(int(found[1]) * UNIT_S[found[2]])
    if "opens_incident" in own:
        if not isinstance(own["opens_incident"], bool):
            raise RuleError(f"`{OWN_KEY}.opens_incident` is true or false")
        fields["opens_incident"] = own["opens_incident"]
    return fields


def _alias_count(text: str) -> int:
    return sum(isinstance(token, yaml.AliasEvent) for token in yaml.parse(text, Loader=yaml.CSafeLoader))


def _too_deep(text: str) -> int:
    """The line of what stands too deep to be composed, 0 where nothing does. Raises: yaml.YAMLError."""
    if text.count("[") + text.count("{") <= MAX_DEPTH and not DEEP.search(text):
        return 0
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            return event.start_mark.line + 1 if event.start_mark else 1
    return 0


def _written_out(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes a document has once every alias is replaced by what it stands for. Raises: RecursionError."""
    if id(node) not in known:
        known[id(node)] = MAX_NODES + 1  # an alias inside of what it stands for
        below = (
            [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
            if isinstance(node, yaml.CollectionNode)
            else []
        )
        known[id(node)] = 1 + sum(_written_out(part, known) for part in below)
    return known[id(node)]


def _construct(node: yaml.Node, *, is_tree: bool) -> Any:
    """What pySigma's loader makes of a document. Raises: yaml.YAMLError, and what it raises by mistake."""
    from sigma.rule.base import SigmaYAMLLoader

    loader = SigmaYAMLLoader("")
    try:
        if is_tree:
            with suppress(_UnusualError):
                return _constructed(node, loader)
        return loader.construct_document(node)
    finally:
        loader.dispose()


class _UnusualError(Exception):
    """Only the loader itself knows what a node means."""


def _constructed(node: yaml.Node, loader: Any) -> Any:
    """The same for nodes without aliases, in half the time: nearly all are texts, lists of them, and mappings.

    Raises: _UnusualError, and what the loader does.
    """
    tag, value = node.tag, node.value
    if tag == STRING and isinstance(node, yaml.ScalarNode):
        return value
    if tag == MAPPING and isinstance(node, yaml.MappingNode):
        made: dict[str, Any] = {}
        for name, item in value:
            if name.tag != STRING or not isinstance(name, yaml.ScalarNode):
                raise _UnusualError
            if name.value in made:
                raise yaml.YAMLError(f"Duplicate key '{name.value}'")
            made[name.value] = _constructed(item, loader)
        return made
    if tag == SEQUENCE and isinstance(node, yaml.SequenceNode):
        return [_constructed(item, loader) for item in value]
    if not isinstance(node, yaml.ScalarNode):
        raise _UnusualError
    return loader.construct_object(node, deep=True)


def _read(document: _Document, content: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """What pySigma makes of what is its own in a document, and finds wrong with it. Raises: what pySigma does."""
    if document.is_tree and document.is_plain and "action" not in content:
        from sigma.rule import SigmaRule

        # as below, which would look for aliases
        rule = SigmaRule.from_dict(content, collect_errors=True, policy=sigma_policy())
        return [rule], rule.errors
    from sigma.collection import SigmaCollection

    collection = SigmaCollection.from_dicts(
        [content],
        collect_errors=True,
        resolve_references=False,
        collect_filters=True,
        policy=None if "filter" in content else sigma_policy(),  # filters take none
    )
    found = [*collection.rules, *collection.filters]
    return found, [*collection.errors, *(error for item in found for error in item.errors)]


def _with_actions(documents: list[_Document]) -> list[_Document]:
    """Apply `action: global`, `reset` and `repeat` of multi-document files. Source: Sigma 1 specification."""
    if not any(map(_action, documents)):
        return documents
    base: dict[str, Any] = {}
    previous: dict[str, Any] = {}
    made = []
    for document in documents:
        action = _action(document)
        content = {name: value for name, value in document.content.items() if not action or name != "action"}
        if action == "global":
            base = _merged(base, content)
            continue
        if action == "reset":
            base = {}
            continue
        content = _merged(previous if action == "repeat" else base, content)
        previous = content
        made.append(replace(document, content=content))
    return made


def _action(document: _Document) -> str:
    action = document.content.get("action", "")
    return action if isinstance(action, str) and action in ACTIONS else ""


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _said(error: Exception) -> str:
    return str(error).strip() or type(error).__name__


def _titled(document: _Document, reason: str) -> str:
    title = str(document.content.get("title", ""))[:120]
    return f"rule {title!r}: {reason}"


def _place(document: _Document, reason: str) -> str:
    """file:line of the words that the reason quotes, else of the rule's first line."""
    lines = document.text.splitlines()
    for quoted in re.findall(r"['\"]([^'\"]{2,80})['\"]", reason):
        for number in range(document.line - 1, len(lines)):
            if number > document.line and lines[number].startswith("---"):
                break
            if quoted.strip() in lines[number]:
                return f"{document.source}:{number + 1}"
    return document.where
