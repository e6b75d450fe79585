"""Which files are read, from where, and what happens to the many, the hidden, the forbidden and the odd ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.watch.reader import Reader, append, numbered

MakeReader = Callable[..., Reader]


def test_a_file_that_is_there_at_the_first_start_is_read_from_its_head(log, read: MakeReader):
    append(log, numbered(0, 10))
    assert read(log).poll() == numbered(0, 10)


def test_a_file_that_is_there_at_the_first_start_is_read_from_its_end_if_so_asked(log, read: MakeReader):
    append(log, numbered(0, 10))
    with log.open("ab") as file:
        file.write(b"half a ")
    reader = read(log, from_start=False)
    assert reader.poll() == []
    append(log, [b"line", *numbered(10, 12)])
    assert reader.look() == [b"half a line", *numbered(10, 12)]


def test_a_file_that_comes_later_is_read_from_its_head_whatever_was_asked(log, read: MakeReader):
    reader = read(log.with_name("*.log"), from_start=False)
    reader.poll()
    append(log, numbered(0, 10))
    assert reader.look() == numbered(0, 10)


def test_a_restart_goes_on_where_it_stopped(log, read: MakeReader):
    append(log, numbered(0, 10))
    reader = read(log)
    reader.poll()
    append(log, numbered(10, 20))
    reader.restart()
    assert reader.look(2) == numbered(10, 20)


def test_a_restart_after_a_plain_rename_follows_the_file(log, read: MakeReader):
    append(log, numbered(0, 10))
    reader = read(log)
    reader.poll()
    append(log, numbered(10, 20))
    log.rename(log.with_name("app.log.1"))
    append(log, numbered(20, 30))
    reader.restart()
    reader.drain()
    assert (reader.data, reader.reasons) == (numbered(0, 30), [])


def test_a_folder_that_is_missing_at_the_start_is_read_when_it_comes(tmp_path, read: MakeReader):
    log = tmp_path / "later" / "deep" / "app.log"
    reader = read(log)
    glob = read(tmp_path / "later" / "*" / "*.log")
    reader.look(2)
    assert glob.look(2) == []
    log.parent.mkdir(parents=True)
    append(log, numbered(0, 5))
    assert reader.look(2) == numbered(0, 5)
    assert glob.look(2) == numbered(0, 5)
    assert reader.gaps == []


def test_a_folder_removed_and_made_again_is_followed(tmp_path, read: MakeReader):
    log = tmp_path / "gone" / "app.log"
    log.parent.mkdir()
    append(log, numbered(0, 5))
    reader = read(log)
    reader.poll()
    log.unlink()
    log.parent.rmdir()
    reader.drain()
    log.parent.mkdir()
    append(log, numbered(5, 9))
    reader.look(2)
    assert reader.data == numbered(0, 9)
    assert reader.reasons == ["vanished"]


def test_globs_are_recursive_only_where_two_stars_say_so(tmp_path, read: MakeReader):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for place in ("x.log", "a/x.log", "a/b/x.log"):
        append(tmp_path / place, [place.encode()])
    assert read(tmp_path / "*.log").poll() == [b"x.log"]
    assert sorted(read(tmp_path / "**" / "*.log").poll()) == [b"a/b/x.log", b"a/x.log", b"x.log"]
    assert read(tmp_path / "a").poll() == [b"a/x.log"]


def test_excluded_names_and_paths_are_left_out(tmp_path, read: MakeReader):
    for name in ("a.log", "debug.log", "b.log"):
        append(tmp_path / name, [name.encode()])
    reader = read(tmp_path / "*.log", exclude=("debug*", str(tmp_path / "b.log")))
    assert reader.poll() == [b"a.log"]


@contextmanager
def without_privileges() -> Iterator[None]:
    """As an account that may not read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_log_without_permission_is_a_gap_once_and_is_read_when_it_is_restored(log, read: MakeReader):
    append(log, numbered(0, 5))
    log.chmod(0)
    for folder in (log.parent, log.parent.parent, log.parent.parent.parent):
        folder.chmod(folder.stat().st_mode | 0o055)
    reader = read(log)
    with without_privileges():
        reader.look(5)
        assert (reader.data, reader.reasons) == ([], ["unreadable"])
    log.chmod(0o644)
    with without_privileges():
        reader.look(2)
    assert (reader.data, reader.reasons) == (numbered(0, 5), ["unreadable"])


