"""Compiles `breachwatch/model/native/` where a C compiler is at hand; without one everything works, only slower.

The binary uses the stable interface of CPython 3.11, so one is good for all later versions.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FLAGS = (
    "-O3", "-std=c11", "-fPIC", "-shared", "-fvisibility=hidden", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2",
)  # fmt: skip
SOURCES = "breachwatch/model/native"
NAME = "breachwatch/model/_native.abi3.so"


def digest_of(folder: Path) -> str:
    """What tells the sources from any others."""
    found = hashlib.sha256()
    for path in sorted((*folder.glob("*.c"), *folder.glob("*.h"))):
        found.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


def compile_native(root: Path) -> str:
    """Compile it into the tree; empty, or why it could not be."""
    sources, target = root / SOURCES, root / NAME
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if sys.implementation.name != "cpython" or platform.system() != "Linux":
        return "it is made for CPython on Linux"
    if shutil.which(compiler[0]) is None:
        return f"there is no C compiler ({compiler[0]})"
    made = target.with_suffix(".new.so")  # neither importable nor packed, should we be killed here
    defined = (f'-DSOURCE="{digest_of(sources)}"', "-I", sysconfig.get_path("include"))
    command = [*compiler, *FLAGS, *defined, *map(str, sorted(sources.glob("*.c"))), "-o", str(made)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
        return said or f"{compiler[0]} ended with {done.returncode}"
    made.replace(target)
    return ""


class NativeHook(BuildHookInterface[Any]):
    """Called by hatchling before it packs, or links for `pip install -e`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002  # hatchling's interface
        """Compile, and say that the wheel then is for this kind of machine."""
        try:
            (Path(self.root) / NAME).unlink(missing_ok=True)
            why = compile_native(Path(self.root))
        except OSError as error:
            why = str(error)
        if why:
            self.app.display_warning(f"breachwatch scans with Python's own passes, which are slower: {why}")
            return
        machine = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"cp311-abi3-{machine}"
        build_data["pure_python"] = False
        build_data["artifacts"].append(f"/{NAME}")
