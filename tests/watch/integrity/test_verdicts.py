"""What happens to files becomes the right verdict, by hint or by sweep."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.watch.integrity.host import Host

Watch = Callable[..., Host]


def test_the_first_look_is_the_baseline_and_reports_nothing(watch: Watch, root: Path) -> None:
    (root / "a").write_text("1")
    (root / "d" / "e").mkdir(parents=True)
    (root / "d" / "e" / "f").write_text("2")
    host = watch()
    assert host.changes == []
    assert host.integrity is not None
    assert host.integrity.coverage.percent == 100.0
    assert host.integrity.coverage.folders == host.integrity.coverage.watched == 3


def test_a_new_file_is_created(watch: Watch, root: Path) -> None:
    host = watch()
    (root / "new").write_text("hello")
    change = host.expect(root / "new", "created", channel="event")
    assert change.after is not None
    assert change.after.sha256 == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


def test_a_written_file_is_modified(watch: Watch, root: Path) -> None:
    (root / "a").write_text("1")
    host = watch()
    (root / "a").write_text("22")
    change = host.expect(root / "a", "modified", channel="event")
    assert {"sha256", "size"} <= set(change.changed)


def test_a_removed_file_is_deleted(watch: Watch, root: Path) -> None:
    (root / "a").write_text("1")
    host = watch()
    (root / "a").unlink()
    assert host.expect(root / "a", "deleted", channel="event").after is None


def test_an_editors_atomic_replacement_is_replaced(watch: Watch, root: Path) -> None:
    (root / "a").write_text("1")
    host = watch()
    (root / ".a.new").write_text("2")
    (root / ".a.new").rename(root / "a")
    assert "sha256" in host.expect(root / "a", "replaced", channel="event").changed


def test_a_rename_is_a_deletion_and_a_creation(watch: Watch, root: Path) -> None:
    (root / "a").write_text("1")
    host = watch()
    (root / "a").rename(root / "b")
    host.expect(root / "a", "deleted", channel="event")
    host.expect(root / "b", "created", channel="event")


@pytest.mark.parametrize(
    ("act", "name"),
    [
        (lambda path: path.chmod(0o4755), "mode"),
        (lambda path: os.chown(path, 1234, 4321), "uid"),
        (lambda path: os.setxattr(path, "user.note", b"x"), "xattrs"),
    ],
)
def test_changed_attributes_are_named(watch: Watch, root: Path, act: Callable[[Path], None], name: str) -> None:
    if name == "uid" and os.geteuid() != 0:
        pytest.skip("giving a file away takes root")
    (root / "a").write_text("1")
    host = watch()
    act(root / "a")
    assert name in host.expect(root / "a", "attributes", channel="event").changed


def test_a_folder_that_moves_in_comes_with_all_below_it(watch: Watch, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "deep" / "er").mkdir(parents=True)
    (outside / "deep" / "er" / "f").write_text("1")
    host = watch()
    outside.rename(root / "in")
    host.expect(root / "in" / "deep" / "er" / "f", "created", channel="event")
    (root / "in" / "deep" / "er" / "f").write_text("22")
    host.expect(root / "in" / "deep" / "er" / "f", "modified", channel="event")


def test_a_folder_that_moves_out_takes_all_below_it(watch: Watch, root: Path, tmp_path: Path) -> None:
    (root / "d" / "e").mkdir(parents=True)
    (root / "d" / "e" / "f").write_text("1")
    host = watch()
    assert host.integrity is not None
    (root / "d").rename(tmp_path / "gone")
    host.expect(root / "d" / "e" / "f", "deleted", channel="event")
    host.take()
    (tmp_path / "gone" / "e" / "f").write_text("edited outside")
    host.quiet()
    assert host.changes == []


def test_a_folder_moved_within_the_tree_is_watched_at_its_new_place(watch: Watch, root: Path) -> None:
    (root / "a" / "x").mkdir(parents=True)
    (root / "a" / "x" / "f").write_text("1")
    host = watch()
    (root / "a").rename(root / "b")
    host.expect(root / "b" / "x" / "f", "created", channel="event")
    host.expect(root / "a" / "x" / "f", "deleted", channel="event")
    host.take()
    (root / "b" / "x" / "f").write_text("22")
    host.expect(root / "b" / "x" / "f", "modified", channel="event")
    host.settle()
    assert {os.fsdecode(item.path) for item in host.changes} == {str(root / "b" / "x" / "f")}


def test_a_folder_replaced_by_a_file_is_both_told(watch: Watch, root: Path) -> None:
    (root / "d").mkdir()
    (root / "d" / "f").write_text("1")
    host = watch()
    shutil.rmtree(root / "d")
    (root / "d").write_text("now a file")
    host.expect(root / "d" / "f", "deleted", channel="event")
    host.settle()
    assert host.found(root / "d")[-1].after is not None


def test_what_changed_while_nothing_ran_is_found_at_start(watch: Watch, root: Path) -> None:
    for name in ("a", "b", "c"):
        (root / name).write_text(name)
    (root / "d").mkdir()
    host = watch()
    host.stop()
    (root / "a").write_text("other")
    (root / "b").unlink()
    (root / "d" / "new").write_text("n")
    (root / "c").chmod(0o600)
    host.start()
    host.expect(root / "a", "modified", channel="sweep")
    host.expect(root / "b", "deleted", channel="sweep")
    host.expect(root / "c", "attributes", channel="sweep")
    host.expect(root / "d" / "new", "created", channel="sweep")


def test_a_change_is_told_once_by_whatever_finds_it_first(watch: Watch, root: Path) -> None:
    (root / "a").write_text("1")
    host = watch()
    (root / "a").write_text("22")
    host.expect(root / "a", "modified", channel="event")
    host.sweep()
    host.read_all()
    host.stop()
    host.start()
    told = host.found(root / "a")
    assert all(item.changed == ("ctime_ns",) for item in told[1:])
    assert len([item for item in told if "sha256" in item.changed]) == 1


def test_blake3_beside_sha256_finds_the_same_and_takes_over_an_older_baseline(watch: Watch, root: Path) -> None:
    pytest.importorskip("blake3", reason="the package blake3 is optional and not installed")
    (root / "small").write_text("original")
    (root / "large").write_bytes(bytes(3 << 20))
    host = watch()
    host.stop()
    host.options = replace(host.options, rolling_hash="blake3")
    host.start()
    host.read_all()
    assert host.changes == [], "the same content under one more hash is no change"
    host.read_all()
    for name in ("small", "large"):
        with (root / name).open("r+b") as handle:
            handle.write(b"0")
        assert "sha256" in host.expect(root / name, "modified", channel="event").changed
    host.settle()
    host.take()
    host.read_all()
    assert host.changes == []


def test_a_change_back_to_what_was_accepted_settles_the_deviation(watch: Watch, root: Path) -> None:
    (root / "a").write_text("1")
    host = watch()
    (root / "a").write_text("22")
    host.expect(root / "a", "modified", channel="event")
    host.settle()
    assert host.store is not None
    assert [item.path for item in host.store.baseline.deviations()] == [os.fsencode(root / "a")]
    host.take()
    (root / "a").write_text("1")
    host.expect(root / "a", "modified", channel="event")
    host.settle()
    assert list(host.store.baseline.deviations()) == []


def test_a_path_that_did_not_exist_is_created_when_it_comes(watch: Watch, tmp_path: Path) -> None:
    preload = tmp_path / "ld.so.preload"
    host = watch(preload)
    preload.write_text("/tmp/evil.so")
    host.until(lambda: host.found(preload, "created"))


def test_a_start_cut_short_while_learning_leaves_no_folder_unseen(watch: Watch, root: Path) -> None:
    for number in range(1200):
        (root / f"d{number:04}").mkdir()
        (root / f"d{number:04}" / "f").write_text("1")
    host = Host(root.parent, [root])
    host.start(settle=False)
    host.poll()
    host.poll()
    host.stop()  # committed what it had, as a kill between two commits would leave it
    host.start()
    try:
        assert host.changes == []
        (root / "d1199" / "f").write_text("22")
        (root / "d0000" / "f").write_text("22")
        host.expect(root / "d1199" / "f", "modified", channel="event")
        host.expect(root / "d0000" / "f", "modified", channel="event")
    finally:
        host.stop()
