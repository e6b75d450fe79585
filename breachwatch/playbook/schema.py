"""Playbooks as typed values, refused with file and line. `playbooks/*.yaml` show every key with its meaning."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from breachwatch.errors import PlaybookError
from breachwatch.model import CampaignKind, Channel, Incident
from breachwatch.model.document import Document, DocumentError, read_document
from breachwatch.playbook.actions import ChannelChoice
from breachwatch.playbook.expression import compile_expression

_DURATION = re.compile(r"([1-9][0-9]{0,4})\s?([smhd])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

MAX_WAIT = timedelta(days=7)
"""Waiting longer for an answer to a page is not waiting but forgetting."""


def _duration(value: object) -> object:
    parts = _DURATION.match(value) if isinstance(value, str) else None
    if parts is None:
        raise ValueError("expected a number and one of s, m, h, d, for example 5m")
    return timedelta(seconds=int(parts[1]) * _SECONDS[parts[2]])


def _choice(value: object) -> object:
    """`email`, or `{sms: {if: undelivered}}`."""
    if isinstance(value, str):
        return {"channel": value}
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError("expected a channel such as email, or {sms: {if: undelivered}}")
    ((channel, options),) = value.items()
    if options != {"if": "undelivered"}:
        raise ValueError(f"the only condition of a channel is {{{channel}: {{if: undelivered}}}}")
    return {"channel": channel, "if_undelivered": True}


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
StepId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Reference = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./@-]{0,99}$")]
"""Something of the configuration: a team, a person, an authority, an audience, a role."""
Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    WithJsonSchema(
        {"type": "string", "pattern": "^" + _DURATION.pattern.replace(r"\Z", "$"), "examples": ["5m", "72h"]}
    ),
]
Language = Literal["vi", "en"]


class _Part(BaseModel):
    """Unknown keys are refused, nothing can be changed later; errors do not repeat values."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, populate_by_name=False)


class Applies(_Part):
    """Which incidents the playbook is for."""

    when: str = Field(min_length=1)

    @field_validator("when")
    @classmethod
    def _is_expression(cls, text: str) -> str:
        try:
            compile_expression(text)
        except PlaybookError as error:
            raise ValueError(f"{error.message}" + (f" ({error.hint})" if error.hint else "")) from error
        return text


class EscalationLevel(_Part):
    """Whom to page, how often, and how long to wait for an answer."""

    to: Reference
    via: tuple[Channel, ...] = Field(min_length=1, max_length=3)
    wait: Duration
    repeat: int = Field(default=1, strict=True, ge=1, le=100)

    @field_validator("wait")
    @classmethod
    def _wait_is_short(cls, wait: timedelta) -> timedelta:
        if wait > MAX_WAIT:
            raise ValueError(f"at most {MAX_WAIT.days}d")
        return wait


class ClockOf(_Part):
    """A legal clock to watch."""

    regime: Reference
    stage: Reference
    met_by: StepId | None = None
    """The step that fulfils it; without one it runs until the incident is notified or closed."""


class ChannelEntry(_Part):
    """As ChannelChoice, read from YAML."""

    channel: Channel
    if_undelivered: bool = False


Choice = Annotated[
    ChannelEntry,
    BeforeValidator(_choice),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": [str(channel) for channel in Channel]},
                {
                    "type": "object",
                    "propertyNames": {"enum": [str(channel) for channel in Channel]},
                    "additionalProperties": {"const": {"if": "undelivered"}},
                    "minProperties": 1,
                    "maxProperties": 1,
                },
            ]
        }
    ),
]
"""A channel by its name, or `{sms: {if: undelivered}}`."""


