"""Evasions by what is done to the place: cases 7, 8, 21 to 25 and 27 of the list. Each: verdict and channel.

The guard tells as a gap what it finds (a mount over what is watched, a root that is another); what differs there is
then found by the sweep that it asks for.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.watch.integrity.daemon import Daemon
from tests.watch.integrity.host import Host
from tests.watch.integrity.namespaces import bind, in_mount_namespace, mount_tmpfs, overlay, unmount

Watch = Callable[..., Host]


def a_tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "a").write_text("original")
    (root / "b").write_text("original")
    return root


def hide(kind: str, tmp_path: Path, point: Path) -> None:
    if kind == "tmpfs":
        mount_tmpfs(point)
        return
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / "a").write_text("evil")
    if kind == "bind":
        bind(evil, point)
        return
    mounted = tmp_path / "layers"
    mounted.mkdir()
    mount_tmpfs(mounted)  # an overlay's upper layer may not lie on every file system
    (mounted / "up").mkdir()
    (mounted / "work").mkdir()
    try:
        overlay(evil, mounted / "up", mounted / "work", point)
    except OSError as error:
        pytest.skip(f"no overlay file system here: {error}")


@pytest.mark.parametrize("kind", ["bind", "tmpfs", "overlay"])
@in_mount_namespace
def test_evasion_7_a_mount_over_a_watched_folder_is_told_by_the_guard(tmp_path: Path, kind: str) -> None:
    root = a_tree(tmp_path)
    host = Host(tmp_path, [root])
    host.start()
    try:
        hide(kind, tmp_path, root / "sub")
        gap = host.expect_gap("over_mounted", root / "sub")
        assert kind in gap.detail or kind == "bind"
        host.sweep()
        assert host.integrity is not None
        assert host.integrity.coverage.percent < 100.0
        assert host.changes == [], "what lies below the mount is not taken for what was watched"
        unmount(root / "sub")
        (root / "sub" / "a").write_text("changed under it")
        host.expect_gap("unmounted", root / "sub")
        host.until(lambda: host.found(root / "sub" / "a", "modified"))
        host.settle()
        host.sweep()
        assert host.integrity.coverage.percent == 100.0
    finally:
        host.stop()


@in_mount_namespace
def test_evasion_7_a_mount_that_came_while_nothing_ran_is_told_at_start(tmp_path: Path) -> None:
    root = a_tree(tmp_path)
    host = Host(tmp_path, [root])
    host.start()
    host.stop()
    hide("bind", tmp_path, root / "sub")
    host.start()
    try:
        host.expect_gap("over_mounted", root / "sub")
        assert host.changes == []
    finally:
        host.stop()


@in_mount_namespace
def test_evasion_7_a_mount_over_the_folder_above_a_root_is_told_by_the_guard(tmp_path: Path) -> None:
    root = a_tree(tmp_path / "above")
    host = Host(tmp_path, [root])
    host.start()
    try:
        mount_tmpfs(tmp_path / "above")
        host.expect_gap("over_mounted", tmp_path / "above")
        host.quiet()
        assert host.changes == []
        unmount(tmp_path / "above")
        host.expect_gap("unmounted", tmp_path / "above")
        (root / "b").write_text("changed!")
        host.until(lambda: host.found(root / "b", "modified"))
    finally:
        host.stop()


def test_evasion_8_a_root_renamed_with_a_decoy_in_its_place_is_told_by_the_guard(watch: Watch, tmp_path: Path) -> None:
    root = a_tree(tmp_path)
    host = watch(root)
    root.rename(tmp_path / "elsewhere")
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "a").write_text("original")
    (root / "b").write_text("evil")
    host.expect_gap("root_replaced", root)
    host.until(lambda: host.found(root / "b"))
    assert "sha256" in host.found(root / "b")[0].changed
    host.settle()
    host.take()
    (root / "sub" / "a").write_text("later")  # the decoy is what is watched now
    host.expect(root / "sub" / "a", "modified", channel="event")


def test_evasion_8_a_root_that_goes_and_comes_back_is_told_by_the_guard(watch: Watch, tmp_path: Path) -> None:
    root = a_tree(tmp_path)
    host = watch(root)
    root.rename(tmp_path / "elsewhere")
    host.expect_gap("root_lost", root)
    host.until(lambda: host.found(root / "sub" / "a", "deleted"))
    host.settle()
    host.take()
    (tmp_path / "elsewhere").rename(root)
    host.expect_gap("root_back", root)
    host.until(lambda: host.found(root / "sub" / "a", "created"))
    host.settle()
    (root / "sub" / "a").write_text("later")
    host.expect(root / "sub" / "a", "modified", channel="event")


def test_evasion_21_a_watched_link_that_points_elsewhere_is_found_by_event(
    watch: Watch, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "good").write_text("good")
    (root / "link").symlink_to(tmp_path / "good")
    host = watch()
    (root / "link.new").symlink_to(tmp_path / "evil")
    (root / "link.new").rename(root / "link")
    change = host.expect(root / "link", "replaced", channel="event")
    assert "link_target" in change.changed


def test_evasion_21_a_root_that_is_a_link_and_points_elsewhere_is_told_by_the_guard(
    watch: Watch, tmp_path: Path
) -> None:
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "a").write_text("good")
    (tmp_path / "v2").mkdir()
    (tmp_path / "v2" / "a").write_text("evil")
    (tmp_path / "current").symlink_to("v1")
    host = watch(tmp_path / "current")
    (tmp_path / "next").symlink_to("v2")
    (tmp_path / "next").rename(tmp_path / "current")
    host.expect_gap("root_redirected", tmp_path / "current")
    host.until(lambda: host.found(tmp_path / "v2" / "a", "created"))
    host.settle()
    (tmp_path / "v2" / "a").write_text("later")
    host.expect(tmp_path / "v2" / "a", "modified", channel="event")


def test_evasion_21_a_folder_that_becomes_a_link_is_found_by_event(watch: Watch, tmp_path: Path) -> None:
    root = a_tree(tmp_path)
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "a").write_text("original")
    host = watch(root)
    (root / "sub").rename(tmp_path / "aside")
    (root / "sub").symlink_to(tmp_path / "evil")
    change = host.expect(root / "sub", "replaced", channel="event")
    assert "type" in change.changed
    host.until(lambda: host.found(root / "sub" / "a", "deleted"))


STORM = """
import os, sys
root = sys.argv[1]
for number in range(int(sys.argv[2])):
    path = f"{root}/{number % 50:02}/noise{number % 977}"
    with open(path, "w") as file:
        file.write(str(number))
    if number % 3 == 0:
        os.unlink(path)
