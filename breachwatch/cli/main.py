"""The command line: one lazily imported module per group, so that `--help` costs nothing."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from breachwatch import __version__
from breachwatch.errors import BreachWatchError, ConfigError, PlaybookError, RuleError, TemplateError, UsageError

COMMANDS = {
    "run": ("breachwatch.cli.daemons", "run", "Agent and hub on this machine, supervised."),
    "agent": ("breachwatch.cli.daemons", "agent", "Watch this host only (a fleet's member)."),
    "hub": ("breachwatch.cli.daemons", "hub", "Incidents, playbooks and notices only."),
    "status": ("breachwatch.cli.daemons", "status", "Exit 0 while the daemons of this state directory are alive."),
    "init": ("breachwatch.cli.setup", "init", "Write a commented configuration for this host."),
    "doctor": ("breachwatch.cli.setup", "doctor", "What is not ready, why, and how to mend it."),
    "demo": ("breachwatch.cli.setup", "demo", "The whole story in a minute, in a temporary directory."),
    "scan": ("breachwatch.cli.scan", "scan", "Detect over files, archives and stdin, in log time."),
    "rules": ("breachwatch.cli.rules", "rules", "List, lint and test detection rules."),
    "integrity": ("breachwatch.cli.integrity", "integrity", "Baseline of files: begin, check, differences, accept."),
    "incident": ("breachwatch.cli.incident", "incident", "List, show, acknowledge, confirm, dismiss, close."),
    "playbook": ("breachwatch.cli.playbook", "playbook", "Lint, simulate, preview, approve, pause."),
    "notice": ("breachwatch.cli.notice", "notice", "Campaigns and deliveries, bytes as sent."),
    "audit": ("breachwatch.cli.audit", "audit", "Verify, prove and export the audit trail."),
}
"""Name: module, attribute, one line of help. Registration is a line you can read."""


class LazyGroup(click.Group):
    """A group that imports a command's module only when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names in the order of the story."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _help = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="breachwatch")
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="BREACHWATCH_CONFIG",
    help="Configuration file (default /etc/breachwatch/breachwatch.toml).",
)
@click.pass_context
def cli(ctx: click.Context, config: Path | None) -> None:
    """From the first suspicious log line to the last customer told, with a proof others can check."""
    ctx.obj = config


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and leave with 0 fine, 1 found something, 2 wrong use, 3 could not do it."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name that is no UTF-8 must not end a command
    try:
        code = cli.main(args=None if arguments is None else list(arguments), standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except BreachWatchError as error:
        click.echo(f"breachwatch: {error}", err=True)
        sys.exit(2 if isinstance(error, ConfigError | UsageError | RuleError | PlaybookError | TemplateError) else 3)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(3)
    sys.exit(code if isinstance(code, int) else 0)
