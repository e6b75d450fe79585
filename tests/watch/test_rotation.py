"""Every way a log is rotated, wiped and replaced, while the reader is up, down, and killed before it commits."""

from __future__ import annotations

import gzip
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from breachwatch.app.pipeline import gap_signal
from breachwatch.parse import event_from_gap
from breachwatch.watch.framing import Framing
from breachwatch.watch.history import History
from breachwatch.watch.lives import Lives
from breachwatch.watch.names import neighbours
from tests.watch.reader import Reader, append, numbered
from tests.watch.rotating import PACKERS, pack, rotate

MakeReader = Callable[..., Reader]


def test_a_renamed_log_is_read_to_its_end_before_the_new_one(log, read: MakeReader):
    append(log, numbered(0, 10))
    reader = read(log)
    reader.poll()
    with log.open("ab") as writer:
        rotate(log)
        append(log, numbered(20, 30))
        writer.write(b"".join(line + b"\n" for line in numbered(10, 20)))  # a daemon that has not reopened yet
        writer.flush()
        reader.drain()
    assert reader.data == numbered(0, 30)
    assert reader.reasons == []


def test_a_daemon_that_never_reopens_is_read_under_the_rotated_name(log, read: MakeReader):
    append(log, numbered(0, 3))
    reader = read(log)
    reader.poll()
    with log.open("ab") as writer:
        rotate(log)
        reader.look(60)
        writer.write(b"".join(line + b"\n" for line in numbered(3, 6)))
        writer.flush()
        reader.look(2)
    assert reader.data == numbered(0, 6)


def test_lines_added_to_a_rotated_file_that_was_given_up_come_with_the_next_rotation(log, read: MakeReader):
    append(log, numbered(0, 3))
    reader = read(log)
    reader.poll()
    old = rotate(log)
    reader.look(2, step_s=4000)
    append(old, numbered(3, 6))
    append(log, numbered(6, 9))
    reader.look(1)
    rotate(log, to="app.log.0")
    reader.drain()
    assert sorted(reader.data) == numbered(0, 9)


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_log_compressed_at_once_loses_nothing(log, read: MakeReader, suffix: str):
    append(log, numbered(0, 10))
    reader = read(log)
    reader.poll()
    append(log, numbered(10, 20))
    pack(rotate(log), suffix)
    append(log, numbered(20, 30))
    reader.drain()
    assert reader.data == numbered(0, 30)
    assert reader.reasons == []


@pytest.mark.parametrize("suffix", PACKERS)
def test_after_a_restart_reading_goes_on_inside_the_compressed_file(log, read: MakeReader, suffix: str):
    append(log, numbered(0, 10))
    reader = read(log)
    reader.poll()
    append(log, numbered(10, 20))
    pack(rotate(log), suffix)
    append(log, numbered(20, 30))
    reader.restart()
    reader.drain()
    assert reader.data == numbered(0, 30)
    assert reader.reasons == []
    assert {line.generation for line in reader.lines[:20]} == {reader.lines[0].generation}
    assert [line.offset for line in reader.lines[:20]] == [index * (len(numbered(0, 1)[0]) + 1) for index in range(20)]


def test_a_gzip_of_several_members_is_one_log(log, read: MakeReader):
    append(log, numbered(0, 4))
    reader = read(log)
    reader.poll()
    append(log, numbered(4, 8))
    old = rotate(log)
    content = old.read_bytes()
    old.with_name("app.log.1.gz").write_bytes(gzip.compress(content[:100]) + gzip.compress(content[100:]))
    old.unlink()
    reader.restart()
    reader.drain()
    assert reader.data == numbered(0, 8)


def test_a_large_archive_is_resumed_in_the_middle_after_a_kill(log, read: MakeReader):
    append(log, numbered(0, 2))
    reader = read(log)
    reader.poll()
    append(log, numbered(2, 60_000))
    pack(rotate(log))
    append(log, numbered(60_000, 60_002))
    reader.restart()
    reader.poll(budget=1 << 18)
    assert 2 < len(reader.lines) < 40_000
    taken = len(reader.lines)
    reader.restart()
    reader.drain()
    assert reader.data == numbered(0, 60_002)
    assert taken < len(reader.lines)


