"""Running a test's body where it may mount: a forked child with a mount namespace of its own."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest

CLONE_NEWNS, CLONE_NEWUSER = 0x0002_0000, 0x1000_0000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x4_0000
MNT_DETACH = 2
"""Source: linux/sched.h, linux/mount.h."""

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def enter_namespaces(*, user: bool = False) -> None:
    """Leave the mount namespace (and the user namespace) of everybody else. Only in a process of one thread."""
    uid, gid = os.getuid(), os.getgid()
    _checked(_libc.unshare(CLONE_NEWNS | (CLONE_NEWUSER if user else 0)), "unshare")
    if user:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as handle:  # noqa: PTH123
                handle.write(text)
    _checked(_libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "mount --make-rprivate /")


def mount_tmpfs(point: os.PathLike[str] | str, options: str = "") -> None:
    _checked(_libc.mount(b"tmpfs", os.fsencode(point), b"tmpfs", 0, options.encode()), f"tmpfs on {point}")


def bind(source: os.PathLike[str] | str, point: os.PathLike[str] | str) -> None:
    _checked(_libc.mount(os.fsencode(source), os.fsencode(point), None, MS_BIND, None), f"bind on {point}")


def overlay(lower: os.PathLike[str], upper: os.PathLike[str], work: os.PathLike[str], point: os.PathLike[str]) -> None:
    options = f"lowerdir={os.fspath(lower)},upperdir={os.fspath(upper)},workdir={os.fspath(work)}".encode()
    _checked(_libc.mount(b"overlay", os.fsencode(point), b"overlay", 0, options), f"overlay on {point}")


def unmount(point: os.PathLike[str] | str) -> None:
    _checked(_libc.umount2(os.fsencode(point), MNT_DETACH), f"umount {point}")


def child(body: Callable[[], None]) -> tuple[int, str]:
    """(exit code, traceback) of `body` in a forked process: 0 it held, 1 it failed, 77 it may not mount here."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(read_end)
            signal.alarm(120)
            body()
            code = 0
        except pytest.skip.Exception as skipped:
            os.write(write_end, str(skipped).encode())
            code = 77
        except BaseException:  # noqa: BLE001  # the parent raises it again
            os.write(write_end, traceback.format_exc().encode("utf-8", "backslashreplace")[-60_000:])
        finally:
            sys.stdout.flush()
            os._exit(code)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        told = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), told


def may_mount() -> None:
    """Enter a mount namespace, or skip saying why."""
    try:
        enter_namespaces(user=os.geteuid() != 0)
    except OSError as error:
        pytest.skip(f"no mount namespace for this account here: {error}")


def in_mount_namespace(test: Callable[..., None]) -> Callable[..., None]:
    """The whole test in a child with a mount namespace of its own. Give it paths, not fixtures that hold threads."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        def body() -> None:
            may_mount()
            test(*arguments, **named)

        code, told = child(body)
        if code == 77:
            pytest.skip(told)
        assert code == 0, told or f"the child ended with {code}"

    return run
