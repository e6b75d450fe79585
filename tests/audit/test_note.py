"""Signed notes, keys and receipts as C2SP words them; a bent one is refused, whichever byte it is."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from breachwatch.audit.keys import KEY_FILE, VKEY_FILE, Signer, load_or_create_secret, load_or_create_signer
from breachwatch.audit.note import Checkpoint, load_verifier, open_checkpoint, open_note
from breachwatch.audit.proof import build_receipt, verify_receipt
from breachwatch.errors import AuditError, VerificationError
from tests.audit.trail import ORIGIN, Trail, entries

PUBLISHED_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PUBLISHED_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
"""Source: the example in the documentation of Go's golang.org/x/mod/sumdb/note."""

SIGNER = Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(b"\x07" * 32))
OTHER = Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(b"\x08" * 32))
HEAD = Checkpoint(ORIGIN, 300, b"\x01" * 32)
NOTE = SIGNER.sign(HEAD)
TEXT, _, SIGNATURE = NOTE.decode().rpartition("\n\n")


def test_the_published_note_of_go_is_accepted_with_its_published_key() -> None:
    verifier = load_verifier(PUBLISHED_VKEY)
    assert verifier.vkey == PUBLISHED_VKEY
    assert open_note(PUBLISHED_NOTE.encode(), verifier).startswith("If you think cryptography is the answer")


def test_a_signed_head_reads_back() -> None:
    assert open_checkpoint(NOTE, SIGNER.verifier) == HEAD
    assert load_verifier(SIGNER.verifier.vkey + "\n") == SIGNER.verifier


def test_every_flipped_bit_of_a_signed_head_is_found() -> None:
    for place in range(len(NOTE)):
        for bit in range(8):
            bent = NOTE[:place] + bytes([NOTE[place] ^ (1 << bit)]) + NOTE[place + 1 :]
            with pytest.raises(VerificationError):
                open_checkpoint(bent, SIGNER.verifier)


def signed(text: str, signer: Signer = SIGNER) -> bytes:
    """A note over any text, rightly signed."""
    signature = base64.b64decode(signer.sign(HEAD).decode().rpartition(" ")[2])[:4] + signer.private.sign(text.encode())
    return f"{text}\n— {signer.name} {base64.b64encode(signature).decode()}\n".encode()


ROOT = base64.b64encode(b"\x01" * 32).decode()


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"\n\n",
        NOTE[:-1],
        NOTE + b"\n",
        NOTE + b"x",
        NOTE.replace(b"\n", b"\r\n"),
        b"\n" + NOTE,
        NOTE + NOTE,
        NOTE.replace("—".encode(), b"-"),
        OTHER.sign(HEAD),
        Signer("another.invalid", SIGNER.private).sign(HEAD),
        SIGNER.sign(replace(HEAD, origin="another.invalid")),
        (TEXT + "\n\n" + SIGNATURE + SIGNATURE).encode(),
        (TEXT + "\n\n" + SIGNATURE.rstrip("\n") + "=\n").encode(),
        f"{TEXT}\n\n— {ORIGIN} {base64.b64encode(base64.b64decode(SIGNATURE.split()[-1])[:20]).decode()}\n".encode(),
        (TEXT + "\n\n" + "\n").encode(),
        b"x" * 2_000_000,
        NOTE + b"\xff",
        signed(f"{ORIGIN}\n300\n"),
        signed(f"{ORIGIN}\n300\n{ROOT}\nextension\n"),
        signed(f"{ORIGIN}\n0300\n{ROOT}\n"),
        signed(f"{ORIGIN}\n+300\n{ROOT}\n"),
        signed(f"{ORIGIN}\n-1\n{ROOT}\n"),
        signed(f"{ORIGIN}\n{10**18}\n{ROOT}\n"),
        signed(f"{ORIGIN}\n٣\n{ROOT}\n"),
        signed(f"{ORIGIN}\n300\n{ROOT[:-4]}\n"),
        signed(f"{ORIGIN}\n300\n{ROOT[:-2]}F=\n"),
        signed(f"{ORIGIN}\n300\n{ROOT}\t\n"),
    ],
    ids=lambda note: repr(note[-40:]),
)
def test_a_note_of_another_form_or_key_is_refused(note: bytes) -> None:
    with pytest.raises(VerificationError):
        open_checkpoint(note, SIGNER.verifier)


