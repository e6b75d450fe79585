"""Every check of this repository, one after the other: `python -m tests.checks`.

All steps run, whatever failed before; the exit code is that of the first step that failed. The tests come last, so that
their closing line (how many ran) is the last thing a reader sees when all is well. Arguments go to pytest.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

STEPS: dict[str, tuple[str, ...]] = {
    "format": ("ruff", "format", "--check", "."),
    "lint": ("ruff", "check", "."),
    "types": ("mypy",),
    "import contracts": ("lint-imports", "--no-cache"),
    "tests": ("pytest", "-q"),
}
"""Name of a check, and the command that makes it, in the order in which they run."""


def command_of(step: str, arguments: list[str]) -> list[str]:
    """The command line of a step, with the tools of the environment that this interpreter belongs to."""
    name, *options = STEPS[step]
    if step == "tests":
        return [sys.executable, "-m", name, *options, *arguments]
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    return [found or name, *options]


def run(step: str, arguments: list[str]) -> int:
    """Run one step and say how it ended; its own output goes straight through."""
    command = command_of(step, arguments)
    print(f"── {step}: {' '.join([Path(command[0]).name, *command[1:]])}", flush=True)
    begun = time.monotonic()
    try:
        code = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode
    except FileNotFoundError:
        print(f"{command[0]} is not installed: pip install --require-hashes -r requirements/dev.txt", flush=True)
        code = 127
    if step != "tests" or code:
        outcome = f"FAILED with {code}" if code else "ok"
        print(f"── {step}: {outcome} in {time.monotonic() - begun:.1f} s", flush=True)
    return code


def main(arguments: list[str]) -> int:
    """Run all steps; 0 when every one of them passed."""
    codes = {step: run(step, arguments) for step in STEPS}
    failed = {step: code for step, code in codes.items() if code}
    if failed:
        print(f"── FAILED: {', '.join(failed)}", flush=True)
    return next(iter(failed.values()), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
