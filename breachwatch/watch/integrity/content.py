"""What changed inside a small text file, with secrets masked before anything is stored or shown."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Sequence
from difflib import unified_diff
from fnmatch import translate

from breachwatch.watch.integrity.inspect import open_quietly

MAX_TEXT_BYTES = 64 << 10
"""Larger files are told by their hash alone."""

MAX_DIFF_CHARS = 4_000
MAX_LINE_CHARS = 400

DEFAULT_DIFFS = (
    "/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d/*", "/etc/sudoers", "/etc/sudoers.d/*", "/etc/passwd", "/etc/group",
    "/etc/crontab", "/etc/cron.d/*", "/etc/ld.so.preload", "/etc/ld.so.conf.d/*", "/etc/pam.d/*", "/etc/nsswitch.conf",
    "/etc/hosts", "/etc/systemd/system/*", "/etc/modules-load.d/*", "/var/spool/cron/crontabs/*",
    "/root/.ssh/authorized_keys*",
)  # fmt: skip

NEVER = re.compile(
    r".*/(?:g?shadow-?|ssl/private/.*|.*_key|id_[a-z0-9]+|.*\.(?:key|pem|p12|pfx|jks|kdbx)|breachwatch\.toml)"
)
"""Files that are secrets as a whole, whatever the operator configured."""

MASK = "********"
_WORDS = (
    r"pass(?:word|wd|phrase)?|pwd|secret|token|api[_-]?key|private[_-]?key|access[_-]?key|credentials?|bind_?pw|psk"
)
_VALUE = re.compile(rf"(?i)((?:^|[^a-z0-9])(?:[a-z0-9]+[_.-])*(?:{_WORDS})[\"']?\s*(?:[:=]|\s)\s*)(\S.*)$")
_URL = re.compile(r"(?i)(\b[a-z][a-z0-9+.-]{1,20}://[^/\s:@]{0,200}:)[^@\s/]{1,200}(@)")
_HASH = re.compile(r"\$(?:[0-9a-z]{1,12})\$[./0-9A-Za-z$=,+-]{8,400}")
_HEADER = re.compile(r"(?i)(authorization:\s*\S+\s+)\S+")
_BEGIN, _END = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY"), re.compile(r"-----END [A-Z ]*PRIVATE KEY")


def masked(text: str) -> str:
    """The text without what looks like a secret. Masks rather too much than too little."""
    lines, inside = [], False
    for line in text.splitlines():
        if inside or _BEGIN.search(line):
            inside = not _END.search(line)
            lines.append(MASK)
            continue
        clean = _URL.sub(rf"\1{MASK}\2", line[:MAX_LINE_CHARS])
        clean = _HEADER.sub(rf"\1{MASK}", _HASH.sub(MASK, clean))
        lines.append(_VALUE.sub(rf"\1{MASK}", clean))
    return "\n".join(lines)


class Contents:
    """Reads and compares the configured text files."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self.patterns = tuple(patterns)
        self._wanted = re.compile("|".join(f"(?:{translate(item)})" for item in patterns)) if patterns else None

    def wants(self, path: bytes) -> bool:
        """True for a file whose lines are shown when it changes."""
        text = os.fsdecode(path)
        return self._wanted is not None and bool(self._wanted.match(text)) and not NEVER.fullmatch(text)

    def read(self, path: bytes) -> bytes | None:
        """Masked text, compressed; None for what is no small text file."""
        try:
            descriptor = open_quietly(path)
        except OSError:
            return None
        try:
            content = os.read(descriptor, MAX_TEXT_BYTES + 1)
        except OSError:
            return None
        finally:
            os.close(descriptor)
        if len(content) > MAX_TEXT_BYTES or b"\0" in content:
            return None
        return zlib.compress(masked(content.decode("utf-8", "backslashreplace")).encode("utf-8"))


def difference(before: bytes | None, after: bytes | None) -> str:
    """Lines that came and went, at most `MAX_DIFF_CHARS` of them."""
    old, new = _lines(before), _lines(after)
    if old == new:
        return "(only what is masked differs)"
    lines = [
        line.rstrip("\n") for line in unified_diff(old, new, n=0, lineterm="") if not line.startswith(("---", "+++"))
    ]
    text = "\n".join(lines)
    return text if len(text) <= MAX_DIFF_CHARS else text[:MAX_DIFF_CHARS] + "\n(cut)"


def _lines(packed: bytes | None) -> list[str]:
    if packed is None:
        return []
    return zlib.decompressobj().decompress(packed, 4 * MAX_TEXT_BYTES).decode("utf-8", "replace").split("\n")
