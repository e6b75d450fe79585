"""From settings to live parts: the one place that decides which implementation stands behind a port."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from breachwatch.app.agent import AgentSettings, LogSettings, SyslogSettings
from breachwatch.app.clock import SystemClock
from breachwatch.app.integrity import watched_paths
from breachwatch.app.operate import Actor, Operations
from breachwatch.app.state import StateLayout, prepare_state
from breachwatch.app.wake import poke
from breachwatch.audit.keys import load_or_create_signer
from breachwatch.audit.log import TransparencyLog
from breachwatch.config.sections import LogSection, SyslogSection
from breachwatch.config.settings import Settings
from breachwatch.config.shipped import shipped_folder
from breachwatch.errors import ApprovalError
from breachwatch.store.database import open_database, sqlite_url
from breachwatch.store.hub import HubStore
from breachwatch.store.migrate import migrate
from breachwatch.watch.integrity import Options
from breachwatch.watch.integrity.content import DEFAULT_DIFFS
from breachwatch.watch.syslog import ListenSpec


def rule_folders(settings: Settings) -> list[Path]:
    """The shipped pack, unless switched off, and the operator's folders."""
    shipped = [shipped_folder("rules")] if settings.rules.shipped else []
    return [*shipped, *(Path(folder) for folder in settings.rules.directories)]


def agent_settings(settings: Settings, *, without_network: bool) -> AgentSettings:
    """What the agent process needs, as plain values."""
    integrity = settings.watch.integrity
    return AgentSettings(
        state_directory=os.fspath(settings.state.directory),
        host=settings.host.name,
        logs=tuple(_log(log) for log in settings.watch.logs),
        max_line_bytes=settings.watch.max_line_bytes,
        processes=settings.watch.busy_processes,
        journal=settings.watch.journal.enabled,
        journal_units=tuple(settings.watch.journal.units),
        syslog=tuple(_syslog(listener, settings.watch.max_line_bytes) for listener in settings.watch.syslog),
        integrity=integrity_settings(settings) if integrity.enabled else None,
        rule_folders=tuple(str(folder) for folder in rule_folders(settings)),
        placeholders=settings.rules.placeholders,
        without_network=without_network,
    )


def integrity_settings(settings: Settings) -> Options:
    """What file integrity needs, as plain values."""
    integrity = settings.watch.integrity
    return Options(
        paths=watched_paths([str(path) for path in integrity.paths], own_files=integrity.own_files),
        exclude=tuple(integrity.exclude),
        diffs=DEFAULT_DIFFS if integrity.diff is None else tuple(integrity.diff),
        sweep_s=integrity.sweep_interval_s,
        full_s=integrity.full_interval_s,
        cpu_share=integrity.cpu_share,
        bytes_per_s=integrity.bytes_per_s,
        hash_limit_bytes=integrity.hash_limit_bytes,
        rolling_hash=integrity.rolling_hash,
        setuid_s=integrity.setuid_interval_s,
        processes=integrity.processes,
        fanotify=integrity.fanotify,
    )


def _log(log: LogSection) -> LogSettings:
    return LogSettings(
        path=log.path,
        format=log.format,
        tz=log.tz,
        exclude=log.exclude,
        rotated=tuple(str(folder) for folder in log.rotated),
        encoding=log.encoding,
        record_start=log.record_start,
        from_start=log.from_start,
    )


def _syslog(listener: SyslogSection, max_line_bytes: int) -> SyslogSettings:
    return SyslogSettings(
        listen=ListenSpec(
            protocol=listener.protocol,
            address=listener.address,
            port=listener.port,
            max_line_bytes=max_line_bytes,
            receive_buffer_bytes=listener.receive_buffer_bytes,
            max_connections=listener.max_connections,
            certificate=str(listener.certificate or ""),
            key=str(listener.key or ""),
            client_ca=str(listener.client_ca or ""),
        ),
        format=listener.format,
        tz=listener.tz,
    )


def open_hub_store(settings: Settings) -> HubStore:
    """The hub's database, migrated, with the signing key of its audit trail. Raises: StoreError, AuditError."""
    layout = prepare_state(Path(settings.state.directory))
    return open_hub_store_at(layout, origin=settings.audit.origin)


def open_hub_store_at(layout: StateLayout, *, origin: str) -> HubStore:
    """The same from a state directory."""
    engine = open_database(sqlite_url(layout.hub_db))
    migrate(engine)
    layout.hub_db.chmod(0o600)
    return HubStore(engine, TransparencyLog(load_or_create_signer(layout.keys, origin)))


@contextmanager
def operations(settings: Settings) -> Iterator[Operations]:
    """The operator's verbs on this installation."""
    store = open_hub_store(settings)
    try:
        yield Operations(store, SystemClock())
    finally:
        store.close()
        poke(StateLayout(Path(settings.state.directory)).wake)


def who_is_typing() -> str:
    """The account behind this command: the one that called sudo, else the one that runs it."""
    sudo_user = os.environ.get("SUDO_USER", "")
    if sudo_user and os.geteuid() == 0:
        return sudo_user
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid{os.getuid()}"


def actor(settings: Settings, claimed: str | None) -> Actor:
    """The person who acts: named with `--as`, or the one whose `os_user` is typing. Raises: ApprovalError.

    The command line trusts accounts of the operating system; `--as` names a person of `team.people`, and the audit
    entry keeps both names. Stronger proof of identity belongs to the console.
    """
    os_user = who_is_typing()
    for person in settings.team.people:
        if (claimed is not None and person.name == claimed) or (claimed is None and person.os_user == os_user):
            return Actor(name=person.name, os_user=os_user, roles=frozenset(person.roles))
    if claimed is not None:
        raise ApprovalError(f"no person named {claimed!r} in team.people", hint="add them to the configuration")
    return Actor(name=os_user, os_user=os_user)
