"""Where the kernel's help ends: evasion case 23 and its kin. Each is told, and the sweep still finds every change."""

from __future__ import annotations

import codecs
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from breachwatch.watch.integrity.ledger import MAX_OPEN, Ledger
from tests.watch.integrity.daemon import Daemon
from tests.watch.integrity.host import Host
from tests.watch.integrity.namespaces import child, enter_namespaces

Watch = Callable[..., Host]

LONG = bool(os.environ.get("LONG_TESTS"))
"""LONG_TESTS=1, as CI sets it: the whole of 30,000 folders; without it a fifth of them."""


def in_user_namespace(body: Callable[[], None]) -> None:
    """In a child with a user namespace of its own, which has limits of its own: the host's stay as they are."""

    def run() -> None:
        try:
            enter_namespaces(user=True)
        except OSError as error:
            pytest.skip(f"no user namespace for this account here: {error}")
        body()

    code, told = child(run)
    if code == 77:
        pytest.skip(told)
    assert code == 0, told or f"the child ended with {code}"


def limit(name: str, value: int) -> None:
    try:
        Path(f"/proc/sys/user/{name}").write_text(str(value))
    except OSError as error:
        pytest.skip(f"the limits of a user namespace cannot be set here: {error}")


def test_evasion_23_exhausted_watches_are_told_and_the_sweep_finds_every_change(tmp_path: Path, root: Path) -> None:
    for number in range(40):
        (root / f"d{number:02}").mkdir()
        (root / f"d{number:02}" / "f").write_text("original")

    def body() -> None:
        limit("max_inotify_watches", 20)
        host = Host(tmp_path, [root])
        host.start()
        try:
            gap = host.expect_gap("watches_exhausted")
            assert "21 of 41 folders" in gap.detail
            assert host.integrity is not None
            assert host.integrity.coverage.watched == 20
            assert host.integrity.coverage.percent < 100.0
            for number in range(40):
                (root / f"d{number:02}" / "f").write_text("0riginal")
            host.quiet()
            host.sweep()
            found = {change.path: change.channel for change in host.changes}
            assert found.keys() == {os.fsencode(root / f"d{number:02}" / "f") for number in range(40)}
            assert set(found.values()) == {"event", "sweep"}
            for number in range(10, 40):
                (root / f"d{number}" / "f").unlink()
                (root / f"d{number}").rmdir()
            host.settle()
            host.sweep()
            assert host.integrity.coverage.percent == 100.0, "there are watches enough for what is left"
        finally:
            host.stop()

    in_user_namespace(body)


def test_no_inotify_at_all_is_told_and_the_sweep_finds_every_change(tmp_path: Path, root: Path) -> None:
    (root / "a").write_text("original")

    def body() -> None:
        limit("max_inotify_instances", 0)
        host = Host(tmp_path, [root])
        host.start()
        try:
            host.expect_gap("unwatched")
            assert host.integrity is not None
            assert host.integrity.coverage.percent < 100.0
            (root / "a").write_text("0riginal")
            host.sweep()
            host.expect(root / "a", "modified", channel="sweep")
            assert host.integrity.coverage.percent < 100.0, "still nobody watches"
        finally:
            host.stop()

    in_user_namespace(body)


STORM = """
import os, sys
root, count = sys.argv[1], int(sys.argv[2])
for number in range(count):
    path = f"{root}/d{number}/noise"
    with open(path, "w") as file:
        file.write(str(number))
    if number % 2:
        os.unlink(path)
"""


