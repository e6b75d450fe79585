"""Places of hits become lines: compiled and in Python alike, whatever the block and the order of the hits."""

from __future__ import annotations

import random
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breachwatch.detect.hits import WEIGHT, PlainHits
from breachwatch.model.passes import native

MADE = [PlainHits, *([] if native is None else [native.Hits])]
PATTERNS = 300
WEIGHTS = array(WEIGHT, range(PATTERNS))


@st.composite
def blocks(draw):
    data = draw(st.text("ab\n", min_size=1, max_size=80)).encode() + draw(st.sampled_from([b"", b"\n"]))
    places = st.tuples(st.integers(1, len(data)), st.integers(0, PATTERNS - 1) | st.integers(0, 2))
    return data, draw(st.lists(places, max_size=40))


def expected(data: bytes, hits: list[tuple[int, int]]):
    """Line by line."""
    lines, start = [], 0
    for line in data.splitlines(keepends=True):
        end = start + len(line)
        numbers = {number for stop, number in hits if start < stop <= end}
        if numbers:
            lines.append((start, end, numbers.pop() if len(numbers) == 1 else frozenset(numbers)))
        start = end
    return [(*line, None) for line in lines], sum(number for _, number in hits), 0


@given(blocks())
def test_lines_are_those_that_hold_hits(case):
    data, hits = case
    for make in MADE:
        collected = make()
        for position, (stop, number) in enumerate(hits):
            if position % 2:
                collected.add(stop, number)
            else:
                collected.note(number, 0, stop, 0, None)
        assert collected.lines(data, WEIGHTS, {}) == expected(data, hits)
        assert collected.lines(data, WEIGHTS, {}) == ([], 0, 0), "they are forgotten"


@pytest.mark.parametrize("make", MADE)
def test_thousands_of_hits_are_kept(make):
    data, collected = b"abc\n" * 5_000, make()
    for place in reversed(range(5_000)):
        collected.add(4 * place + 2, place % 3)
    lines, work, _ = collected.lines(data, WEIGHTS, {})
    assert [line[2] for line in lines] == [place % 3 for place in range(5_000)]
    assert work == sum(place % 3 for place in range(5_000))


@pytest.mark.parametrize("make", MADE)
def test_what_was_found_before_is_told_from_all_else(make):
    draw, collected = random.Random(1), make()
    for block in range(40):
        chosen = [draw.sample(range(PATTERNS if block % 2 else 5), draw.randint(1, 5)) for _ in range(200)]
        chosen += [draw.sample(range(20), draw.randint(6, 9)) for _ in range(20)]
        for line, numbers in enumerate(chosen):
            for number in (*numbers, numbers[0]):
                collected.add(4 * line + draw.randint(1, 4), number)
        lines, _, _ = collected.lines(b"abc\n" * len(chosen), WEIGHTS, {})
        assert [line[2] for line in lines] == [
            numbers[0] if len(numbers) == 1 else frozenset(numbers) for numbers in chosen
        ]


@pytest.mark.parametrize("make", MADE)
@pytest.mark.parametrize("hit", [(6, 0), (1 << 39, 0), (3, PATTERNS)])
def test_no_hit_outside_of_the_block_or_without_a_weight_is_taken(make, hit):
    collected = make()
    collected.add(2, 1)
    collected.add(*hit)
    with pytest.raises(ValueError, match="outside the block"):
        collected.lines(b"abcd\n", WEIGHTS, {})
    assert collected.lines(b"abcd\n", WEIGHTS, {}) == ([], 0, 0)


@pytest.mark.skipif(native is None, reason="nobody compiled native/")
@pytest.mark.parametrize("hit", [(0, 0), (1 << 40, 0), (1, 1 << 24), (-1, 0), (1, -1), ("1", 0)])
def test_what_does_not_fit_is_refused(hit):
    collected = native.Hits()
    with pytest.raises((OverflowError, TypeError)):
        collected.add(*hit)


@pytest.mark.skipif(native is None, reason="nobody compiled native/")
def test_a_hit_that_was_lost_is_told_though_the_scanner_swallows_errors():
    collected = native.Hits()
    collected.add(1, 0)
    with pytest.raises(OverflowError):
        collected.note(1 << 24, 0, 1, 0, None)
    with pytest.raises(MemoryError):
        collected.lines(b"\n", WEIGHTS, {})
    assert collected.lines(b"\n", WEIGHTS, {}) == ([], 0, 0)
