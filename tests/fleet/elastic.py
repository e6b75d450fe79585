"""The real Elasticsearch, started by the script that lies beside the checkout."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT

UNAVAILABLE = 69
"""Exit code of the script: cannot be had on this machine."""

FIRST_PORT, PORTS = 19_400, 50


@dataclass(frozen=True)
class ElasticServer:
    """One server on a port of its own."""

    script: Path
    port: int

    def run(self, *command: str) -> str:
        """One command of the script; skips loudly if no server can be had here."""
        done = subprocess.run(
            [self.script, *command],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "BW_ES_PORT": str(self.port), "BW_ES_HEAP": "512m"},
        )
        if done.returncode == UNAVAILABLE:
            pytest.skip(f"Elasticsearch not tried: {done.stderr.strip()[-300:]}")
        assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stderr[-2000:]}"
        return done.stdout.strip()

    def environment(self) -> dict[str, str]:
        """What the script says of the running server."""
        words = self.run("env").removeprefix("export ").replace("export ", "").split()
        return dict(word.split("=", 1) for word in words)


def server_on_free_port() -> ElasticServer:
    folder = Path(os.environ.get("BREACHWATCH_SERVERS", ROOT.parent / "shared" / "servers"))
    script = folder / "elasticsearch.sh"
    if not script.is_file():
        pytest.skip(f"Elasticsearch not tried: no elasticsearch.sh in {folder}; set BREACHWATCH_SERVERS")
    for offset in range(PORTS):
        port = FIRST_PORT + (os.getpid() + offset) % PORTS
        if _is_free(port) and _is_free(port + 100):  # the script gives node to node traffic the port 100 higher
            return ElasticServer(script, port)
    pytest.skip(f"Elasticsearch not tried: no free port from {FIRST_PORT} on")


def _is_free(port: int) -> bool:
    with suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False
