"""What keywords search in a record: compiled and in Python alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breachwatch.detect import predicate
from breachwatch.detect.predicate import record_texts
from breachwatch.detect.values import MAX_QUICK, MAX_VALUE, all_texts
from breachwatch.model.passes import native

NAMES = st.sampled_from(["a", "log", "log.", "log.offset", "host.name", "host.name.x", "host", "", "\u017flog."])
NUMBERS = st.integers() | st.sampled_from([MAX_QUICK, MAX_QUICK - 1, -MAX_QUICK, 2**63, -(2**63), 10**400])
SINGLE = st.none() | st.booleans() | NUMBERS | st.floats() | st.text() | st.just("x" * (MAX_VALUE + 1))
VALUES = st.recursive(SINGLE, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6)


@given(st.dictionaries(NAMES, VALUES))
def test_compiled_and_in_python_alike(record):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predicate, "native", None)
        expected = record_texts(record)
    assert [*map(repr, record_texts(record))] == [*map(repr, expected)]
    own = ("log.", "host.name")
    assert expected == [text for name, one in record.items() if not name.startswith(own) for text in all_texts(one)]


@pytest.mark.skipif(native is None, reason="nobody compiled native/")
@pytest.mark.parametrize(
    "given_", [(), ({}, (), 1), ([], (), 1, all_texts), ({}, [], 1, all_texts), ({}, (), "", all_texts)]
)
def test_nothing_else_is_taken(given_):
    with pytest.raises(TypeError):
        native.record_texts(*given_)


@pytest.mark.skipif(native is None, reason="nobody compiled native/")
def test_what_goes_wrong_below_is_raised():
    def fails(value: object) -> list[str]:
        raise RecursionError(value)

    with pytest.raises(RecursionError):
        native.record_texts({"a": [1]}, (), 5, fails)
    with pytest.raises(TypeError):
        native.record_texts({"a": [1]}, (1,), 5, fails)