@pytest.mark.parametrize("style", ["plain", "gz", "delayed"])
def test_rotated_twice_while_down(log, read: MakeReader, style: str):
    append(log, numbered(0, 10))
    reader = read(log)
    reader.poll()
    append(log, numbered(10, 20))
    first = rotate(log)
    append(log, numbered(20, 30))
    first = first.rename(log.with_name("app.log.2"))
    if style in {"gz", "delayed"}:
        pack(first)
    second = rotate(log)
    if style == "gz":
        pack(second)
    append(log, numbered(30, 40))
    reader.restart()
    reader.drain()
    assert reader.unique == numbered(0, 40) == sorted(reader.data)
    assert reader.reasons == []


def test_several_renames_in_quick_succession_between_two_looks(log, read: MakeReader):
    append(log, numbered(0, 10))
    reader = read(log)
    reader.poll()
    for life in range(1, 5):
        for older in range(life - 1, 0, -1):
            log.with_name(f"app.log.{older}").rename(log.with_name(f"app.log.{older + 1}"))
        rotate(log)
        append(log, numbered(10 * life, 10 * life + 10))
    reader.drain()
    assert sorted(reader.data) == numbered(0, 50)
    assert reader.reasons == []


def test_lives_finished_before_a_restart_are_not_read_again(log, read: MakeReader):
    append(log, numbered(0, 10))
    reader = read(log)
    reader.poll()
    for life in range(1, 4):
        old = rotate(log, to=f"app.log-2026010{life}")
        append(log, numbered(10 * life, 10 * life + 10))
        reader.look(2)
        pack(old)
        reader.drain()
    reader.restart()
    reader.drain()
    rotate(log, to="app.log-20260104")
    append(log, numbered(40, 45))
    reader.drain()
    assert reader.data == numbered(0, 45)


def test_archives_from_before_the_first_start_are_left_alone(log, read: MakeReader):
    append(log, numbered(0, 5))
    pack(rotate(log, to="app.log.2"))
    append(log, numbered(5, 10))
    rotate(log)
    append(log, numbered(10, 15))
    reader = read(log)
    reader.drain()
    log.with_name("app.log.1").rename(log.with_name("app.log.2"))
    pack(log.with_name("app.log.2"), "xz")
    rotate(log)
    append(log, numbered(15, 20))
    reader.drain()
    assert reader.data == numbered(10, 20)


def test_another_log_with_a_similar_name_is_not_an_earlier_life(log, read: MakeReader):
    append(log, numbered(0, 5))
    reader = read(log)
    reader.poll()
    append(log.with_name("app-error.log"), [b"not ours"])
    append(log.with_name("app.log.lock"), [b"not ours"])
    append(log.with_name("apple.log.1"), [b"not ours"])
    rotate(log)
    append(log, numbered(5, 10))
    reader.drain()
    reader.restart()
    reader.drain()
    assert reader.data == numbered(0, 10)


def test_rotation_into_another_folder_while_down(log, read: MakeReader):
    olddir = log.parent / "old"
    olddir.mkdir()
    append(log, numbered(0, 5))
    reader = read(log, rotated=(str(olddir),))
    reader.poll()
    append(log, numbered(5, 10))
    log.rename(olddir / "app.log-20260105")
    append(log, numbered(10, 15))
    reader.restart()
    reader.drain()
    assert reader.data == numbered(0, 15)
    assert reader.reasons == []


def test_a_dated_name_before_the_extension_is_found_after_a_restart(log, read: MakeReader):
    append(log, numbered(0, 5))
    reader = read(log)
    reader.poll()
    append(log, numbered(5, 10))
    log.rename(log.with_name("app-20260105.log"))
    append(log, numbered(10, 15))
    reader.restart()
    reader.drain()
    assert reader.data == numbered(0, 15)


# -- copytruncate


