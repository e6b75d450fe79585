"""What of a log is stored: enough to go on after an upgrade, for nobody else to read, and small."""

from __future__ import annotations

import os
import sqlite3

import msgspec

from breachwatch.model import Checkpoint
from breachwatch.store.agent import SqliteAgentStore


def test_a_checkpoint_of_an_older_version_lacks_what_was_not_known_then(tmp_path):
    path = tmp_path / "agent.db"
    SqliteAgentStore(path).close()
    connection = sqlite3.connect(path)
    old = msgspec.msgpack.encode({"source": "/var/log/a.log", "device": 1, "inode": 2, "offset": 3})
    connection.execute("INSERT INTO checkpoint VALUES (?, ?)", ("/var/log/a.log\x001:2", old))
    connection.commit()
    connection.close()
    store = SqliteAgentStore(path)
    assert list(store.checkpoints().values()) == [Checkpoint(source="/var/log/a.log", device=1, inode=2, offset=3)]
    store.close()


def test_the_file_is_for_its_owner_only_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        SqliteAgentStore(tmp_path / "agent.db").close()
    finally:
        os.umask(before)
    assert (tmp_path / "agent.db").stat().st_mode & 0o777 == 0o600