def test_a_log_without_permission_after_a_restart_goes_on_where_it_stopped(log, read: MakeReader):
    append(log, numbered(0, 5))
    for folder in (log.parent, log.parent.parent, log.parent.parent.parent):
        folder.chmod(folder.stat().st_mode | 0o055)
    reader = read(log)
    reader.poll()
    append(log, numbered(5, 9))
    log.chmod(0)
    with without_privileges():
        reader.restart()
        reader.look(3)
    assert reader.data == numbered(0, 5)
    log.chmod(0o644)
    with without_privileges():
        reader.look(3)
    assert (reader.data, reader.reasons) == (numbered(0, 9), ["unreadable"])


@pytest.mark.parametrize("kind", ["fifo", "folder", "loop", "dangling"])
def test_what_is_no_regular_file_never_blocks_and_is_said(log, read: MakeReader, kind: str):
    match kind:
        case "fifo":
            os.mkfifo(log)
        case "folder":
            log.mkdir()
        case "loop":
            log.symlink_to(log)
        case "dangling":
            log.symlink_to(log.with_name("nowhere"))
    other = log.with_name("other.log")
    append(other, [b"beside"])
    reader = read(log.with_name("*.log"))
    reader.look(2)
    assert reader.data == [b"beside"]
    assert reader.reasons == (["unreadable"] if kind in {"fifo", "loop"} else [])


def test_names_that_are_no_text_are_read_and_shown_escaped(tmp_path, read: MakeReader):
    odd = [b"caf\xe9.log", b"line\nfeed.log", b"star*.log", "tiếng việt.log".encode()]
    for name in odd:
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:  # noqa: PTH123  # a name of bytes
            file.write(name.replace(b"\n", b"_") + b"\n")
    reader = read(tmp_path / "*.log")
    assert sorted(reader.poll()) == sorted(name.replace(b"\n", b"_") for name in odd)
    assert any(line.source.endswith("caf\\xe9.log") for line in reader.lines)
    reader.restart()
    assert reader.look(3) == []


def test_files_that_begin_alike_are_told_apart(tmp_path, read: MakeReader):
    banner = [b"# the same first line of every file"] * 20
    for name in ("a.log", "b.log", "c.log"):
        append(tmp_path / name, [*banner, name.encode()])
    reader = read(tmp_path / "*.log")
    reader.poll()
    append(tmp_path / "b.log", [b"more b"])
    reader.restart()
    reader.drain()
    assert [line.source[-5:] for line in reader.lines if line.data == b"more b"] == ["b.log"]
    assert (len(reader.data), reader.reasons) == (3 * 21 + 1, [])


def test_a_rotated_log_that_begins_like_its_successor_is_told_apart(log, read: MakeReader):
    banner = [b"# log opened"] * 60
    append(log, banner)
    reader = read(log)
    reader.poll()
    log.rename(log.with_name("app.log.1"))
    append(log, [*banner, b"new"])
    reader.drain()
    reader.restart()
    reader.drain()
    assert len(reader.data) == 60 + 61
    assert reader.reasons == []


def test_an_editor_that_keeps_a_backup_is_no_rotation(log, read: MakeReader):
    append(log, numbered(0, 100))
    reader = read(log)
    reader.poll()
    content = log.read_bytes()
    log.rename(log.with_name("app.log.bak"))
    log.write_bytes(content[: 40 * 30] + content[40 * 60 :])
    reader.drain()
    assert (reader.data, reader.reasons) == (numbered(0, 100), ["rewritten"])


def test_files_smaller_than_a_fingerprint_are_recognised(log, read: MakeReader):
    append(log, [b"x"])
    reader = read(log)
    reader.poll()
    for number in range(40):
        append(log, [b"%d" % number])
        reader.restart()
        reader.look()
    assert reader.data == [b"x", *(b"%d" % number for number in range(40))]
    assert reader.reasons == []


def test_an_empty_file_is_no_news(log, read: MakeReader):
    log.touch()
    reader = read(log)
    reader.look(3)
    reader.restart()
    append(log, [b"first"])
    reader.look(3)
    assert (reader.data, reader.reasons) == ([b"first"], [])


