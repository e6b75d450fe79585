"""Notice templates: found in folders, checked before anybody approves them, rendered in a sandbox that cannot grow.

A template is `<name>.<language>.<kind>.j2`; kinds are txt (needed), html and sms. The txt begins with
`subject: ...` and a line `---`. Operator folders overlay the shipped ones file by file.
Names are facts in two parts (`inc.description`, `org.hotline`, `person.name`). No loops, calls, arithmetic or macros: a
sandbox stops attribute escapes, but not `'a' * 10**9` (facts/notify.md 5.4).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes
from jinja2 import Template as Compiled  # noqa: TID251  # the type only; made by our sandboxes
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from breachwatch.errors import TemplateError

KINDS = ("txt", "html", "sms")
SHIPPED = Path(__file__).parent / "templates"
SEPARATOR = "---"

MAX_TEMPLATE_BYTES = 65_536
MAX_RENDERED_CHARS = 200_000
"""Values are bounded where they enter; this bounds their sum."""

MAX_SMS_SEGMENTS = 6
"""Longer ones are refused by gateways or cut on old telephones."""

_NAME = re.compile(r"(?P<name>[a-z][a-z0-9_-]{0,63})\.(?P<language>[a-z]{2,3})\.(?P<kind>txt|html|sms)\.j2\Z")
_FILTERS = frozenset({"e", "escape", "trim", "upper", "lower"})
_TESTS = frozenset({"defined", "undefined"})
_ALLOWED = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Getattr, nodes.If, nodes.And, nodes.Or,
    nodes.Not, nodes.Const, nodes.Test, nodes.Filter, nodes.Compare, nodes.Operand, nodes.CondExpr,
)  # fmt: skip
_GSM7 = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM7_EXTENDED = frozenset("^{}\\[~]|€")


class _Facts(ImmutableSandboxedEnvironment):
    """Attributes are keys of our own mappings and nothing else: no methods, no dunder names."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        """One fact, or an undefined that refuses to be printed."""
        if type(obj) is dict and attribute in obj:
            return obj[attribute]
        return self.undefined(obj=obj if type(obj) is dict else None, name=attribute)


_TEXT = _Facts(undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True)
_HTML = _Facts(undefined=StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """One notice in words. A kind that the template does not have is None."""

    subject: str
    text: str
    html: str | None = None
    sms: str | None = None


@dataclass(frozen=True, slots=True)
class TemplateSource:
    """One file as read."""

    text: str
    where: str


@dataclass(frozen=True, slots=True)
class _Part:
    """One compiled file."""

    where: str
    body: Compiled
    subject: Compiled | None
    required: Mapping[str, int]
    """Facts that it cannot do without, with the line that names each first."""
    plain_person: bool
    """Facts about the person are only printed or asked for, never filtered or compared."""


class TemplateSet:
    """All templates that can be used, compiled at first use."""

    def __init__(self, sources: Mapping[tuple[str, str, str], TemplateSource]) -> None:
        self._sources = dict(sources)
        self._parts: dict[tuple[str, str, str], _Part] = {}

    def names(self) -> list[tuple[str, str]]:
        """(name, language) of every notice that has a text."""
        return sorted({(name, language) for name, language, kind in self._sources if kind == "txt"})

    def sources(self, name: str, language: str) -> Mapping[str, str]:
        """Kind to template text, for freezing."""
        return {kind: self._sources[name, language, kind].text for kind in KINDS if self.has(name, language, kind)}

    def has(self, name: str, language: str, kind: str) -> bool:
        """Whether this file exists."""
        return (name, language, kind) in self._sources

    def check(
        self, name: str, languages: Collection[str], fields: Collection[str], *, kinds: Collection[str] = ("txt",)
    ) -> None:
        """Compile a notice in each language; `fields` are the facts that are known.

        Raises: TemplateError with file and line: language missing, construct refused, facts missing (all are named).
        """
        known = set(fields)
        missing: dict[str, str] = {}
        for language in languages:
            for kind in KINDS:
                if not self.has(name, language, kind):
                    if kind in {"txt", *kinds}:
                        raise TemplateError(f"no template {name}.{language}.{kind}.j2", source=name)
                    continue
                part = self._part(name, language, kind)
                for fact, line in part.required.items():
                    if fact not in known and not fact.startswith("person."):
                        missing.setdefault(fact, f"{part.where}:{line}")
        if missing:
            raise TemplateError(
                f"facts missing: {', '.join(sorted(missing))}",
                source=next(iter(missing.values())),
                hint="state them (`breachwatch incident note --fact NAME=VALUE`, [letterhead]) before approval",
            )

    def required(self, name: str, language: str) -> frozenset[str]:
        """Facts that the notice cannot do without. Raises: TemplateError."""
        kinds = [kind for kind in KINDS if self.has(name, language, kind)]
        return frozenset(fact for kind in kinds for fact in self._part(name, language, kind).required)

    def prints_person_plainly(self, name: str, language: str) -> bool:
        """Whether the person's name may be put into rendered words afterwards, with the same result."""
        kinds = [kind for kind in KINDS if self.has(name, language, kind)]
        return all(self._part(name, language, kind).plain_person for kind in kinds)

    def render(
        self, name: str, language: str, kind: str | None, values: Mapping[str, str] | Mapping[str, Mapping[str, str]]
    ) -> Rendered:
        """The words; `kind` None gives every kind there is, else the txt (for its subject) and that kind.

        `values` are flat (`inc.place`) or nested already. Raises: TemplateError.
        """
        facts = nest(values)
        wanted = [one for one in KINDS if self.has(name, language, one) and kind in {None, one}]
        if kind is not None and kind not in wanted:
            raise TemplateError(f"no template {name}.{language}.{kind}.j2", source=name)
        txt = self._part(name, language, "txt")
        assert txt.subject is not None
        subject = " ".join(self._words(txt, txt.subject, facts).split())
        made = {one: self._words(part := self._part(name, language, one), part.body, facts) for one in wanted}
        sms = made.get("sms")
        if sms is not None:
            sms = " ".join(sms.split())
            if sms_segments(sms) > MAX_SMS_SEGMENTS:
                raise TemplateError(
                    f"an SMS of {sms_segments(sms)} segments; at most {MAX_SMS_SEGMENTS}",
                    source=self._part(name, language, "sms").where,
                )
        return Rendered(subject=subject, text=made.get("txt", ""), html=made.get("html"), sms=sms)

    def _words(self, part: _Part, template: Compiled, facts: Mapping[str, Mapping[str, str]]) -> str:
        try:
            words = template.render(facts)
        except JinjaError as error:
            raise TemplateError(f"cannot be rendered: {error.message}", source=part.where) from error
        if len(words) > MAX_RENDERED_CHARS:
            raise TemplateError(f"{len(words)} characters rendered; at most {MAX_RENDERED_CHARS}", source=part.where)
        return words.strip("\n") + "\n"

    def _part(self, name: str, language: str, kind: str) -> _Part:
        key = (name, language, kind)
        part = self._parts.get(key)
        if part is None:
            source = self._sources.get(key)
            if source is None:
                raise TemplateError(f"no template {name}.{language}.{kind}.j2", source=name)
            part = self._parts[key] = _compile(source, kind)
        return part


