"""The Dockerfile by reading: no engine is available to build it, so what it names is checked and its install is run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import click
import pytest

from breachwatch.cli.main import cli
from breachwatch.config.settings import Settings
from tests.conftest import ROOT

TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
LINES = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE)).splitlines()
VENV = "/opt/breachwatch"


def instructions(name: str) -> list[str]:
    return [line.removeprefix(name).strip() for line in LINES if line.startswith(name + " ")]


def copied() -> list[str]:
    sources = [line.split()[:-1] for line in instructions("COPY") if not line.startswith("--from")]
    return [path for group in sources for path in group]


def test_every_path_copied_exists_in_the_tree_and_is_tracked():
    assert {"breachwatch", "rules", "playbooks", "pyproject.toml"} <= set(copied())
    for path in copied():
        assert (ROOT / path).exists(), path


def test_every_requirements_file_installed_was_copied_before():
    installed = re.findall(r"-r (\S+)", TEXT)
    assert installed == ["requirements/build.txt", "requirements/run.txt"]
    assert set(installed) <= set(copied())


def test_the_stage_that_runs_takes_the_environment_from_the_stage_that_builds():
    assert [line for line in instructions("COPY") if line.startswith("--from")] == [f"--from=build {VENV} {VENV}"]
    assert f"RUN python3 -m venv {VENV}" in LINES
    assert instructions("FROM")[0].endswith(" AS build")
    assert len({line.split()[0] for line in instructions("FROM")}) == 1, "a venv moves only between equal images"


@pytest.mark.parametrize("line", [*instructions("ENTRYPOINT"), TEXT[TEXT.index("HEALTHCHECK") :].split("CMD ")[1]])
def test_entrypoint_and_healthcheck_name_commands_that_exist(line: str):
    program, name = json.loads(line.splitlines()[0])
    assert program == "breachwatch"
    assert cli.get_command(click.Context(cli), name) is not None


def test_it_does_not_run_as_root_and_its_environment_names_real_settings():
    last_user = instructions("USER")[-1]
    assert last_user == "breachwatch"
    assert f"{last_user}\n" in "\n".join(part.split("&&")[0].strip() for part in instructions("RUN")) + "\n"
    for table, key in re.findall(r"BREACHWATCH_(\w+?)__(\w+)=", TEXT):
        section = Settings.model_fields[table.lower()].annotation
        assert section is not None
        assert key.lower() in section.model_fields


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_its_pip_lines_install_what_it_copies_into_a_clean_environment(tmp_path):
    source, venv = tmp_path / "src", tmp_path / "venv"
    for path in copied():
        target = source / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / path, target)
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    pip_lines = [line for line in instructions("RUN") if "/bin/pip " in line]
    assert len(pip_lines) == 2
    for line in pip_lines:
        words = line.replace(VENV, str(venv)).split()
        done = subprocess.run(words, cwd=source, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    clean = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    said = subprocess.run([venv / "bin/breachwatch", "rules", "list"], cwd=tmp_path, env=clean, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert "SSH" in said.stdout, "the shipped rules are missing from the package"