class Notice(_Part):
    """Who is told what, how."""

    kind: Literal["authority", "customers"]
    to: Reference | None = None
    audience: Reference | None = None
    templates: dict[Language, Reference] = Field(min_length=1)
    channels: tuple[Choice, ...] = Field(min_length=1, max_length=3)

    @model_validator(mode="after")
    def _is_addressed(self) -> Notice:
        if self.kind == "authority" and (self.to is None or self.audience is not None):
            raise ValueError("an authority notice has `to` (an authority of the configuration) and no `audience`")
        if self.kind == "customers" and (self.audience is None or self.to is not None):
            raise ValueError("a customer notice has `audience` (a source of the configuration) and no `to`")
        if self.kind == "customers" and set(self.templates) != {"vi", "en"}:
            raise ValueError("a customer notice needs templates in vi and en")
        return self

    @field_validator("channels")
    @classmethod
    def _channels_make_sense(cls, channels: tuple[ChannelEntry, ...]) -> tuple[ChannelEntry, ...]:
        if len({entry.channel for entry in channels}) != len(channels):
            raise ValueError("a channel is named twice")
        if channels[0].if_undelivered:
            raise ValueError("the first channel cannot wait for another to fail")
        return channels

    @property
    def campaign_kind(self) -> CampaignKind:
        """The kind of campaign it becomes."""
        return CampaignKind(self.kind)

    @property
    def addressee(self) -> str:
        """The key of the authority or of the audience."""
        return self.to or self.audience or ""

    def choices(self) -> tuple[ChannelChoice, ...]:
        """Its channels in order."""
        return tuple(
            ChannelChoice(channel=entry.channel, if_undelivered=entry.if_undelivered) for entry in self.channels
        )


class Approve(_Part):
    """Who has to agree before a notice leaves. Never the one who asked for it."""

    need: int = Field(default=1, strict=True, ge=1, le=10)
    roles: tuple[Reference, ...] = Field(min_length=1, max_length=20)
    excluded: tuple[Literal["requester"], ...] = Field(default=("requester",), alias="not", min_length=1)


class NoticeStep(_Part):
    """A step of `on_confirm`."""

    id: StepId
    notice: Notice
    needs: tuple[StepId, ...] = ()
    approve: Approve


class Playbook(_Part):
    """What to do about one kind of incident."""

    playbook: Name
    version: int = Field(strict=True, ge=1, le=1_000_000)
    title: str = Field(min_length=1, max_length=200)
    applies: Applies
    escalation: tuple[EscalationLevel, ...] = Field(min_length=1, max_length=20)
    clocks: tuple[ClockOf, ...] = Field(default=(), max_length=50)
    on_confirm: tuple[NoticeStep, ...] = Field(min_length=1, max_length=50)

    @property
    def id(self) -> str:
        """Its name."""
        return self.playbook

    def applies_to(self, incident: Incident) -> bool:
        """Whether it is for this incident."""
        return compile_expression(self.applies.when).holds(incident)

    def step(self, key: str) -> NoticeStep | None:
        """The notice step with this key (`<playbook>/<id>`), or None."""
        return next((step for step in self.on_confirm if self.key(step.id) == key), None)

    def key(self, step_id: str) -> str:
        """The key under which a step is recorded."""
        return f"{self.playbook}/{step_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the configuration and the shipped data hold, to check references against; None: not checked."""

    teams: Collection[str] | None = None
    """Teams and people."""
    authorities: Collection[str] | None = None
    audiences: Collection[str] | None = None
    templates: Collection[tuple[str, str]] | None = None
    """(name, language)."""
    roles: Collection[str] | None = None
    clocks: Collection[tuple[str, str]] | None = None
    """(regime, stage)."""


def load_playbook(text: str, source: str, *, known: Known | None = None) -> Playbook:
    """Read one playbook.

    Raises: PlaybookError with `file:line`, the field and what is allowed (bad YAML, unknown key or kind of step,
    unknown reference, steps that need each other).
    """
    try:
        document = read_document(text, source)
    except DocumentError as error:
        raise PlaybookError(error.message, source=error.source, hint=error.hint) from error
    if not isinstance(document.value, dict):
        raise PlaybookError("a playbook is a mapping", source=document.where(), hint="begin with `playbook: <name>`")
    try:
        playbook = Playbook.model_validate(document.value)
    except ValidationError as error:
        raise _refused(error, document) from error
    for path, what, hint in (*_order_faults(playbook), *_unknown_references(playbook, known or Known())):
        raise PlaybookError(what, source=document.where(path), hint=hint)
    return playbook


def _refused(error: ValidationError, document: Document) -> PlaybookError:
    """The first fault in the order of the text, with what is allowed there."""
    faults = error.errors(include_url=False, include_input=False)
    # a misspelt key comes before the key that it leaves missing
    fault = min(faults, key=lambda one: (one["type"] == "missing", _line(document.where(one["loc"]))))
    path = ".".join(str(part) for part in fault["loc"])
    message, kind = fault["msg"].removeprefix("Value error, "), fault["type"]
    if kind == "extra_forbidden":
        allowed = ", ".join(_allowed_keys(fault["loc"][:-1]))
        what = "unknown kind of step or key" if _is_step(fault["loc"]) else "unknown key"
        return PlaybookError(f"{path}: {what}", source=document.where(fault["loc"]), hint=f"allowed: {allowed}")
    if kind == "missing":
        return PlaybookError(f"{path}: missing", source=document.where(fault["loc"]), hint=f"add `{fault['loc'][-1]}:`")
    return PlaybookError(f"{path}: {message}", source=document.where(fault["loc"]))