def test_a_log_that_was_quiet_for_a_year_is_read_on(log, read: MakeReader, clock):
    append(log, numbered(0, 3))
    reader = read(log)
    reader.drain()
    os.utime(log, (0, 0))
    clock.advance(365 * 86_400)
    reader.drain()
    append(log, numbered(3, 6))
    assert reader.look() == numbered(3, 6)
    assert reader.reasons == []


def test_one_huge_file_starves_no_other(tmp_path, read: MakeReader):
    append(tmp_path / "a.log", [b"x" * 99] * 200_000)
    for name in ("b.log", "c.log"):
        append(tmp_path / name, [b"little"])
    reader = read(tmp_path / "*.log")
    first = reader.poll(budget=1 << 18)
    assert first.count(b"little") == 2
    assert len(first) < 20_000


def test_two_thousand_files_are_read_and_only_what_is_new_after_a_restart(tmp_path, read: MakeReader):
    paths = [tmp_path / f"{number:04d}.log" for number in range(2_000)]
    for path in paths:
        append(path, [path.name.encode()])
    reader = read(tmp_path / "*.log")
    reader.look(3)
    assert sorted(reader.data) == [path.name.encode() for path in paths]
    reader.restart()
    append(paths[1_234], [b"new"])
    assert reader.look(3) == [b"new"]
    assert reader.reasons == []


def test_many_logs_that_rotate_all_the_time_lose_nothing(tmp_path, read: MakeReader):
    logs = [tmp_path / f"app{number}.log" for number in range(30)]
    reader = read(tmp_path / "app*.log")
    for turn in range(12):
        for number, log in enumerate(logs):
            append(log, [b"%02d %03d %d" % (number, turn, line) for line in range(3)])
            if (turn + number) % 2 == 0:
                os.replace(log, f"{log}.1")  # noqa: PTH105  # over the earlier one, as `rotate 1` does
        reader.files.hint()  # as the kernel does
        reader.look(1, 0.3)
        if turn % 4 == 3:
            reader.restart()
    reader.drain()
    assert sorted(set(reader.data)) == sorted(
        b"%02d %03d %d" % (number, turn, line) for number in range(30) for turn in range(12) for line in range(3)
    )
    assert len(reader.unique) == len(reader.data)


def test_rows_of_lives_that_ended_are_dropped(log, read: MakeReader):
    reader = read(log)
    for number in range(40):
        append(log, numbered(number, number + 1))
        reader.look(2)
        for old in range(3, 0, -1):
            older = Path(f"{log}.{old}")
            if older.exists():
                older.rename(f"{log}.{old + 1}")
        Path(f"{log}.4").unlink(missing_ok=True)
        log.rename(f"{log}.1")
        log.touch()
    reader.drain()
    assert reader.data == numbered(0, 40)
    assert len(reader.rows) <= 6


def test_logs_that_the_kernel_names_are_read_at_once_and_all_others_within_a_round(tmp_path, read: MakeReader, clock):
    logs = [tmp_path / f"{number}.log" for number in range(3)]
    for log in logs:
        append(log, [b"begin"])
    reader = read(tmp_path / "*.log")
    reader.look(2)
    for log in logs:
        append(log, [log.name.encode()])
    reader.files.grew({str(logs[1]), str(tmp_path / "unknown.log")})
    assert reader.poll() == [b"1.log"]
    reader.files.grew(set())
    assert reader.poll() == []
    clock.advance(0.6)
    reader.files.grew(set())
    assert sorted(reader.poll()) == [b"0.log", b"2.log"]


def test_a_log_that_was_not_read_to_its_end_is_read_on_though_the_kernel_names_another(tmp_path, read: MakeReader):
    append(tmp_path / "large.log", [b"x" * 99] * 20_000)
    append(tmp_path / "other.log", [b"begin"])
    reader = read(tmp_path / "*.log")
    first = reader.poll(budget=1 << 17)
    assert len(first) < 20_000
    while len(reader.data) < 20_001:
        before = len(reader.data)
        reader.files.grew({str(tmp_path / "other.log")})
        reader.poll(budget=1 << 17)
        assert len(reader.data) > before
