"""`breachwatch integrity`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from breachwatch.cli.output import print_json, safe
from breachwatch.errors import UsageError, VerificationError

if TYPE_CHECKING:
    from breachwatch.app.baseline import Baseline, Found, Progress
    from breachwatch.model import FileChange, FileRecord, Gap

PATHS = click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
REASON = click.option("--reason", default="", help="Why; kept in the journal of the baseline and in the audit trail.")

ATTRIBUTES = (
    "type", "mode", "uid", "gid", "nlink", "inode", "size", "mtime_ns", "ctime_ns", "sha256", "link_target", "state",
    "flags", "xattrs",
)  # fmt: skip
"""In the order in which `integrity diff` prints them."""

XATTRS = {"acl", "capabilities", "selinux"}


@click.group()
def integrity() -> None:
    """The signed baseline of files: begin, check, show what differs, accept it."""


@integrity.command()
@click.option("--force", is_flag=True, help="Forget the present baseline and begin anew.")
@REASON
@JSON
@click.pass_obj
def init(config: Path | None, reason: str, *, force: bool, as_json: bool) -> int:
    """Learn all files as they are now. The agent does so by itself on its first start."""
    with _opened(config, owner=True) as baseline, _bar("learning") as progress:
        found = baseline.begin(actor=_actor(), reason=reason, force=force, on_progress=progress)
    _summary(found, 0, as_json=as_json, what="learnt")
    return int(found.blind > 0)


@integrity.command()
@PATHS
@click.option("--quick", is_flag=True, help="Metadata only; contents are read where those differ.")
@JSON
@click.pass_obj
def check(config: Path | None, paths: tuple[Path, ...], *, quick: bool, as_json: bool) -> int:
    """Compare files with what was accepted, every content read. Exit code 1 when anything differs or was not seen."""
    return _compare(config, paths, contents=not quick, as_json=as_json, in_full=False)


@integrity.command()
@PATHS
@JSON
@click.pass_obj
def diff(config: Path | None, paths: tuple[Path, ...], *, as_json: bool) -> int:
    """Show what differs attribute by attribute, and line by line for small texts; secrets are masked."""
    return _compare(config, paths, contents=False, as_json=as_json, in_full=True)


@integrity.command()
@PATHS
@click.option("--all", "everything", is_flag=True, help="All that differs.")
@click.option("--explained", is_flag=True, help="What the agent has reported and a package explains.")
@REASON
@JSON
@click.pass_obj
def accept(
    config: Path | None, paths: tuple[Path, ...], reason: str, *, everything: bool, explained: bool, as_json: bool
) -> int:
    """Take over what is there now as what should be there, under your name."""
    if sum((bool(paths), everything, explained)) != 1:
        raise UsageError("name paths, or --all, or --explained")
    with _opened(config) as baseline:
        if explained:
            settled = baseline.accept_explained(actor=_actor(), reason=reason)
            for item in settled:
                _say_accepted(item.path, item.explained_by, as_json=as_json)
            return 0
        with _bar("comparing") as progress:
            met = list(baseline.accept(paths, actor=_actor(), reason=reason, on_progress=progress))
    from breachwatch.model import Gap

    for seen in met:
        if isinstance(seen, Gap):
            _say_gap(seen, as_json=as_json)
        else:
            _say_accepted(seen.path, seen.action, as_json=as_json)
    return 0


def _compare(config: Path | None, paths: tuple[Path, ...], *, contents: bool, as_json: bool, in_full: bool) -> int:
    from breachwatch.app.baseline import Found
    from breachwatch.model import Gap

    unexplained, holds = 0, True
    with _opened(config) as baseline:
        try:
            baseline.verify()
        except VerificationError as error:
            holds = False
            _say_broken(error, as_json=as_json)
        with _bar("comparing") as progress:
            met = list(baseline.compare(paths, contents=contents, on_progress=progress))
    for item in met:
        if isinstance(item, Found):
            _summary(item, len(met) - 1, as_json=as_json, what="compared")
            return int(bool(unexplained) or item.blind > 0 or not holds)
        if isinstance(item, Gap):
            _say_gap(item, as_json=as_json)
        else:
            unexplained += not item.explained_by
            _say_change(item, as_json=as_json, in_full=in_full)
    raise AssertionError("a comparison ends with its counts")


# -- opening ----------------------------------------------------------------------------------------------------------


def _opened(config: Path | None, *, owner: bool = False) -> AbstractContextManager[Baseline]:
    from breachwatch.app.baseline import open_baseline
    from breachwatch.app.wiring import integrity_settings
    from breachwatch.config.settings import load_settings

    settings = load_settings(config)
    return open_baseline(
        integrity_settings(settings), Path(settings.state.directory), host=settings.host.name, owner=owner
    )


def _actor() -> str:
    from breachwatch.app.wiring import who_is_typing

    return who_is_typing()


@contextmanager
def _bar(label: str) -> Iterator[Progress]:
    """A bar on the terminal, nothing where there is none."""
    with click.progressbar(length=1, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:

        def move(done: int, total: int) -> None:
            if done > bar.pos:
                bar.length = max(total, done)
                bar.update(done - bar.pos)

        yield move


# -- what is printed --------------------------------------------------------------------------------------------------


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


def _say_change(change: FileChange, *, as_json: bool, in_full: bool) -> None:
    if as_json:
        print_json(
            {
                "kind": "change", "file.path": _shown(change.path), "event.action": change.action,
                "changed": list(change.changed), "severity": change.severity,
                "explained_by": change.explained_by or None, "techniques": list(change.tags),
                "diff": change.diff or None,
                "before": _as_json(change.before) if in_full else None,
                "after": _as_json(change.after) if in_full else None,
            }
        )  # fmt: skip
        return
    why = f"  explained by {safe(change.explained_by)}" if change.explained_by else ""
    changed = f"  ({', '.join(change.changed)})" if change.changed else ""
    click.echo(f"{change.action:<10} {change.severity:<8} {safe(_shown(change.path))}{changed}{why}")
    if in_full:
        for name, before, after in _differing(change):
            click.echo(f"    {name:<12} {safe(before, 80)} -> {safe(after, 80)}")
        for line in change.diff.splitlines():
            click.echo(f"    {safe(line)}")


def _differing(change: FileChange) -> Iterator[tuple[str, object, object]]:
    wanted = {"xattrs" if name in XATTRS else name for name in change.changed}
    for name in ATTRIBUTES:
        before = None if change.before is None else getattr(change.before, name)
        after = None if change.after is None else getattr(change.after, name)
        if name in wanted if change.changed else before != after:
            yield name, _value(name, before), _value(name, after)


def _value(name: str, value: object) -> object:
    if isinstance(value, int) and name in {"mode", "flags"}:
        return f"{value:04o}" if name == "mode" else f"{value:#x}"
    if isinstance(value, bytes):
        return _shown(value)
    return "-" if value in {None, ""} or value == () else value


def _as_json(record: FileRecord | None) -> dict[str, object] | None:
    return None if record is None else {name: _value(name, getattr(record, name)) for name in ATTRIBUTES}


def _say_gap(gap: Gap, *, as_json: bool) -> None:
    if as_json:
        print_json({"kind": "gap", "source": gap.source, "reason": gap.reason, "detail": gap.detail})
    else:
        click.echo(f"{'not seen':<10} {'':<8} {safe(gap.source)}  ({gap.reason}: {safe(gap.detail)})")


def _say_broken(error: VerificationError, *, as_json: bool) -> None:
    if as_json:
        print_json({"kind": "gap", "source": "baseline", "reason": "baseline_tampered", "detail": str(error)})
    click.echo(f"BROKEN: {safe(error)}", err=True)


def _say_accepted(path: bytes, what: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"kind": "accepted", "file.path": _shown(path), "event.action": what})
    else:
        click.echo(f"accepted   {safe(_shown(path))}  ({safe(what)})")


def _summary(found: Found, told: int, *, as_json: bool, what: str) -> None:
    from breachwatch.watch.integrity.coverage import share

    coverage = share(found.entries, found.blind)
    if as_json:
        print_json(
            {
                "kind": "summary", "entries": found.entries, "folders": found.folders, "told": told,
                "blind": found.blind, "coverage_percent": coverage,
            }
        )  # fmt: skip
    else:
        where = f"{found.entries} entries in {found.folders} folders"
        click.echo(f"{what}: {where}, coverage {coverage:.2f} %", err=True)
