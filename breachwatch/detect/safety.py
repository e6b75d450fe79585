"""Regular expressions that a hostile line cannot make run for ever.

Python's engine backtracks: a repetition costs the square of the input's length, repetitions inside or beside each
other a power or an exponential of it. All of these run in RE2, whose time is linear; those that RE2 cannot express
(look-around, references) are refused at load. The others run in Python's engine.
Source: https://github.com/google/re2/wiki/Syntax.
"""

from __future__ import annotations

import re
import re._constants as sre  # type: ignore[import-not-found]  # no stubs for the parser of re
import re._parser as parser  # type: ignore[import-not-found]
import warnings
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from breachwatch.detect.regexlits import required_literals
from breachwatch.errors import RuleError

if TYPE_CHECKING:
    from sigma.policy import SigmaPolicy

MANY = 64
"""A repetition that may run more often than this counts as unbounded."""

MAX_PATTERN = 20_000
"""Characters of a regular expression."""

MAX_TEXT = 65_536
"""Characters of a value that an expression sees: all that a value has."""

MAX_SQUARED = 16_384
"""The same for expressions that cost the square of it: about a second on a hostile line."""

MAX_WAYS = 100_000
"""Ways in which bounded repetitions may share one place of a text; beyond it counts as unbounded."""

MAX_GATE = 8
"""Texts of which a value has to hold one before it is searched."""

WORTH_RE2 = 256
"""From so many ways on RE2 is tried first."""

REPEATS = {sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT}
SINGLE = {sre.LITERAL, sre.NOT_LITERAL, sre.IN, sre.ANY}
COSTLY = 1_000

LINEAR_BYTES = (4 << 20, 64 << 20)
"""Memory that one expression may take in RE2: its tables are built as input asks for them, and dropped beyond this.
The second is for expressions that do not fit into the first."""

CLASSES = {
    "s": r"\s\x0b\x1c-\x1f\x{85}\p{Z}",
    "w": r"\p{L}\p{N}_",
    "d": r"\p{Nd}",
}
"""Python's Unicode classes in RE2's words, which by themselves are ASCII."""


_INLINE = {re.IGNORECASE: "i", re.MULTILINE: "m", re.DOTALL: "s"}
"""Flags as they are written inside an expression."""

CODE_POINT = re.compile(r"\\u([0-9a-fA-F]{4})|\\U([0-9a-fA-F]{8})", re.ASCII)
"""A character by its number, which RE2 writes as \\x{...}."""

SET = re.compile(r"\[(?P<not>\^?)(?P<items>\]?(?:\\.|[^\]\\])*)\]", re.DOTALL)
SET_ITEM = re.compile(r"\\u[0-9a-fA-F]{4}|\\U[0-9a-fA-F]{8}|\\.|[^\\]", re.ASCII | re.DOTALL)

SCOPED_MULTILINE = re.compile(r"\(\?[a-zA-Z]*-?[a-zA-Z]*m[a-zA-Z]*:", re.ASCII)

MAX_CHOICES = 8
"""Alternations in one expression: each more doubles what backtracking may take, `(a|aa)(a|aa)(a|aa)...`."""


def refuse_costly_regex(pattern: str, flags: int) -> None:
    """Pass if the expression runs in bounded time. Raises: RuleError."""
    if len(pattern) > MAX_PATTERN:
        raise RuleError(f"regular expression is longer than {MAX_PATTERN} characters", hint="split the rule")
    try:
        tree = _parsed(pattern, flags)
        if _degree(tree) or _ways(tree) > WORTH_RE2:
            linear_search(pattern, flags)  # Python's engine would see the start of a long value only, in silence
        else:
            _compiled(pattern, flags)
    except (re.error, RecursionError, OverflowError) as error:
        raise RuleError(f"regular expression cannot be read: {error}") from error


def is_costly(pattern: str, flags: int) -> bool:
    """True if backtracking could take more than about the square of the input. Raises: re.error."""
    tree = _parsed(pattern, flags)
    return _degree(tree) > 1 or _ways(tree) > MAX_WAYS