def nest(values: Mapping[str, str] | Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """`{"inc.place": x}` as `{"inc": {"place": x}}`; empty facts are left out, so that they count as missing."""
    nested: dict[str, dict[str, str]] = {}
    for name, value in values.items():
        if not isinstance(value, str):
            nested[name] = value if type(value) is dict else dict(value)
            continue
        space, dot, fact = name.partition(".")
        if dot and value.strip():
            nested.setdefault(space, {})[fact] = value
    return nested


def load_templates(folders: Sequence[Path] = ()) -> TemplateSet:
    """The shipped templates with `folders` laid over them, later ones on top. Raises: TemplateError."""
    sources: dict[tuple[str, str, str], TemplateSource] = {}
    for folder in (SHIPPED, *folders):
        for path in sorted(folder.glob("*.j2")):
            named = _NAME.match(path.name)
            if named is None:
                raise TemplateError(
                    "not a template name", source=str(path), hint="<name>.<language>.<txt|html|sms>.j2, lower case"
                )
            sources[named["name"], named["language"], named["kind"]] = TemplateSource(_read(path), str(path))
    templates = TemplateSet(sources)
    for name, language, kind in sources:
        templates._part(name, language, kind)  # noqa: SLF001  # a broken file is refused now, not at midnight
    return templates


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
        if len(data) > MAX_TEMPLATE_BYTES:
            raise TemplateError(f"{len(data)} bytes; at most {MAX_TEMPLATE_BYTES}", source=str(path))
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"cannot be read: {error}", source=str(path)) from error


def _compile(source: TemplateSource, kind: str) -> _Part:
    """Raises: TemplateError with file and line."""
    subject_text, body = (None, source.text) if kind != "txt" else _split(source)
    environment = _HTML if kind == "html" else _TEXT
    try:
        tree = environment.parse(body)
        subject_tree = None if subject_text is None else _TEXT.parse(subject_text)
        required: dict[str, int] = {}
        for parsed in (subject_tree, tree):
            if parsed is not None:
                _refuse(parsed, source.where)
                for fact, line in _facts(parsed, frozenset(), source.where):
                    required.setdefault(fact, line)
        return _Part(
            where=source.where,
            body=environment.from_string(body),
            subject=None if subject_text is None else _TEXT.from_string(subject_text),
            required=required,
            plain_person=all(_prints_person_plainly(parsed) for parsed in (subject_tree, tree) if parsed is not None),
        )
    except TemplateSyntaxError as error:
        raise TemplateError(f"not a template: {error.message}", source=f"{source.where}:{error.lineno}") from error


