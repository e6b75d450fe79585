"""Lines whose bytes are not what they stand for: invalid UTF-8, and characters that equal ASCII ones when compared.

A prefilter looks for ASCII literals in raw bytes; in such lines it may look in vain. Nearly all logs are pure ASCII,
which one pass at the speed of memory finds out.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterator
from functools import cache

from breachwatch.detect.folding import FOLDS_INTO_ASCII

_NOT_ASCII = re.compile(rb"[^\n]*[\x80-\xff][^\n]*\n?")


@cache
def _foreign(*, digits: bool) -> re.Pattern[str]:
    """Characters that fold into ASCII and, if asked for, the decimal digits of other scripts."""
    found = list(FOLDS_INTO_ASCII)
    if digits:
        found += [chr(code) for code in range(0x80, sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Nd"]
    return re.compile("[" + "".join(map(re.escape, found)) + "]")


def foreign_lines(data: bytes, *, digits: bool) -> Iterator[int]:
    """Offset behind some byte of each line that is no UTF-8 or holds a character that equals an ASCII one."""
    if data.isascii():
        return
    pattern = _foreign(digits=digits)
    try:
        if pattern.search(data.decode("utf-8")) is None:
            return
    except UnicodeDecodeError:
        pass
    for line in _NOT_ASCII.finditer(data):
        try:
            foreign = pattern.search(line[0].decode("utf-8")) is not None
        except UnicodeDecodeError:
            foreign = True
        if foreign:
            yield line.start() + 1
