"""The trail as files that other people's tools read. Source: C2SP tlog-tiles (static layout)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from breachwatch.audit.entry import MAX_ENTRY_BYTES
from breachwatch.audit.merkle import HASH_BYTES
from breachwatch.audit.note import MAX_NOTE_BYTES, Verifier, load_verifier, open_checkpoint
from breachwatch.audit.tiles import WIDTH, levels
from breachwatch.audit.verify import VerifyReport, verify_log
from breachwatch.errors import AuditError, VerificationError
from breachwatch.ports import StoredTrail

LENGTH_BYTES = 2
MAX_BUNDLE_BYTES = WIDTH * (LENGTH_BYTES + MAX_ENTRY_BYTES)

README = """This folder is a transparency log in the C2SP tlog-tiles layout.

checkpoint            the signed tree head (C2SP tlog-checkpoint); the key is in vkey
tile/<level>/<index>  Merkle tree hashes, 256 a tile; .p/<width> for tiles that are not full
tile/entries/<index>  the entries: 2 bytes length (big endian), then canonical JSON, 256 a bundle

Any tool that reads tlog-tiles can check it, for example Go's golang.org/x/mod/sumdb/{note,tlog}.
"""


def index_path(index: int) -> str:
    """Tile indices in groups of three digits, all but the last with an `x`."""
    parts = [f"{index % 1000:03d}"]
    while index := index // 1000:
        parts.insert(0, f"x{index % 1000:03d}")
    return "/".join(parts)


def _tile_path(kind: str, index: int, width: int) -> str:
    partial = "" if width == WIDTH else f".p/{width}"
    return f"tile/{kind}/{index_path(index)}{partial}"


def export_log(tiles: StoredTrail, folder: Path, verifier: Verifier) -> int:
    """Write the whole log; returns its size. The folder must be new or empty. Raises: AuditError, VerificationError.

    What is missing or does not fit the signed head is refused; `verify_export` of the result checks every byte.
    """
    note = tiles.checkpoint()
    if note is None:
        raise AuditError("the audit trail is empty: nothing to export")
    if folder.exists() and any(folder.iterdir()):
        raise AuditError("the export folder is not empty", source=str(folder), hint="name a new folder")
    size = tiles.size()
    head = open_checkpoint(note, verifier)
    if head.size != size:
        raise VerificationError(f"the signed head is of {head.size} entries, but {size} are stored")
    for level, count in levels(size):
        for index, width in _widths(count):
            hashes = tiles.tile(level, index)
            if hashes is None or len(hashes) != width * HASH_BYTES:
                raise VerificationError(f"tile {level}/{index} is missing or short")
            _write(folder / _tile_path(str(level), index, width), hashes)
    for index, width in _widths(size):
        entries = list(tiles.entries(index * WIDTH, index * WIDTH + width))
        if len(entries) != width:
            raise VerificationError(f"entry {index * WIDTH + len(entries)} is missing")
        bundle = b"".join(len(data).to_bytes(LENGTH_BYTES, "big") + data for data in entries)
        _write(folder / _tile_path("entries", index, width), bundle)
    _write(folder / "checkpoint", note)
    _write(folder / "vkey", verifier.vkey.encode() + b"\n")
    _write(folder / "README", README.encode())
    return size


def _widths(count: int) -> Iterator[tuple[int, int]]:
    for index in range(count // WIDTH):
        yield index, WIDTH
    if count % WIDTH:
        yield count // WIDTH, count % WIDTH


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise AuditError(f"cannot write the export: {error.strerror}", source=str(path)) from error


class ExportTiles:
    """An export directory, read as `ports.StoredTrail`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._size = self._read_size()

    def _read_size(self) -> int:
        note = self.checkpoint()
        lines = (note or b"").split(b"\n")
        if len(lines) < 2 or not lines[1].isdigit():  # noqa: PLR2004  # origin, size
            raise VerificationError("the export has no readable checkpoint", source=str(self._folder))
        return int(lines[1][:18])

    def size(self) -> int:
        """As the checkpoint says; entries are counted while they are read."""
        return self._size

    def _bytes(self, kind: str, index: int, width: int, most: int) -> bytes | None:
        return _read(self._folder / _tile_path(kind, index, width), most)

    def tile(self, level: int, index: int) -> bytes | None:
        """One tile of hashes."""
        count = self._size >> (8 * level)
        return self._bytes(str(level), index, min(WIDTH, count - index * WIDTH), WIDTH * HASH_BYTES)

    def entries(self, first: int, last: int) -> Iterator[bytes]:
        """Entries of whole bundles. Raises: VerificationError."""
        for index in range(first // WIDTH, (last + WIDTH - 1) // WIDTH):
            width = min(WIDTH, self._size - index * WIDTH)
            for offset, data in enumerate(self._bundle(index, width)):
                if first <= index * WIDTH + offset < last:
                    yield data

    def _bundle(self, index: int, width: int) -> list[bytes]:
        raw = self._bytes("entries", index, width, MAX_BUNDLE_BYTES)
        if raw is None:
            raise VerificationError(f"entry bundle {index} is missing")
        found, position = [], 0
        while position < len(raw):
            length = int.from_bytes(raw[position : position + LENGTH_BYTES], "big")
            data = raw[position + LENGTH_BYTES : position + LENGTH_BYTES + length]
            position += LENGTH_BYTES + length
            if position > len(raw):
                raise VerificationError(f"entry bundle {index} is cut")
            found.append(data)
        if len(found) != width:
            raise VerificationError(f"entry bundle {index} holds {len(found)} entries, not {width}")
        return found

    def checkpoint(self) -> bytes | None:
        """The signed head."""
        return _read(self._folder / "checkpoint", MAX_NOTE_BYTES)


def _read(path: Path, most: int) -> bytes | None:
    """The file's bytes, None if there is none. Raises: VerificationError for more than `most` bytes or no access."""
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise VerificationError(f"the export cannot be read: {error.strerror}", source=str(path)) from error
    if len(content) > most:
        raise VerificationError("a file of the export is too large", source=str(path))
    return content


def verify_export(folder: Path, verifier: Verifier, *, known: bytes | None = None) -> VerifyReport:
    """Recompute an export; also refuses files that do not belong to it. Raises: VerificationError."""
    tiles = ExportTiles(folder)
    report = verify_log(tiles, verifier, known=known)
    named = _read(folder / "vkey", MAX_NOTE_BYTES)
    if named is not None and load_verifier(named.decode("utf-8", "replace")) != verifier:
        raise VerificationError("the key that the export names is not yours", source=str(folder / "vkey"))
    expected = {"checkpoint", "vkey", "README"}
    for level, count in levels(report.size):
        expected |= {_tile_path(str(level), index, width) for index, width in _widths(count)}
    expected |= {_tile_path("entries", index, width) for index, width in _widths(report.size)}
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}
    if found - expected:
        raise VerificationError(f"the export holds a file that does not belong to it: {min(found - expected)}")
    return report
