"""The README: two commands, each one line, and CI runs exactly these."""

from __future__ import annotations

import re
import subprocess

from tests import checks
from tests.conftest import ROOT
from tests.docs.generate import commands

README = (ROOT / "README.md").read_text(encoding="utf-8")
CI = ROOT / ".ci" / "run"
LINES = [line for line in README.splitlines() if line.startswith("python3 -m venv ")]


def test_it_begins_with_three_sentences_and_a_picture():
    first = README.partition("\n\n")[2].partition("\n\n")[0]
    assert len(re.findall(r"\.(?=\s|$)", first.replace("RFC 6962", ""))) <= 4
    assert README.index("```\n") < README.index("python3 -m venv")


def test_it_has_two_command_lines_with_all_of_their_set_up():
    assert len(LINES) == 2
    for line in LINES:
        steps = line.split(" && ")
        assert steps[0].startswith("python3 -m venv .venv")
        assert "--require-hashes" in steps[1]
        assert "--no-build-isolation --no-deps" in steps[2]
        for file in re.findall(r"-r (\S+)", line):
            assert (ROOT / file).is_file(), file


def test_the_first_plays_the_demo_and_the_second_runs_every_check():
    assert LINES[0].endswith("/bin/breachwatch demo")
    assert "breachwatch demo" in {name for name, _ in commands()}
    assert LINES[1].endswith(" -m tests.checks")
    assert [*checks.STEPS] == ["format", "lint", "types", "import contracts", "tests"]


def test_ci_reads_its_lines_from_the_readme():
    text = CI.read_text(encoding="utf-8")
    assert CI.stat().st_mode & 0o111
    assert "README.md" in text
    assert "pip install" not in text
    assert subprocess.run(["bash", "-n", CI], check=False).returncode == 0


def test_every_system_package_that_ci_installs_is_in_the_readme():
    found = re.search(r"^packages=\(([^)]*)\)", CI.read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    names = re.sub(r"#.*", "", found[1]).split()
    assert names
    assert [name for name in names if f"`{name}`" not in README] == []


def test_the_environments_of_both_lines_are_ignored_by_git():
    for line in LINES:
        folder = line.split()[3]
        done = subprocess.run(["git", "check-ignore", "-q", folder + "/x"], cwd=ROOT, check=False)
        assert done.returncode == 0, folder
