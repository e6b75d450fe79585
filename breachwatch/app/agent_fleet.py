"""`breachwatch agent` with Elasticsearch configured: the small agent as a child, telemetry in the process above it.

The agent itself never loads the client library and keeps its size.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from breachwatch.app.agent import AgentSettings
from breachwatch.app.state import prepare_state
from breachwatch.app.supervise import ChildSpec, Supervisor, agent_command
from breachwatch.app.telemetry import start_telemetry
from breachwatch.config.settings import Settings


def serve_with_fleet(plain: AgentSettings, settings: Settings) -> int:
    """Watch and ship until SIGTERM; 0 after a clean stop. Raises: LockedError, StoreError, ConfigError."""
    layout = prepare_state(Path(settings.state.directory))
    child = ChildSpec(name="agent", command=agent_command(), stdin=msgspec.json.encode(plain))
    supervisor = Supervisor(layout=layout, host=settings.host.name, specs=[child], say=_say)
    telemetry = start_telemetry(settings, layout, _say, prune=True)
    try:
        return supervisor.run()
    finally:
        if telemetry is not None:
            telemetry.close()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201  # the service's log
