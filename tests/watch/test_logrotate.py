"""The real logrotate in each of its styles, a few rotations each: every line once, whatever it makes of the files."""

from __future__ import annotations

import getpass
import grp
import os
import shutil
import subprocess
from collections.abc import Callable

import pytest

from tests.watch.reader import Reader, append, numbered

pytestmark = pytest.mark.skipif(shutil.which("logrotate") is None, reason="logrotate is not installed")

MakeReader = Callable[..., Reader]

DATED = "dateext\n dateformat -%Y%m%d-%s"

STYLES = {
    "create": "create 0640",
    "nocreate": "nocreate",
    "compress": "create\n compress",
    "delaycompress": "create\n compress\n delaycompress",
    "xz": "create\n compress\n compresscmd /usr/bin/xz\n compressext .xz",
    "zstd": "create\n compress\n compresscmd /usr/bin/zstd\n compressext .zst\n compressoptions -q --rm",
    "dateext": f"create\n {DATED}",
    "dateext and compress": f"create\n {DATED}\n compress",
    "dateext before the extension": f"create\n {DATED}\n extension .log",
    "extension": "create\n extension .log",
    "extension and compress": "create\n extension .log\n compress",
    "olddir": "create\n olddir {old}",
    "createolddir": "create\n olddir {old}/made\n createolddir 0755",
    "olddir and compress": "create\n olddir {old}\n compress",
    "shred": "create\n shred\n rotate 2",
    "rotate 1": "create\n rotate 1",
    "start 5": "create\n start 5",
    "size": "create\n size 1",
    "maxage": "create\n maxage 365",
    "su": f"create\n su {getpass.getuser()} {grp.getgrgid(os.getegid()).gr_name}",
    "copytruncate": "copytruncate",
    "copytruncate and compress": "copytruncate\n compress",
    "copytruncate and dateext": f"copytruncate\n {DATED}",
    "renamecopy": "renamecopy\n olddir {old}",
    "copy": "copy",
}
NEEDS = {"xz": "xz", "zstd": "zstd"}


@pytest.mark.parametrize("is_killed", [False, True], ids=["up", "down at each rotation"])
@pytest.mark.parametrize("style", STYLES)
def test_each_style_of_logrotate_gives_every_line_once(tmp_path, read: MakeReader, style: str, is_killed: bool):
    if style in NEEDS and shutil.which(NEEDS[style]) is None:
        pytest.skip(f"{NEEDS[style]} is not installed")
    folder, old = tmp_path / "log", tmp_path / "old"
    folder.mkdir(mode=0o755)
    old.mkdir(mode=0o755)
    log = folder / "app.log"
    config = tmp_path / "logrotate.conf"
    body = STYLES[style].format(old=old)
    rotate = "" if "rotate " in body else "rotate 9\n "
    config.write_text(f"{log} {{\n {rotate}missingok\n {body}\n}}\n")
    config.chmod(0o644)
    append(log, numbered(0, 30))
    reader = read(log, rotated=(str(old), str(old / "made")))
    reader.poll()
    at = 30
    for turn in range(5):
        append(log, numbered(at, at + 3 + turn))  # not read before it is rotated
        at += 3 + turn
        if is_killed:
            reader.files.close()
        command = ["logrotate", "-f", "-s", str(tmp_path / "state"), str(config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        if is_killed:
            reader.start()
        append(log, numbered(at, at + 5))
        at += 5
        reader.files.hint()
        reader.look(2)
        if "dateext" in style:
            _backdate(folder, turn)
    reader.drain()
    assert sorted(reader.unique) == numbered(0, at)
    assert len(reader.data) == at
    # shredding a log that we still hold open is what an intruder would do, and nothing tells the one from the other
    allowed = {"copytruncate": {"copytruncate"}, "shred": {"truncated", "rewritten"}}.get(
        style.partition(" ")[0], set()
    )
    assert set(reader.reasons) <= allowed


def _backdate(folder, turn: int) -> None:
    """Names with the present second would collide: what was rotated gets the name of an earlier one."""
    for path in sorted(folder.iterdir()):
        stem, _, rest = path.name.partition("-20")
        if rest and not rest.startswith("200101"):
            suffix = next((end for end in (".log.gz", ".gz", ".log") if path.name.endswith(end)), "")
            path.rename(folder / f"{stem}-200101{turn + 1:02d}-{turn}{suffix}")
