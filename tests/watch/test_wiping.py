"""Logs that are wiped, cut, rewritten, replaced or taken away: said, and nothing beside it lost or repeated."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest

from breachwatch.app.pipeline import Pipeline, SourceFormat
from breachwatch.app.rules import rules_in
from breachwatch.detect.engine import Detector
from breachwatch.model import Gap
from tests.conftest import ROOT
from tests.watch.reader import Reader, append, numbered
from tests.watch.rotating import pack, rotate

MakeReader = Callable[..., Reader]


def test_a_wiped_log_is_a_gap_and_its_new_lines_are_read(log, read: MakeReader):
    append(log, numbered(0, 10))
    reader = read(log)
    reader.poll()
    os.truncate(log, 0)
    append(log, numbered(10, 12))
    reader.look(2)
    assert reader.data == numbered(0, 12)
    assert reader.reasons == ["truncated"]


def test_a_log_wiped_and_regrown_while_down_is_a_gap(log, read: MakeReader):
    append(log, numbered(0, 10))
    reader = read(log)
    reader.poll()
    os.truncate(log, 0)
    append(log, numbered(50, 90))
    reader.restart()
    reader.look(2)
    assert reader.data == numbered(0, 10) + numbered(50, 90)
    assert reader.reasons == ["rewritten"]


def test_a_log_truncated_and_rewritten_to_the_same_size_is_seen_when_it_grows(log, read: MakeReader):
    append(log, numbered(0, 10))
    reader = read(log)
    reader.poll()
    log.write_bytes(b"".join(line + b"\n" for line in numbered(20, 30)))
    append(log, numbered(30, 31))
    reader.look(2)
    assert reader.data == numbered(0, 10) + numbered(20, 31)
    assert reader.reasons == ["rewritten"]


def test_lines_cut_out_in_place_are_a_gap_and_nothing_is_reported_again(log, read: MakeReader):
    append(log, numbered(0, 100))
    reader = read(log)
    reader.poll()
    content = log.read_bytes()
    log.write_bytes(content[: 40 * 30] + content[40 * 60 :])
    reader.look(2)
    append(log, numbered(100, 103))
    reader.look(2)
    assert reader.reasons[0] in {"truncated", "rewritten"}
    assert reader.unique[-3:] == numbered(100, 103)


@pytest.mark.parametrize("is_down", [False, True])
def test_an_editor_that_removes_lines_and_replaces_the_file_is_a_gap(log, read: MakeReader, is_down: bool):
    append(log, numbered(0, 100))
    reader = read(log)
    reader.poll()
    fresh = log.with_name("sedA1b2C3")
    content = log.read_bytes()
    fresh.write_bytes(content[: 40 * 30] + content[40 * 60 :])
    fresh.rename(log)
    append(log, numbered(100, 103))
    if is_down:
        reader.restart()
    reader.look(3)
    assert reader.reasons == ["rewritten"]
    assert reader.data == numbered(0, 103)


def test_a_file_replaced_by_an_equal_copy_goes_on_without_a_word(log, read: MakeReader):
    append(log, numbered(0, 20))
    reader = read(log)
    reader.poll()
    shutil.copyfile(log, log.with_name("x"))
    log.with_name("x").rename(log)
    append(log, numbered(20, 23))
    reader.look(3)
    assert (reader.data, reader.reasons) == (numbered(0, 23), [])


@pytest.mark.parametrize("reason", ["truncated", "rewritten", "vanished", "copytruncate", "nul_run"])
def test_the_shipped_rules_make_every_gap_of_a_log_a_match(clock, reason):
    rules = rules_in([ROOT / "rules" / "logs"])
    pipeline = Pipeline(host="web01", detector=Detector(rules), now=clock.now)
    gap = Gap(source="/var/log/auth.log", reason=reason, at_utc=clock.now())
    assert [match for _, matches in pipeline.matches(gap, SourceFormat()) for match in matches]


def test_a_deleted_log_is_a_gap(log, read: MakeReader):
    append(log, numbered(0, 10))
    reader = read(log)
    reader.poll()
    log.unlink()
    reader.drain()
    assert reader.reasons == ["vanished"]


def test_a_log_moved_out_of_the_folder_is_a_gap_and_is_read_on(log, read: MakeReader, tmp_path_factory):
    append(log, numbered(0, 10))
    reader = read(log)
    reader.poll()
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "x"
    log.rename(elsewhere)
    append(elsewhere, numbered(10, 12))
    reader.drain()
    assert reader.reasons == ["vanished"]
    assert reader.data == numbered(0, 12)


def test_rotation_without_create_is_no_gap(log, read: MakeReader):
    append(log, numbered(0, 10))
    reader = read(log)
    reader.poll()
    pack(rotate(log, create=False))
    reader.drain()
    assert reader.reasons == []
    append(log, numbered(10, 12))
    reader.drain()
    reader.restart()
    reader.drain()
    assert reader.data == numbered(0, 12)
    assert reader.reasons == []


@pytest.mark.parametrize("is_down", [False, True])
def test_a_path_recreated_with_a_reused_inode_is_a_new_log(log, read: MakeReader, is_down: bool):
    append(log, numbered(0, 10))
    reader = read(log)
    reader.poll()
    if is_down:
        reader.files.close()  # an open descriptor keeps the number from being used again
    inode = log.stat().st_ino
    log.unlink()
    append(log, numbered(50, 70))
    if is_down:
        reader.start()
        if log.stat().st_ino != inode:
            pytest.skip("this file system did not use the inode number again")
    reader.drain()
    assert reader.data == numbered(0, 10) + numbered(50, 70)
    assert reader.reasons == (["vanished"] if is_down else [])


def test_a_log_compressed_while_down_whose_inode_number_went_to_the_new_one_is_no_gap(log, read: MakeReader):
    append(log, numbered(0, 10))
    reader = read(log)
    reader.poll()
    reader.files.close()
    append(log, numbered(10, 20))
    inode = log.stat().st_ino
    pack(rotate(log, create=False))
    append(log, numbered(20, 30))
    reader.start()
    reader.drain()
    assert reader.data == numbered(0, 30)
    if log.stat().st_ino != inode:
        pytest.skip("this file system did not use the inode number again")
    assert reader.reasons == []


def test_a_log_that_disappeared_while_down_with_unread_lines_is_a_gap(log, read: MakeReader):
    append(log, numbered(0, 10))
    reader = read(log)
    reader.poll()
    append(log, numbered(10, 12))
    log.unlink()
    reader.restart()
    reader.drain()
    assert reader.reasons == ["vanished"]
    assert reader.rows == {}
