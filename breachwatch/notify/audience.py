"""Affected people from a CSV file: every row becomes a person or a problem, none is skipped in silence."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from typing import TextIO

from breachwatch.errors import AudienceError
from breachwatch.model import Person
from breachwatch.model.contact import AudienceProblem, RowNormaliser, column_name

MAX_LINE_CHARS = 100_000
"""A longer one is an unclosed quote or no CSV."""

MAX_JOINED_LINES = 20
"""A field with more line ends than this is a quote that somebody forgot."""

SNIFFED = (",", ";", "\t", "|")

__all__ = ["AudienceProblem", "read_csv"]


def read_csv(
    text: TextIO, source: str, *, normaliser: RowNormaliser | None = None
) -> Iterator[Person | AudienceProblem]:
    """People and problems in file order. The first row names the columns: id (needed), name, email, phone, language.

    `text` is best opened with `encoding="utf-8-sig", errors="surrogateescape", newline=""`; bytes that are not UTF-8
    make a problem of their row, not of the file. Raises: AudienceError (no usable header, unreadable).
    """
    rules = normaliser or RowNormaliser()
    lines = _lines(text, source)
    first = next(lines, None)
    if first is None or not first[1].strip():
        raise AudienceError("the file is empty", source=source)
    delimiter = max(SNIFFED, key=first[1].count)
    header = [column_name(name) for name in _header(first[1].removeprefix("\ufeff"), delimiter, source)]
    if "id" not in header:
        raise AudienceError(
            "no column `id`",
            source=f"{source}:1",
            hint="name the columns id,name,email,phone,language in the first row",
        )
    for known in ("id", "email", "phone"):
        if header.count(known) > 1:
            raise AudienceError(f"several columns mean `{known}`", source=f"{source}:1")
    waiting: deque[tuple[int, str]] = deque()
    while (taken := waiting.popleft() if waiting else next(lines, None)) is not None:
        number, line = taken
        where = f"{source}:{number}"
        if not line.strip():
            continue
        problem = _unusable(line)
        if problem:
            yield AudienceProblem(source=where, reason=problem)
            continue
        values = _row(line, delimiter, waiting, lines)
        if isinstance(values, str):
            yield AudienceProblem(source=where, reason=values)
        elif len(values) != len(header):
            reason = f"{len(values)} fields where the header has {len(header)}"
            yield AudienceProblem(source=where, reason=reason)
        else:
            yield from rules.normalise(dict(zip(header, values, strict=True)), where)


def _header(line: str, delimiter: str, source: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        raise AudienceError(f"the first row is no CSV: {error}", source=f"{source}:1") from error


def _unusable(line: str) -> str:
    if len(line) > MAX_LINE_CHARS:
        return f"a row of more than {MAX_LINE_CHARS} characters"
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        return "not UTF-8: save the file as UTF-8"
    return ""


def _row(
    line: str, delimiter: str, waiting: deque[tuple[int, str]], lines: Iterator[tuple[int, str]]
) -> list[str] | str:
    """The fields of a row, or why it has none.

    A quoted field may hold line ends (RFC 4180), so lines are joined while a quote is open; if it does not close soon,
    only the line where it opened is lost: the others are `waiting` to be rows of their own.
    """
    joined, looked = line, 0
    while True:
        try:
            fields = next(csv.reader([joined], delimiter=delimiter, strict=True), [])
        except csv.Error as error:
            if "unexpected end" not in str(error) or looked >= MAX_JOINED_LINES:
                return f"not CSV: {error}"
        else:
            for _line in range(looked):
                waiting.popleft()
            return fields
        if len(waiting) <= looked:
            following = next(lines, None)
            if following is None:
                return "not CSV: a quote is not closed"
            waiting.append(following)
        joined += "\n" + waiting[looked][1]
        looked += 1


def _lines(text: TextIO, source: str) -> Iterator[tuple[int, str]]:
    """(line number, line). One row is one line: a line end inside quotes would let one broken row eat all others."""
    number = 0
    try:
        while line := text.readline(MAX_LINE_CHARS + 2):
            number += 1
            kept = line
            while not line.endswith("\n") and (line := text.readline(MAX_LINE_CHARS + 2)):
                pass  # the rest of a row that is too long
            yield number, kept.rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise AudienceError("the file cannot be read further", source=f"{source}:{number + 1}") from error
