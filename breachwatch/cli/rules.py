"""`breachwatch rules`."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import click

from breachwatch.cli.output import print_json, safe
from breachwatch.cli.ruleset import rules_for, sources_for
from breachwatch.errors import UsageError
from breachwatch.parse import FORMATS

FOLDERS = click.option("--rules", "folders", multiple=True, type=click.Path(path_type=Path, exists=True),
                       help="Rules folder or file; without it the shipped pack.")  # fmt: skip
AS_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


@click.group()
def rules() -> None:
    """List, lint, test, explain and verify detection rules."""


@rules.command("list")
@FOLDERS
@AS_JSON
@click.pass_obj
def list_rules(config: Path | None, folders: tuple[Path, ...], as_json: bool) -> None:
    """Every rule in force: level, title, id."""
    loaded = rules_for(config, folders)
    refs = [*(rule.ref for rule in loaded.rules), *(correlation.ref for correlation in loaded.correlations)]
    for ref in refs:
        if as_json:
            print_json(
                {
                    "kind": "rule",
                    "rule.id": ref.id,
                    "rule.title": ref.title,
                    "rule.level": str(ref.level),
                    "rule.author": ref.author,
                    "tags": list(ref.tags),
                    "group_by": list(ref.group_by),
                    "opens_incident": ref.opens_incident,
                }
            )
        else:
            click.echo(f"{ref.level:<13} {safe(ref.title, 70):<70} {ref.id}")


@rules.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(sorted(FORMATS)),
    help="Formats of the logs that are watched (repeatable); without it those of the configuration, else all.",
)
@AS_JSON
@click.pass_obj
def lint(config: Path | None, paths: tuple[Path, ...], formats: tuple[str, ...], as_json: bool) -> int:
    """Say which rules are refused and which can't run on any source. Exit code 1 when any is refused."""
    from breachwatch.app.rule_reach import rules_without_source

    loaded = rules_for(config, paths)
    configured, integrity = (formats, True) if formats else sources_for(config)
    for lost in rules_without_source(loaded, configured, integrity=integrity):
        if as_json:
            print_json({"kind": "unreachable", "rule.id": lost.rule.ref.id, "source": lost.rule.source,
                        "message": lost.reason})  # fmt: skip
        else:
            click.echo(f"{lost.rule.source}: rule {safe(lost.rule.ref.title, 80)!r} never runs here: {lost.reason}")
    for refused in loaded.refused:
        if as_json:
            print_json({"kind": "refused", "source": refused.source, "message": refused.message, "hint": refused.hint})
        else:
            click.echo(str(refused))
    if not as_json:
        click.echo(f"{len(loaded.rules) + len(loaded.correlations)} rules fine, {len(loaded.refused)} refused")
    return 1 if loaded.refused else 0


@rules.command()
@click.argument("samples", type=click.Path(path_type=Path, exists=True))
@FOLDERS
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write JUnit XML to this file.")
@AS_JSON
@click.pass_obj
def test(config: Path | None, samples: Path, folders: tuple[Path, ...], junit: Path | None, as_json: bool) -> int:
    """Run sample files (matching, near_miss, forged) against the rules. Exit code 1 when one fails."""
    from breachwatch.app.rule_samples import run_samples

    results = run_samples(samples, rules_for(config, folders))
    failed = [result for result in results if not result.passed]
    if junit is not None:
        from breachwatch.app.junit import junit_xml

        _write(junit, junit_xml(results))
    for result in results if as_json else failed:
        if as_json:
            print_json({"kind": "sample", "source": result.source, "rule.id": result.rule_id, "sample": result.kind,
                        "passed": result.passed, "message": result.message})  # fmt: skip
        else:
            click.echo(f"FAILED {result.source}: {result.kind}: {result.message}")
    if not as_json:
        click.echo(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed or not results else 0


FORMAT = click.option("--format", "log_format", type=click.Choice(sorted(FORMATS)), default="auto",
                      help="Format of the input.")  # fmt: skip
INPUTS = click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))


