"""Reading the pages of docs/: sections, tables, snippets, and blocks that are generated."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

DOCS = ROOT / "docs"
BLOCK = re.compile(r"(<!-- generated: (?P<name>[a-z-]+)[^>]*-->\n)(?P<text>.*?)(<!-- end of (?P=name) -->)", re.DOTALL)
SNIPPET = re.compile(r"^```(?P<language>[a-z0-9]*)(?P<more>[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Snippet:
    """A fenced block of a page; `more` is what stands behind the language (`toml part`)."""

    page: str
    line: int
    language: str
    more: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def page(name: str) -> str:
    """The text of a page."""
    return (DOCS / name).read_text(encoding="utf-8")


def every_page() -> list[Path]:
    """The pages of docs/ and those at the top of the repository."""
    return sorted([*DOCS.glob("*.md"), *ROOT.glob("*.md")])


def snippets(path: Path) -> Iterator[Snippet]:
    """Every fenced block of a page."""
    text = path.read_text(encoding="utf-8")
    for found in SNIPPET.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Snippet(path.name, line, found["language"], found["more"].strip(), found["text"])


def rows(text: str, width: int) -> Iterator[list[str]]:
    """The rows of every table with this many columns, without heads and rules."""
    for line in text.splitlines():
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == width and not set("".join(cells)) <= set("-: "):
            yield cells