def copytruncate(log: Path, *, lost: list[bytes] | None = None, to: str = "app.log.1") -> Path:
    copy = log.with_name(to)
    shutil.copyfile(log, copy)
    append(log, lost or [])
    os.truncate(log, 0)
    return copy


@pytest.mark.parametrize("style", ["plain", "gz"])
@pytest.mark.parametrize("is_down", [False, True])
def test_copytruncate_reads_on_in_the_copy_and_says_what_cannot_be_known(log, read: MakeReader, style, is_down):
    append(log, numbered(0, 10))
    reader = read(log)
    reader.poll()
    append(log, numbered(10, 20))
    copy = copytruncate(log, lost=numbered(90, 95))
    if style == "gz":
        pack(copy)
    append(log, numbered(20, 22))
    if is_down:
        reader.restart()
    reader.drain()
    assert sorted(reader.data) == numbered(0, 22)
    assert reader.reasons == ["copytruncate"]


def test_copytruncate_twice_while_down(log, read: MakeReader):
    append(log, numbered(0, 10))
    reader = read(log)
    reader.poll()
    append(log, numbered(10, 20))
    copytruncate(log, to="app.log.2")
    append(log, numbered(20, 30))
    copytruncate(log)
    append(log, numbered(30, 32))
    reader.restart()
    reader.drain()
    assert sorted(reader.data) == numbered(0, 32)
    assert reader.reasons == ["copytruncate"] * 2  # each cut may have lost lines


@pytest.mark.parametrize("style", ["plain", "gz"])
def test_a_cut_is_one_record_however_often_a_kill_makes_us_find_its_copy(log, read: MakeReader, style):
    append(log, numbered(0, 10))
    reader = read(log)
    reader.poll()
    for cut in (2, 1):
        append(log, numbered(10 * (3 - cut), 10 * (4 - cut)))
        copy = copytruncate(log, to=f"app.log.{cut}")
        if style == "gz":
            pack(copy)
    append(log, numbered(30, 32))
    for _ in range(4):  # killed before anything was stored
        reader.restart()
        reader.poll(commit=False)
    reader.drain()
    assert sorted(reader.unique) == numbered(0, 32)
    assert len(reader.gaps) > 2
    assert set(reader.reasons) == {"copytruncate"}
    assert len({gap_signal(gap, "web01").id for gap in reader.gaps}) == 2
    assert len({event_from_gap(gap, host="web01").id for gap in reader.gaps}) == 2


@pytest.mark.parametrize("after", [0, 3], ids=["empty again", "grown again"])
def test_a_life_that_came_and_was_cut_between_two_looks_at_an_empty_log_is_read(log, read: MakeReader, after: int):
    log.touch()
    reader = read(log)
    reader.look(30)
    append(log, numbered(0, 10))
    copytruncate(log)
    append(log, numbered(10, 10 + after))
    reader.drain()
    assert sorted(reader.data) == numbered(0, 10 + after)
    assert reader.reasons == ["copytruncate"]


def test_a_copy_that_is_just_being_made_is_not_read_as_a_new_log(log, read: MakeReader):
    append(log, numbered(0, 10))
    reader = read(log)
    reader.poll()
    shutil.copyfile(log, log.with_name("app.log.1"))
    reader.look(3)
    os.truncate(log, 0)
    append(log, numbered(10, 12))
    reader.drain()
    assert reader.data == numbered(0, 12)


def test_lines_read_after_the_copy_was_made_are_not_read_twice(log, read: MakeReader):
    append(log, numbered(0, 10))
    reader = read(log)
    reader.poll()
    shutil.copyfile(log, log.with_name("app.log.1"))
    append(log, numbered(10, 12))
    reader.poll()
    os.truncate(log, 0)
    append(log, numbered(12, 14))
    reader.drain()
    assert reader.data == numbered(0, 14)
    assert reader.reasons == ["copytruncate"]