@rules.command()
@click.argument("rule_id")
@INPUTS
@FOLDERS
@FORMAT
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=100, show_default=True, help="Events explained.")
@AS_JSON
@click.pass_obj
def explain(
    config: Path | None,
    rule_id: str,
    paths: tuple[Path, ...],
    folders: tuple[Path, ...],
    log_format: str,
    limit: int,
    as_json: bool,
) -> int:
    """Why each line of a file matches a rule or does not, condition by condition.

    Of a correlation: how its window stands after each match that it counts. Exit code 1 when none matches.
    """
    from breachwatch.app.rule_study import events_in, explained
    from breachwatch.detect.reach import described

    matched = any_read = False
    for one in islice(explained(rules_for(config, folders), rule_id, events_in(paths, log_format)), limit):
        matched, any_read = matched or one.matches, True
        if as_json:
            steps = [{"depth": step.depth, "holds": step.holds, "text": step.text, "found": step.found}
                     for step in one.steps]  # fmt: skip
            print_json({"kind": "explanation", "rule.id": one.rule.id, "matches": one.matches,
                        "logsource_fits": one.source_fits, "log.offset": one.event.fields.get("log.offset"),
                        "steps": steps})  # fmt: skip
            continue
        click.echo(f"{'MATCH   ' if one.matches else 'no match'} {safe(one.event.raw, 160)}")
        if not one.source_fits:
            given, wanted = described(one.event.logsource), described(one.wanted)
            click.echo(f"  - log source: the event is of {safe(given, 160)}; the rule asks for {safe(wanted, 160)}")
        for step in one.steps:
            found = f"   [{safe(step.found, 200)}]" if step.found else ""
            click.echo(f"  {'  ' * step.depth}{'+' if step.holds else '-'} {safe(step.text, 160)}{found}")
    if not any_read and not as_json:
        click.echo("nothing to explain: no event that it reads")
    return 0 if matched else 1


@rules.command()
@INPUTS
@FOLDERS
@FORMAT
@click.option("--engine", default="fast", show_default=True, help="Engine to compare with the reference.")
@click.option("--any-logsource", is_flag=True, help="Try every rule on every event.")
@AS_JSON
@click.pass_obj
def verify(
    config: Path | None,
    paths: tuple[Path, ...],
    folders: tuple[Path, ...],
    log_format: str,
    engine: str,
    any_logsource: bool,
    as_json: bool,
) -> int:
    """Compare an engine with the reference on files. Exit code 1 when they differ on any event."""
    from breachwatch.app.rule_study import ENGINES, Verification, pieces_in

    if engine not in ENGINES:
        raise UsageError(f"--engine: unknown engine {engine!r}", hint=f"one of {', '.join(ENGINES)}")
    work = Verification(rules_for(config, folders), engine, any_logsource, log_format)
    differ = 0
    for difference in work.run(pieces_in(paths)):
        differ += 1
        where = difference.event.fields.get("log.offset")
        if as_json:
            print_json({"kind": "difference", "log.offset": where, "missed": list(difference.missed),
                        "invented": list(difference.invented)})  # fmt: skip
        else:
            click.echo(f"offset {where}: missed {list(difference.missed)}, invented {list(difference.invented)}")
    if as_json:
        print_json(
            {
                "kind": "verified",
                "engine": engine,
                "events": work.events,
                "candidates": work.candidates,
                "differences": differ,
            }
        )
    else:
        counted = f"{work.events} events, {work.candidates} candidate lines"
        click.echo(f"{counted}, {differ} differences between {engine} and the reference")
    if not work.events:
        raise UsageError("no event to compare on: the check would pass because it ran on nothing")
    return 1 if differ else 0


@rules.command("coverage")
@FOLDERS
@click.option("--navigator", type=click.Path(path_type=Path, dir_okay=False), help="Write a Navigator layer here.")
@AS_JSON
@click.pass_obj
def coverage_table(config: Path | None, folders: tuple[Path, ...], navigator: Path | None, as_json: bool) -> int:
    """ATT&CK techniques that the rules name, and how many rules name each."""
    from breachwatch.detect.coverage import coverage, navigator_layer

    loaded = rules_for(config, folders)
    found = coverage([*(rule.ref for rule in loaded.rules), *(one.ref for one in loaded.correlations)])
    if navigator is not None:
        _write(navigator, json.dumps(navigator_layer(found), indent=1, ensure_ascii=False) + "\n")
    for technique in found:
        if as_json:
            print_json({"kind": "technique", "id": technique.id, "rules": [rule.id for rule in technique.rules]})
        else:
            titles = "; ".join(rule.title for rule in technique.rules[:3])
            click.echo(f"{technique.id:<10} {len(technique.rules):>4}  {safe(titles, 100)}")
    refs = [*(rule.ref for rule in loaded.rules), *(one.ref for one in loaded.correlations)]
    named = {rule.id for technique in found for rule in technique.rules}
    without = [ref for ref in refs if ref.id not in named]
    if as_json:
        print_json({"kind": "coverage", "techniques": len(found), "rules": len(refs),
                    "without_technique": [ref.id for ref in without]})  # fmt: skip
    else:
        click.echo(f"{len(found)} techniques; {len(without)} of {len(refs)} rules name none")
    return 0


def _write(file: Path, text: str) -> None:
    """Raises: UsageError."""
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write: {error.strerror}", source=str(file)) from error
