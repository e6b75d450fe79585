"""SQLite's write-ahead log, switched on by several processes at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

TRIES = 50
"""Each waits for whoever is in the way; more than one is needed only while many processes meet a new file."""


def use_wal(execute: Callable[[str], object]) -> None:
    """Switch it on. SQLite does not wait for others there, as it does elsewhere: so we wait and ask again.

    Raises: sqlite3.OperationalError (the others held it too long).
    """
    for left in reversed(range(TRIES)):
        try:
            execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or not left:
                raise
            execute("BEGIN IMMEDIATE")  # waits, as long as busy_timeout says, until the other one is done
            execute("ROLLBACK")
        else:
            return
