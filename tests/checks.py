"""Every check of the tree in one command: `python -m tests.checks`. Arguments go to pytest."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = Path(sysconfig.get_path("scripts"))


def commands(pytest_arguments: list[str]) -> list[list[str]]:
    """In the order they run: the quick ones first, the tests last."""
    return [
        ["ruff", "format", "--check", "."],
        ["ruff", "check", "."],
        ["mypy"],
        ["lint-imports"],
        ["pytest", *pytest_arguments],
    ]


def run(command: list[str]) -> int:
    """Exit code of one check; its output goes straight to the terminal, so nothing of it is lost."""
    if command[0] == "pytest":
        whole = [sys.executable, "-m", *command]
    else:
        program = shutil.which(command[0], path=str(SCRIPTS))
        if program is None:
            print(f"{command[0]} is not installed beside {sys.executable}", flush=True)
            return 127
        whole = [program, *command[1:]]
    return subprocess.run(whole, cwd=ROOT, check=False).returncode


def main(arguments: list[str]) -> int:
    """1 when any check failed; all run, so one round shows everything there is to mend."""
    results = []
    for command in commands(arguments):
        name = " ".join(command)
        print(f"== {name}", flush=True)
        start = time.monotonic()
        code = run(command)
        results.append((name, code))
        said = "ok" if code == 0 else f"FAILED (exit code {code})"
        print(f"== {name}: {said} in {time.monotonic() - start:.0f} s", flush=True)
    for name, code in results:
        print(f"{'ok    ' if code == 0 else 'FAILED'} {name}", flush=True)
    return 1 if any(code for _, code in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