def test_a_writer_that_keeps_its_place_after_truncation_leaves_a_hole_that_is_skipped(log, read: MakeReader):
    reader = read(log)
    with log.open("wb") as writer:
        writer.write(b"".join(line + b"\n" for line in numbered(0, 2000)))
        writer.flush()
        reader.poll()
        copytruncate(log)
        writer.write(b"".join(line + b"\n" for line in numbered(2000, 2003)))
        writer.flush()
        reader.drain()
    assert reader.data == numbered(0, 2003)
    assert sorted(reader.reasons) == ["copytruncate", "nul_run"]
    assert next(gap.lost_bytes for gap in reader.gaps if gap.reason == "nul_run") == 2000 * 40


# -- names


def test_a_glob_that_names_rotated_files_too_reads_nothing_twice(log, read: MakeReader):
    append(log, numbered(0, 10))
    reader = read(f"{log}*")
    reader.poll()
    for life in range(1, 6):
        for older in range(life - 1, 0, -1):
            log.with_name(f"app.log.{older}").rename(log.with_name(f"app.log.{older + 1}"))
        rotate(log)
        append(log, numbered(10 * life, 10 * life + 10))
        reader.look(9, step_s=2)
        if life == 3:
            reader.restart()
    reader.look(3, step_s=4000)
    reader.restart()
    reader.drain()
    assert sorted(reader.data) == numbered(0, 60)
    assert reader.reasons == []


def test_a_symlink_and_its_target_are_one_log(log, read: MakeReader):
    append(log, numbered(0, 5))
    log.with_name("zlink.log").symlink_to(log)
    reader = read(log.parent / "*.log")
    reader.drain()
    assert reader.data == numbered(0, 5)


def test_two_entries_that_name_one_file_read_it_once(log, clock):
    from breachwatch.watch.files import Claims, LogFiles, LogSpec

    append(log, numbered(0, 5))
    claims: Claims = {}
    both = [LogFiles(LogSpec(pattern=p), {}, clock=clock, claims=claims) for p in (str(log), str(log.parent))]
    pieces = [piece for files in both for piece in files.poll(1 << 20)]
    assert len(pieces) == 1
    for files in both:
        files.close()


def test_the_target_of_a_symlink_is_rotated(log, read: MakeReader):
    target = log.parent / "sub" / "real.log"
    target.parent.mkdir()
    append(target, numbered(0, 5))
    log.symlink_to(target)
    reader = read(log)
    reader.poll()
    append(target, numbered(5, 8))
    target.rename(target.with_name("real.log.1"))
    append(target, numbered(8, 10))
    reader.drain()
    assert reader.data == numbered(0, 10)


def test_a_symlink_that_points_to_a_new_file_each_day(log, read: MakeReader):
    days = [log.with_name(f"app-2026-01-0{day}.log") for day in (5, 6)]
    append(days[0], numbered(0, 5))
    log.symlink_to(days[0])
    reader = read(log)
    reader.poll()
    append(days[0], numbered(5, 7))
    append(days[1], numbered(7, 9))
    log.unlink()
    log.symlink_to(days[1])
    reader.drain()
    assert sorted(reader.data) == numbered(0, 9)


def test_a_removed_symlink_is_a_gap_and_its_target_is_read_on(log, read: MakeReader):
    target = log.parent / "sub" / "other.txt"
    target.parent.mkdir()
    append(target, numbered(0, 5))
    log.symlink_to(target)
    reader = read(log)
    reader.poll()
    log.unlink()
    append(target, numbered(5, 8))
    reader.drain()
    assert reader.data == numbered(0, 8)
    assert reader.reasons == ["vanished"]


def test_a_log_that_rotation_hides_for_seconds_after_a_restart_is_found_without_a_word(log, read: MakeReader):
    append(log, numbered(0, 10))
    reader = read(log)
    reader.poll()
    append(log, numbered(10, 15))
    hidden = log.rename(log.parent.parent / f"{log.parent.name}.hidden")
    append(log, numbered(15, 20))
    reader.restart()
    reader.look(3)
    reader.restart()  # killed again before it was found: the row is still there
    reader.look(2)
    hidden.rename(log.with_name("app.log.1"))
    pack(log.with_name("app.log.1"))
    reader.drain()
    assert sorted(reader.data) == numbered(0, 20)
    assert reader.reasons == []


