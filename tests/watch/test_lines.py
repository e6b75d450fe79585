"""What lines are made of: lengths around every limit, broken bytes, encodings, records of several lines."""

from __future__ import annotations

import codecs
import errno
import io
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breachwatch.errors import ConfigError
from breachwatch.model import Block, Gap, RawLine
from breachwatch.watch.archive import LINE_END_BYTES, read_pieces
from breachwatch.watch.framing import Framing, resolve, whole_characters
from breachwatch.watch.lines import CHUNK_BYTES, Cutter, chunk_size
from tests.conftest import FakeClock
from tests.watch.reader import Reader, append, numbered

MakeReader = Callable[..., Reader]


def cut(
    chunks: list[bytes], *, limit: int = 1024, framing: Framing | None = None, end: bool = True
) -> list[RawLine | Gap]:
    """Feed chunks as a stream does; blocks come back as their lines."""
    cutter = Cutter("x", clock=FakeClock(), max_line_bytes=limit, framing=framing or Framing())
    rest, seen = b"", []
    for chunk in chunks:
        pieces, used = cutter.cut(rest + chunk)
        rest = (rest + chunk)[used:]
        assert len(rest) <= 2 * limit + 8 or framing
        seen += pieces
    if end:
        pieces, used = cutter.cut(rest, flush=True)
        seen += pieces + cutter.last_words(rest[used:], len(rest) - used)
    return list(expand(seen))


def expand(pieces: list[Block | RawLine | Gap]) -> Iterator[RawLine | Gap]:
    for piece in pieces:
        if isinstance(piece, Block):
            assert piece.data.endswith(b"\n")
            yield from piece.lines()
        else:
            yield piece


def texts(seen: list[RawLine | Gap]) -> list[bytes]:
    return [piece.data for piece in seen if isinstance(piece, RawLine)]


lines_of_bytes = st.lists(st.binary(max_size=60).map(lambda b: b.replace(b"\n", b"")), max_size=12)


@given(lines=lines_of_bytes, cuts=st.lists(st.integers(0, 800), max_size=6), crlf=st.booleans())
def test_a_write_split_anywhere_yields_the_same_lines(lines, cuts, crlf):
    lines = [line.lstrip(b"\0") for line in lines]
    content = b"".join(line + (b"\r\n" if crlf else b"\n") for line in lines)
    places = sorted({0, len(content), *(min(place, len(content)) for place in cuts)})
    chunks = [content[a:b] for a, b in itertools.pairwise(places)]
    seen = cut(chunks)
    expected = [line if crlf else line.removesuffix(b"\r") for line in lines]
    if expected and content.startswith(codecs.BOM_UTF8):
        expected[0] = expected[0].removeprefix(codecs.BOM_UTF8)
    if not content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        assert texts(seen) == expected
    offsets = [piece.offset for piece in seen if isinstance(piece, RawLine)]
    assert offsets == sorted(set(offsets))


@given(
    lines=st.lists(st.integers(0, 200), min_size=1, max_size=12),
    cuts=st.lists(st.integers(0, 2400), max_size=8),
    limit=st.integers(16, 64),
)
def test_no_line_is_longer_than_the_limit_and_every_cut_is_a_gap(lines, cuts, limit):
    written = [bytes([65 + index % 26]) * length for index, length in enumerate(lines)]
    content = b"".join(line + b"\n" for line in written)
    places = sorted({0, len(content), *(min(place, len(content)) for place in cuts)})
    seen = cut([content[a:b] for a, b in itertools.pairwise(places)], limit=limit)
    assert texts(seen) == [line[:limit] for line in written]
    assert [piece.length_bytes for piece in seen if isinstance(piece, RawLine)] == lines
    gaps = [piece.lost_bytes for piece in seen if isinstance(piece, Gap)]
    assert gaps == [length - limit for length in lines if length > limit]


