"""The Dockerfile, without an engine to build it: what it names exists, and its install works in a clean environment."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib

import pytest

from breachwatch.config.sections import Settings
from tests.conftest import ROOT
from tests.docs.generate import commands
from tests.repository.test_readme import LINES

TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
INSTRUCTIONS = [
    line.split(" ", 1)
    for line in re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE).replace("\\\n", "").splitlines()
    if line
]
HOME = "/opt/breachwatch"


def all_of(name: str) -> list[str]:
    return [said.strip() for instruction, said in INSTRUCTIONS if instruction == name]


def copied() -> list[str]:
    return [path for said in all_of("COPY") if not said.startswith("--from") for path in said.split()[:-1]]


def install() -> str:
    (line,) = (said for said in all_of("RUN") if "/bin/pip " in said)
    return line


def test_every_instruction_is_one():
    known = [
        "FROM",
        "WORKDIR",
        "COPY",
        "RUN",
        "ENV",
        "USER",
        "VOLUME",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "ENTRYPOINT",
        "CMD",
    ]
    assert [instruction for instruction, _ in INSTRUCTIONS if instruction not in known] == []


def test_every_path_that_it_copies_is_there():
    assert {"breachwatch", "rules", "playbooks", "pyproject.toml"} <= set(copied())
    assert [path for path in copied() if not (ROOT / path).exists()] == []


def test_what_it_copies_is_not_ignored():
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in allowed
    assert [path for path in copied() if f"!{path}" not in allowed] == []


def test_it_installs_as_the_readme_does():
    def words(line: str) -> list[str]:
        line = line.replace(HOME + "/bin/", "").replace(HOME, "ENVIRONMENT")
        line = line.replace(".venv/bin/", "").replace(".venv", "ENVIRONMENT").replace(" --no-cache-dir", "")
        return line.split(" && ")

    assert words(install()) == words(LINES[0])[:-1]


def test_it_has_two_stages_on_one_image_that_pyproject_allows():
    images = [said.split()[0] for said in all_of("FROM")]
    assert len(images) == 2
    assert len(set(images)) == 1, "an environment moves only between images with the same Python"
    assert all_of("FROM")[0].endswith(" AS build")
    assert [said for said in all_of("COPY") if said.startswith("--from")] == [f"--from=build {HOME} {HOME}"]
    found = re.fullmatch(r"python:(\d+)\.(\d+)-slim\S*", images[0])
    assert found
    lowest = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    assert (int(found[1]), int(found[2])) >= tuple(map(int, lowest.removeprefix(">=").split(".")))


def test_it_runs_commands_that_there_are():
    known = {name for name, _ in commands()}
    check = all_of("HEALTHCHECK")[0].partition("CMD ")[2]
    assert " ".join(json.loads(check)) in known
    (entry,), (said,) = all_of("ENTRYPOINT"), all_of("CMD")
    assert " ".join([*json.loads(entry), *json.loads(said)]) in known


def test_it_runs_as_an_account_that_it_makes_and_that_owns_the_state():
    user = all_of("USER")[-1]
    made = [said for said in all_of("RUN") if "useradd" in said]
    assert user not in {"root", "0"}
    assert len(made) == 1
    assert re.search(rf"useradd .* {user}\s+&&", made[0])
    state = all_of("VOLUME")[0]
    assert re.search(rf"install -d -o {user} .*-m 0700 {state}", made[0])
    assert f"BREACHWATCH_STATE__DIRECTORY={state}" in all_of("ENV")[0]
    order = [instruction for instruction, _ in INSTRUCTIONS]
    assert order.index("USER") < order.index("ENTRYPOINT")


def test_the_variables_that_it_sets_are_settings():
    named = re.findall(r"BREACHWATCH_(\w+?)__(\w+)=", all_of("ENV")[0])
    assert named
    for table, key in named:
        section = Settings.model_fields[table.lower()].annotation
        assert section is not None
        assert key.lower() in section.model_fields


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_its_install_works_in_a_clean_environment_from_nothing_but_what_it_copies(tmp_path):
    source, home = tmp_path / "src", tmp_path / "environment"
    for path in copied():
        target = source / path
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, target)
    line = (
        install()
        .replace(HOME, str(home))
        .replace("python3 -m venv", "python3 -I -m venv")
        .replace(" --no-cache-dir", "")
    )
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(["sh", "-euc", line], cwd=source, env=outside, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    clean = {"PATH": f"{home}/bin:/usr/bin:/bin", "HOME": str(tmp_path)}
    for command, wanted in (
        (["breachwatch", "--version"], "breachwatch"),
        (["breachwatch", "rules", "list"], "SSH brute"),
    ):
        said = subprocess.run([home / "bin" / command[0], *command[1:]], cwd=tmp_path, env=clean, capture_output=True,
                              text=True, check=False)  # fmt: skip
        assert said.returncode == 0, said.stderr
        assert wanted in said.stdout
