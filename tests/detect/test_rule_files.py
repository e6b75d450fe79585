"""Rule files as they lie on disk."""

from __future__ import annotations

import os

import pytest

from breachwatch.app.rules import read_rule_texts
from breachwatch.errors import ConfigError


def test_rule_files_are_read_part_by_part_of_their_path_in_order_and_with_plain_line_ends(tmp_path):
    for name, text in {"b.yml": b"b\r\nb\rb\n", "a/z.yaml": b"z", "a-b/c.yml": b"c", "a/x.txt": b"no"}.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(text)
    found = [(text.source.removeprefix(f"{tmp_path}/"), text.text) for text in read_rule_texts([tmp_path])]
    assert found == [("a/z.yaml", "z"), ("a-b/c.yml", "c"), ("b.yml", "b\nb\nb\n")]
    (one,) = read_rule_texts([tmp_path / "b.yml"])
    assert one.text == "b\nb\nb\n"


@pytest.mark.parametrize("content", [b"\xff", None])
def test_a_rule_file_that_cannot_be_read_is_an_error(tmp_path, content):
    file = tmp_path / "x.yml"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot read rule file"):
        read_rule_texts([tmp_path])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "x").mkdir(mode=0)
    with pytest.raises(ConfigError, match="cannot read rule folder"):
        read_rule_texts([tmp_path])


def test_a_folder_without_rules_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="no rule files found"):
        read_rule_texts([tmp_path])
    with pytest.raises(ConfigError, match="cannot read rule folder"):
        read_rule_texts([tmp_path / "missing"])