"""


def test_evasion_22_a_storm_that_loses_hints_does_not_hide_the_edit_after_it(tmp_path: Path, root: Path) -> None:
    for number in range(50):
        (root / f"{number:02}").mkdir()
    (root / "zz").mkdir()
    target = root / "zz" / "target"
    target.write_text("original")
    with Daemon(tmp_path, root) as daemon:
        assert daemon.until_settled() == 100.0
        daemon.send(signal.SIGSTOP)  # what a storm faster than the reader comes to: the kernel's queue must overflow
        subprocess.run([sys.executable, "-c", STORM, root, "8000"], check=True)
        target.write_text("0riginal")
        daemon.send(signal.SIGCONT)
        daemon.until(lambda: "hints_lost" in daemon.reasons())
        daemon.until(lambda: daemon.told(target))
        assert daemon.told(target)[0][:2] == ("modified", "sweep")
        daemon.until_settled()
        here = {os.fsencode(path) for path in root.rglob("noise*")}
        assert here == daemon.changes.keys() - {os.fsencode(target)}
        target.write_text("again")
        daemon.until(lambda: len(daemon.told(target)) == 2)
        assert daemon.told(target)[1][:2] == ("modified", "event"), "the watches are as good as before"


def test_evasion_24_move_outs_do_not_delay_the_next_event(watch: Watch, root: Path, tmp_path: Path) -> None:
    aside = tmp_path / "aside"
    aside.mkdir()
    for number in range(200):
        (root / f"bait{number}").write_text("x")
    (root / "target").write_text("original")
    host = watch()
    for number in range(200):
        (root / f"bait{number}").rename(aside / f"bait{number}")
    (root / "target").write_text("changed!")
    began = time.monotonic()
    host.expect(root / "target", "modified", channel="event")
    assert time.monotonic() - began < 2.0, "nothing waits for the other half of a rename"


def test_evasion_25_special_files_are_told_and_hold_nobody_up(watch: Watch, root: Path) -> None:
    host = watch()
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind(str(root / "socket"))
    odd = os.fsencode(root) + b"/odd\nname \xff\xfe"
    Path(os.fsdecode(odd)).write_text("x")
    (root / "loop").symlink_to("loop")
    (root / "up").symlink_to("..")
    with (root / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    for name, kind in (("fifo", "fifo"), ("socket", "socket"), ("loop", "symlink"), ("up", "symlink")):
        change = host.expect(root / name, "created", channel="event")
        assert change.after is not None
        assert change.after.type == kind
    host.expect(odd, "created", channel="event")
    host.expect(root / "sparse", "created", channel="event")
    host.expect_gap("too_large", root / "sparse")
    host.settle()
    host.read_all()
    assert host.integrity is not None
    assert host.integrity.coverage.percent < 100.0


@pytest.mark.skipif(os.geteuid() != 0, reason="mknod takes root")
def test_evasion_25_a_device_is_told_and_not_opened(watch: Watch, root: Path) -> None:
    host = watch()
    os.mknod(root / "console", stat.S_IFCHR | 0o600, os.makedev(5, 1))
    change = host.expect(root / "console", "created", channel="event")
    assert change.after is not None
    assert change.after.type == "char"
    assert change.severity == "medium"


def test_evasion_25_ten_thousand_nested_folders_are_told_and_not_entered(watch: Watch, root: Path) -> None:
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _ in range(10_000):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
    finally:
        os.close(here)
    host = watch()
    try:
        assert "too_deep" in host.reasons()
        assert host.integrity is not None
        assert host.integrity.coverage.percent < 100.0
        (root / "beside").write_text("x")
        host.expect(root / "beside", "created", channel="event")
    finally:
        subprocess.run(["rm", "-rf", root / "d"], check=True)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "stopped"])
def test_evasion_27_an_edit_while_the_daemon_is_dead_is_found_by_sweep(
    tmp_path: Path, root: Path, how: signal.Signals
) -> None:
    (root / "a").write_text("original")
    with Daemon(tmp_path, root) as daemon:
        daemon.until_settled()
        daemon.send(how)
        daemon.process.wait()
    (root / "a").write_text("0riginal")
    with Daemon(tmp_path, root) as daemon:
        daemon.until(lambda: daemon.told(root / "a"))
        assert daemon.told(root / "a")[0][:2] == ("modified", "sweep")


def test_evasion_27_what_happens_during_sigstop_is_found_by_event_after_it(tmp_path: Path, root: Path) -> None:
    (root / "a").write_text("original")
    with Daemon(tmp_path, root) as daemon:
        daemon.until_settled()
        daemon.send(signal.SIGSTOP)
        (root / "a").write_text("0riginal")
        daemon.send(signal.SIGCONT)
        daemon.until(lambda: daemon.told(root / "a"))
        assert daemon.told(root / "a")[0][:2] == ("modified", "event")


def test_evasion_27_a_daemon_that_was_suspended_says_so_and_looks_at_everything(watch: Watch, root: Path) -> None:
    (root / "a").write_text("original")
    os.link(root / "a", root.parent / "outside")
    host = watch()
    host.age()
    host.clock.skipped_s += 120.0  # nobody polled for two minutes
    (root.parent / "outside").write_text("0riginal")  # no hint tells of it
    host.expect_gap("suspended")
    host.expect(root / "a", "modified", channel="sweep")