def test_what_a_copy_holds_that_was_hidden_when_its_log_was_emptied_is_read(log, read: MakeReader):
    append(log, numbered(0, 10))
    reader = read(log)
    reader.poll()
    append(log, numbered(10, 15))
    hidden = log.parent.parent / f"{log.parent.name}.hidden"
    shutil.copy(log, hidden)
    os.truncate(log, 0)
    append(log, numbered(15, 20))
    reader.look(1)
    hidden.rename(log.with_name("app.log.1"))
    reader.drain()
    assert sorted(reader.data) == numbered(0, 20)
    assert reader.reasons == ["truncated"]


def test_a_life_that_was_missed_in_one_look_is_found_after_the_next_kill(log, read: MakeReader):
    append(log, numbered(0, 10))
    reader = read(log)
    reader.poll()
    pack(rotate(log, to="app.log.1"))
    reader.drain()
    append(log, numbered(10, 15))
    reader.files.close()
    hidden = log.rename(log.parent.parent / f"{log.parent.name}.hidden")  # born and rotated while down, and not seen
    append(log, numbered(15, 20))
    reader.start()
    reader.look(1)
    hidden.rename(log.with_name("app.log.2"))
    reader.restart()
    append(log, numbered(20, 25))
    reader.drain()
    assert sorted(reader.data) == numbered(0, 25)
    assert reader.reasons == []


@pytest.mark.parametrize("is_packed", [False, True])
def test_a_file_that_takes_the_name_of_the_one_that_was_found_is_not_taken_for_it(tmp_path, clock, is_packed: bool):
    lives = Lives(clock=clock, framing=Framing(), max_line_bytes=4_096)
    for number in (1, 2):
        append(tmp_path / f"app.log.{number}", numbered(number * 100, number * 100 + 50))
        if is_packed:
            pack(tmp_path / f"app.log.{number}")
    suffix = ".gz" if is_packed else ""
    paths = [tmp_path / f"app.log.{number}{suffix}" for number in (1, 2)]
    [found] = [item for item in neighbours(str(tmp_path / "app.log")) if item.path == paths[0]]
    paths[0].rename(tmp_path / "aside")  # a rotation between the look and the opening
    paths[1].rename(paths[0])
    history = History(is_known=True)
    look = lives._unwatched_packed if is_packed else lives._unwatched_plain  # between look and opening
    assert look(found, "app", history, []) is None


def test_a_copy_that_is_seconds_older_than_the_first_line_after_the_cut_is_found(log, read: MakeReader):
    append(log, numbered(0, 10))
    reader = read(log)
    reader.poll()
    append(log, numbered(10, 15))
    shutil.copy2(log, log.with_name("app.log.1"))
    pack(log.with_name("app.log.1"))
    os.truncate(log, 0)
    append(log, numbered(15, 20))
    later = log.stat().st_mtime + 5
    os.utime(log, (later, later))
    reader.drain()
    assert sorted(reader.data) == numbered(0, 20)
    assert reader.reasons == ["copytruncate"]


def test_hundreds_of_unread_archives_are_not_looked_for_one_by_one_after_each_kill(log, read: MakeReader):
    append(log, numbered(0, 10))
    reader = read(log)
    reader.poll()
    reader.files.close()
    for number in range(300):
        append(log, numbered(10 + 5 * number, 15 + 5 * number))
        pack(rotate(log, to=f"app.log.{1000 - number}"))
    for _ in range(6):  # killed again and again before it has read much
        reader.start()
        reader.poll(budget=1 << 16)
        reader.files.close()
    used = time.process_time()
    reader.start()
    assert time.process_time() - used < 5
    reader.drain()
    assert sorted(reader.unique) == numbered(0, 1_510)
    # more lives than are remembered are read again while it looks; what is stored is told by content and stays once
    assert reader.reasons == []
