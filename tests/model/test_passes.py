"""What one pass over a block tells: the library and Python's own loops say the same, wherever the bytes stand."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import sysconfig
import types
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from breachwatch import model
from breachwatch.model import passes as passes_module
from breachwatch.model.passes import BACKSLASH, ODD, OTHER, RECORD, native, passes
from tests.conftest import ROOT

LIBRARIES = ("", "stringzilla")
INSTALLED = [name for name in LIBRARIES if not name or find_spec(name) is not None]


SURVEYS = [
    *(passes(name).survey for name in INSTALLED),
    *([] if native is None else [native.survey]),
]


@pytest.mark.parametrize("survey", SURVEYS)
def test_an_empty_block_has_nothing(survey):
    assert survey(b"") == (0, 0)


def flags_of(data: bytes) -> int:
    lines = data.removesuffix(b"\n").split(b"\n") if data else []  # an empty line begins with its line feed
    return (
        ODD * any(byte == 0 or byte > 127 for byte in data)
        | RECORD * any(line[:1] == b"{" or not 0x20 < line[0] < 0x80 for line in lines if line)
        | RECORD * (b"" in lines)
        | BACKSLASH * (b"\\" in data)
        | OTHER * any(not line.startswith(b"{") for line in lines)
    )


@given(st.binary(max_size=300) | st.text("\n{\\a\0\x80", max_size=300).map(lambda text: text.encode("latin-1")))
@example(b"\n" * 129)
@example(b"{\n" * 64)
@example(b"{" * 31 + b"\nx")
@example(b"{" * 31 + b"\n{" + b"{" * 31 + b"\n")
def test_a_survey_counts_lines_and_misses_nothing(data):
    wanted = flags_of(data)
    for survey in SURVEYS:
        lines, flags = survey(data)
        assert lines == data.count(b"\n")
        assert flags & ODD == wanted & ODD
        assert flags & wanted == wanted
    if native is not None:
        assert native.survey(data)[1] == wanted


@given(st.binary(max_size=300), st.integers(0, 70))
@example(b"\x7f\n", 1)
def test_words_are_found_wherever_they_stand(data, start):
    for library in INSTALLED:
        _, holds, contains, lowered = passes(library)
        part = data[start:]
        wanted = data[start // 2 : start // 2 + 4]
        if wanted:
            assert holds(data, wanted, 0, len(data))
            assert holds(data, wanted, start, len(data)) is (wanted in part)
            assert contains(part, wanted) is (wanted in part)
        assert lowered(data) == data.lower()


@pytest.mark.parametrize("survey", SURVEYS)
@pytest.mark.parametrize("odd", [0x00, 0x80, 0xC3, 0xFF])
def test_one_odd_byte_is_seen_at_every_place(survey, odd):
    plain = b"Mar  1 00:00:01 host sshd[1]: \x01\x7f plain\n" * 4
    assert not survey(plain)[1] & ODD
    assert all(survey(plain[:place] + bytes([odd]) + plain[place:])[1] & ODD for place in range(len(plain) + 1))


@pytest.mark.skipif(native is None, reason="nobody compiled native/")
def test_lanes_do_not_overflow():
    """A lane counts to 255: many times that."""
    data = b"\n" * (32 * 255 * 3 + 17)
    assert native.survey(data)[0] == len(data)


@cache
def build() -> Any:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false", "sh -c 'echo error: disk full >&2; exit 1'"])
def test_an_install_without_a_compiler_that_works_goes_on_and_says_why(tmp_path, monkeypatch, compiler):
    sources = tmp_path / build().SOURCES
    sources.mkdir(parents=True)
    (sources / "a.c").write_text("int a;")
    monkeypatch.setenv("CC", compiler)
    said: list[str] = []
    data: dict[str, Any] = {"artifacts": []}
    hook = object.__new__(build().NativeHook)
    app = types.SimpleNamespace(display_warning=said.append)
    monkeypatch.setattr(build().NativeHook, "app", app)
    monkeypatch.setattr(build().NativeHook, "root", str(tmp_path))
    hook.initialize("standard", data)
    assert data == {"artifacts": []}, "the wheel is pure Python"
    assert len(said) == 1
    assert "slower" in said[0]
    assert not list(tmp_path.rglob("*.so"))


def test_what_is_compiled_is_what_is_written():
    """It is compiled whenever the package is installed, if there is a compiler."""
    assert build().digest_of(ROOT / build().SOURCES) == passes_module.SOURCE, "set SOURCE in passes.py to the first"
    if native is None:
        if shutil.which("cc") and Path(sysconfig.get_path("include"), "Python.h").exists():
            pytest.fail("there is a compiler, but nothing compiled: pip install --no-build-isolation --no-deps -e .")
        pytest.skip("no C compiler: Python's own passes are used")
    assert native.SOURCE == passes_module.SOURCE


def test_a_binary_of_other_sources_is_left_alone(monkeypatch):
    """Its flags may mean something else: lines would be missed."""
    stale = types.ModuleType("breachwatch.model._native")
    vars(stale).update(SOURCE="0" * 64, survey=lambda _: (0, 0))
    monkeypatch.setitem(sys.modules, "breachwatch.model._native", stale)
    monkeypatch.setattr(model, "_native", stale, raising=False)
    spec = importlib.util.spec_from_file_location("fresh_passes", passes_module.__file__)
    assert spec is not None
    assert spec.loader is not None
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    assert fresh.native is None
    assert fresh.survey(b"a\n")[0] == 1
