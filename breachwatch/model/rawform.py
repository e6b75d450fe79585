"""How the lines of a format hold the values of their events: what a prefilter may look for in raw bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import NamedTuple

from breachwatch.model.event import FieldValue, LogSource

Words = tuple[str, ...]
"""At least one of these (lower case, ASCII) is in the line. Empty: nothing is promised."""


BETWEEN_VALUES = "\x1f"
"""The mark between values of an event that are scanned."""


class Sign(NamedTuple):
    """What is looked for in lines."""

    regex: str
    """A regular expression: ASCII, case ignored, over one line."""
    needs: tuple[bytes, ...] = ()
    """One of these is wherever the expression is found, which spares the search of it elsewhere. Empty: nothing is."""
    flag: int = 0
    """The flag of a survey (passes.py) that is set wherever it is found; 0: none."""


Parts = tuple[str | None, ...]
"""Parts of a line; None: it lacks one."""


class Usual(NamedTuple):
    """How the fields of a line of the usual shape are read one by one, each as the parser gives it."""

    source: LogSource
    """Of such a line's event."""
    parts: Callable[[str, int], Parts | None]
    """Those of its parts that the bits of a mask name, in order; None for a line of another shape."""
    at_utc: Callable[[str, tzinfo], datetime | None]
    """When such a line was written, all that a parser remembers of it; None for a line of another shape."""
    fields: Mapping[str, tuple[tuple[int, ...], Callable[..., FieldValue]]]
    """What the event has in a field: from which parts, and how; None: it has no such field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawForm:
    r"""What a parser promises about the raw line behind an event.

    To promise less is always sound, to promise too much loses matches.

    The promises hold for lines that match none of `dirty`, hold none of `dirty_words` and no NUL, and are valid UTF-8
    with no character that folds into ASCII; all other lines are candidates for every rule.
    """

    name: str
    escapes_json: bool = False
    r"""Values stand as JSON strings: `"` as `\"`, `\` as `\\`; names are keys."""
    is_values: bool = False
    """No line of a log is scanned but an event's line and its values, as they are compared, each between two marks."""
    exact: frozenset[str] = frozenset()
    """Fields whose text is a run of the line's own characters (numbers: as decimal text)."""
    decoded: frozenset[str] = frozenset()
    """The same after URL decoding; see `escapes`."""
    escapes: str = ""
    """Regular expression: an escape in the line that may stand for an unreserved character of a decoded field."""
    derived: frozenset[str] = frozenset()
    """Fields that an event may have without any trace in the line."""
    signs: Mapping[str, Sequence[Mapping[str, Words]]] = field(default_factory=dict)
    """Fields with a closed set of values: for each value, the words of which the line has one; of each such table."""
    pairs: Mapping[tuple[str, str], Words] = field(default_factory=dict)
    """event.action and event.outcome together promise more than each alone."""
    sources: tuple[LogSource, ...] = ()
    """Log sources of events of this format; empty: any."""
    words_of: Callable[[LogSource], tuple[Words, ...] | None] = field(default=lambda _source: ())
    """For the log source that a rule wants: sets of words, of each of which a line of such a source has one; None if
    no line of this form is of such a source."""
    digits_fold: bool = False
    """Numbers are read with `\\d` and `int`, which take the digits of other scripts too: such a line is dirty."""
    dirty_words: Words = ()
    """A line with one of these is a candidate for every rule."""
    usual: Usual | None = None
    """The shape of nearly all lines, if one can be read in parts."""
    dirty: tuple[Sign, ...] = ()
    """Such a line is a candidate for every rule."""
    programs: Mapping[str, RawForm] = field(default_factory=dict)
    """What lines promise that are not dirty and name a program, by its name: no line for which that promises less."""
    named: str = ""
    """Regular expression: the begin of a line that names a program, which is its group."""

    @property
    def unusual(self) -> frozenset[str]:
        """Fields that events may have, but lines of the usual shape do not tell: no other fields exist."""
        told = frozenset[str]() if self.usual is None else self.usual.fields.keys()
        return (self.exact | self.decoded | self.derived | self.signs.keys() | {"@timestamp"}) - told

    @property
    def is_closed(self) -> bool:
        """True if events have no other fields than the ones named here."""
        return not self.escapes_json
