"""Parsed rules and fitted plans kept on disk, by the hash of everything they depend on.

A cache: whatever is wrong with it, we parse and compile again. Compiled patterns are as good as code, so only files are
read that we own, that nobody else may write to, and whose digest is right.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import msgspec

from breachwatch.detect.ruleset import RuleSet, RuleText
from breachwatch.detect.stored import restored, stored

KEEP = 8
"""Rule files kept; the oldest go first."""

KEEP_PLANS = 32
"""The same of plans: one for each form of lines and kind of source."""

PARSE_S = 120.0
"""How long the parsing process may take: thousands of rules take seconds."""

MAX_BYTES = 256 << 20
"""A larger file is not ours."""


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...


def default_cache() -> Path:
    """Where a user's caches lie. Source: XDG Base Directory Specification."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(named) if named.startswith("/") else Path("~/.cache").expanduser()) / "breachwatch"


def load_cached(
    texts: Sequence[RuleText],
    cache: Path,
    placeholders: Mapping[str, tuple[str, ...]] | None = None,
    *,
    apart: bool = False,
) -> RuleSet:
    """The rules of these texts, from the cache if it holds them, else parsed and kept there.

    `apart`: parsed in a process that ends afterwards, for the parser's memory (60 MB) never comes back to the system.
    """
    key = _key(texts, placeholders or {})
    file = cache / f"rules-{key[:32]}.msgpack"
    found = _held(file, key)
    if found is None and apart:
        _parse_apart(texts, cache, placeholders or {})
        found = _held(file, key)
    if found is None:
        from breachwatch.detect.load import load_rules

        found = replace(load_rules(texts, placeholders), key=key)
        with suppress(TypeError, ValueError, OverflowError):  # what cannot be stored is parsed each time
            _keep(file, stored(found, key))
    return found


def _held(file: Path, key: str) -> RuleSet | None:
    data = _trusted_bytes(file)
    return restored(data, key) if data is not None else None


class _Work(msgspec.Struct):
    """What the parsing process is told on standard input."""

    texts: list[RuleText]
    cache: str
    placeholders: dict[str, tuple[str, ...]]


def _parse_apart(texts: Sequence[RuleText], cache: Path, placeholders: Mapping[str, tuple[str, ...]]) -> None:
    """Have the cache filled; if that fails we parse ourselves, so its outcome does not matter."""
    import subprocess  # a start from the cache does without

    work = _Work(list(texts), os.fspath(cache), dict(placeholders))
    command = (sys.executable, "-m", "breachwatch.app.rule_cache")
    with suppress(OSError, subprocess.SubprocessError):
        subprocess.run(
            command, input=msgspec.json.encode(work), check=False, timeout=PARSE_S, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip


def _key(texts: Sequence[RuleText], placeholders: Mapping[str, tuple[str, ...]]) -> str:
    """Hash of the rules, of the code that reads them, and of the library that parses them."""
    content = sha256()
    _add_code(content, "breachwatch.detect", "sigma")
    content.update(repr(sorted(placeholders.items())).encode("utf-8", "surrogatepass"))
    for text in texts:
        body = text.text.encode("utf-8", "surrogatepass")
        content.update(f"\0{text.source}\0{len(body)}\0".encode("utf-8", "surrogatepass"))
        content.update(body)
    return content.hexdigest()


def _add_code(content: _Hash, *packages: str) -> None:
    for package in packages:
        found = find_spec(package)
        for folder in (found.submodule_search_locations if found is not None else None) or ():
            for file in sorted(Path(folder).rglob("*.py")):
                content.update(file.read_bytes())


class PlanFiles:
    """The plans of detect/selector.py, a file each."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    @cached_property
    def _code(self) -> bytes:
        """Hash of what chooses patterns, what promises of lines it relies on, and what takes expressions apart."""
        content = sha256(sys.version.encode())
        _add_code(content, "breachwatch.detect", "breachwatch.parse", "breachwatch.model")
        return content.digest()

    def _named(self, key: str) -> tuple[Path, bytes]:
        identity = sha256(self._code + key.encode("utf-8", "surrogatepass"))
        return self._cache / f"plan-{identity.hexdigest()[:32]}.msgpack", identity.digest()

    def load(self, key: str) -> bytes | None:
        """What was kept under the key, unchanged, by ourselves; None for anything else."""
        file, identity = self._named(key)
        data = _trusted_bytes(file)
        size = sha256().digest_size
        if data is None or data[:size] != sha256(identity + data[size:]).digest():
            return None
        return data[size:]

    def keep(self, key: str, data: bytes) -> None:
        """Keep it if that is possible."""
        file, identity = self._named(key)
        _keep(file, sha256(identity + data).digest() + data, kind="plan", most=KEEP_PLANS)


def _trusted_bytes(file: Path) -> bytes | None:
    """The content of a plain file that only we can have written, else None."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as opened:
        status = os.fstat(descriptor)
        others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or others_write:
            return None
        return opened.read(MAX_BYTES) if status.st_size < MAX_BYTES else None


def _keep(file: Path, data: bytes, *, kind: str = "rules", most: int = KEEP) -> None:
    """Write in one step; a cache that cannot be written is none."""
    from tempfile import NamedTemporaryFile  # as above

    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if file.parent.stat().st_uid != os.geteuid():
            return
        with NamedTemporaryFile(dir=file.parent, prefix=f".{kind}-", delete=False) as written:
            temporary = Path(written.name)
            try:
                written.write(data)
                written.flush()
                temporary.replace(file)
            finally:
                temporary.unlink(missing_ok=True)
        by_age = sorted(file.parent.glob(f"{kind}-*.msgpack"), key=lambda one: one.stat().st_mtime, reverse=True)
        for old in by_age[most:]:
            old.unlink(missing_ok=True)
    except OSError:
        return


if __name__ == "__main__":
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=_Work)
    load_cached(asked.texts, Path(asked.cache), asked.placeholders)
