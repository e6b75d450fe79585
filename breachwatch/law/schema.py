"""Regime rows as typed values, refused with file and line. The data lies in law/regimes/*.yaml.

Source of the shape: `breachwatch.regimes/1`, described at the top of each data file. Not legal advice: a row is what
its sources say, marked with how strong they are, until somebody qualified has reviewed it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from breachwatch.errors import LawError
from breachwatch.model.document import Document, DocumentError, read_document

SCHEMA = "breachwatch.regimes/1"

Unit = Literal[
    "hours", "calendar_days", "business_days", "months", "immediate", "on_request", "none_stated", "annual_date"
]
Mark = Literal["P", "S2", "S", "M", "?"]
"""How a claim was verified; the data files explain the marks."""

Key = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")]
Text = Annotated[str, Field(max_length=4_000)]


class _Row(BaseModel):
    """Unknown keys are refused, values do not change type, nothing can be changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Status(_Row):
    """Whether the row is law, and when it was."""

    value: Literal["in_force", "not_in_force", "not_yet_enforced"]
    since: date | None
    until: date | None
    note: Text = ""
    v: Mark

    def why_not(self, on: date) -> str:
        """Empty if the row is law on that day, else the reason why it is not. No recorded date bounds nothing."""
        if self.value != "in_force":
            return f"the regime is {self.value}"
        if self.since is not None and on < self.since:
            return f"in force only since {self.since}"
        if self.until is not None and on > self.until:
            return f"in force only until {self.until}"
        return ""


class Alternative(_Row):
    """One of several candidates for a due time: only units that can be computed, or the earliest could be missed."""

    after: str
    amount: int = Field(strict=True, ge=1, le=10_000)
    unit: Literal["hours", "calendar_days", "months"]


class Variant(_Row):
    """Another amount under a condition."""

    when: Key
    amount: int = Field(strict=True, ge=1, le=10_000)
    unit: Unit


class Due(_Row):
    """When a stage is due."""

    unit: Unit | None = None
    amount: int | None = Field(default=None, strict=True, ge=1, le=10_000)
    after: str | None = None
    first_set_of: tuple[str, ...] = ()
    earliest_of: tuple[Alternative, ...] = ()
    month: int | None = Field(default=None, strict=True, ge=1, le=12)
    day: int | None = Field(default=None, strict=True, ge=1, le=31)
    qualifier: Text = ""
    text: Text = ""
    extendable: Text = ""
    variants: tuple[Variant, ...] = ()

    @model_validator(mode="after")
    def _is_complete(self) -> Due:
        if self.earliest_of:
            return self
        if self.unit is None:
            raise ValueError("needs `unit` (or `earliest_of`)")
        if self.unit in {"hours", "calendar_days", "business_days", "months"}:
            if self.amount is None:
                raise ValueError(f"unit {self.unit} needs `amount`")
            if (self.after is None) == (not self.first_set_of):
                raise ValueError(f"unit {self.unit} needs exactly one of `after`, `first_set_of`")
        return self

    def triggers(self) -> tuple[str, ...]:
        """Every instant that the due time may run from."""
        after = (self.after,) if self.after else ()
        return (*after, *self.first_set_of, *(alternative.after for alternative in self.earliest_of))


class Stage(_Row):
    """One thing to do towards one kind of recipient."""

    id: Key
    to: tuple[Key, ...] = Field(min_length=1)
    when: Key | None = None
    due: Due
    form: Key | None = None
    content: tuple[Key, ...] = ()
    late_requires: tuple[Key, ...] = ()
    note: Text = ""
    v: Mark


class AppliesIf(_Row):
    """Whom the row concerns."""

    roles: tuple[Key, ...] = ()
    sectors: tuple[Key, ...] = ()
    data: tuple[Key, ...] = ()
    other: Text | tuple[Text, ...] = ""
    v: Mark


class Trigger(_Row):
    """What starts the clocks of the row."""

    events: tuple[Key, ...]
    also_record: tuple[Key, ...] = ()
    text: Text = ""
    v: Mark


