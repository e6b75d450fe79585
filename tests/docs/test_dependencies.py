"""docs/dependencies.md names every dependency, and the lock files are what its commands say."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import metadata

import pytest

from tests.conftest import ROOT
from tests.docs.pages import DOCS, page, rows, snippets

PAGE = page("dependencies.md")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "requirements").glob("*.txt"))}
(COMMANDS,) = (one for one in snippets(DOCS / "dependencies.md") if one.more == "lock")
LISTED = {cells[0]: cells[1:] for cells in rows(PAGE, 3) if cells[0] != "package"}


def named(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return found[0].lower()


RUN = {named(one) for one in PROJECT["project"]["dependencies"]}
OPTIONAL = {named(one) for extra in PROJECT["project"]["optional-dependencies"].values() for one in extra}
DEVELOPMENT = {named(one) for group in PROJECT["dependency-groups"].values() for one in group if isinstance(one, str)}


def test_every_dependency_stands_there_with_licence_and_reason_and_no_other():
    assert set(LISTED) == RUN | OPTIONAL | DEVELOPMENT
    assert [name for name, (licence, reason) in LISTED.items() if not licence or not reason] == []


@pytest.mark.parametrize("name", sorted(LISTED))
def test_the_licence_is_that_of_the_installed_package(name):
    said = metadata(name)
    parts = [
        *(said.get_all("License-Expression") or said.get_all("License") or []),
        *(said.get_all("Classifier") or []),
    ]
    own = " ".join(parts).lower()
    first = LISTED[name][0].split("-")[0].split()[0].lower()
    assert first in own or (first == "mpl" and "mozilla" in own), (LISTED[name][0], own)


def test_every_lock_file_has_a_command_and_no_other():
    written = re.findall(r"--output-file requirements/(\S+)", COMMANDS.text)
    assert sorted(written) == sorted(LOCKS)


def pins(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", text, re.MULTILINE))


def test_every_dependency_is_pinned_with_hashes():
    wanted = {"build.txt": {"hatchling"}, "run.txt": RUN, "dev.txt": RUN | OPTIONAL | DEVELOPMENT}
    for name, text in LOCKS.items():
        assert wanted[name] <= set(pins(text)), f"requirements/{name} is not current"
        blocks = re.split(r"\n(?=[A-Za-z0-9])", text)
        assert [block.splitlines()[0] for block in blocks if "--hash=sha256:" not in block] == []


def test_what_is_checked_is_what_is_run():
    run, dev = pins(LOCKS["run.txt"]), pins(LOCKS["dev.txt"])
    assert {name: version for name, version in run.items() if dev.get(name) != version} == {}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_file_names_no_index(name):
    assert "://" not in LOCKS[name]
    assert not re.search(r"^\s*-", LOCKS[name].replace("    --hash", "hash"), re.MULTILINE)
