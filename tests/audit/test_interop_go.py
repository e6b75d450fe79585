"""Go's own checksum-database code reads our heads, tiles and receipts, and refuses what was changed.

Needs `go`, and the module golang.org/x/mod in Go's cache or from its proxy; skips with the reason otherwise.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from breachwatch.audit.export import export_log
from breachwatch.audit.proof import build_receipt
from tests.audit.trail import Trail, entries

SOURCE = Path(__file__).parent / "oracle_go"
SIZE = 70_000
"""A full tile on the second level, partial ones on all three."""


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go's own verifier is not tried: no `go` on PATH")
    program = tmp_path_factory.mktemp("oracle") / "oracle"
    built = subprocess.run(
        [go, "build", "-mod=readonly", "-o", str(program), "."], cwd=SOURCE, capture_output=True, text=True, timeout=110
    )
    if built.returncode and "golang.org/x/mod" in built.stderr:
        pytest.skip(f"Go's own verifier is not tried: {built.stderr.strip().splitlines()[-1]}")
    assert built.returncode == 0, built.stderr
    return program


def said(*command: object) -> tuple[int, str]:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_go_verifies_an_export_and_refuses_a_changed_one(oracle: Path, trail: Trail, tmp_path: Path) -> None:
    trail.append(entries(SIZE), batch=30_000)
    folder, vkey = tmp_path / "export", trail.verifier.vkey
    with trail.tiles() as tiles:
        export_log(tiles, folder, trail.verifier)
    assert said(oracle, "export", folder, vkey) == (0, f"{SIZE}\n")
    chance = random.Random(11)
    for name in ("tile/0/000", "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1", "tile/entries/200", "checkpoint"):
        path = folder / name
        before = path.read_bytes()
        bent = bytearray(before)
        bent[chance.randrange(len(bent))] ^= 1
        path.write_bytes(bent)
        assert said(oracle, "export", folder, vkey)[0] == 1, name
        path.write_bytes(before)
    assert said(oracle, "export", folder, vkey)[0] == 0


def test_go_verifies_receipts_and_refuses_those_of_another_entry(oracle: Path, trail: Trail, tmp_path: Path) -> None:
    trail.append(entries(700))
    receipt, entry = tmp_path / "receipt", tmp_path / "entry"
    for index in (0, 255, 256, 699):
        with trail.tiles() as tiles:
            receipt.write_text(build_receipt(tiles, index, trail.verifier), encoding="utf-8")
            entry.write_bytes(next(tiles.entries(index, index + 1)))
        assert said(oracle, "receipt", receipt, entry, trail.verifier.vkey) == (0, "")
        entry.write_bytes(entry.read_bytes().replace(b"attempt", b"attemqt"))
        assert said(oracle, "receipt", receipt, entry, trail.verifier.vkey)[0] == 1