@pytest.mark.parametrize("limit", [1024, 65_536, CHUNK_BYTES, 1 << 20])
def test_lines_around_the_chunk_size_and_the_limit_never_stall_a_file(log: Path, read: MakeReader, limit: int):
    sizes = [
        limit - 1,
        limit,
        limit + 1,
        limit + 2,
        CHUNK_BYTES - 1,
        CHUNK_BYTES,
        CHUNK_BYTES + 1,
        chunk_size(limit) + 1,
    ]
    written = [bytes([97 + index]) * size for index, size in enumerate(sizes)]
    append(log, [piece for line in written for piece in (line, b"neighbour")])
    reader = read(log, max_line_bytes=limit)
    reader.drain()
    assert reader.data == [piece for line in written for piece in (line[:limit], b"neighbour")]
    assert reader.reasons == ["line_cut"] * sum(size > limit for size in sizes)


def test_a_hundred_megabyte_line_needs_no_memory(tmp_path, clock):
    import tracemalloc

    log = tmp_path / "huge"
    with log.open("wb") as file:
        file.write(b"before\n")
        for _ in range(100):
            file.write(b"x" * (1 << 20))
        file.write(b"\nafter\n")
    tracemalloc.start()
    seen = list(expand(list(read_pieces(log, max_line_bytes=4096, clock=clock))))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert texts(seen) == [b"before", b"x" * 4096, b"after"]
    assert peak < 4 << 20


@given(
    sizes=st.lists(st.sampled_from((0, 1, 100, 4_095, 4_096, 4_097, 9_000, 70_000, CHUNK_BYTES)), max_size=12),
    ended=st.booleans(),
)
def test_a_plain_file_gives_the_lines_of_the_same_stream(tmp_path_factory, sizes, ended):
    file = tmp_path_factory.getbasetemp() / "plain.log"
    data = b"\n".join(b"%d" % number + b"x" * size for number, size in enumerate(sizes)) + b"\n" * ended
    file.write_bytes(data)
    of_file, of_stream = (
        [
            (piece.data, piece.offset, piece.length_bytes, piece.is_partial, piece.generation)
            if isinstance(piece, RawLine)
            else (piece.reason, piece.detail, piece.lost_bytes)
            for piece in expand(list(read_pieces(item, max_line_bytes=65_536, clock=FakeClock())))
        ]
        for item in (file, io.BytesIO(data))
    )
    assert of_file == of_stream