def _is_step(loc: Sequence[str | int]) -> bool:
    return len(loc) == 3 and loc[0] == "on_confirm"  # noqa: PLR2004  # on_confirm, index, key


def _line(where: str) -> int:
    return int(where.rpartition(":")[2])


_PARTS: dict[str, type[_Part]] = {
    "applies": Applies,
    "escalation": EscalationLevel,
    "clocks": ClockOf,
    "on_confirm": NoticeStep,
    "notice": Notice,
    "approve": Approve,
}
"""Which part a key opens: for the list of allowed keys in an error."""


def _allowed_keys(loc: Sequence[str | int]) -> list[str]:
    opened = [part for part in loc if isinstance(part, str) and part in _PARTS]
    model: type[BaseModel] = _PARTS[opened[-1]] if opened else Playbook
    return [field.alias or name for name, field in model.model_fields.items()]


_Fault = tuple[tuple[str | int, ...], str, str]


def _order_faults(playbook: Playbook) -> Iterator[_Fault]:
    """Ids given twice; needs that lead nowhere or back."""
    ids: list[str] = []
    every = [step.id for step in playbook.on_confirm]
    for index, step in enumerate(playbook.on_confirm):
        path = ("on_confirm", index)
        if step.id in ids:
            yield (*path, "id"), f"on_confirm.{index}.id: a second step {step.id!r}", "give each step its own id"
        ids.append(step.id)
        for number, need in enumerate(step.needs):
            if need not in every:
                yield (
                    (*path, "needs", number),
                    f"step {step.id!r} needs unknown step {need!r}",
                    "known: " + ", ".join(every),
                )
    needs = {step.id: step.needs for step in playbook.on_confirm}
    for index, step in enumerate(playbook.on_confirm):
        if _leads_back(step.id, needs):
            yield ("on_confirm", index, "needs"), f"step {step.id!r} needs itself in the end", "break the circle"
    for index, clock in enumerate(playbook.clocks):
        if clock.met_by is not None and clock.met_by not in every:
            yield (
                ("clocks", index, "met_by"),
                f"no step {clock.met_by!r} meets this clock",
                "known: " + ", ".join(every),
            )


def _leads_back(start: str, needs: Mapping[str, tuple[str, ...]]) -> bool:
    seen: set[str] = set()
    ahead = list(needs.get(start, ()))
    while ahead:
        step = ahead.pop()
        if step == start:
            return True
        if step not in seen:
            seen.add(step)
            ahead.extend(needs.get(step, ()))
    return False


def _unknown_references(playbook: Playbook, known: Known) -> Iterator[_Fault]:
    """Names that the configuration or the shipped data do not hold: nobody would be told."""
    for index, level in enumerate(playbook.escalation):
        yield from _unless_known(("escalation", index, "to"), "team or person", level.to, known.teams)
    for index, clock in enumerate(playbook.clocks):
        yield from _unless_known(("clocks", index), "clock", (clock.regime, clock.stage), known.clocks)
    for index, step in enumerate(playbook.on_confirm):
        path = ("on_confirm", index, "notice")
        if step.notice.kind == "authority":
            yield from _unless_known((*path, "to"), "authority", step.notice.addressee, known.authorities)
        else:
            yield from _unless_known((*path, "audience"), "audience", step.notice.addressee, known.audiences)
        for language, name in step.notice.templates.items():
            yield from _unless_known((*path, "templates", language), "template", (name, language), known.templates)
        for number, role in enumerate(step.approve.roles):
            yield from _unless_known(("on_confirm", index, "approve", "roles", number), "role", role, known.roles)


def _unless_known(path: tuple[str | int, ...], what: str, name: Any, known: Collection[Any] | None) -> Iterator[_Fault]:
    if known is not None and name not in known:
        yield path, f"unknown {what} {_said(name)}", "known: " + (", ".join(sorted(map(_said, known))) or "none")


def _said(name: Any) -> str:
    return " ".join(name) if isinstance(name, tuple) else str(name)
