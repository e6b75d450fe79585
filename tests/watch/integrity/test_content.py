"""Lines that differ are shown, secrets are not; and a change says no more than its size allows."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breachwatch.watch.integrity.content import (
    MASK,
    MAX_DIFF_CHARS,
    MAX_LINE_CHARS,
    MAX_TEXT_BYTES,
    Contents,
    difference,
    masked,
)
from tests.watch.integrity.host import Host

Watch = Callable[..., Host]

SECRETS = (
    "password = hunter2secret",
    "PASSWORD=hunter2secret",
    'db_password: "hunter2secret"',
    "bindpw hunter2secret",
    "api-key = hunter2secret",
    "  secret_access_key = hunter2secret",
    "url = postgresql://app:hunter2secret@db/shop",
    "Authorization: Bearer hunter2secret",
    "root:$6$saltsalt$hunter2secrethunter2secret:19000::",
)


@pytest.mark.parametrize("line", SECRETS)
def test_what_looks_like_a_secret_is_masked(line: str) -> None:
    assert "hunter2secret" not in masked(line)
    assert MASK in masked(line)


@pytest.mark.parametrize(
    "line", ["PasswordAuthentication no", "port = 22", "# a comment", "root:x:0:0:root:/root:/bin/sh"]
)
def test_what_is_no_secret_says_where_it_is(line: str) -> None:
    assert masked(line).split()[0].rstrip(":=") in line
    assert line.startswith("Password") or masked(line) == line


def test_a_private_key_is_masked_from_its_first_to_its_last_line() -> None:
    kind = "PRIVATE KEY-----"
    key = f"a = 1\n-----BEGIN OPENSSH {kind}\nAAAA\nBBBB\n-----END OPENSSH {kind}\nb = 2"
    assert masked(key).splitlines() == ["a = 1", MASK, MASK, MASK, MASK, "b = 2"]


@given(st.text(max_size=2000))
def test_masking_never_fails_and_bounds_each_line(text: str) -> None:
    for line in masked(text).splitlines():
        assert len(line) <= MAX_LINE_CHARS + 20 * len(MASK)


def test_lines_that_came_and_went_are_shown(tmp_path: Path) -> None:
    before, after = (zlib.compress(text.encode()) for text in ("a\nb\nc", "a\nB\nc\nd"))
    shown = difference(before, after).splitlines()
    assert [line for line in shown if not line.startswith("@@")] == ["-b", "+B", "+d"]
    assert difference(before, before) == "(only what is masked differs)"
    assert difference(before, None).splitlines()[1:] == ["-a", "-b", "-c"]


def test_a_large_difference_is_cut() -> None:
    text = zlib.compress("\n".join(f"line {number}" for number in range(5_000)).encode())
    assert len(difference(None, text)) <= MAX_DIFF_CHARS + len("\n(cut)")


def test_files_that_are_secrets_as_a_whole_are_never_read(tmp_path: Path) -> None:
    contents = Contents(["*"])
    for name in ("shadow", "gshadow", "shadow-", "ssl/private/x", "ssh_host_rsa_key", "id_ed25519", "a.pem", "a.key"):
        assert not contents.wants(f"{tmp_path}/{name}".encode())
    assert contents.wants(f"{tmp_path}/sshd_config".encode())


@pytest.mark.parametrize("content", [b"\0binary", b"x" * (MAX_TEXT_BYTES + 1)], ids=["binary", "large"])
def test_what_is_no_small_text_is_told_by_its_hash_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "f"
    path.write_bytes(content)
    assert Contents(["*"]).read(bytes(path)) is None


def test_a_change_carries_its_lines(watch: Watch, root: Path) -> None:
    (root / "app.conf").write_text("port = 80\ntoken = first\n")
    host = watch(diffs=(f"{root}/*.conf",))
    (root / "app.conf").write_text("port = 81\ntoken = second\n")
    diff = host.expect(root / "app.conf", "modified", channel="event").diff
    assert "-port = 80" in diff
    assert "+port = 81" in diff
    assert "first" not in diff
    assert "second" not in diff
    host.settle()
    host.take()
    (root / "app.conf").unlink()
    assert "-port = 80" in host.expect(root / "app.conf", "deleted", channel="event").diff, "as it was accepted"
    (root / "new.conf").write_text("evil = yes\n")
    assert "+evil = yes" in host.expect(root / "new.conf", "created", channel="event").diff
