"""A PostgreSQL server of the tests' own: in a temporary folder, on a Unix socket, gone when the tests are."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

INSTALLED = Path("/usr/lib/postgresql")
"""Where Debian's packages keep the servers, one folder per version."""

UNPRIVILEGED = ("postgres", "nobody")
"""Accounts that the server may run as when the tests run as root, which it refuses to run as."""


def server_programs() -> Path | None:
    """The folder of `initdb` and `pg_ctl`; the newest version's where there are several."""
    folders = sorted(INSTALLED.glob("*/bin/initdb"), key=lambda found: int(found.parts[-3]), reverse=True)
    if folders:
        return folders[0].parent
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


def _account() -> pwd.struct_passwd | None:
    """Whom to run the server as; None: as who we are."""
    if os.geteuid() != 0:
        return None
    for name in UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise AssertionError(f"running as root, and none of the accounts {UNPRIVILEGED} exists")


def _run(account: pwd.struct_passwd | None, folder: Path, *command: str | Path) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "HOME": str(folder)},
        user=account.pw_uid if account else None,
        group=account.pw_gid if account else None,
        extra_groups=[] if account else None,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}: {done.stdout}"


@contextlib.contextmanager
def private_server(programs: Path) -> Iterator[str]:
    """Start an empty server that nobody else can reach; gives its SQLAlchemy URL, stops and removes it at the end."""
    account = _account()
    folder = Path(tempfile.mkdtemp(prefix="breachwatch-postgresql-"))  # short: a socket's path is 107 bytes at most
    if account:
        os.chown(folder, account.pw_uid, account.pw_gid)
    cluster, log = folder / "cluster", folder / "log"
    try:
        _run(
            account, folder, programs / "initdb", "-D", cluster, "-U", "breachwatch", "-E", "UTF8", "-A", "trust", "-N"
        )
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off -c max_connections=50"
        control = (programs / "pg_ctl", "-D", cluster, "-w", "-l", log)
        _run(account, folder, *control, "-o", options, "start")
        try:
            yield f"postgresql+psycopg://breachwatch@/postgres?host={folder}"
        finally:
            _run(account, folder, *control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
