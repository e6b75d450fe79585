"""Rules ship with samples: lines that must match, near misses and forgeries that must not. `breachwatch rules test`.

A sample file names its rule and format and holds three lists; an item is one line, a list of lines (for correlations),
or for the formats `file` and `gap` a mapping (or a list of mappings) of what a watcher would have seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from breachwatch.app.pipeline import Pipeline, Seen, SourceFormat
from breachwatch.detect.engine import Detector
from breachwatch.detect.reference import matches
from breachwatch.detect.rule import Rule, applies
from breachwatch.detect.ruleset import RuleSet
from breachwatch.errors import BreachWatchError, UsageError
from breachwatch.model import FileChange, FileRecord, Gap, RawLine
from breachwatch.model.document import read_document
from breachwatch.parse import FORMATS

HOST = "web01"
"""The host that samples come from, unless their lines say otherwise."""

REFERENCE = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
"""Lines without a year fall into the year before this."""

KINDS = ("matching", "near_miss", "forged")
"""The lists of a sample file: the first must match, the others must not."""

KEYS = {"rule", "format", *KINDS}
FILE, GAP = "file", "gap"
OCTAL = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleResult:
    """What became of one sample."""

    source: str
    rule_id: str
    kind: str
    passed: bool
    message: str = ""


class _SampleError(BreachWatchError):
    """A sample file cannot be used."""


def run_samples(folder: Path, ruleset: RuleSet) -> list[SampleResult]:
    """Run every sample file below the folder (or the one file). A file that cannot be used is a failed result.

    Raises: UsageError, if there is none.
    """
    files = [folder] if folder.is_file() else sorted({*folder.rglob("*.yml"), *folder.rglob("*.yaml")})
    if not files:
        raise UsageError("no sample files found", source=str(folder), hint="name a folder that holds *.yml samples")
    results: list[SampleResult] = []
    for file in files:
        try:
            results.extend(_run_file(file, ruleset))
        except Exception as error:  # noqa: BLE001  # a boundary: no file may keep the others from being run
            reason = " ".join(str(error).split()) or type(error).__name__
            results.append(SampleResult(source=str(file), rule_id="", kind="file", passed=False, message=reason))
    return results


def _run_file(file: Path, ruleset: RuleSet) -> Iterator[SampleResult]:
    content = read_document(file.read_text(encoding="utf-8"), file.name).value
    if not isinstance(content, dict) or set(content) - KEYS:
        raise _SampleError(f"a sample file takes the keys {', '.join(sorted(KEYS))}")
    rule_id, form = str(content.get("rule", "")), str(content.get("format", ""))
    if form not in {*FORMATS, FILE, GAP}:
        raise _SampleError(f"unknown format {form!r}", hint=f"one of {', '.join([*sorted(FORMATS), FILE, GAP])}")
    if not content.get("matching"):
        raise _SampleError("no matching sample: the test would pass because it ran on nothing")
    judge = _judge_for(rule_id, ruleset)
    for kind in KINDS:
        samples = content.get(kind) or []
        if not isinstance(samples, list):
            raise _SampleError(f"{kind} takes a list of samples")
        for number, item in enumerate(samples, start=1):
            found = judge(_seen(item, form), form)
            wanted = kind == "matching"
            says = "" if found is wanted else ("does not match" if wanted else "matches, but must not")
            message = f"sample {number} {says}" if says else ""
            yield SampleResult(source=str(file), rule_id=rule_id, kind=kind, passed=not says, message=message)


def _judge_for(rule_id: str, ruleset: RuleSet) -> _PlainJudge | _CorrelationJudge:
    for rule in ruleset.rules:
        if rule.ref.id == rule_id:
            return _PlainJudge(rule)
    if any(correlation.ref.id == rule_id for correlation in ruleset.correlations):
        return _CorrelationJudge(rule_id, ruleset)
    raise _SampleError(f"no rule has the id {rule_id!r}", hint="was it refused? see `breachwatch rules lint`")


@dataclass(frozen=True, slots=True)
class _PlainJudge:
    """Asks one rule; also rules that only feed correlations answer."""

    rule: Rule

    def __call__(self, seen: Iterable[Seen], form: str) -> bool:
        pipeline = Pipeline(host=HOST, detector=Detector(RuleSet()), now=lambda: REFERENCE)
        events = [event for item in seen for event in pipeline.parse(item, SourceFormat(format=_parser(form)))]
        events += [event for event, _ in pipeline.late_matches(everything=True)]
        return any(applies(self.rule.logsource, event.logsource) and matches(self.rule, event) for event in events)


@dataclass(frozen=True, slots=True)
class _CorrelationJudge:
    """Asks the whole detector, as the agent would."""

    rule_id: str
    ruleset: RuleSet

    def __call__(self, seen: Iterable[Seen], form: str) -> bool:
        pipeline = Pipeline(host=HOST, detector=Detector(self.ruleset), now=lambda: REFERENCE)
        how = SourceFormat(format=_parser(form))
        found = [match.rule.id for item in seen for _, matched in pipeline.matches(item, how) for match in matched]
        found += [match.rule.id for _, matched in pipeline.late_matches(everything=True) for match in matched]
        return self.rule_id in found


def _parser(form: str) -> str:
    return "auto" if form in (FILE, GAP) else form


def _seen(item: object, form: str) -> list[Seen]:
    """What a watcher would have given for one sample. Raises: _SampleError."""
    parts: Sequence[object] = item if isinstance(item, list) else [item]
    if form == FILE:
        return [_change(part, index) for index, part in enumerate(parts)]
    if form == GAP:
        return [_gap(part) for part in parts]
    seen: list[Seen] = []
    offset = 0
    for part in parts:
        if not isinstance(part, str):
            raise _SampleError(f"a sample line is text, not {part!r}"[:200])
        data = part.encode("utf-8", "surrogateescape")
        seen.append(RawLine(source="/var/log/sample.log", data=data, offset=offset, generation="sample"))
        offset += len(data) + 1
    return seen


def _change(part: object, index: int) -> FileChange:
    if not isinstance(part, Mapping) or not {"path", "action"} <= set(part):
        raise _SampleError("a file sample is a mapping with path and action")
    known = {"path", "action", "before", "after", "changed", "severity", "tags"}
    if set(part) - known:
        raise _SampleError(f"a file sample takes {', '.join(sorted(known))}")
    path, action = str(part["path"]).encode("utf-8", "surrogateescape"), str(part["action"])
    after = None if action == "deleted" else _record(path, part.get("after"))
    before = None if action == "created" else _record(path, part.get("before"))
    return FileChange(
        path=path,
        action=action,
        before=before,
        after=after,
        changed=tuple(part.get("changed", ())),
        severity=str(part.get("severity", "medium")),
        tags=tuple(part.get("tags", ())),
        seen_at=REFERENCE + timedelta(seconds=index),
    )


def _record(path: bytes, given: object) -> FileRecord:
    """A plain file of root, changed as the sample says; `mode` is written in octal."""
    values: dict[str, Any] = {
        "type": "file", "mode": "0644", "uid": 0, "gid": 0, "nlink": 1, "device": 1, "inode": 1, "size": 1,
        "mtime_ns": 0, "ctime_ns": 0,
    }  # fmt: skip
    if isinstance(given, Mapping):
        if unknown := set(given) - {item.name for item in fields(FileRecord)}:
            raise _SampleError(f"a file has no {', '.join(sorted(map(str, unknown)))}")
        values.update(given)
    try:
        values["mode"] = int(str(values["mode"]), OCTAL)
    except ValueError as error:
        raise _SampleError(f"mode is written in octal, like '0755', not {values['mode']!r}") from error
    return FileRecord(**{"path": path, **values})


def _gap(part: object) -> Gap:
    if not isinstance(part, Mapping) or not {"source", "reason"} <= set(part):
        raise _SampleError("a gap sample is a mapping with source and reason")
    lost = part.get("lost_bytes")
    return Gap(
        source=str(part["source"]),
        reason=str(part["reason"]),
        at_utc=REFERENCE,
        lost_bytes=int(lost) if isinstance(lost, int) else None,
        detail=str(part.get("detail", "")),
    )
