"""`breachwatch scan`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, tzinfo
from pathlib import Path
from typing import BinaryIO
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from breachwatch.app.memory import prepare_for_many_lines
from breachwatch.app.rule_cache import PlanFiles, default_cache
from breachwatch.app.scan import Scan, ScanOptions, ScanTotals
from breachwatch.cli.output import JsonLines, as_objects, safe
from breachwatch.cli.ruleset import rules_for
from breachwatch.errors import RuleError, UsageError
from breachwatch.model import LogSource
from breachwatch.parse import FORMATS

LOGSOURCE_PARTS = ("product", "category", "service")


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--format", "log_format", type=click.Choice(sorted(FORMATS)), default="auto", help="Format of the input.")
@click.option("--rules", "folders", multiple=True, type=click.Path(path_type=Path, exists=True), help="Rules folder.")
@click.option("--year", type=click.IntRange(1970, 2200), help="Year of the first line where lines have none.")
@click.option("--tz", default="UTC", show_default=True, help="Time zone of lines that name none.")
@click.option("--host", default="localhost", show_default=True, help="Host name of lines that name none.")
@click.option("--logsource", help="What the input is: product=linux,category=process_creation,service=… or any.")
@click.option("--events", is_flag=True, help="Print every event too (with --json).")
@click.option("--count", is_flag=True, help="Only count the matches of each rule; no incidents.")
@click.option("--no-prefilter", is_flag=True, help="Evaluate every rule on every event.")
@click.option(
    "--stats", is_flag=True, help="Figures of the run, and the lines looked at for each rule, on standard error."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def scan(
    config: Path | None,
    paths: tuple[str, ...],
    log_format: str,
    folders: tuple[Path, ...],
    year: int | None,
    tz: str,
    host: str,
    logsource: str | None,
    events: bool,
    count: bool,
    no_prefilter: bool,
    stats: bool,
    as_json: bool,
) -> int:
    """Detect over files, folders, .gz archives and stdin (`-`), in log time.

    Exit code 0: nothing found; 1: matches found.
    """
    prepare_for_many_lines()
    rules = rules_for(config, folders)
    for refused in rules.refused:
        click.echo(f"breachwatch scan: rule refused: {refused}", err=True)
    if not (rules.rules or rules.correlations):
        raise RuleError("no rule could be loaded: a scan would pass because it ran on nothing")
    source, any_source = _logsource(logsource)
    options = ScanOptions(
        format=log_format,
        host=host,
        tz=_zone(tz),
        year=year,
        logsource=source,
        any_logsource=any_source,
        with_events=events and as_json and not count,
        count_only=count,
        by_rule=stats,
        prefilter=not no_prefilter,
    )
    lines = JsonLines()
    work = Scan(rules=rules, options=options, plans=PlanFiles(default_cache()), pause=lines.flush)
    inputs: list[Path | BinaryIO] = [sys.stdin.buffer if path == "-" else Path(path) for path in paths]
    with lines:
        for item in work.run(inputs):
            if as_json:
                lines.add(item)
            else:
                for told in as_objects(item):
                    _print_text(told)
    if stats:
        _print_stats(work.totals)
    return 1 if work.totals.matches else 0


def _zone(name: str) -> tzinfo:
    try:
        return UTC if name.upper() == "UTC" else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise UsageError(f"--tz: unknown time zone {name!r}", hint="for example Asia/Ho_Chi_Minh") from error


def _logsource(text: str | None) -> tuple[LogSource | None, bool]:
    if text is None:
        return None, False
    if text == "any":
        return None, True
    parts = dict.fromkeys(LOGSOURCE_PARTS, "")
    for item in text.split(","):
        name, equals, value = item.partition("=")
        if name not in parts or not equals or not value:
            raise UsageError(f"--logsource: cannot read {item!r}", hint="product=…,category=…,service=… or any")
        parts[name] = value
    return LogSource(**parts), False


def _print_text(item: Mapping[str, object]) -> None:
    if item["kind"] == "match":
        event = item["event"]
        assert isinstance(event, dict)
        who = event.get("source.ip") or event.get("user.name") or event.get("file.path") or ""
        click.echo(f"match     {item['rule.level']:<13} {safe(item['rule.title'], 60):<60} {safe(who, 60)}")
    elif item["kind"] == "incident":
        named = [value for values in _entities(item).values() for value in values[:3]]
        click.echo(f"incident  {item['severity']:<13} {safe(item['title'], 60):<60} {safe(', '.join(named), 100)}")
    elif item["kind"] == "gap":
        click.echo(f"gap       {safe(item['source'], 80)}: {item['reason']} {safe(item['detail'], 120)}")
    elif item["kind"] == "count":
        click.echo(f"{item['matches']:>9}  {item['rule.level']:<13} {safe(item['rule.title'], 90)}")
    elif item["kind"] == "summary":
        click.echo(f"{item['lines']} lines, {item['matches']} matches, {item['incidents']} incidents")


def _entities(item: Mapping[str, object]) -> dict[str, list[str]]:
    entities = item["entities"]
    assert isinstance(entities, dict)
    return entities


def _print_stats(totals: ScanTotals) -> None:
    cpu = totals.cpu_seconds or 1e-9
    click.echo(
        f"{totals.files} files, {totals.bytes} bytes, {totals.lines} lines, "
        f"{totals.candidates} candidates, {totals.events} events, "
        f"{totals.matches} matches in {totals.seconds:.2f} s ({cpu:.2f} CPU-s, {totals.lines / cpu:,.0f} lines/CPU-s)",
        err=True,
    )
    if totals.rules:
        click.echo(f"{'looked at':>12} {'matches':>9}  rule", err=True)
    for looked_at, matches, rule in totals.rules:
        click.echo(f"{looked_at:>12} {matches:>9}  {safe(rule.title, 60)} ({safe(rule.id, 40)})", err=True)
