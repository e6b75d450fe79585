"""Who wrote: the process behind a change, where kernel and privileges allow."""

from __future__ import annotations

import os
import pwd
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breachwatch.watch.integrity.fanotify import MAX_WRITERS, Marks, Writers, parse_events, who
from tests.watch.integrity.host import Host
from tests.watch.integrity.namespaces import child

Watch = Callable[..., Host]


@pytest.fixture
def hears(root: Path) -> None:
    """Skip where the kernel or the account does not allow it."""
    try:
        Marks([os.fsencode(root)]).close()
    except OSError as error:
        pytest.skip(f"no fanotify for this account here: {error}")


WRITE = "import os, sys; open(sys.argv[1], 'w').write('evil'); print(os.getpid(), flush=True); sys.stdin.read()"


@pytest.mark.usefixtures("hears")
def test_a_change_names_the_process_that_made_it(watch: Watch, root: Path) -> None:
    (root / "d").mkdir()
    (root / "d" / "a").write_text("original")
    host = watch(fanotify=True)
    command = [sys.executable, "-c", WRITE, str(root / "d" / "a")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert int(writer.stdout.readline()) == writer.pid
        change = host.expect(root / "d" / "a", "modified", channel="event")
        assert change.writer is not None
        assert change.writer.pid == writer.pid
        assert change.writer.executable == os.path.realpath(sys.executable)
        assert change.writer.user == pwd.getpwuid(os.getuid()).pw_name
        writer.communicate()


@pytest.mark.usefixtures("hears")
def test_folders_that_move_are_known_by_their_new_name(watch: Watch, root: Path) -> None:
    (root / "a").mkdir()
    (root / "a" / "f").write_text("1")
    host = watch(fanotify=True)
    (root / "a" / "f").write_text("22")
    host.until(lambda: host.found(root / "a" / "f", "modified"))
    subprocess.run(["mv", root / "a", root / "b"], check=True)
    host.until(lambda: host.found(root / "b" / "f", "created"))
    host.settle()
    done = subprocess.run(["sh", "-c", f"echo 333 > {root}/b/f"], check=True)
    assert done.returncode == 0
    change = host.expect(root / "b" / "f", "modified", channel="event")
    assert change.writer is not None


def test_without_the_privilege_that_is_told_and_files_are_watched_all_the_same(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    host = Host(tmp_path, [root], fanotify=True)

    def body() -> None:
        if os.geteuid() == 0:
            drop_sys_admin()
        host.start()
        try:
            host.expect_gap("writers_unknown")
            (root / "a").write_text("1")
            host.expect(root / "a", "created", channel="event")
        finally:
            host.stop()

    code, told = child(body)
    if code == 77:
        pytest.skip(told)
    assert code == 0, told


def drop_sys_admin() -> None:
    """Give up CAP_SYS_ADMIN in this process. Source: capset(2), linux/capability.h."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = struct.pack("=Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
    assert libc.capget(header, sets) == 0
    words = list(struct.unpack("=6I", sets.raw))
    for index in range(3):
        words[index] &= ~(1 << 21)
    if libc.capset(header, struct.pack("=6I", *words)) != 0:
        pytest.skip("this account cannot give up a capability")


@given(st.binary(max_size=400))
def test_any_bytes_are_parsed_without_failing(data: bytes) -> None:
    for _mask, _pid, handle, name in parse_events(data):
        assert len(handle) + len(name) <= len(data)


def test_writers_are_bounded_and_given_once() -> None:
    writers = Writers()
    for number in range(MAX_WRITERS + 10):
        writers.note(b"/%d" % number, who(os.getpid()))
    assert writers.writer_of(b"/5") is None
    assert writers.writer_of(b"/100") is not None
    assert writers.writer_of(b"/100") is None


def test_of_a_process_that_has_ended_only_the_number_is_known() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    told = who(process.pid)
    assert (told.pid, told.executable, told.user) == (process.pid, "", "")