class Regime(_Row):
    """One row: a law that wants somebody told."""

    id: Key
    title: Text
    jurisdiction: Text
    status: Status
    applies_if: AppliesIf | None = None
    authorities: tuple[Key, ...] = ()
    trigger: Trigger
    threshold: dict[str, object] = Field(default_factory=dict)
    stages: tuple[Stage, ...] = Field(min_length=1)
    authority_content: tuple[Key, ...] = ()
    subject_content: tuple[Key, ...] = ()
    exemptions: tuple[Text, ...] = ()
    records: dict[str, object] = Field(default_factory=dict)
    channel: dict[str, object] = Field(default_factory=dict)
    calendar: dict[str, object] = Field(default_factory=dict)
    sanctions: tuple[dict[str, object], ...] = ()
    sources: tuple[Text, ...] = ()
    see_also: tuple[Key, ...] = ()
    note: Text = ""

    @field_validator("stages")
    @classmethod
    def _stages_differ(cls, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        ids = [stage.id for stage in stages]
        if len(set(ids)) != len(ids):
            raise ValueError("two stages have the same id")
        return stages


class Review(_Row):
    """Whether somebody qualified has read the rows."""

    status: Literal["unreviewed", "reviewed"]
    by: Text | None
    on: date | None


class _File(_Row):
    schema_: Literal["breachwatch.regimes/1"] = Field(alias="schema")
    as_of: date
    review: Review
    timestamps: dict[Key, Text]
    recipients: dict[Key, Text]
    conditions: dict[Key, Text] = Field(default_factory=dict)
    facts: dict[Key, Text]
    forms: dict[Key, dict[str, object]] = Field(default_factory=dict)
    authorities: dict[Key, dict[str, object]]
    regimes: tuple[Regime, ...] = Field(min_length=1)


def load_regimes(text: str, source: str) -> tuple[Regime, ...]:
    """The rows of one data file. Raises: LawError with `file:line` (unknown key, unit or name; nothing in the file)."""
    try:
        document = read_document(text, source)
    except DocumentError as error:
        raise LawError(error.message, source=error.source, hint=error.hint) from error
    try:
        file = _File.model_validate(document.value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"]) or "the file"
        raise LawError(f"{name}: {first['msg']}", source=document.where(first["loc"])) from error
    for path, what in _unknown_names(file):
        raise LawError(f"{what} is not defined in this file", source=document.where(path))
    _check_ids(file, document)
    return file.regimes


def _check_ids(file: _File, document: Document) -> None:
    seen: set[str] = set()
    for index, regime in enumerate(file.regimes):
        if regime.id in seen:
            raise LawError(f"a second row {regime.id}", source=document.where(("regimes", index)))
        seen.add(regime.id)


def _unknown_names(file: _File) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every reference that leads nowhere: a misspelt trigger would be a clock that never starts."""
    for index, regime in enumerate(file.regimes):
        row: tuple[str | int, ...] = ("regimes", index)
        contents = (*regime.authority_content, *regime.subject_content)
        yield from (
            ((*row, "trigger"), f"trigger {name}") for name in regime.trigger.events if name not in file.timestamps
        )
        yield from (((*row,), f"fact {name}") for name in contents if name not in file.facts)
        yield from (((*row, "authorities"), f"authority {n}") for n in regime.authorities if n not in file.authorities)
        own = {f"stage:{stage.id}.{end}" for stage in regime.stages for end in ("submitted_at", "last_submitted_at")}
        for number, stage in enumerate(regime.stages):
            path = (*row, "stages", number)
            conditions = [*(variant.when for variant in stage.due.variants), *([stage.when] if stage.when else [])]
            facts = (*stage.content, *stage.late_requires)
            yield from ((path, f"recipient {name}") for name in stage.to if name not in file.recipients)
            yield from ((path, f"condition {name}") for name in conditions if name not in file.conditions)
            yield from ((path, f"fact {name}") for name in facts if name not in file.facts)
            starts = (name for name in stage.due.triggers() if name not in file.timestamps and name not in own)
            yield from ((path, f"start {name}") for name in starts)
            if stage.form is not None and stage.form not in file.forms:
                yield path, f"form {stage.form}"