def test_a_note_that_others_signed_too_is_accepted() -> None:
    witness = Signer("witness.invalid", OTHER.private).sign(HEAD).decode().rpartition("\n\n")[2]
    assert open_checkpoint(NOTE + witness.encode(), SIGNER.verifier) == HEAD
    assert open_checkpoint((TEXT + "\n\n" + witness + SIGNATURE).encode(), SIGNER.verifier) == HEAD


@given(note=st.binary(max_size=400) | st.text(max_size=400).map(str.encode))
def test_any_bytes_are_refused_and_never_crash(note: bytes) -> None:
    with pytest.raises(VerificationError):
        open_checkpoint(note, SIGNER.verifier)


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "a+b",
        PUBLISHED_VKEY[:-4],
        PUBLISHED_VKEY.replace("c74f20a3", "c74f20a4"),
        PUBLISHED_VKEY.replace("+ARpc", "+Arpc"),
        PUBLISHED_VKEY.replace("Peter", "Pe ter"),
        "+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        PUBLISHED_VKEY.replace("+AR", "+BR"),
        "x+y+é",
    ],
)
def test_a_bent_verifier_key_is_refused(vkey: str) -> None:
    with pytest.raises(VerificationError):
        load_verifier(vkey)


# -- keys on disk ------------------------------------------------------------------------------------------------------


def test_keys_are_made_once_and_readable_by_their_owner_only(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        first = load_or_create_signer(tmp_path, ORIGIN)
    finally:
        os.umask(old)
    assert load_or_create_signer(tmp_path, ORIGIN).verifier == first.verifier
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / VKEY_FILE).stat().st_mode) == 0o644
    assert (tmp_path / VKEY_FILE).read_text() == first.verifier.vkey + "\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [KEY_FILE, VKEY_FILE]
    seed = (tmp_path / KEY_FILE).read_bytes()
    assert seed.hex() not in repr(first)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    load_or_create_signer(tmp_path, ORIGIN)
    (tmp_path / KEY_FILE).chmod(mode)
    with pytest.raises(AuditError, match=r"others can read this key.*consider it stolen"):
        load_or_create_signer(tmp_path, ORIGIN)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_key_of_another_user_is_refused(tmp_path: Path) -> None:
    load_or_create_signer(tmp_path, ORIGIN)
    os.chown(tmp_path / KEY_FILE, 65_534, 65_534)
    with pytest.raises(AuditError, match="belongs to uid 65534"):
        load_or_create_signer(tmp_path, ORIGIN)


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33])
def test_a_damaged_key_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    (tmp_path / KEY_FILE).write_bytes(content)
    (tmp_path / KEY_FILE).chmod(0o600)
    with pytest.raises(AuditError, match=r"damaged.*restore it from the backup"):
        load_or_create_signer(tmp_path, ORIGIN)
    assert (tmp_path / KEY_FILE).read_bytes() == content