def _split(source: TemplateSource) -> tuple[str, str]:
    """Subject and body; the body keeps its line numbers."""
    lines = source.text.split("\n")
    if len(lines) < 2 or not lines[0].startswith("subject:") or lines[1].strip() != SEPARATOR:  # noqa: PLR2004
        raise TemplateError("a text begins with `subject: ...` and a line `---`", source=f"{source.where}:1")
    subject = lines[0].removeprefix("subject:").strip()
    if not subject:
        raise TemplateError("the subject is empty", source=f"{source.where}:1")
    return subject, "\n\n" + "\n".join(lines[2:])


def _refuse(tree: nodes.Node, where: str) -> None:
    for node in tree.find_all(nodes.Node):
        what = type(node).__name__.lower()
        if not isinstance(node, _ALLOWED):
            raise TemplateError(f"{what} is not allowed in templates", source=f"{where}:{node.lineno}")
        if isinstance(node, nodes.Filter) and (node.name not in _FILTERS or node.args or node.kwargs):
            raise TemplateError(f"filter {node.name} is not allowed in templates", source=f"{where}:{node.lineno}")
        if isinstance(node, nodes.Test) and node.name not in _TESTS:
            raise TemplateError(f"test {node.name} is not allowed in templates", source=f"{where}:{node.lineno}")


def _facts(node: nodes.Node, guarded: frozenset[str], where: str) -> Iterator[tuple[str, int]]:
    """(fact, line) of every fact that is printed or compared without an `is defined` around it."""
    if isinstance(node, nodes.Getattr | nodes.Name):
        fact = _fact(node, where)
        if fact not in guarded:
            yield fact, node.lineno
    elif isinstance(node, nodes.Test):
        _fact(node.node, where)
    else:
        for child, known in _branches(node, guarded):
            yield from _facts(child, known, where)


def _fact(node: nodes.Node, where: str) -> str:
    if isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name):
        return f"{node.node.name}.{node.attr}"
    raise TemplateError("facts have two parts: space.name", source=f"{where}:{node.lineno}")


def _branches(node: nodes.Node, guarded: frozenset[str]) -> Iterator[tuple[nodes.Node, frozenset[str]]]:
    """The children of a node, each with the facts known to be there when it is reached."""
    if isinstance(node, nodes.If):
        then = guarded | _defined(node.test)
        yield node.test, guarded
        yield from ((child, then) for child in node.body)
        yield from ((child, guarded) for child in (*node.elif_, *node.else_))
    elif isinstance(node, nodes.CondExpr):
        yield node.test, guarded
        yield node.expr1, guarded | _defined(node.test)
        if node.expr2 is not None:
            yield node.expr2, guarded
    elif isinstance(node, nodes.And):
        yield node.left, guarded
        yield node.right, guarded | _defined(node.left)
    else:
        yield from ((child, guarded) for child in node.iter_child_nodes())


def _prints_person_plainly(node: nodes.Node) -> bool:
    """Whether a value of `person` can be put into the rendered words afterwards."""
    if isinstance(node, nodes.Getattr):
        return not (isinstance(node.node, nodes.Name) and node.node.name == "person")
    if isinstance(node, nodes.Test):
        return True
    printed = isinstance(node, nodes.Output)
    return all(
        (printed and isinstance(child, nodes.Getattr)) or _prints_person_plainly(child)
        for child in node.iter_child_nodes()
    )


def _defined(test: nodes.Node) -> frozenset[str]:
    """Facts that are known to be there where `test` holds."""
    if isinstance(test, nodes.And):
        return _defined(test.left) | _defined(test.right)
    if isinstance(test, nodes.Test) and test.name == "defined" and isinstance(test.node, nodes.Getattr):
        inner = test.node.node
        return frozenset({f"{inner.name}.{test.node.attr}"}) if isinstance(inner, nodes.Name) else frozenset()
    return frozenset()


def sms_segments(text: str) -> int:
    """How many SMS a text takes. Source: 3GPP TS 23.038: GSM-7 160/153 characters, UCS-2 70/67."""
    if all(character in _GSM7 or character in _GSM7_EXTENDED for character in text):
        length = sum(2 if character in _GSM7_EXTENDED else 1 for character in text)
        single, several = 160, 153
    else:
        length = len(text.encode("utf-16-le", "replace")) // 2
        single, several = 70, 67
    return 1 if length <= single else -(-length // several)