@pytest.mark.timeout(600)
def test_a_queue_that_overflows_with_30_000_folders_is_told_and_left_and_every_change_is_found(
    tmp_path: Path, root: Path
) -> None:
    count = 30_000 if LONG else 6_000
    for number in range(count):
        (root / f"d{number}").mkdir()
    target = root / f"d{count - 1}" / "target"
    target.write_text("original")
    with Daemon(tmp_path, root) as daemon:
        assert daemon.until_settled(300) == 100.0
        daemon.send(signal.SIGSTOP)  # so that the queue overflows on any machine
        subprocess.run([sys.executable, "-c", STORM, root, str(count)], check=True)
        target.write_text("0riginal")
        daemon.send(signal.SIGCONT)
        daemon.until(lambda: "hints_lost" in daemon.reasons())
        daemon.until_told(target, 1, 300)
        daemon.until_settled(300)
        assert len([gap for gap in daemon.gaps if gap[1] == "hints_lost"]) <= 2, "an overflow does not breed others"
        left = {os.fsencode(root / f"d{number}" / "noise") for number in range(0, count, 2)}
        assert left <= daemon.changes.keys()
        target.write_text("and quiet again")
        daemon.until_told(target, len(daemon.told(target)) + 1)
        assert daemon.told(target)[-1][:2] == ("modified", "event")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Where another account may work; pytest's own folders are closed to it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an account that may not read")
def test_a_folder_that_may_not_be_read_is_told_and_found_again_when_it_may(open_folder: Path) -> None:
    tmp_path, root = open_folder, open_folder / "root"
    (root / "closed").mkdir(parents=True)
    (root / "closed" / "secret").write_text("original")
    (root / "file").write_text("original")
    (tmp_path / "state").mkdir()
    for path in (tmp_path, tmp_path / "state", root, root / "closed", root / "closed" / "secret", root / "file"):
        os.chown(path, 65534, 65534)
    (root / "closed").chmod(0)
    (root / "file").chmod(0)

    def body() -> None:
        codecs.lookup("ascii")  # what is loaded on first use may lie where that account may not read
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        host = Host(tmp_path, [root])
        host.start()
        try:
            host.expect_gap("path_unreadable", root / "closed")
            host.expect_gap("path_unreadable", root / "file")
            assert host.integrity is not None
            assert host.integrity.coverage.percent < 100.0
            (root / "closed").chmod(0o700)
            (root / "file").chmod(0o600)
            host.until(lambda: host.found(root / "closed" / "secret", "created"))
            host.settle()
            host.sweep()
            assert host.integrity.coverage.percent == 100.0
            (root / "closed" / "secret").write_text("0riginal")
            host.expect(root / "closed" / "secret", "modified", channel="event")
        finally:
            host.stop()

    code, told = child(body)
    if code == 77:
        pytest.skip(told)
    assert code == 0, told


def test_a_replaced_root_is_told_and_the_sweep_finds_every_change(watch: Watch, root: Path, tmp_path: Path) -> None:
    for number in range(50):
        (root / f"f{number}").write_text("original")
    host = watch()
    root.rename(tmp_path / "aside")
    root.mkdir()
    for number in range(50):
        (root / f"f{number}").write_text("original" if number % 2 else "0riginal")
    host.expect_gap("root_replaced", root)
    host.until(lambda: len({change.path for change in host.changes if "sha256" in change.changed}) == 25)


def test_a_blind_spot_that_comes_and_goes_is_told_once_until_the_next_sweep() -> None:
    ledger = Ledger(lambda: datetime(2026, 11, 26, tzinfo=UTC))
    for _ in range(100):
        ledger.report(b"/busy", "unstable")
        ledger.clear(b"/busy")
    assert len(ledger.take()) == 1
    ledger.swept()
    ledger.report(b"/busy", "unstable")
    assert len(ledger.take()) == 1
    assert ledger.open == {b"/busy": "unstable"}


def test_more_blind_spots_than_are_kept_are_told_as_one() -> None:
    ledger = Ledger(lambda: datetime(2026, 11, 26, tzinfo=UTC))
    for number in range(MAX_OPEN + 100):
        ledger.report(b"/%d" % number, "path_unreadable")
    told = ledger.take()
    assert len(told) == MAX_OPEN + 1
    assert told[-1].reason == "many_blind_spots"
