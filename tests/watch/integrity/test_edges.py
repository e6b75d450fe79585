"""The edge cases of file integrity that peers have tests for (facts: watchers 8.2). Others: test_verdicts.py."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from breachwatch.watch.integrity.dirty import MAX_PATHS, DirtyPaths
from tests.watch.integrity.host import Host
from tests.watch.integrity.namespaces import in_mount_namespace, mount_tmpfs

Watch = Callable[..., Host]


# -- acts -------------------------------------------------------------------------------------------------------------


def test_a_deleted_folder_of_many_files_tells_each_of_them(watch: Watch, root: Path) -> None:
    (root / "d" / "e").mkdir(parents=True)
    for number in range(300):
        (root / "d" / "e" / f"{number}").touch()
    host = watch()
    shutil.rmtree(root / "d")
    host.until(lambda: host.found(root / "d", "deleted"))
    host.settle()
    gone = {change.path for change in host.changes if change.action == "deleted"}
    assert len(gone) == 302
    assert len(host.changes) == 302


def test_a_folder_that_is_deleted_and_made_again_is_watched_again(watch: Watch, root: Path) -> None:
    (root / "d").mkdir()
    (root / "d" / "f").write_text("1")
    host = watch()
    shutil.rmtree(root / "d")
    host.until(lambda: host.found(root / "d" / "f", "deleted"))
    (root / "d").mkdir()
    (root / "d" / "f").write_text("2")
    host.expect(root / "d" / "f", "created", channel="event")
    host.settle()
    (root / "d" / "f").write_text("33")
    host.expect(root / "d" / "f", "modified", channel="event")


def test_a_watched_root_that_is_deleted_and_made_again_is_watched_again(watch: Watch, root: Path) -> None:
    (root / "f").write_text("1")
    host = watch()
    shutil.rmtree(root)
    host.expect_gap("root_lost", root)
    host.until(lambda: host.found(root / "f", "deleted"))
    root.mkdir()
    (root / "f").write_text("2")
    host.expect_gap("root_back", root)
    host.until(lambda: host.found(root / "f", "created"))
    host.settle()
    (root / "f").write_text("33")
    host.expect(root / "f", "modified", channel="event")


def test_a_file_made_and_removed_at_once_disturbs_nothing(watch: Watch, root: Path) -> None:
    (root / "a").write_text("1")
    host = watch()
    for number in range(500):
        (root / f"t{number}").touch()
        (root / f"t{number}").unlink()
    (root / "a").write_text("22")
    host.expect(root / "a", "modified", channel="event")
    host.settle()
    host.sweep()
    left = {change.path for change in host.changes if change.action == "created"} - {
        change.path for change in host.changes if change.action == "deleted"
    }
    assert left == set()


def test_a_file_is_judged_again_and_again_while_it_is_appended_to(watch: Watch, root: Path) -> None:
    (root / "a").write_text("1")
    host = watch()
    with (root / "a").open("a") as file:
        for _ in range(3):
            file.write("more")
            file.flush()
            host.take()
            host.expect(root / "a", "modified", channel="event")  # before it is closed


# -- links ------------------------------------------------------------------------------------------------------------


def test_a_deleted_hard_link_tells_both_names(watch: Watch, root: Path) -> None:
    (root / "a").write_text("1")
    os.link(root / "a", root / "b")
    host = watch()
    (root / "b").unlink()
    host.expect(root / "b", "deleted", channel="event")
    host.sweep()
    assert "nlink" in host.found(root / "a")[0].changed


def test_a_deleted_link_is_told_and_its_target_is_not(watch: Watch, root: Path) -> None:
    (root / "a").write_text("1")
    (root / "link").symlink_to("a")
    host = watch()
    (root / "link").unlink()
    host.expect(root / "link", "deleted", channel="event")
    host.settle()
    assert [change.path for change in host.changes] == [os.fsencode(root / "link")]


def test_a_link_to_a_populated_folder_is_not_followed(watch: Watch, root: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "f").write_text("1")
    host = watch()
    (root / "link").symlink_to(tmp_path / "full")
    host.expect(root / "link", "created", channel="event")
    host.settle()
    (tmp_path / "full" / "f").write_text("22")
    host.quiet()
    host.sweep()
    assert [change.path for change in host.changes] == [os.fsencode(root / "link")]


def test_a_link_that_leads_back_where_it_led_settles(watch: Watch, root: Path) -> None:
    (root / "link").symlink_to("a")
    host = watch()
    for target, times in (("b", 1), ("a", 2)):
        (root / "link").unlink()
        (root / "link").symlink_to(target)
        host.until(lambda seen=times: len(host.found(root / "link")) >= seen)  # type: ignore[misc]
        host.settle()
    assert host.store is not None
    assert list(host.store.baseline.deviations()) == []


# -- attributes -------------------------------------------------------------------------------------------------------


def test_a_touch_alone_is_low(watch: Watch, root: Path) -> None:
    (root / "a").write_text("1")
    host = watch()
    os.utime(root / "a", ns=(1, 1))
    change = host.expect(root / "a", "attributes", channel="event")
    assert "mtime_ns" in change.changed
    assert change.severity == "low"


def test_a_file_of_zeroes_that_grows_by_truncation_is_modified(watch: Watch, root: Path) -> None:
    (root / "a").write_bytes(b"")
    host = watch()
    os.truncate(root / "a", 10)
    assert {"size", "sha256"} <= set(host.expect(root / "a", "modified", channel="event").changed)


def test_the_same_content_in_another_file_is_replaced(watch: Watch, root: Path) -> None:
    (root / "a").write_text("1")
    host = watch()
    (root / "b").write_text("1")
    (root / "b").rename(root / "a")
    change = host.expect(root / "a", "replaced", channel="event")
    assert "inode" in change.changed
    assert "sha256" not in change.changed


def test_an_edit_that_is_undone_between_two_sweeps_leaves_a_trace(watch: Watch, root: Path) -> None:
    (root / "a").write_text("original")
    host = watch()
    host.age()
    host.stop()
    (root / "a").write_text("evil")
    (root / "a").write_text("original")
    host.start()
    change = host.expect(root / "a", "attributes", channel="sweep")
    assert set(change.changed) <= {"mtime_ns", "ctime_ns"}
    assert change.severity == "low"


# -- configuration ----------------------------------------------------------------------------------------------------


def test_what_is_left_out_stays_out_even_where_it_is_named_as_a_path(watch: Watch, root: Path) -> None:
    (root / "cache" / "deep").mkdir(parents=True)
    host = watch(root, root / "cache", exclude=(f"{root}/cache", "*.tmp"))
    (root / "cache" / "deep" / "f").write_text("1")
    (root / "a.tmp").write_text("1")
    (root / "a").write_text("1")
    host.expect(root / "a", "created", channel="event")
    host.settle()
    host.sweep()
    assert [change.path for change in host.changes] == [os.fsencode(root / "a")]


def test_a_file_and_its_folder_both_named_are_told_once(watch: Watch, root: Path) -> None:
    (root / "a").write_text("1")
    host = watch(root / "a", root, root / "")
    (root / "a").write_text("22")
    host.expect(root / "a", "modified", channel="event")
    host.settle()
    host.sweep()
    assert len([change for change in host.changes if "sha256" in change.changed]) == 1


def test_a_single_file_is_watched_through_replacements(watch: Watch, root: Path) -> None:
    (root / "a").write_text("1")
    host = watch(root / "a")
    for number in range(3):
        (root / "new").write_text(f"{number} and more")
        (root / "new").rename(root / "a")
        host.until(lambda seen=number: len(host.found(root / "a")) > seen)  # type: ignore[misc]
        host.settle()
    assert {change.path for change in host.changes} == {os.fsencode(root / "a")}


def test_a_glob_finds_what_comes_later_and_calls_it_created(watch: Watch, root: Path) -> None:
    (root / "alice" / ".ssh").mkdir(parents=True)
    host = watch(str(root / "*" / ".ssh"))
    (root / "bob" / ".ssh").mkdir(parents=True)
    (root / "bob" / ".ssh" / "authorized_keys").write_text("ssh-ed25519 AAAA")
    host.sweep()
    change = host.expect(root / "bob" / ".ssh" / "authorized_keys", "created", channel="sweep")
    assert change.severity == "high"


def test_a_path_is_not_a_pattern_where_it_looks_like_one(watch: Watch, tmp_path: Path) -> None:
    odd = tmp_path / "odd [x] name"
    odd.mkdir()
    host = watch(str(odd))
    (odd / "f").write_text("1")
    host.expect(odd / "f", "created", channel="event")


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"\xff\xfe", b"new\nline", b"tab\tand space", b"-rf", b"'\"$(x)", b"\xe1\xbb\x87"])
def test_any_name_is_watched_and_swept(watch: Watch, root: Path, name: bytes) -> None:
    path = os.fsencode(root) + b"/" + name
    host = watch()
    Path(os.fsdecode(path)).write_text("1")
    host.expect(path, "created", channel="event")
    host.settle()
    host.sweep()
    host.stop()
    host.take()
    Path(os.fsdecode(path)).write_text("22")
    host.start()
    host.expect(path, "modified", channel="sweep")


def test_a_path_longer_than_the_kernel_takes_is_told(watch: Watch, root: Path) -> None:
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(25):
        os.mkdir("x" * 200, dir_fd=here)
        below = os.open("x" * 200, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    host = watch()
    assert {"too_deep", "path_unreadable"} & set(host.reasons())
    assert host.integrity is not None
    assert host.integrity.coverage.percent < 100.0
    shutil.rmtree(root / ("x" * 200))
    host.settle()
    host.sweep()
    assert host.integrity.coverage.percent == 100.0


def test_a_change_of_case_is_a_deletion_and_a_creation(watch: Watch, root: Path) -> None:
    (root / "readme").write_text("1")
    host = watch()
    (root / "readme").rename(root / "README")
    host.expect(root / "readme", "deleted", channel="event")
    host.expect(root / "README", "created", channel="event")


# -- limits -----------------------------------------------------------------------------------------------------------


def test_more_hints_than_are_kept_become_folders_and_then_everything() -> None:
    dirty = DirtyPaths(lambda: 0.0)
    dirty.add([b"/a/%d" % number for number in range(MAX_PATHS + 1)])
    assert len(dirty) == 1
    assert dirty.take_overflows() == []
    dirty.add([b"/%d/f" % number for number in range(MAX_PATHS + 1)])
    assert len(dirty) == 0
    assert len(dirty.take_overflows()) == 1


def test_hints_are_given_when_their_writer_rests_and_at_last_when_it_does_not() -> None:
    now = [0.0]
    dirty = DirtyPaths(lambda: now[0])
    for _ in range(30):
        dirty.add((), [b"/busy"])
        now[0] += 0.05
        if dirty.due():
            break
    assert 0.9 < now[0] < 1.1
    dirty.add([b"/closed"])
    assert dirty.due() == []
    now[0] += 0.011
    assert dirty.due() == [b"/closed"]
    assert dirty.next_due_s() is None


# -- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step_s", [-86_400.0, 86_400.0, 3_600.0], ids=["a day back", "a day on", "an hour on"])
def test_a_clock_that_is_set_is_told_and_every_content_is_read_again(watch: Watch, root: Path, step_s: float) -> None:
    (root / "a").write_text("1")
    host = watch()
    assert host.integrity is not None
    assert host.integrity.coverage.read_at is None
    host.clock.shift_s += step_s
    assert "set by" in host.expect_gap("clock_stepped").detail
    host.settle()
    assert host.integrity.coverage.read_at is not None
    (root / "a").write_text("22")
    host.expect(root / "a", "modified", channel="event")


def test_a_change_of_the_time_zone_changes_nothing(watch: Watch, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "a").write_text("1")
    host = watch()
    try:
        for zone in ("Pacific/Kiritimati", "America/New_York"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            host.sweep()
            host.settle()
        assert host.changes == []
        assert [gap for gap in host.gaps if gap.reason == "clock_stepped"] == []
        host.stop()
        host.start()
        host.settle()
        assert host.changes == []
    finally:
        monkeypatch.undo()
        time.tzset()


# -- other file systems -----------------------------------------------------------------------------------------------


@in_mount_namespace
def test_another_file_system_is_told_and_not_entered_unless_it_is_named(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "mnt").mkdir(parents=True)
    mount_tmpfs(root / "mnt")
    (root / "mnt" / "f").write_text("1")
    host = Host(tmp_path, [root])
    host.start()
    try:
        host.expect_gap("other_file_system", root / "mnt")
        (root / "mnt" / "f").write_text("22")
        host.sweep()
        assert host.found(root / "mnt" / "f") == []
    finally:
        host.stop()


def test_a_huge_folder_is_not_stored_once_for_each_of_its_changes(watch: Watch, root: Path) -> None:
    for number in range(3_000):
        (root / f"f{number}").touch()
    host = watch()
    assert host.store is not None
    head = host.store.baseline.head()
    assert head is not None
    for number in range(1_000):
        (root / f"f{number}").write_text("changed")
    host.until(lambda: len({change.path for change in host.changes}) >= 1_000, 60)
    host.settle()
    after = host.store.baseline.head()
    assert after is not None
    assert after.counter - head.counter < 200