def test_lines_before_a_bad_block_of_a_disk_are_read(tmp_path, clock, monkeypatch):
    log = tmp_path / "x.log"
    log.write_bytes(b"a line\n" * 100_000)
    bad, pread = 300_000, os.pread

    def damaged(descriptor: int, size: int, at: int) -> bytes:
        if at >= bad:
            raise OSError(errno.EIO, "Input/output error")
        if at + size > bad and size <= LINE_END_BYTES:
            raise OSError(errno.EIO, "Input/output error")
        return pread(descriptor, min(size, bad - at), at)

    monkeypatch.setattr("breachwatch.watch.archive.os.pread", damaged)
    *lines, gap = list(expand(list(read_pieces(log, max_line_bytes=4096, clock=clock))))
    assert texts(lines) == [b"a line"] * (bad // 7) + [b"a line"[: bad % 7]]
    assert isinstance(gap, Gap)
    assert (gap.reason, "Input/output error" in gap.detail) == ("unreadable", True)


def test_a_disk_that_gives_less_than_was_asked_for_loses_nothing(tmp_path, clock, monkeypatch):
    log = tmp_path / "x.log"
    log.write_bytes(b"a line\n" * 10_000)
    pread = os.pread
    monkeypatch.setattr(
        "breachwatch.watch.archive.os.pread", lambda descriptor, size, at: pread(descriptor, min(size, 5_000), at)
    )
    assert texts(list(expand(list(read_pieces(log, max_line_bytes=4096, clock=clock))))) == [b"a line"] * 10_000


def test_a_long_line_being_written_is_given_once_when_it_ends(log: Path, read: MakeReader):
    reader = read(log, max_line_bytes=1024)
    for _ in range(5):
        with log.open("ab") as file:
            file.write(b"y" * 700)
        reader.look(1)
    reader.restart()
    append(log, [b"end", b"next"])
    reader.look(2)
    assert reader.data == [b"y" * 1024, b"next"]
    assert reader.reasons == ["line_cut"]


def test_an_unfinished_line_waits_in_the_file_and_counts_once(log: Path, read: MakeReader):
    reader = read(log)
    log.write_bytes(b"whole\nhal")
    reader.drain()
    reader.restart()
    reader.look(1)
    with log.open("ab") as file:
        file.write(b"f\n")
    reader.look(1)
    assert reader.data == [b"whole", b"half"]


def test_a_last_line_without_line_end_in_a_rotated_file_is_partial(log: Path, read: MakeReader):
    reader = read(log)
    log.write_bytes(b"whole\nnever ended")
    reader.poll()
    log.rename(log.with_name("app.log.1"))
    append(log, [b"new"])
    reader.drain()
    assert sorted((line.data, line.is_partial) for line in reader.lines) == [
        (b"never ended", True), (b"new", False), (b"whole", False),
    ]  # fmt: skip


def test_empty_lines_and_both_line_ends_are_lines(log: Path, read: MakeReader):
    log.write_bytes(b"\n\r\na\r\n\nb\n")
    reader = read(log)
    reader.poll()
    assert reader.data == [b"", b"", b"a", b"", b"b"]
    assert [line.offset for line in reader.lines] == [0, 1, 3, 6, 7]


def test_ordinary_lines_come_as_blocks(log: Path, read: MakeReader):
    append(log, numbered(0, 20_000))
    reader = read(log)
    reader.poll()
    assert reader.data == numbered(0, 20_000)
    assert reader.blocks <= 5


def test_invalid_utf8_and_nul_bytes_inside_a_line_are_kept(log: Path, read: MakeReader):
    log.write_bytes(b"a\xff\xfeb\0\0c\n\x80\n")
    reader = read(log)
    reader.poll()
    assert reader.data == [b"a\xff\xfeb\0\0c", b"\x80"]


def test_a_run_of_nul_bytes_is_a_gap_and_its_neighbours_are_read(log: Path, read: MakeReader):
    log.write_bytes(b"before\n" + b"\0" * 70_000 + b"after\n" + b"\0" * 16 + b"end\n")
    reader = read(log)
    reader.drain()
    assert reader.data == [b"before", b"after", b"end"]
    assert [gap.lost_bytes for gap in reader.gaps] == [70_000, 16]


def test_a_sparse_hole_of_a_gigabyte_is_jumped_over(log: Path, read: MakeReader):
    reader = read(log)
    with log.open("wb") as file:
        file.seek(1 << 30)
        file.write(b"after the hole\n")
    reader.drain()
    assert reader.data == [b"after the hole"]
    assert sum(gap.lost_bytes or 0 for gap in reader.gaps) == 1 << 30
    assert len(reader.gaps) <= 2


@given(text=st.text(max_size=40), limit=st.integers(1, 60))
def test_a_cut_never_splits_a_character(text, limit):
    head = whole_characters(text.encode("utf-8", "surrogatepass")[:limit])
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert text.startswith(head.decode())
        assert limit - len(head) < 4 or len(text.encode()) < limit


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [("utf-16-le", codecs.BOM_UTF16_LE), ("utf-16-be", codecs.BOM_UTF16_BE), ("utf-8", codecs.BOM_UTF8)],
)
def test_a_byte_order_mark_says_the_encoding_and_is_no_part_of_the_line(log: Path, read: MakeReader, encoding, mark):
    said = ["Đăng nhập thất bại", "上 U+0A0A \u0a0a \u0d0a inside", "", "end 🙂"]
    log.write_bytes(mark + "".join(line + "\r\n" for line in said).encode(encoding))
    reader = read(log)
    reader.poll()
    assert reader.data == [line.encode() for line in said]
    with log.open("ab") as file:
        file.write("more\r\n".encode(encoding))
    reader.restart()
    reader.look(1)
    assert reader.data[-1] == b"more"


