"""Evasions by what is done to a file: cases 1 to 6, 9 to 12, 19, 20 and 26 of the list. Each: verdict and channel.

`event` is a kernel hint, `sweep` the metadata pass, `content` the reading of everything. A case that the kernel tells
nothing about is found by the sweep and by nothing else, which is what its test asserts.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.watch.integrity.host import Host
from tests.watch.integrity.namespaces import in_mount_namespace, mount_tmpfs

Watch = Callable[..., Host]

FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
FS_IMMUTABLE_FL, FS_APPEND_FL = 0x10, 0x20
AT_FDCWD, RENAME_EXCHANGE = -100, 2

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="chattr, chown and file capabilities take root")


def set_flags(path: Path, flags: int) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        now = struct.unpack("<q", fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, bytes(8)))[0]
        kept = now & ~(FS_IMMUTABLE_FL | FS_APPEND_FL)
        fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("<q", kept | flags))
    finally:
        os.close(descriptor)


def with_old_times(path: Path, act: Callable[[], object]) -> None:
    before = path.stat()
    act()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def edit_in_place(path: Path, content: bytes) -> None:
    with path.open("r+b") as handle:
        handle.write(content)


def test_evasion_1_touch_back_after_an_edit_is_found_by_event(watch: Watch, root: Path) -> None:
    (root / "a").write_text("original")
    host = watch()
    with_old_times(root / "a", lambda: (root / "a").write_text("changed!!"))
    assert "sha256" in host.expect(root / "a", "modified", channel="event").changed


def test_evasion_1_touch_back_while_nothing_ran_is_found_by_sweep(watch: Watch, root: Path) -> None:
    (root / "a").write_text("original")
    host = watch()
    host.stop()
    with_old_times(root / "a", lambda: (root / "a").write_text("changed!!"))
    host.start()
    assert "sha256" in host.expect(root / "a", "modified", channel="sweep").changed


def test_evasion_2_same_size_in_place_edit_with_the_old_time_is_found_by_event(watch: Watch, root: Path) -> None:
    (root / "a").write_text("original")
    host = watch()
    with_old_times(root / "a", lambda: edit_in_place(root / "a", b"0riginal"))
    change = host.expect(root / "a", "modified", channel="event")
    assert "sha256" in change.changed
    assert not {"size", "mtime_ns", "inode"} & set(change.changed)


def test_evasion_2_same_size_in_place_edit_with_the_old_time_is_found_by_sweep(watch: Watch, root: Path) -> None:
    (root / "a").write_text("original")
    host = watch()
    host.stop()
    with_old_times(root / "a", lambda: edit_in_place(root / "a", b"0riginal"))
    host.start()
    change = host.expect(root / "a", "modified", channel="sweep")
    assert not {"size", "mtime_ns", "inode"} & set(change.changed)


@pytest.mark.parametrize("rolling_hash", ["sha256", "blake3"])
@in_mount_namespace
def test_evasion_3_an_edit_that_no_time_shows_is_found_by_reading(tmp_path: Path, rolling_hash: str) -> None:
    if rolling_hash == "blake3":
        pytest.importorskip("blake3", reason="the package blake3 is optional and not installed")
    # A clock set back gives an old change time. tmpfs goes further: a mapped page that was made writable before the
    # baseline is changed without any time, size or event, as a raw write to the disk would be.
    root = tmp_path / "root"
    root.mkdir()
    mount_tmpfs(root)
    (root / "a").write_bytes(b"original")
    with (root / "a").open("r+b") as handle, mmap.mmap(handle.fileno(), 8) as pages:
        pages[:8] = b"original"
        host = Host(tmp_path, [root], rolling_hash=rolling_hash)
        host.start()
        host.age()
        try:
            before = (root / "a").stat()
            pages[:8] = b"0riginal"
            assert (root / "a").read_bytes() == b"0riginal"
            after = (root / "a").stat()
            assert (before.st_ctime_ns, before.st_mtime_ns) == (after.st_ctime_ns, after.st_mtime_ns)
            host.quiet()
            host.sweep()
            assert host.changes == [], "no metadata differ: the sweep cannot see it"
            host.read_all()
            assert host.expect(root / "a", "modified", channel="content").changed == ("sha256",)
        finally:
            host.stop()


def test_evasion_4_a_file_renamed_over_from_outside_is_found_by_event(watch: Watch, root: Path, tmp_path: Path) -> None:
    (root / "a").write_text("original")
    (tmp_path / "evil").write_text("0riginal")
    host = watch()
    (tmp_path / "evil").rename(root / "a")
    assert {"inode", "sha256"} <= set(host.expect(root / "a", "replaced", channel="event").changed)


def test_evasion_5_an_edit_through_a_hard_link_outside_is_found_by_sweep(
    watch: Watch, root: Path, tmp_path: Path
) -> None:
    (root / "a").write_text("original")
    os.link(root / "a", tmp_path / "outside")
    host = watch()
    edit_in_place(tmp_path / "outside", b"0riginal")
    host.sweep()
    assert "sha256" in host.expect(root / "a", "modified", channel="sweep").changed


def test_evasion_6_one_more_link_to_a_setuid_file_is_found_by_sweep(watch: Watch, root: Path, tmp_path: Path) -> None:
    (root / "su").write_text("x")
    (root / "su").chmod(0o4755)
    host = watch()
    os.link(root / "su", tmp_path / "kept")
    host.sweep()
    change = host.expect(root / "su", "attributes", channel="sweep")
    assert "nlink" in change.changed
    assert change.severity == "high"


@pytest.fixture
def unflagged(root: Path) -> Iterator[Path]:
    (root / "a").write_text("x")
    try:
        set_flags(root / "a", 0)
    except OSError as error:
        pytest.skip(f"this file system has no inode flags: {error}")
    yield root / "a"
    set_flags(root / "a", 0)


@needs_root
@pytest.mark.parametrize("flag", [FS_IMMUTABLE_FL, FS_APPEND_FL], ids=["immutable", "append-only"])
@pytest.mark.parametrize("was", [False, True], ids=["set", "cleared"])
def test_evasion_9_chattr_is_found_by_sweep(watch: Watch, unflagged: Path, flag: int, *, was: bool) -> None:
    if was:
        set_flags(unflagged, flag)
    host = watch()
    set_flags(unflagged, 0 if was else flag)
    host.sweep()
    change = host.expect(unflagged, "attributes", channel="sweep")
    assert "flags" in change.changed
    assert change.severity == "high"


ACL_OF_ONE_MORE_USER = struct.pack(
    "<I" + "HHI" * 5, 2, 1, 6, 0xFFFFFFFF, 2, 7, 1234, 4, 4, 0xFFFFFFFF, 0x10, 7, 0xFFFFFFFF, 0x20, 4, 0xFFFFFFFF
)
"""user::rw-, user:1234:rwx, group::r--, mask::rwx, other::r--. Source: linux/posix_acl_xattr.h."""

CAP_SETUID_EFFECTIVE = struct.pack("<IIIII", 0x0200_0001, 1 << 7, 0, 0, 0)
"""Source: linux/capability.h, VFS_CAP_REVISION_2."""


@needs_root
@pytest.mark.parametrize(
    ("attribute", "value", "name"),
    [
        ("user.note", b"x", "xattrs"),
        ("security.capability", CAP_SETUID_EFFECTIVE, "capabilities"),
        ("system.posix_acl_access", ACL_OF_ONE_MORE_USER, "acl"),
        ("security.selinux", b"system_u:object_r:shadow_t:s0\0", "selinux"),
    ],
    ids=["xattr", "capability", "acl", "selinux"],
)
def test_evasion_10_a_label_is_found_by_event(
    watch: Watch, root: Path, attribute: str, value: bytes, name: str
) -> None:
    (root / "a").write_text("x")
    host = watch()
    try:
        os.setxattr(root / "a", attribute, value)
    except OSError as error:
        pytest.skip(f"{attribute} cannot be set on this file system: {error}")
    change = host.expect(root / "a", "attributes", channel="event")
    assert name in change.changed
    assert change.severity == {"capabilities": "high", "acl": "medium", "selinux": "medium"}.get(name, "low")


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o666], ids=["setuid", "setgid", "world-writable"])
def test_evasion_11_a_dangerous_mode_is_found_by_event(watch: Watch, root: Path, mode: int) -> None:
    (root / "a").write_text("x")
    (root / "a").chmod(0o644)
    host = watch()
    (root / "a").chmod(mode)
    change = host.expect(root / "a", "attributes", channel="event")
    assert "mode" in change.changed
    assert change.severity == "high"


def test_evasion_19_a_mapped_writer_that_never_closes_is_found_by_sweep(watch: Watch, root: Path) -> None:
    (root / "a").write_bytes(b"original")
    host = watch()
    with (root / "a").open("r+b") as handle:
        pages = mmap.mmap(handle.fileno(), 8)
    host.quiet()  # the close of the descriptor is a hint, but nothing has changed yet
    host.take()
    pages[0:1] = b"0"
    try:
        host.sweep()
        assert "sha256" in host.expect(root / "a", "modified", channel="sweep").changed
    finally:
        pages.close()


def exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) != 0:
        pytest.skip(f"this file system has no RENAME_EXCHANGE: {os.strerror(ctypes.get_errno())}")


def test_evasion_20_an_exchange_and_its_undoing_are_found_by_event(watch: Watch, root: Path) -> None:
    (root / "good").write_text("good")
    (root / "evil").write_text("evil")
    host = watch()
    exchange(root / "good", root / "evil")
    assert {"inode", "sha256"} <= set(host.expect(root / "good", "replaced", channel="event").changed)
    host.expect(root / "evil", "replaced", channel="event")
    host.settle()
    host.take()
    exchange(root / "good", root / "evil")
    back = host.expect(root / "good", "replaced", channel="event")
    assert back.after is not None
    assert back.after.size == 4
    host.settle()
    assert host.store is not None
    assert list(host.store.baseline.deviations()) == [], "all is as it was accepted"


def test_evasion_20_an_exchange_that_is_undone_at_once_is_still_told(watch: Watch, root: Path) -> None:
    (root / "good").write_text("good")
    (root / "evil").write_text("evil")
    host = watch()
    host.age()
    exchange(root / "good", root / "evil")
    exchange(root / "good", root / "evil")
    host.until(lambda: host.found(root / "good"))
    assert host.found(root / "good")[0].channel == "event"


SCRIBBLE = """
import os, sys
file = os.open(sys.argv[1], os.O_WRONLY)
while True:
    os.pwrite(file, os.urandom(8), 4096)
"""


def test_evasion_26_a_file_that_changes_while_it_is_hashed_is_unstable_and_then_judged(
    watch: Watch, root: Path
) -> None:
    (root / "a").write_bytes(bytes(48 << 20))
    host = watch()
    writer = subprocess.Popen([sys.executable, "-c", SCRIBBLE, root / "a"])
    try:
        assert host.expect_gap("unstable", root / "a").detail
        host.until(lambda: host.found(root / "a", "modified"))
    finally:
        writer.kill()
        writer.wait()
    host.until(lambda: any("sha256" in item.changed for item in host.found(root / "a")))
    host.settle()
    host.sweep()
    assert host.integrity is not None
    assert host.integrity.coverage.percent == 100.0