def test_a_key_that_is_a_link_a_pipe_or_a_folder_is_refused_at_once(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_bytes(b"k" * 32)
    target.chmod(0o600)
    (tmp_path / "link").symlink_to(target)
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    for name in ("link", "pipe", "folder"):
        with pytest.raises(AuditError):
            load_or_create_secret(tmp_path / name, 32)


def test_a_lost_signing_key_is_not_replaced_in_silence(tmp_path: Path) -> None:
    load_or_create_signer(tmp_path, ORIGIN)
    (tmp_path / KEY_FILE).unlink()
    with pytest.raises(AuditError, match=r"not the one this trail began with.*restore audit-signing\.key"):
        load_or_create_signer(tmp_path, ORIGIN)


def test_a_renamed_host_is_told_which_name_the_trail_began_under(tmp_path: Path) -> None:
    before = load_or_create_signer(tmp_path, ORIGIN).verifier.vkey
    with pytest.raises(AuditError, match=f'set audit.origin = "{ORIGIN}"'):
        load_or_create_signer(tmp_path, "renamed.test.invalid/hub")
    assert (tmp_path / VKEY_FILE).read_text() == before + "\n"


@pytest.mark.parametrize("origin", ["", "web 01", "web+01", "web\n01", "web\x0001", "web\u00a001"])
def test_a_name_that_no_signature_line_can_carry_makes_no_key(tmp_path: Path, origin: str) -> None:
    with pytest.raises(AuditError, match=r"set audit\.origin"):
        load_or_create_signer(tmp_path, origin)
    assert list(tmp_path.iterdir()) == []


def test_many_that_start_at_once_end_with_one_key(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from breachwatch.audit.keys import load_or_create_secret;"
        "sys.stdin.read(); print(load_or_create_secret(Path(sys.argv[1]), 32).hex())"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "key")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    threads_found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: threads_found.append(load_or_create_secret(tmp_path / "key2", 32)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = {process.communicate("", timeout=30)[0].strip() for process in started}
    assert len(found) == 1
    assert len(found.pop()) == 64
    assert len(threads_found) == 8
    assert len(set(threads_found)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "key2"]


# -- receipts ----------------------------------------------------------------------------------------------------------


def test_a_receipt_proves_its_entry_and_no_other(trail: Trail) -> None:
    trail.append(entries(300))
    with trail.tiles() as tiles:
        stored = list(tiles.entries(0, 300))
        for index in (0, 1, 255, 256, 299):
            receipt = build_receipt(tiles, index, trail.verifier)
            assert receipt.startswith(f"c2sp.org/tlog-proof@v1\nindex {index}\n")
            assert verify_receipt(receipt, stored[index], trail.verifier)[0] == index
            with pytest.raises(VerificationError):
                verify_receipt(receipt, stored[(index + 1) % 300], trail.verifier)
            with pytest.raises(VerificationError):
                verify_receipt(receipt, stored[index], OTHER.verifier)
        for index in (-1, 300):
            with pytest.raises(AuditError, match="no entry"):
                build_receipt(tiles, index, trail.verifier)


def test_every_flipped_bit_of_a_receipt_is_found(trail: Trail) -> None:
    trail.append(entries(5))
    with trail.tiles() as tiles:
        receipt, entry = build_receipt(tiles, 3, trail.verifier).encode(), next(tiles.entries(3, 4))
    for place in range(len(receipt)):
        for bit in range(8):
            bent = receipt[:place] + bytes([receipt[place] ^ (1 << bit)]) + receipt[place + 1 :]
            with pytest.raises(VerificationError):
                verify_receipt(bent.decode("utf-8", "surrogateescape"), entry, trail.verifier)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\nindex 3\n", "\nindex 03\n"),
        ("\nindex 3\n", "\nindex +3\n"),
        ("\nindex 3\n", "\n"),
        ("\nindex 3\n", "\nindex 4\n"),
        ("c2sp.org/tlog-proof@v1", "c2sp.org/tlog-proof@v2"),
        ("\n", "\r\n"),
        ("\n\n", "\n" + "A" * 43 + "=\n\n"),
        ("\n\n", ("\n" + "A" * 43 + "=") * 64 + "\n\n"),
    ],
)
def test_a_receipt_of_another_form_is_refused(trail: Trail, old: str, new: str) -> None:
    trail.append(entries(5))
    with trail.tiles() as tiles:
        receipt, entry = build_receipt(tiles, 3, trail.verifier), next(tiles.entries(3, 4))
    assert old in receipt
    for bent in (receipt.replace(old, new, 1), receipt + "x", "x" + receipt):
        with pytest.raises(VerificationError):
            verify_receipt(bent, entry, trail.verifier)


def test_no_receipt_is_given_out_of_damaged_tiles_or_for_a_changed_entry(trail: Trail) -> None:
    trail.append(entries(300))
    trail.sql("UPDATE audit_entry SET data = :data WHERE idx = 7", data=b"{}")
    trail.sql("DELETE FROM audit_entry WHERE idx = 9")
    tile = bytearray(trail.scalar("SELECT hashes FROM audit_tile WHERE level = 0 AND idx = 0"))
    tile[40 * 32] ^= 1
    with trail.tiles() as tiles:
        for index in (7, 9):
            with pytest.raises(VerificationError):
                build_receipt(tiles, index, trail.verifier)
        build_receipt(tiles, 41, trail.verifier)
    trail.sql("UPDATE audit_tile SET hashes = :data WHERE level = 0 AND idx = 0", data=bytes(tile))
    with trail.tiles() as tiles, pytest.raises(VerificationError):
        build_receipt(tiles, 41, trail.verifier)