@given(
    said=st.lists(
        st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]), max_size=20), max_size=8
    ),
    cuts=st.lists(st.integers(0, 400), max_size=6),
    encoding=st.sampled_from(["utf-16-le", "utf-16-be"]),
)
def test_utf16_lines_survive_being_cut_at_any_byte(said, cuts, encoding):
    content = "".join(line + "\n" for line in said).encode(encoding)
    places = sorted({0, len(content), *(min(place, len(content)) for place in cuts)})
    chunks = [content[a:b] for a, b in itertools.pairwise(places)]
    seen = cut(chunks, framing=Framing(encoding))
    first = [line.removeprefix("\ufeff") if index == 0 else line for index, line in enumerate(said)]
    assert texts(seen) == [line.encode() for line in first]


def test_an_old_encoding_becomes_utf8_and_offsets_stay_those_of_the_file(log: Path, read: MakeReader):
    log.write_bytes("señal\nnext\n".encode("latin-1"))
    reader = read(log, framing=Framing("latin-1"))
    reader.poll()
    assert [(line.data, line.offset) for line in reader.lines] == [("señal".encode(), 0), (b"next", 6)]


@pytest.mark.parametrize("name", ["utf-16", "no-such", "base64", "utf-32-le"])
def test_an_encoding_that_cannot_be_read_line_by_line_is_refused(name):
    with pytest.raises(ConfigError):
        resolve(name)


TRACE = [b"ERROR boom", b"  at a.b(c)", b"  at d.e(f)", b"INFO fine", b"WARN odd", b"  detail"]


def test_a_record_of_several_lines_is_one(log: Path, read: MakeReader):
    append(log, TRACE)
    reader = read(log, framing=Framing(record_start="[A-Z]"))
    reader.poll()
    assert reader.data == [b"\n".join(TRACE[:3]), TRACE[3]]
    reader.look(3)
    assert reader.data[-1] == b"\n".join(TRACE[4:])
    assert [line.offset for line in reader.lines] == [0, 35, 45]


def test_a_record_across_a_kill_is_read_whole_once(log: Path, read: MakeReader):
    append(log, TRACE[:2])
    reader = read(log, framing=Framing(record_start="[A-Z]"))
    reader.poll()
    reader.restart()
    append(log, TRACE[2:4])
    reader.poll()
    assert reader.data == [b"\n".join(TRACE[:3])]


def test_a_record_that_never_ends_is_split_and_says_so(log: Path, read: MakeReader):
    append(log, [b"START", *[b"  more"] * 1200, b"START"])
    reader = read(log, framing=Framing(record_start="START"))
    reader.look(4)
    assert [line.data.count(b"\n") + 1 for line in reader.lines] == [500, 500, 201, 1]
    assert reader.reasons == ["record_split"] * 2


def test_a_record_never_outgrows_the_limit_and_never_stalls(log: Path, read: MakeReader):
    append(log, [b"START", *[b"z" * 900] * 40, b"q" * 5000, b"START two"])
    reader = read(log, framing=Framing(record_start="START"), max_line_bytes=2048)
    reader.look(4)
    assert all(len(line.data) <= 2048 for line in reader.lines)
    assert reader.data[-1] == b"START two"
    assert sum(line.data.count(b"z") for line in reader.lines) == 900 * 40
    assert set(reader.reasons) == {"record_split", "line_cut"}


def test_the_last_record_of_a_rotated_file_is_whole(log: Path, read: MakeReader):
    append(log, TRACE)
    reader = read(log, framing=Framing(record_start="[A-Z]"))
    reader.poll()
    log.rename(log.with_name("app.log.1"))
    append(log, [b"INFO new"])
    reader.drain()
    assert sorted(reader.data) == sorted([b"\n".join(TRACE[:3]), TRACE[3], b"\n".join(TRACE[4:]), b"INFO new"])
