from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from breachwatch.model.document import MAX_CHARS, MAX_DEPTH, MAX_NODES, DocumentError, read_document


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a: &x 1\nb: *x\n", 1, "anchors"),
        ("a: 1\nb:\n- *x\n", 3, "aliases"),
        ("a: 1\na: 2\n", 2, "duplicate key 'a'"),
        ("a: 1\n---\nb: 1\n", 2, "second document"),
        ("a: !!python/object:os.system x\n", 1, "tags"),
        ("a: !!str 3\n", 1, "tags"),
        ("a: 1\n? [x]\n: 2\n", 2, "as a key"),
        ("a: 1\n? {x: y}\n: 2\n", 2, "as a key"),
        ("", 1, "empty"),
        ("# only words\n", 1, "empty"),
        ("a: 1\nb: [1\n", 3, "not YAML"),
        ("a: 1\n\tb: 2\n", 2, "not YAML"),
        ("a: \0", 1, "no text file"),
        ("\ud800", 1, "no text file"),
    ],
)
def test_what_is_refused_says_where(text, line, what):
    with pytest.raises(DocumentError, match=what) as refused:
        read_document(text, "book.yaml")
    assert refused.value.source == f"book.yaml:{line}"


def test_no_file_hurts_its_reader():
    billion = "a: &a [x,x,x]\nb: &b [*a,*a,*a]\nc: [*b,*b,*b]\n"
    for text, what in (
        (billion, "anchors"),
        ("[" * 400_000, "nested"),
        ("{a: " * 1_000, "nested"),
        ("- x\n" * (MAX_NODES + 1), "more than"),
        ("x" * (MAX_CHARS + 1), "more than"),
    ):
        with pytest.raises(DocumentError, match=what):
            read_document(text, "book.yaml")
    assert read_document("[" * MAX_DEPTH + "]" * MAX_DEPTH, "deep.yaml").value


def test_scalars_are_those_of_yaml_1_2():
    text = (
        "{a: no, b: 012, c: ~, d: TRUE, e: 5m, f: -3, g: 1.5, h: 'true', i: 2026-01-01, "
        "j: 1:30, k: 9999999999999999999, l: tRue}"
    )
    assert read_document(text, "x").value == {
        "a": "no", "b": "012", "c": None, "d": True, "e": "5m", "f": -3, "g": 1.5, "h": "true", "i": "2026-01-01",
        "j": "1:30", "k": "9999999999999999999", "l": "tRue",
    }  # fmt: skip


def test_every_node_knows_its_line():
    document = read_document("a:\n  b:\n  - 1\n  - c: x\n    d: y\n", "f.yaml")
    assert document.where(("a", "b", 1, "d")) == "f.yaml:5"
    assert document.where(("a", "b", 1, "unknown")) == "f.yaml:4"
    assert document.where(("a", "function-before[x]", "b", 0)) == "f.yaml:3"
    assert document.where(()) == "f.yaml:1"


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    try:
        read_document(text, "any")
    except DocumentError as error:
        refused = error.source or ""
    else:
        return
    assert refused.startswith("any")


_plain = st.recursive(
    st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20)
    | st.integers(-(10**16), 10**16)
    | st.booleans()
    | st.none(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(alphabet="abcdefgh_", min_size=1, max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(_plain)
def test_what_a_yaml_writer_wrote_is_read_back(value):
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else _dumped(value)
    assert read_document(text, "w").value == value


def _dumped(value):
    class Writer(yaml.SafeDumper):
        def ignore_aliases(self, data):  # noqa: ARG002  # PyYAML asks for every value
            return True

    return yaml.dump(value, Dumper=Writer, allow_unicode=True)
