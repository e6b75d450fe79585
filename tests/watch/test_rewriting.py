"""What was read once is read again: whoever changes an old line is seen, wherever in the file it stands."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breachwatch.watch.seal import LEAF_BYTES, MAX_NODES, Changed, Seals, SecondLook, StreamLook
from tests.watch.reader import Reader, append, numbered

MakeReader = Callable[..., Reader]


def overwrite(path: Path, at: int, data: bytes) -> None:
    """In place: same size, same inode."""
    with path.open("r+b") as log:
        log.seek(at)
        log.write(data)


def look_until_told(reader: Reader, rounds: int = 20) -> int:
    """Rounds of a second until a gap is reported."""
    for number in range(rounds):
        if reader.gaps:
            return number
        reader.look()
    return rounds


@pytest.mark.parametrize("count", [60, 50_000], ids=["small", "large"])
def test_a_line_overwritten_in_the_middle_of_a_quiet_log_is_a_gap_within_seconds(log, read: MakeReader, count: int):
    append(log, numbered(0, count))
    reader = read(log)
    reader.look(4)
    before = log.stat()
    overwrite(log, 40 * (count // 2), b"X" * 12)
    os.utime(log, ns=(before.st_atime_ns, before.st_mtime_ns))  # as an intruder would
    assert look_until_told(reader) < 5
    assert reader.reasons == ["rewritten"]
    assert "which were read before, have changed" in reader.gaps[0].detail
    assert len(reader.data) == count
    reader.look(10)
    assert reader.reasons == ["rewritten"]  # told once


def test_a_line_overwritten_while_the_log_grows_is_found_by_the_steady_second_look(log, read: MakeReader):
    append(log, numbered(0, 20_000))
    reader = read(log)
    reader.look(2)
    overwrite(log, 40 * 7_000, b"X" * 12)
    append(log, numbered(20_000, 20_001))
    number = 20_001
    while not reader.gaps:
        append(log, numbered(number, number + 1))
        reader.look()
        number += 1
        assert number < 20_100
    assert reader.reasons == ["rewritten"]
    assert len(reader.data) == number


@pytest.mark.parametrize("at", [40 * 5, 40 * 2_999, 40 * 1_000])
def test_a_line_overwritten_while_the_agent_was_down_is_a_gap(log, read: MakeReader, at: int):
    append(log, numbered(0, 3_050))
    reader = read(log)
    reader.look(2)
    overwrite(log, at + 26, b"X")
    reader.restart()
    append(log, numbered(3_050, 3_051))
    look_until_told(reader)
    assert reader.reasons == ["rewritten"]
    assert set(numbered(0, 3_051)) <= set(reader.unique)
    assert len(reader.unique) <= 3_052  # a log whose head was changed is read again: only the changed line is new


def test_rewriting_all_of_it_but_the_last_bytes_is_told_in_few_gaps(log, read: MakeReader):
    append(log, numbered(0, 50_000))
    reader = read(log)
    reader.look(6)
    overwrite(log, 40 * 20, b"X" * (40 * 49_000))
    reader.look(20)
    assert set(reader.reasons) == {"rewritten"}
    assert len(reader.gaps) <= 3


def test_a_rotated_log_is_looked_at_again_too(log, read: MakeReader):
    append(log, numbered(0, 100))
    reader = read(log)
    reader.look(3)
    log.rename(log.with_name("app.log.1"))
    append(log, numbered(100, 110))
    reader.look(8)
    overwrite(log.with_name("app.log.1"), 40 * 50, b"X" * 12)
    look_until_told(reader)
    assert reader.reasons == ["rewritten"]


def test_a_log_that_nobody_touches_is_not_read_again(log, read: MakeReader, clock):
    append(log, numbered(0, 5_000))
    clock.advance(10**9)  # the file is old by this clock
    reader = read(log)
    reader.look(5)
    [tail] = reader.files._current.values()  # what is guarded is that nothing happens
    assert not tail.review.is_due()


def test_lines_of_any_length_and_holes_do_not_look_like_rewriting(log, read: MakeReader):
    reader = read(log, max_line_bytes=1_024)
    for size in (10, 3_000, 300_000, 64 * 1024, 1, 700_000):
        append(log, [b"x" * size])
        reader.look(2)
    with log.open("ab") as file:
        file.truncate(log.stat().st_size + (1 << 22))
    append(log, numbered(0, 50))
    reader.look(20)
    reader.restart()
    reader.look(20)
    assert "rewritten" not in reader.reasons


@settings(max_examples=60)
@given(
    size=st.integers(1, 40 * LEAF_BYTES),
    cuts=st.lists(st.integers(1, 3 * LEAF_BYTES), min_size=1, max_size=6),
    where=st.floats(0, 1, exclude_max=True),
    kept=st.booleans(),
)
def test_any_changed_byte_is_found_where_it_is_and_nothing_else_is(size, cuts, where, kept):
    content = bytearray(os.urandom(997) * (size // 997 + 1))[:size]
    seals, at, turn = Seals(), 0, 0
    while at < size:
        step = cuts[turn % len(cuts)]
        seals.feed(bytes(content[at : at + step]))
        at, turn = at + step, turn + 1

    def read_at(length: int, offset: int) -> bytes:
        return bytes(content[offset : offset + length])

    if kept:
        seals, changed = Seals.from_bytes(seals.to_bytes(), read_at)
        assert changed is None
    assert seals.end == size
    assert whole_look(seals, read_at) == []
    place = int(where * size)
    content[place] ^= 1
    [found] = whole_look(seals, read_at)
    assert found.begin <= place < found.end
    assert whole_look(seals, read_at) == []


def whole_look(seals: Seals, read_at: Callable[[int, int], bytes]) -> list[Changed]:
    look, found = SecondLook(seals, read_at), []
    while not look.done:
        changed = look.step()
        found += [changed] if changed else []
    return found


def test_a_log_of_any_size_is_held_in_three_kilobytes_and_still_checked():
    leaf = b"a" * LEAF_BYTES
    seals = Seals()
    for number in range(5_000):
        seals.feed(number.to_bytes(8, "big") + leaf[8:])
    assert len(seals.to_bytes()) < 3_000
    assert len(seals._nodes) <= MAX_NODES + 8

    def read_at(length: int, offset: int) -> bytes:
        number = offset // LEAF_BYTES
        return ((number ^ (number == 3_333)).to_bytes(8, "big") + leaf[8:])[:length]

    [changed] = whole_look(seals, read_at)
    assert changed.begin <= 3_333 * LEAF_BYTES < changed.end
    assert changed.end - changed.begin <= 5_000 * LEAF_BYTES // (MAX_NODES // 2)


def test_a_second_look_goes_on_while_the_log_grows_and_its_hashes_are_folded():
    content = bytearray()
    seals = Seals()
    look = SecondLook(seals, lambda length, offset: bytes(content[offset : offset + length]))
    found = []
    for number in range(700):
        data = number.to_bytes(4, "big") * (LEAF_BYTES // 4)
        content += data
        seals.feed(data)
        if number == 400:
            content[3 * LEAF_BYTES] ^= 1
        if number > 100 and number % 2:
            changed = look.step()
            found += [changed] if changed else []
    while not look.done:
        changed = look.step()
        found += [changed] if changed else []
    found += whole_look(seals, lambda length, offset: bytes(content[offset : offset + length]))
    [one] = found
    assert one.begin <= 3 * LEAF_BYTES < one.end


def resumed_in_an_archive(
    log: Path, read: MakeReader, content: Callable[[bytes], bytes], *, born_early: bool
) -> Reader:
    """A reader that read 5,000 lines, was killed, and finds what `content` makes of them in an archive."""
    append(log, numbered(0, 5_000))
    reader = read(log)
    reader.poll()
    old, packed = log.with_name("app.log.1"), log.with_name("app.log.1.gz")
    log.rename(old)
    if born_early:
        packed.touch()
        append(old, numbered(5_000, 5_010))
    reader.look(2)
    reader.files.close()
    packed.write_bytes(gzip.compress(content(old.read_bytes())))
    old.unlink()
    append(log, numbered(6_000, 6_010))
    reader.start()
    reader.drain()
    return reader


@pytest.mark.parametrize(
    ("content", "born_early", "reasons"),
    [
        (lambda whole: whole, False, []),
        (lambda whole: whole[: 40 * 5_000], True, ["archive_short"]),
        (lambda whole: whole[: 40 * 4_000], False, ["rewritten"]),  # packed after the last line was written
        (lambda whole: whole[:40_000] + b"X" * 40 + whole[40_040 : 40 * 5_000], True, ["rewritten"]),
        (lambda whole: whole[:40_000] + b"X" * 40 + whole[40_040:], False, ["rewritten"]),
        (lambda whole: whole[: 40 * 4_900] + b"X" * 40 + whole[40 * 4_901 :], False, ["rewritten"]),
    ],
    ids=["whole", "compressed too early", "cut later", "changed and cut", "changed", "changed in its last block"],
)
def test_an_archive_made_while_its_log_was_written_is_told_from_one_that_somebody_changed(
    log, read: MakeReader, content, born_early: bool, reasons: list[str]
):
    reader = resumed_in_an_archive(log, read, content, born_early=born_early)
    assert reader.reasons == reasons
    assert set(numbered(0, 5_000)) | set(numbered(6_000, 6_010)) <= set(reader.data)


def test_what_is_unpacked_again_is_compared_in_any_portions():
    content = os.urandom(5 * LEAF_BYTES + 999)
    seals = Seals(base=77)
    seals.feed(content[77:])
    for at, found in ((80, True), (3 * LEAF_BYTES, True), (len(content) - 1, True), (5, False), (-1, False)):
        other = bytearray(content)
        if at >= 0:
            other[at] ^= 1
        look = StreamLook(seals.to_bytes())
        for begin in range(0, len(other), 50_000):
            look.feed(bytes(other[begin : begin + 50_000]))
        look.finish()
        assert [part.begin <= at < part.end for part in look.changed] == [True] * found
