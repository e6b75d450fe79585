"""docs/audit.md: its entry is one, every type of entry is there, and its check finds a changed trail."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from breachwatch.app.state import prepare_state
from breachwatch.app.wiring import open_hub_store_at
from breachwatch.audit.entry import MAX_ENTRY_BYTES, decode
from breachwatch.audit.export import export_log
from breachwatch.audit.keys import KEY_FILE, VKEY_FILE, load_or_create_signer
from breachwatch.audit.vault import KEY_FILE as VAULT_KEY_FILE
from breachwatch.model import Entry
from breachwatch.store.audit import SqlAuditTiles
from breachwatch.store.database import open_database, sqlite_url
from tests.conftest import ROOT
from tests.docs.pages import DOCS, page, snippets

PAGE = page("audit.md")
FOUND = {one.language: one for one in snippets(DOCS / "audit.md")}
ORIGIN = "company.example/trail"
SIZE = 700


def entry_types() -> Iterator[str]:
    """Types of entries in the code; those with a part that is not written out end in a dot."""
    for path in sorted((ROOT / "breachwatch").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            given = [one.value for one in node.keywords if one.arg == "type"] if node.func.id == "Entry" else []
            given += node.args[:1] if node.func.id == "_entry" else []
            for value in given:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield value.value
                elif isinstance(value, ast.JoinedStr) and isinstance(value.values[0], ast.Constant):
                    yield str(value.values[0].value)


def test_every_type_of_entry_is_on_the_page():
    types = set(entry_types())
    assert {"notify.intent", "notice.approved", "daemon."} <= types
    assert sorted(one for one in types if f"`{one}" not in PAGE) == []


def test_the_entry_of_the_page_is_one():
    assert decode(FOUND["json"].text.strip().encode()).incident_id == "INC-2026-000001"
    assert f"{MAX_ENTRY_BYTES:,} bytes" in PAGE


def test_the_key_files_are_on_the_page():
    assert [name for name in (KEY_FILE, VKEY_FILE, VAULT_KEY_FILE) if f"keys/{name}" not in PAGE] == []


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("audit")
    layout = prepare_state(root / "state")
    store = open_hub_store_at(layout, origin=ORIGIN)
    at_utc = datetime(2026, 1, 5, tzinfo=UTC)
    with store.transaction() as tx:
        for number in range(SIZE):
            tx.audit(Entry(type="incident.note", at_utc=at_utc, incident_id="INC-2026-000001", body={"n": number}))
    store.close()
    engine = open_database(sqlite_url(layout.hub_db))
    with engine.connect() as connection:
        export_log(SqlAuditTiles(connection), root / "trail", load_or_create_signer(layout.keys, ORIGIN).verifier)
    engine.dispose()
    return root / "trail"


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-c", FOUND["python"].text, str(folder)], capture_output=True, text=True, check=False
    )


def test_the_check_of_the_page_accepts_a_trail(export):
    done = check(export)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{SIZE} entries of {ORIGIN} give the signed root")


def test_the_check_of_the_page_finds_one_changed_byte(export):
    bundle = export / "tile" / "entries" / "001"
    kept = bundle.read_bytes()
    try:
        bundle.write_bytes(kept.replace(b'"n":300', b'"n":301', 1))
        done = check(export)
    finally:
        bundle.write_bytes(kept)
    assert done.returncode != 0
    assert "do not give the signed root" in done.stderr


def test_the_files_that_the_page_lists_are_those_of_an_export(export):
    names = {path.relative_to(export).parts[0] for path in export.rglob("*")}
    listed = set(re.findall(r"^(checkpoint|vkey|tile)", PAGE.partition("## Files")[2], re.MULTILINE))
    assert names - {"README"} == listed
