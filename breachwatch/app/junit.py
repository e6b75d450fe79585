"""Results of rule samples as JUnit XML, which every CI shows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from breachwatch.app.rule_samples import SampleResult

_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(results: Sequence[SampleResult]) -> str:
    """One test case per sample. Source: the JUnit XML schema that Jenkins and GitLab read."""
    failed = sum(not result.passed for result in results)
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        f'<testsuite name="breachwatch rules" tests="{len(results)}" failures="{failed}" errors="0" skipped="0">',
    ]
    counted: Counter[tuple[str, str]] = Counter()
    for result in results:
        counted[result.source, result.kind] += 1  # within its file: a sample elsewhere renames none
        name = _attribute(f"{Path(result.source).stem} {result.kind} {counted[result.source, result.kind]}")
        head = f"  <testcase classname={_attribute(result.rule_id or result.source)} name={name}"
        if result.passed:
            lines.append(head + "/>")
        else:
            told = _attribute(result.message)
            lines.append(f"{head}><failure message={told}>{escape(_clean(result.source))}</failure></testcase>")
    return "\n".join([*lines, "</testsuite>", ""])


def _attribute(text: str) -> str:
    return quoteattr(_clean(text))


def _clean(text: str) -> str:
    return _NOT_XML.sub("?", text)
