"""`breachwatch integrity`: begin, check, diff, accept, with an agent or without."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

import pytest

from tests.e2e.harness import Installation, wait_until


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_text("one\n")
    (folder / "sub" / "app.conf").write_text("port = 80\npassword = first-secret\n")
    return folder


@pytest.fixture
def installed(tmp_path: Path, root: Path) -> Installation:
    integrity = f'[watch.integrity]\nenabled = true\nown_files = false\npaths = ["{root}"]\ndiff = ["{root}/*.conf"]\n'
    return Installation(tmp_path, integrity)


def test_begin_check_diff_accept(installed: Installation, root: Path) -> None:
    assert installed.json("integrity", "init")[-1] == {
        "kind": "summary", "entries": 4, "folders": 2, "told": 0, "blind": 0, "coverage_percent": 100.0,
    }  # fmt: skip
    assert [item["kind"] for item in installed.json("integrity", "check")] == ["summary"]
    (root / "a").write_text("two\n")
    (root / "sub" / "new").write_text("x")
    told = installed.json("integrity", "check", check=(1,))
    changes = {str(item["file.path"]): item for item in told if item["kind"] == "change"}
    assert changes[str(root / "a")]["event.action"] == "modified"
    assert changes[str(root / "a")]["explained_by"] is None
    assert "sha256" in str(changes[str(root / "a")]["changed"])
    assert changes[str(root / "sub" / "new")]["event.action"] == "created"
    assert len(changes) == 2
    again = installed.json("integrity", "check", check=(1,))
    assert [item.get("file.path") for item in again] == [item.get("file.path") for item in told], (
        "a check stores nothing"
    )

    assert "accepted" in installed.call("integrity", "accept", str(root / "a"), "--reason", "planned")
    left = installed.json("integrity", "check", check=(1,))
    assert [item["file.path"] for item in left if item["kind"] == "change"] == [str(root / "sub" / "new")]
    installed.call("integrity", "accept", "--all")
    assert [item["kind"] for item in installed.json("integrity", "check")] == ["summary"]


def test_lines_that_differ_are_shown_with_secrets_masked(installed: Installation, root: Path) -> None:
    installed.call("integrity", "init")
    (root / "sub" / "app.conf").write_text("port = 81\npassword = second-secret\n")
    shown = installed.call("integrity", "diff", check=(1,))
    assert "-port = 80" in shown
    assert "+port = 81" in shown
    assert "secret" not in shown
    assert b"secret" not in (installed.state / "agent.db").read_bytes()


def test_a_second_baseline_is_refused_unless_forced(installed: Installation, root: Path) -> None:
    installed.call("integrity", "init")
    (root / "a").write_text("two\n")
    installed.call("integrity", "init", check=(2,))
    installed.call("integrity", "init", "--force", "--reason", "reinstalled")
    assert [item["kind"] for item in installed.json("integrity", "check")] == ["summary"]


def test_without_a_baseline_there_is_nothing_to_check(installed: Installation) -> None:
    installed.call("integrity", "check", check=(3,))


def test_what_cannot_be_seen_is_not_fine(installed: Installation, root: Path) -> None:
    installed.call("integrity", "init")
    told = installed.json("integrity", "check", "/etc/hostname", str(root), check=(1,))
    assert [item["reason"] for item in told if item["kind"] == "gap"] == ["not_watched"]


def test_an_edited_baseline_is_told_and_not_accepted_from(installed: Installation, root: Path) -> None:
    installed.call("integrity", "init")
    (root / "a").write_text("evil\n")
    database = sqlite3.connect(installed.state / "agent.db")
    database.execute("UPDATE directory SET meta = zeroblob(length(meta)) WHERE path = ?", (os.fsencode(root),))
    database.commit()
    database.close()
    told = installed.json("integrity", "check", check=(1,))
    assert told[0]["reason"] == "baseline_tampered"
    assert str(root) in str(told[0]["detail"])
    installed.call("integrity", "accept", "--all", check=(3,))
    installed.call("integrity", "init", "--force")
    installed.call("integrity", "check")


def rows(installed: Installation, query: str) -> list[tuple[object, ...]]:
    database = sqlite3.connect(f"file:{installed.state / 'agent.db'}?mode=ro", uri=True)
    try:
        return database.execute(query).fetchall()
    except sqlite3.OperationalError:
        return []  # not made yet
    finally:
        database.close()


def test_an_agent_and_an_operator_share_one_baseline(installed: Installation, root: Path) -> None:
    def deviates() -> bool:
        return rows(installed, "SELECT path FROM deviation") == [(os.fsencode(root / "a"),)]

    (installed.state).mkdir()
    (installed.state / "agent.db").touch(0o600)
    agent = installed.start("agent")
    try:
        wait_until(lambda: len(rows(installed, "SELECT path FROM directory")) == 2, what="a baseline")
        (root / "a").write_text("two\n")
        wait_until(deviates, what="the agent's verdict")
        installed.call("integrity", "init", check=(2, 3))
        told = installed.json("integrity", "check", check=(1,))
        assert [item["file.path"] for item in told if item["kind"] == "change"] == [str(root / "a")]
        installed.call("integrity", "accept", str(root / "a"))
        assert not deviates()
        (root / "a").write_text("three\n")
        wait_until(deviates, what="the next verdict")
        actions = [row[0] for row in rows(installed, "SELECT body FROM signal WHERE kind = 'daemon'")]
        assert any(b"baseline_accepted" in bytes(str(body), "utf-8") for body in actions)
    finally:
        agent.terminate()
        assert agent.wait(20) == 0, installed.read_log()
    installed.call("integrity", "check", check=(1,))


def test_an_older_copy_of_the_baseline_is_found_out(installed: Installation, root: Path) -> None:
    installed.call("integrity", "init")
    old = (installed.state / "agent.db").read_bytes()
    (root / "a").write_text("evil\n")
    installed.call("integrity", "accept", "--all")
    for name in ("agent.db-wal", "agent.db-shm"):
        (installed.state / name).unlink(missing_ok=True)
    (installed.state / "agent.db").write_bytes(old)
    told = installed.json("integrity", "check", check=(1,))
    assert "an older baseline was put back" in str(told[0]["detail"])


def test_ten_thousand_files_are_compared_in_seconds(installed: Installation, root: Path) -> None:
    for folder in range(100):
        (root / f"d{folder}").mkdir()
        for number in range(20):
            (root / f"d{folder}" / f"{number}").write_text(str(number))
    installed.call("integrity", "init")
    began = time.monotonic()
    installed.call("integrity", "check")
    assert time.monotonic() - began < 20
