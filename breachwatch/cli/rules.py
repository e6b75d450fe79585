"""`breachwatch rules`."""

from __future__ import annotations

from pathlib import Path

import click

from breachwatch.app.rules import rules_in
from breachwatch.cli.output import print_json, safe
from breachwatch.config.shipped import shipped_folder
from breachwatch.detect.load import RuleSet

FOLDERS = click.option("--rules", "folders", multiple=True, type=click.Path(path_type=Path, exists=True),
                       help="Rules folder or file; without it the shipped pack.")  # fmt: skip
AS_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


@click.group()
def rules() -> None:
    """List, lint and test detection rules."""


def _load(folders: tuple[Path, ...]) -> RuleSet:
    return rules_in(list(folders) or [shipped_folder("rules")])


@rules.command("list")
@FOLDERS
@AS_JSON
def list_rules(folders: tuple[Path, ...], as_json: bool) -> None:
    """Every rule in force: level, title, id."""
    loaded = _load(folders)
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
@AS_JSON
def lint(paths: tuple[Path, ...], as_json: bool) -> int:
    """Say which rules are refused, where and why. Exit code 1 when any is."""
    loaded = _load(paths)
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
@AS_JSON
def test(samples: Path, folders: tuple[Path, ...], as_json: bool) -> int:
    """Run sample files (matching, near_miss, forged) against the rules. Exit code 1 when one fails."""
    from breachwatch.app.rule_samples import run_samples

    results = run_samples(samples, _load(folders))
    failed = [result for result in results if not result.passed]
    for result in results if as_json else failed:
        if as_json:
            print_json({"kind": "sample", "source": result.source, "rule.id": result.rule_id, "sample": result.kind,
                        "passed": result.passed, "message": result.message})  # fmt: skip
        else:
            click.echo(f"FAILED {result.source}: {result.kind}: {result.message}")
    if not as_json:
        click.echo(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed or not results else 0
