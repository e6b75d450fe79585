"""One command of the command line, in this process: quick, and with everything that a user would see."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

from breachwatch.cli.main import main


@dataclass
class Done:
    """What a command said and left with."""

    code: int
    out: str
    err: str

    def objects(self) -> list[dict[str, object]]:
        """The objects of `--json`."""
        return [json.loads(line) for line in self.out.splitlines()]


def run(config: Path | None, *command: str) -> Done:
    """Run it to its end."""
    out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline=""), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([*(("--config", str(config)) if config else ()), *command])
        except SystemExit as left:
            code = int(left.code or 0)
    out.seek(0)
    return Done(code, out.read(), err.getvalue())