def _parsed(pattern: str, flags: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # "possible nested set": a set of today all the same
        return parser.parse(pattern, flags)


def linear_search(pattern: str, flags: int) -> Callable[[str], bool]:
    """A search in linear time. Raises: RuleError."""
    try:
        import re2
    except ImportError as error:
        raise RuleError(
            "regular expression repeats a repetition: a hostile line could stall detection",
            hint="install google-re2, or bound the repetitions",
        ) from error
    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = not flags & re.IGNORECASE
    options.dot_nl = bool(flags & re.DOTALL)
    start = "(?m)" if flags & re.MULTILINE else ""
    translated = start + "".join(_translated(pattern, flags))
    try:
        compiled = _fitting(translated.encode("utf-8"), options)
    except (re2.error, UnicodeEncodeError) as error:
        raise RuleError(
            f"regular expression could stall detection on a hostile line, and RE2 does not take it: {_reason(error)}",
            hint="rewrite (a+)+ as a+, bound repetitions, leave out look-around and references",
        ) from error

    def search(text: str) -> bool:
        return compiled.search(text[:MAX_TEXT].encode("utf-8", "replace")) is not None

    return search


@lru_cache(maxsize=4_096)
def searcher(pattern: str, flags: int) -> Callable[[str], bool]:
    """The search that decides for an expression. Raises: RuleError, re.error.

    Most values lack what every match holds: looking for that first costs a fraction of the search.
    """
    search = ungated_searcher(pattern, flags)
    sets = [one for one in required_literals(pattern, flags, controls=True) if len(one) <= MAX_GATE]
    if not sets:
        return search
    texts = min(sets, key=lambda one: (len(one), -min(map(len, one))))
    folds = any(text.lower() != text.upper() for text in texts)
    gate = tuple(sorted({text.lower() for text in texts}))

    def gated(text: str) -> bool:
        if folds:
            if not text.isascii():
                return search(text)  # other characters may equal these letters
            low = text.lower()
        else:
            low = text
        return any(wanted in low for wanted in gate) and search(text)

    return gated


def ungated_searcher(pattern: str, flags: int) -> Callable[[str], bool]:
    """The search itself. Raises: RuleError, re.error."""
    if is_costly(pattern, flags):
        return linear_search(pattern, flags)
    tree = _parsed(pattern, flags)
    limit = MAX_SQUARED if _degree(tree) else MAX_TEXT
    if _degree(tree) or _ways(tree) > WORTH_RE2:
        try:
            return linear_search(pattern, flags)
        except RuleError:
            limit = MAX_SQUARED
    compiled = _compiled(pattern, flags)
    return lambda text: compiled.search(text, 0, limit) is not None


def _fitting(pattern: bytes, options: Any) -> Any:
    """Compiled within the smaller memory if it fits. Raises: re2.error."""
    import re2

    options.max_mem = LINEAR_BYTES[0]
    try:
        return re2.compile(pattern, options)
    except re2.error:
        options.max_mem = LINEAR_BYTES[1]
        return re2.compile(pattern, options)


@cache
def sigma_policy() -> SigmaPolicy:
    """How pySigma reads expressions by default, saying nothing on standard error of those that it refuses."""
    import re2
    from sigma.policy import SigmaPolicy
    from sigma.policy.regex_engine import RE2RegexEngine, RegexPattern

    class Quiet(RE2RegexEngine):
        def compile(self, pattern: str, flags: int = 0) -> RegexPattern:
            options = re2.Options()
            options.log_errors = False
            inline = "".join(letter for flag, letter in _INLINE.items() if flags & flag)
            try:
                compiled: RegexPattern = re2.compile(f"(?{inline}){pattern}" if inline else pattern, options)
            except re2.error as error:
                raise re2.error(_reason(error)) from None
            return compiled

    return SigmaPolicy(regex_engine=Quiet())


def _reason(error: Exception) -> str:
    told = error.args[0] if error.args else ""
    return (told.decode("utf-8", "replace") if isinstance(told, bytes) else str(told))[:200]


def _compiled(pattern: str, flags: int) -> re.Pattern[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return re.compile(pattern, flags)


def _translated(pattern: str, flags: int) -> Iterator[str]:
    """The expression in RE2's words: Unicode classes, and `$` that also stands before a last line break."""
    position = 0
    multiline = bool(_flags(pattern, flags) & re.MULTILINE)
    while position < len(pattern):
        char = pattern[position]
        pair = pattern[position : position + 2]
        if char == "\\" and len(pair) > 1:
            if (found := CODE_POINT.match(pattern, position)) is not None:
                yield rf"\x{{{found[1] or found[2]}}}"
                position = found.end()
                continue
            yield _escape(pair)
            position += 2
            continue
        if char == "[":
            found = SET.match(pattern, position)
            assert found is not None
            yield _set(found["items"], is_negated=bool(found["not"]))
            position = found.end()
            continue
        if char == "$" and not multiline:
            char = r"(?:\n?\z)"
        elif pattern.startswith("{,", position):
            char = "{0"  # RE2 takes {,5} for plain text
        yield char
        position += 1


def _set(items: str, *, is_negated: bool) -> str:
    r"""A set in RE2's words. What it has no word for inside a set, `\W` and `\S` of Unicode, stands beside it."""
    plain, beside = "", []
    for found in SET_ITEM.finditer(items):
        item = found[0]
        letter = item[1:]
        if (code := CODE_POINT.fullmatch(item)) is not None:
            plain += rf"\x{{{code[1] or code[2]}}}"
        elif item in {r"\W", r"\S"}:
            beside.append(f"[^{CLASSES[letter.lower()]}]")
        elif item == r"\D":
            plain += r"\P{Nd}"
        elif item == r"\b":
            plain += r"\x08"
        elif letter in CLASSES:
            plain += CLASSES[letter]
        else:
            plain += item if letter.isalnum() or item == "-" else re.escape(letter or item)
    if not beside:
        return f"[{'^' if is_negated else ''}{plain}]"
    if is_negated:
        raise RuleError(r"RE2 has no \W and \S of Unicode inside a negated set", hint=r"write what the set may hold")
    return f"(?:{'|'.join([*([f'[{plain}]'] if plain else []), *beside])})"


def _flags(pattern: str, flags: int) -> int:
    """The flags given and those that the expression itself sets. Raises: RuleError."""
    if SCOPED_MULTILINE.search(pattern):
        raise RuleError("regular expression switches multiline for a part of itself", hint="use re|m for all of it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return int(parser.parse(pattern, flags).state.flags)


def _escape(pair: str) -> str:
    letter = pair[1]
    if letter in CLASSES:
        return f"[{CLASSES[letter]}]"
    if letter.lower() in CLASSES:
        return f"[^{CLASSES[letter.lower()]}]"
    if letter == "Z":
        return r"\z"
    return re.escape(letter) if not letter.isalnum() else pair


def _degree(node: Any) -> int:
    """How many unbounded repetitions can compete for the same text; COSTLY where they stand inside each other."""
    total = 0
    if _choices(node) > MAX_CHOICES:
        return COSTLY
    for operation, argument in node:
        if operation in REPEATS:
            _, most, body = argument
            unbounded = most is sre.MAXREPEAT or most > MANY
            if most > 1 and _is_variable(body):
                return COSTLY
            total += int(unbounded) + _degree(body)
        elif operation is sre.BRANCH:
            total += max(_degree(branch) for branch in argument[1])
        else:
            total += sum(_degree(child) for child in _children(operation, argument))
    return total


def _ways(node: Any) -> int:
    """In how many ways bounded repetitions can be spread over one place: what they multiply the cost by."""
    ways = 1
    for operation, argument in node:
        if operation in REPEATS:
            least, most, body = argument
            if most is not sre.MAXREPEAT and most <= MANY:
                ways *= most - least + 1
            ways *= _ways(body) ** min(int(most), 4)
        elif operation is sre.BRANCH:
            ways *= max(_ways(branch) for branch in argument[1])
        else:
            for child in _children(operation, argument):
                ways *= _ways(child)
        if ways > MAX_WAYS:
            return ways
    return ways


def _choices(node: Any) -> int:
    """Alternations between texts of different length, at any depth."""
    found = 0
    for operation, argument in node:
        if operation is sre.BRANCH:
            lengths = {branch.getwidth() for branch in argument[1]}
            found += len(lengths) > 1 or any(least != most for least, most in lengths)
        if operation in REPEATS:
            found += _choices(argument[2])
        else:
            found += sum(_choices(child) for child in _children(operation, argument))
    return found


def _is_variable(body: Any) -> bool:
    """True if the body can match texts of different length, or one text in different ways."""
    if len(body) == 1 and body[0][0] in SINGLE:
        return False
    for operation, argument in body:
        if operation is sre.BRANCH:
            return True
        if operation in REPEATS:
            least, most, inner = argument
            if least != most or _is_variable(inner):
                return True
        elif any(_is_variable(child) for child in _children(operation, argument)):
            return True
    return False


def _children(operation: Any, argument: Any) -> list[Any]:
    if operation is sre.SUBPATTERN:
        return [argument[-1]]
    if operation is sre.BRANCH:
        return list(argument[1])
    if operation in {sre.ASSERT, sre.ASSERT_NOT}:
        return [argument[1]]
    if operation is sre.GROUPREF_EXISTS:
        return [part for part in argument[1:] if part]
    if operation is sre.ATOMIC_GROUP:
        return [argument]
    return []
