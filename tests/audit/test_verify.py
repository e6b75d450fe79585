"""Whoever holds the database or the export changes it: checks fail loudly, appending stops, nothing is signed over."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from breachwatch.audit.export import export_log, verify_export
from breachwatch.audit.keys import Signer
from breachwatch.audit.log import TransparencyLog
from breachwatch.audit.note import load_verifier
from breachwatch.audit.verify import verify_log
from breachwatch.errors import AuditError, VerificationError
from tests.audit.trail import Trail, entries

SIZE = 600
"""Two full tiles, a partial one and a second level."""


@pytest.fixture
def filled(trail: Trail) -> Trail:
    trail.append(entries(SIZE), batch=97)
    return trail


def check(trail: Trail, known: bytes | None = None) -> None:
    with trail.tiles() as tiles:
        verify_log(tiles, trail.verifier, known=known)


def test_a_sound_trail_says_what_it_holds(filled: Trail) -> None:
    with filled.tiles() as tiles:
        report = verify_log(tiles, filled.verifier)
    assert (report.size, report.origin) == (SIZE, filled.verifier.name)
    assert report.types == {"notify.intent": 300, "notify.outcome": 300}
    assert report.first_at == entries(1)[0].at_utc
    assert report.last_at == entries(SIZE)[-1].at_utc


def test_an_empty_trail_is_no_sound_trail(trail: Trail) -> None:
    with pytest.raises(VerificationError, match="no signed head"):
        check(trail)


DAMAGE: dict[str, tuple[str, ...]] = {
    "an entry removed": ("DELETE FROM audit_entry WHERE idx = 300",),
    "the first entry removed": ("DELETE FROM audit_entry WHERE idx = 0",),
    "the last entry removed": (f"DELETE FROM audit_entry WHERE idx = {SIZE - 1}",),
    "all entries removed": ("DELETE FROM audit_entry",),
    "an entry added": (f"INSERT INTO audit_entry SELECT {SIZE}, data FROM audit_entry WHERE idx = 3",),
    "an entry added far away": ("INSERT INTO audit_entry SELECT 99999, data FROM audit_entry WHERE idx = 3",),
    "an entry replaced by another": (
        "UPDATE audit_entry SET data = (SELECT data FROM audit_entry WHERE idx = 4) WHERE idx = 3",
    ),
    "two entries swapped": (
        "UPDATE audit_entry SET idx = -1 WHERE idx = 10",
        "UPDATE audit_entry SET idx = 10 WHERE idx = 500",
        "UPDATE audit_entry SET idx = 500 WHERE idx = -1",
    ),
    "everything moved by one": (
        "DELETE FROM audit_entry WHERE idx = 0",
        "UPDATE audit_entry SET idx = -idx",
        "UPDATE audit_entry SET idx = -idx - 1",
    ),
    "a tile removed": ("DELETE FROM audit_tile WHERE level = 0 AND idx = 1",),
    "the partial tile removed": ("DELETE FROM audit_tile WHERE level = 0 AND idx = 2",),
    "the upper tile removed": ("DELETE FROM audit_tile WHERE level = 1",),
    "a tile cut": ("UPDATE audit_tile SET hashes = substr(hashes, 1, 32) WHERE level = 0 AND idx = 0",),
    "two tiles swapped": (
        "UPDATE audit_tile SET idx = 9 WHERE level = 0 AND idx = 0",
        "UPDATE audit_tile SET idx = 0 WHERE level = 0 AND idx = 1",
        "UPDATE audit_tile SET idx = 1 WHERE level = 0 AND idx = 9",
    ),
    "the heads removed": ("DELETE FROM audit_checkpoint",),
    "the last head removed": (f"DELETE FROM audit_checkpoint WHERE size = {SIZE}",),
    "a head of another size": (f"UPDATE audit_checkpoint SET size = {SIZE + 1} WHERE size = {SIZE - 18}",),
}


@pytest.mark.parametrize("statements", DAMAGE.values(), ids=DAMAGE)
def test_what_an_intruder_does_to_the_rows_is_found(filled: Trail, statements: tuple[str, ...]) -> None:
    check(filled)
    filled.sql(*statements)
    with pytest.raises(VerificationError):
        check(filled)


@pytest.mark.parametrize(
    ("table", "column", "where"),
    [
        ("audit_entry", "data", "idx"),
        ("audit_tile", "hashes", "level * 10 + idx"),
        ("audit_checkpoint", "note", "size"),
    ],
)
def test_a_flipped_bit_anywhere_is_found(filled: Trail, table: str, column: str, where: str) -> None:
    chance = random.Random(table)
    keys = [0, 255, 256, SIZE - 1] if table == "audit_entry" else [0, 1, 2, 10] if table == "audit_tile" else [SIZE]
    for _ in range(40):
        key = chance.choice(keys)
        before = filled.scalar(f"SELECT {column} FROM {table} WHERE {where} = {key}")
        bent = bytearray(before)
        bent[chance.randrange(len(bent))] ^= 1 << chance.randrange(8)
        filled.sql(f"UPDATE {table} SET {column} = :data WHERE {where} = :key", data=bytes(bent), key=key)
        with pytest.raises(VerificationError):
            check(filled)
        filled.sql(f"UPDATE {table} SET {column} = :data WHERE {where} = :key", data=before, key=key)
    check(filled)


def test_a_trail_signed_anew_with_another_key_is_found(filled: Trail, tmp_path: Path) -> None:
    forger = Trail(tmp_path / "forger")
    try:
        forger.append(entries(SIZE - 1))
        with forger.tiles() as tiles, pytest.raises(VerificationError, match="not signed by"):
            verify_log(tiles, filled.verifier)
    finally:
        forger.close()


def head_of(trail: Trail) -> bytes:
    with trail.tiles() as tiles:
        note = tiles.checkpoint()
    assert note is not None
    return note


def test_a_trail_grown_out_of_a_known_head_passes(filled: Trail) -> None:
    known = head_of(filled)
    check(filled, known)
    filled.append(entries(10, SIZE))
    check(filled, known)


def test_a_trail_rolled_back_below_a_known_head_is_found_only_with_that_head(filled: Trail) -> None:
    with filled.tiles() as tiles:
        old_size = 97 * 5
        partial = b"".join([tiles.tile(0, 1) or b""])[: (old_size - 256) * 32]
    known = head_of(filled)
    filled.sql(
        f"DELETE FROM audit_entry WHERE idx >= {old_size}",
        f"DELETE FROM audit_checkpoint WHERE size > {old_size}",
        "DELETE FROM audit_tile WHERE level = 0 AND idx = 2",
    )
    filled.sql("UPDATE audit_tile SET hashes = :data WHERE level = 0 AND idx = 1", data=partial)
    filled.sql("UPDATE audit_tile SET hashes = substr(hashes, 1, 32) WHERE level = 1")
    check(filled)  # a really signed old state: nothing inside it can say that there was more
    with pytest.raises(VerificationError, match="rolled back or cut"):
        check(filled, known)


def test_a_past_rewritten_with_the_stolen_key_is_found_with_a_known_head(filled: Trail, tmp_path: Path) -> None:
    known = head_of(filled)
    thief = Trail(tmp_path / "thief")
    try:
        thief.signer = filled.signer
        changed = entries(SIZE + 5)
        changed[40] = replace(changed[40], actor="usr:somebody-else")
        thief.append(changed)
        with thief.tiles() as tiles:
            verify_log(tiles, filled.verifier)
            with pytest.raises(VerificationError, match="history was changed"):
                verify_log(tiles, filled.verifier, known=known)
    finally:
        thief.close()


@pytest.mark.parametrize("known", [b"", b"nonsense", "\u2014".encode()])
def test_a_known_head_that_is_none_is_an_error_not_a_pass(filled: Trail, known: bytes) -> None:
    with pytest.raises(VerificationError):
        check(filled, known)


# -- appending ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statements",
    [
        (f"DELETE FROM audit_entry WHERE idx = {SIZE - 1}",),
        ("DELETE FROM audit_checkpoint",),
        (f"DELETE FROM audit_checkpoint WHERE size = {SIZE}",),
        ("DELETE FROM audit_tile WHERE level = 0 AND idx = 2",),
        ("UPDATE audit_tile SET hashes = zeroblob(length(hashes)) WHERE level = 0 AND idx = 2",),
        ("UPDATE audit_tile SET hashes = zeroblob(length(hashes)) WHERE level = 1",),
    ],
)
def test_nothing_is_appended_to_a_trail_whose_head_does_not_hold(filled: Trail, statements: tuple[str, ...]) -> None:
    filled.sql(*statements)
    with pytest.raises(AuditError):
        filled.append(entries(1, SIZE))


def test_nothing_is_appended_under_another_key(filled: Trail, tmp_path: Path) -> None:
    other = Trail(tmp_path / "other")
    other.close()
    with filled.tiles() as tiles, pytest.raises(AuditError, match="does not hold"):
        TransparencyLog(Signer(filled.verifier.name, other.signer.private)).append(tiles, entries(1, SIZE))


def test_a_disk_that_gives_back_other_bytes_is_noticed_before_signing(filled: Trail) -> None:
    before = head_of(filled)
    filled.sql(
        "CREATE TRIGGER rot AFTER INSERT ON audit_entry BEGIN"
        " UPDATE audit_entry SET data = zeroblob(5) WHERE idx = new.idx; END"
    )
    with pytest.raises(AuditError, match="read back differently"):
        filled.append(entries(2, SIZE))
    filled.sql("DROP TRIGGER rot")
    assert head_of(filled) == before
    check(filled)


def test_an_entry_that_is_refused_leaves_the_trail_as_it_was(filled: Trail) -> None:
    with pytest.raises(AuditError):
        filled.append([*entries(1, SIZE), replace(entries(1, SIZE + 1)[0], body={"share": 0.5})])  # type: ignore[dict-item]
    check(filled)
    filled.append([])
    check(filled)


# -- export ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def exported(filled: Trail, tmp_path: Path) -> Path:
    folder = tmp_path / "export"
    with filled.tiles() as tiles:
        assert export_log(tiles, folder, filled.verifier) == SIZE
    return folder


def test_an_export_has_the_layout_of_tlog_tiles_and_verifies(filled: Trail, exported: Path) -> None:
    names = {str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()}
    assert names == {
        "README", "checkpoint", "vkey", "tile/0/000", "tile/0/001", "tile/0/002.p/88", "tile/1/000.p/2",
        "tile/entries/000", "tile/entries/001", "tile/entries/002.p/88",
    }  # fmt: skip
    verifier = load_verifier((exported / "vkey").read_text())
    assert verifier == filled.verifier
    assert verify_export(exported, verifier).size == SIZE
    assert (exported / "tile/0/000").stat().st_size == 256 * 32


def test_large_tile_numbers_are_cut_into_groups_of_three() -> None:
    from breachwatch.audit.export import index_path

    assert [index_path(n) for n in (0, 999, 1_000, 1_234_067)] == ["000", "999", "x001/000", "x001/x234/067"]


def test_every_file_of_an_export_counts(filled: Trail, exported: Path, tmp_path: Path) -> None:
    chance = random.Random(7)
    work = tmp_path / "work"
    for path in sorted(exported.rglob("*")):
        if not path.is_file() or path.name == "README":
            continue
        name = path.relative_to(exported)
        for change in (flip, insert, cut, append, empty, remove, grow):
            shutil.copytree(exported, work)
            change(work / name, chance)
            if not (change is remove and path.name == "vkey"):  # the key is the checker's own, this one is a courtesy
                with pytest.raises(VerificationError):
                    verify_export(work, filled.verifier)
            shutil.rmtree(work)


def flip(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content) - (path.name == "vkey"))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def insert(path: Path, chance: random.Random) -> None:
    content = path.read_bytes()
    place = chance.randrange(len(content) - 1)
    path.write_bytes(content[:place] + b"\x07" + content[place:])


def cut(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: chance.randrange(1, 30)])


def append(path: Path, _chance: random.Random) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def empty(path: Path, _chance: random.Random) -> None:
    path.write_bytes(b"")


def remove(path: Path, _chance: random.Random) -> None:
    path.unlink()


def grow(path: Path, _chance: random.Random) -> None:
    """A file without end must not be read into memory."""
    with path.open("r+b") as file:
        file.truncate(1 << 34)


def swap(folder: Path, one: str, other: str) -> None:
    (folder / one).rename(folder / "t")
    (folder / other).rename(folder / one)
    (folder / "t").rename(folder / other)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: swap(folder, "tile/0/000", "tile/0/001"),
        lambda folder: swap(folder, "tile/entries/000", "tile/entries/001"),
        lambda folder: (folder / "tile/0/003").write_bytes(b"x" * 8192),
        lambda folder: (folder / "tile/entries/003").write_bytes(b""),
        lambda folder: (folder / "extra").symlink_to("/nowhere"),
        lambda folder: (folder / "tile/0/002").write_bytes(b"x"),
        lambda folder: ((folder / "checkpoint").unlink(), (folder / "checkpoint").mkdir()),
    ],
)
def test_files_swapped_or_added_are_found(filled: Trail, exported: Path, change: Callable[[Path], object]) -> None:
    change(exported)
    with pytest.raises(VerificationError):
        verify_export(exported, filled.verifier)


def test_an_older_export_is_sound_but_found_with_a_known_head(filled: Trail, exported: Path) -> None:
    filled.append(entries(10, SIZE))
    verify_export(exported, filled.verifier)
    with pytest.raises(VerificationError, match="rolled back or cut"):
        verify_export(exported, filled.verifier, known=head_of(filled))


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM audit_tile WHERE level = 0 AND idx = 1",
        "DELETE FROM audit_entry WHERE idx = 300",
        f"DELETE FROM audit_entry WHERE idx = {SIZE - 1}",
        "UPDATE audit_tile SET hashes = substr(hashes, 1, 64) WHERE level = 0 AND idx = 0",
    ],
)
def test_a_trail_with_a_hole_is_not_exported_as_if_it_were_whole(filled: Trail, tmp_path: Path, statement: str) -> None:
    filled.sql(statement)
    with filled.tiles() as tiles, pytest.raises(VerificationError):
        export_log(tiles, tmp_path / "export", filled.verifier)


def test_an_export_never_mixes_with_what_is_there(filled: Trail, exported: Path) -> None:
    with filled.tiles() as tiles, pytest.raises(AuditError, match="not empty"):
        export_log(tiles, exported, filled.verifier)


def test_an_empty_trail_has_no_export(trail: Trail, tmp_path: Path) -> None:
    with trail.tiles() as tiles, pytest.raises(AuditError, match="nothing to export"):
        export_log(tiles, tmp_path / "export", trail.verifier)


def test_what_is_no_export_is_an_error_not_a_pass(filled: Trail, tmp_path: Path) -> None:
    for folder in (tmp_path / "missing", tmp_path):
        with pytest.raises(VerificationError, match="no readable checkpoint"):
            verify_export(folder, filled.verifier)
