"""The audit trail for those who check it: verified from stored bytes, proven entry by entry, exported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from breachwatch.app.state import StateLayout
from breachwatch.audit.export import export_log
from breachwatch.audit.keys import VKEY_FILE
from breachwatch.audit.note import Verifier, load_verifier
from breachwatch.audit.proof import build_receipt
from breachwatch.audit.verify import VerifyReport, verify_log
from breachwatch.config.settings import Settings
from breachwatch.errors import AuditError
from breachwatch.ports import StoredTrail
from breachwatch.store.audit import SqlAuditTiles
from breachwatch.store.database import open_database, sqlite_url, store_errors


def verify_trail(settings: Settings, known: bytes | None) -> dict[str, object]:
    """Recompute the trail of this installation. Raises: VerificationError, AuditError, StoreError."""
    with _trail(settings) as (tiles, verifier):
        return _said(verify_log(tiles, verifier, known=known))


def receipt(settings: Settings, index: int) -> str:
    """The proof that one entry is in the signed trail. Raises: AuditError, VerificationError, StoreError."""
    with _trail(settings) as (tiles, verifier):
        return build_receipt(tiles, index, verifier)


def export_trail(settings: Settings, folder: Path) -> int:
    """Write the trail as tlog-tiles; returns its size. Raises: AuditError, VerificationError, StoreError."""
    with _trail(settings) as (tiles, verifier):
        return export_log(tiles, folder, verifier)


@contextmanager
def _trail(settings: Settings) -> Iterator[tuple[StoredTrail, Verifier]]:
    """A view of the trail that changes nothing: whoever verifies must not migrate, create or sign."""
    layout = StateLayout(Path(settings.state.directory))
    try:
        vkey = (layout.keys / VKEY_FILE).read_text(encoding="utf-8")
    except OSError as error:
        raise AuditError(
            f"there is no audit trail to check: {error.strerror}",
            source=str(layout.keys / VKEY_FILE),
            hint="has `breachwatch run` been started with this state.directory, and may you read it?",
        ) from error
    if not layout.hub_db.is_file():
        raise AuditError("there is no audit trail to check", source=str(layout.hub_db))
    engine = open_database(sqlite_url(layout.hub_db))
    try:
        with store_errors("the hub's database"), engine.connect() as plain:
            yield SqlAuditTiles(plain.execution_options(reads_only=True)), load_verifier(vkey)
    finally:
        engine.dispose()


def _said(report: VerifyReport) -> dict[str, object]:
    return {
        "origin": report.origin,
        "entries": report.size,
        "root": report.root,
        "first": None if report.first_at is None else report.first_at.isoformat(),
        "last": None if report.last_at is None else report.last_at.isoformat(),
        "types": dict(sorted(report.types.items())),
    }
