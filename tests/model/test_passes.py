"""What one pass over a block tells: the library and Python's own loops say the same, wherever the bytes stand."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from breachwatch.model.passes import passes

LIBRARIES = ("", "stringzilla")
INSTALLED = [name for name in LIBRARIES if not name or find_spec(name) is not None]


@pytest.fixture(params=LIBRARIES)
def of_a_library(request):
    if request.param:
        pytest.importorskip(request.param)
    return passes(request.param)


def test_an_empty_block_has_no_lines_and_nothing_odd(of_a_library):
    assert (of_a_library.lines_in(b""), of_a_library.is_odd(b"")) == (0, False)


@given(st.binary(max_size=300), st.integers(0, 70))
@example(b"\n" * 129, 0)
@example(b"\x7f\n", 1)
def test_lines_and_odd_bytes_are_seen_wherever_they_stand(data, start):
    for library in INSTALLED:
        lines_in, is_odd, holds, contains, lowered = passes(library)
        part = data[start:]
        assert lines_in(part) == sum(byte == 10 for byte in part)
        assert is_odd(part) is any(byte == 0 or byte > 127 for byte in part)
        wanted = data[start // 2 : start // 2 + 4]
        if wanted:
            assert holds(data, wanted, 0, len(data))
            assert holds(data, wanted, start, len(data)) is (wanted in part)
            assert contains(part, wanted) is (wanted in part)
        assert lowered(data) == data.lower()


@pytest.mark.parametrize("odd", [0x00, 0x80, 0xC3, 0xFF])
def test_one_odd_byte_is_seen_at_every_place(of_a_library, odd):
    is_odd = of_a_library.is_odd
    plain = b"Mar  1 00:00:01 host sshd[1]: \x01\x7f plain\n" * 4
    assert not is_odd(plain)
    assert all(is_odd(plain[:place] + bytes([odd]) + plain[place:]) for place in range(len(plain) + 1))
