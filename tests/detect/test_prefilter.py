"""Every scanner notes every place where a pattern ends, whatever its automata are."""

from __future__ import annotations

import random
from importlib.util import find_spec

import pytest

from breachwatch.detect import prefilter
from breachwatch.detect.hits import PlainHits
from breachwatch.detect.prefilter import MAX_LITERAL, StaleError, scanner
from breachwatch.detect.witness import Pattern

LETTERS = b"abcABC-/ \xff\n"


def literals(draw: random.Random, count: int, shortest: int) -> list[Pattern]:
    """Different literals in lower case, as rules have them; a few of the shortest length, some very long."""
    found: set[bytes] = set()
    while len(found) < count:
        length = shortest if len(found) < 2 else draw.choice((3, 4, 5, 6, 7, 8, 12, MAX_LITERAL + 4))
        found.add(bytes(draw.choices(LETTERS.lower(), k=max(shortest, length))))
    return [Pattern(is_regex=False, data=data) for data in sorted(found)]


def hashes(draw: random.Random, count: int) -> list[Pattern]:
    """Literals that hold a hash; many of them begin alike."""
    made = {
        draw.choice((b"", b"a=", b"=", b"sha256=")) + draw.choice((b"", b"0a1b2c")) + draw.randbytes(16).hex().encode()
        for _ in range(count)
    }
    return [Pattern(is_regex=False, data=data) for data in sorted(made)]


def places(data: bytes, pattern: Pattern) -> set[int]:
    """Offsets behind the literal, looked for as simply as can be."""
    low, wanted = data.lower(), prefilter.beginning(pattern.data)
    return {at + len(wanted) for at in range(len(low)) if low.startswith(wanted, at)}


def noted(found: prefilter.Scanner, data: bytes) -> set[tuple[int, int]]:
    hits = PlainHits()
    found.scan(data, hits)
    return set(hits.found)


@pytest.fixture(params=[name for name in prefilter.BACKENDS if find_spec(name)])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.mark.parametrize("shortest", [1, 2, 3])
@pytest.mark.parametrize("count", [2, 40, 249, 255, 900, 5_010])
def test_every_place_of_every_literal_is_noted(backend, count, shortest):
    draw = random.Random(count * 10 + shortest)
    patterns = literals(draw, count, shortest)
    draw.shuffle(patterns)
    made = scanner(patterns, backend)
    parts = [
        draw.choice(patterns).data if draw.random() < 0.5 else bytes(draw.choices(LETTERS, k=3)) for _ in range(90)
    ]
    data = b"".join(part.upper() if draw.random() < 0.3 else part for part in parts)
    expected = {(stop, number) for number, pattern in enumerate(patterns) for stop in places(data, pattern)}
    assert len(expected) >= 20
    assert noted(made, data) == expected
    assert noted(scanner(patterns, backend, made.saved()), data) == expected


def test_every_hash_is_noted(backend):
    draw = random.Random(7)
    patterns = hashes(draw, 300)
    shared = {prefilter.beginning(pattern.data) for pattern in patterns}
    assert len(shared) < len(patterns) - 20  # some begin alike
    assert sum(len(data) for data in shared) < sum(len(pattern.data) for pattern in patterns) // 3
    lines = [b"x " + pattern.data.upper() + b" y\n" for pattern in patterns]
    data = b"".join(lines)
    found = noted(scanner(patterns, backend), data)
    assert found == {(stop, number) for number, pattern in enumerate(patterns) for stop in places(data, pattern)}
    lines_of = {(data.count(b"\n", 0, stop), number) for stop, number in found}
    assert {(number, number) for number in range(len(patterns))} <= lines_of


def test_what_is_searched_begins_every_literal():
    draw = random.Random(8)
    for _ in range(20_000):
        data = bytes(draw.choices(b"0af=-g", weights=(9, 9, 9, 1, 1, 1), k=draw.randint(1, 300)))
        searched = prefilter.beginning(data)
        assert data.startswith(searched)
        assert 0 < len(searched) <= MAX_LITERAL
        assert len(searched) >= min(len(data), 7)


def test_expressions_stand_beside_literals_of_any_length(backend):
    patterns = [*literals(random.Random(1), 300, 1), Pattern(is_regex=True, data=rb"q[0-9]+z"), Pattern(False, b"!")]
    found = noted(scanner(patterns, backend), b"x Q42Z!\nq1z\n")
    assert {(6, 300), (7, 301), (11, 300)} <= found


@pytest.mark.skipif(not find_spec("hyperscan"), reason="Hyperscan is not installed")
def test_literals_apart_are_those_that_would_slow_the_others_down():
    few, many, most = (literals(random.Random(2), count, 1) for count in (100, 600, 5_001))
    two = [Pattern(is_regex=False, data=b"qz"), *literals(random.Random(3), 300, 3)]
    for patterns, automata in ((few, 2), (many, 2), (most, 1), (two, 2), (two[1:], 1), (two[:100], 1), (few[:0], 0)):
        made = prefilter.HyperscanScanner(patterns)
        assert len(made.saved()) == automata, len(patterns)


@pytest.mark.skipif(not find_spec("hyperscan"), reason="Hyperscan is not installed")
def test_what_was_saved_when_literals_were_kept_together_is_stale(monkeypatch):
    patterns = literals(random.Random(4), 300, 1)
    monkeypatch.setattr(prefilter, "TOO_SHORT", ())
    together = prefilter.HyperscanScanner(patterns).saved()
    monkeypatch.undo()
    with pytest.raises(StaleError):
        prefilter.HyperscanScanner(patterns, together)
