"""`breachwatch run`, `agent`, `hub` and `status`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from breachwatch.app.state import STALE_AFTER_S, StateLayout, read_alive
from breachwatch.cli.output import print_json


@click.command()
@click.pass_obj
def run(config: Path | None) -> None:
    """Agent and hub on this machine as two supervised processes.

    SIGTERM stops cleanly, SIGHUP reloads rules and playbooks; a broken file keeps the old set and says so.
    """
    import msgspec

    from breachwatch.app.become import become
    from breachwatch.app.supervise import (
        ChildSpec,
        SupervisorSettings,
        agent_command,
        hub_command,
        supervisor_command,
    )
    from breachwatch.app.wiring import agent_settings
    from breachwatch.config.settings import load_settings

    settings = load_settings(config)
    agent_input = msgspec.json.encode(agent_settings(settings, without_network=True))
    supervisor = SupervisorSettings(
        state_directory=os.fspath(settings.state.directory),
        host=settings.host.name,
        specs=(
            ChildSpec(name="agent", command=agent_command(), stdin=agent_input),
            ChildSpec(name="hub", command=hub_command(config)),
        ),
    )
    become(supervisor_command(), msgspec.json.encode(supervisor))


@click.command()
@click.pass_obj
def agent(config: Path | None) -> int:
    """Watch this host only; its matches wait for a hub on the same state directory."""
    import msgspec

    from breachwatch.app.become import become
    from breachwatch.app.supervise import agent_command
    from breachwatch.app.wiring import agent_settings
    from breachwatch.config.settings import load_settings

    settings = load_settings(config)
    plain = agent_settings(settings, without_network=False)
    if not settings.elasticsearch.url:
        become(agent_command(), msgspec.json.encode(plain))
    from breachwatch.app.agent_fleet import serve_with_fleet

    return serve_with_fleet(plain, settings)


@click.command()
@click.pass_obj
def hub(config: Path | None) -> int:
    """Incidents, playbooks and notices only."""
    from breachwatch.app.hub import serve_hub
    from breachwatch.config.settings import load_settings

    return serve_hub(load_settings(config), config)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def status(config: Path | None, as_json: bool) -> int:
    """Exit 0 while agent and hub of this state directory give signs of life, 1 otherwise."""
    from breachwatch.app.clock import SystemClock
    from breachwatch.config.settings import load_settings

    layout = StateLayout(Path(load_settings(config).state.directory))
    healthy = True
    for process in ("agent", "hub"):
        alive = read_alive(layout.alive(process))
        age_s = None if alive is None else (SystemClock().now() - alive[0]).total_seconds()
        fresh = age_s is not None and age_s <= STALE_AFTER_S
        healthy = healthy and fresh
        if as_json:
            print_json({"kind": "process", "name": process, "alive": fresh, "age_s": age_s})
        else:
            said = "never gave a sign of life" if age_s is None else f"last sign of life {age_s:.0f} s ago"
            click.echo(f"{process:<6} {'alive' if fresh else 'NOT ALIVE'}: {said}")
    return 0 if healthy else 1


def _say(text: str) -> None:
    click.echo(text, err=True)
