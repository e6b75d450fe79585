"""Evasions by where it is done: cases 12 to 18, 28, 29 and 32 of the list. Each: verdict and channel.

Cases 13 to 17 are about paths that mean something. They are done at the real paths, in a mount namespace in which an
empty file system lies over each folder, so that the host's own files are not touched.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from breachwatch.app.integrity import watched_paths
from breachwatch.watch.critical import classify, own_paths
from tests.conftest import FakeClock
from tests.watch.integrity.host import Host
from tests.watch.integrity.namespaces import in_mount_namespace, mount_tmpfs
from tests.watch.reader import Reader

Watch = Callable[..., Host]


@in_mount_namespace
def test_evasion_12_a_new_setuid_file_anywhere_is_found_by_sweep(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    mount_tmpfs(elsewhere)  # a file system of its own: the count does not walk the whole host
    (elsewhere / "known").write_text("x")
    (elsewhere / "known").chmod(0o4755)
    root = tmp_path / "root"
    root.mkdir()
    host = Host(tmp_path, [root], setuid_s=0.5)
    try:
        host.start(settle=False)
        host.only_mounts(elsewhere)
        host.until(lambda: host.integrity is not None and host.integrity.is_settled, 60)
        (elsewhere / "deep").mkdir()
        (elsewhere / "deep" / "shell").write_text("x")
        (elsewhere / "deep" / "shell").chmod(0o4755)
        change = host.expect(elsewhere / "deep" / "shell", "created", channel="sweep", timeout_s=60)
        assert change.severity == "high"
        assert "attack.t1548.001" in change.tags
        assert not host.found(elsewhere / "known")
        (elsewhere / "known").write_text("trojan")
        (elsewhere / "known").chmod(0o4755)
        host.expect(elsewhere / "known", "modified", channel="sweep", timeout_s=60)
        (elsewhere / "deep" / "shell").chmod(0o755)
        host.expect(elsewhere / "deep" / "shell", "deleted", channel="sweep", timeout_s=60)
    finally:
        host.stop()


PLACES = {
    13: (
        "/etc/cron.d/evil", "/etc/cron.hourly/evil", "/var/spool/cron/crontabs/root",
        "/etc/systemd/system/evil.service", "/etc/systemd/system/ssh.service.d/override.conf",
        "/etc/systemd/system/evil.timer", "/etc/systemd/system-generators/evil", "/etc/udev/rules.d/99-evil.rules",
        "/etc/rc.local", "/etc/profile.d/evil.sh",
    ),
    14: ("/root/.ssh/authorized_keys", "/root/.ssh/authorized_keys2", "/etc/ssh/sshd_config.d/evil.conf"),
    15: (
        "/etc/ld.so.preload", "/etc/ld.so.conf.d/evil.conf", "/etc/pam.d/sshd", "/etc/sudoers.d/evil",
        "/etc/nsswitch.conf", "/etc/passwd", "/etc/shadow",
    ),
    16: (
        "/etc/modules-load.d/evil.conf", "/etc/modprobe.d/evil.conf", "/boot/initrd.img-evil",
        "/etc/initramfs-tools/hooks/evil",
    ),
    17: (
        "/var/www/html/shell.php", "/var/www/html/upload/cat.php.jpg", "/var/www/html/a.jsp", "/var/www/html/a.aspx",
        "/var/www/html/.htaccess",
    ),
}  # fmt: skip
COVERED = ("/etc", "/var/spool/cron", "/root/.ssh", "/boot", "/var/www")


@pytest.mark.skipif(os.geteuid() != 0, reason="files in /etc of a namespace of its own take root")
@pytest.mark.parametrize("case", PLACES, ids=lambda case: f"case-{case}")
@in_mount_namespace
def test_evasions_13_to_17_what_gives_persistence_is_found_by_event_and_rated_high(tmp_path: Path, case: int) -> None:
    for folder in COVERED:
        if Path(folder).is_dir():
            mount_tmpfs(folder)
    needed = {Path(path).parent for path in PLACES[case]}
    roots = [folder for folder in COVERED if any(place.is_relative_to(folder) for place in needed)]
    if not all(Path(folder).is_dir() for folder in roots):
        mount_tmpfs("/var")  # this host has no such folder, and it is not ours to make one
        for folder in roots:
            Path(folder).mkdir(parents=True, exist_ok=True)
    for place in needed:
        place.mkdir(parents=True, exist_ok=True)
    host = Host(tmp_path, list(roots))
    host.start()
    try:
        for path in PLACES[case]:
            Path(path).write_text("evil")
            change = host.expect(path, "created", channel="event")
            assert change.severity in {"high", "critical"}, path
            assert change.tags, path
    finally:
        host.stop()


def test_evasion_16_kernel_modules_and_pam_modules_are_rated_high() -> None:
    for path in ("/usr/lib/modules/6.1.0/extra/rootkit.ko", "/lib/modules/6.1.0/extra/rootkit.ko"):
        assert classify(path)[0] == "high"
    assert classify("/usr/lib/x86_64-linux-gnu/security/pam_evil.so")[0] == "critical"


LINE = "Nov 26 13:00:{:02} web01 sshd[1]: Failed password for root from 203.0.113.7 port 22 ssh2\n"


@pytest.mark.parametrize("act", ["deleted", "truncated", "rewritten"])
def test_evasion_18_a_log_that_is_wiped_is_a_gap_of_its_tail(tmp_path: Path, act: str) -> None:
    log = tmp_path / "auth.log"
    log.write_text("".join(LINE.format(number) for number in range(60)))
    reader = Reader(str(log), FakeClock())
    reader.look(2)
    if act == "deleted":
        log.unlink()
    elif act == "truncated":
        os.truncate(log, 0)
    else:
        content = log.read_bytes()
        log.write_bytes(content[:500].replace(b"203.0.113.7", b"198.51.100.9") + content[500:])
    reader.look(40)
    assert {gap.reason for gap in reader.gaps} & {"deleted": {"vanished"}, "truncated": {"truncated"}}.get(
        act, {"rewritten", "truncated"}
    )


@in_mount_namespace
def test_evasion_18_a_login_record_that_shrinks_is_found_by_event(tmp_path: Path) -> None:
    mount_tmpfs("/var/log")
    wtmp = Path("/var/log/wtmp")
    wtmp.write_bytes(bytes(384 * 10))
    host = Host(tmp_path, [wtmp])
    host.start()
    try:
        with wtmp.open("ab") as handle:
            handle.write(bytes(384))
        assert host.expect(wtmp, "modified", channel="event").severity == "low", "a login"
        host.settle()
        host.take()
        os.truncate(wtmp, 384)
        change = host.expect(wtmp, "modified", channel="event")
        assert change.severity == "high"
        assert "attack.t1070.002" in change.tags
    finally:
        host.stop()


def edit(database: Path, *statements: str) -> None:
    connection = sqlite3.connect(database)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE directory SET rest = substr(rest, 1, 10) || x'41' || substr(rest, 12)",
        "DELETE FROM directory",
        "DELETE FROM deviation",
        "DELETE FROM baseline_head",
        "DELETE FROM baseline_journal WHERE counter = 1",
        "UPDATE baseline_journal SET actor = 'nobody'",
    ],
    ids=["edited", "emptied", "deviations removed", "seal removed", "journal cut", "journal edited"],
)
def test_evasion_28_an_edited_baseline_is_told_at_start(watch: Watch, root: Path, statement: str) -> None:
    (root / "a").write_text("original")
    host = watch()
    (root / "a").write_text("0riginal")
    host.expect(root / "a", "modified", channel="event")
    host.settle()
    host.stop()
    (root / "planted").write_text("what the edit is to hide")  # else what is learned again may be what was signed
    edit(host.state / "agent.db", statement)
    host.start()
    assert host.expect_gap("baseline_tampered").detail
    assert host.integrity is not None
    assert host.integrity.coverage.percent < 100.0
    host.stop()
    host.gaps.clear()
    host.start()
    host.expect_gap("baseline_tampered")  # and again at every start: what does not hold is not signed anew


@pytest.mark.parametrize("table", ["directory", "baseline_node", "baseline_head"])
def test_evasion_28_an_edit_of_the_baseline_is_told_while_the_agent_runs(watch: Watch, root: Path, table: str) -> None:
    (root / "a").write_text("original")
    host = watch()
    edit(
        host.state / "agent.db",
        {
            "directory": "UPDATE directory SET meta = zeroblob(length(meta))",
            "baseline_node": "UPDATE baseline_node SET hash = zeroblob(32)",
            "baseline_head": "UPDATE baseline_head SET root = zeroblob(32)",
        }[table],
    )
    (root / "a").write_text("0riginal")
    host.expect_gap("baseline_tampered")


def test_evasion_28_an_older_baseline_put_back_is_told_at_start(watch: Watch, root: Path, tmp_path: Path) -> None:
    (root / "a").write_text("original")
    host = watch()
    host.stop()
    shutil.copy(host.state / "agent.db", tmp_path / "old.db")
    host.start()
    (root / "a").write_text("0riginal")
    host.expect(root / "a", "modified", channel="event")
    host.quiet()
    host.stop()
    for name in ("agent.db-wal", "agent.db-shm"):
        (host.state / name).unlink(missing_ok=True)
    shutil.copy(tmp_path / "old.db", host.state / "agent.db")
    host.start()
    assert "an older baseline was put back" in host.expect_gap("baseline_tampered").detail


def test_evasion_28_a_deleted_baseline_is_told_at_start(watch: Watch, root: Path) -> None:
    (root / "a").write_text("original")
    host = watch()
    host.quiet()
    host.stop()
    for path in host.state.glob("agent.db*"):
        path.unlink()
    host.start()
    assert "deleted" in host.expect_gap("baseline_tampered").detail


def test_evasion_29_the_daemons_own_code_environment_and_configuration_are_watched() -> None:
    package = Path(sys.modules["breachwatch"].__file__ or "").parent
    assert str(package) in own_paths()
    if sys.prefix != sys.base_prefix:
        assert sys.prefix in own_paths()
    watched = watched_paths(["/srv/only-this"], own_files=True)
    assert set(own_paths()) <= set(watched)
    assert classify(str(package / "app" / "agent.py"))[0] == "critical"
    assert classify("/etc/breachwatch/breachwatch.toml")[0] == "high"


def test_evasion_29_an_edit_of_the_daemons_code_is_found_by_event(watch: Watch, tmp_path: Path) -> None:
    copy = tmp_path / "site-packages" / "breachwatch"
    shutil.copytree(Path(sys.modules["breachwatch"].__file__ or "").parent / "model", copy / "model")
    host = watch(copy)
    with (copy / "model" / "source.py").open("a") as handle:
        handle.write("# nothing to see here\n")
    assert host.expect(copy / "model" / "source.py", "modified", channel="event").severity == "critical"


MEMFD = """
import os, shutil, sys
fd = os.memfd_create("kworker")
with open(sys.argv[1], "rb") as source, open(fd, "wb", closefd=False) as target:
    shutil.copyfileobj(source, target)
os.execve(fd, ["kworker", "-c", "echo gone; read line"], {})
"""


@pytest.mark.parametrize("kind", ["deleted", "memfd"])
def test_evasion_32_a_program_that_is_on_no_disk_is_found_by_sweep(watch: Watch, tmp_path: Path, kind: str) -> None:
    shell = tmp_path / "shell"
    shutil.copy("/bin/sh", shell)
    if kind == "deleted":
        command = [str(shell), "-c", "rm $0; echo gone; read line", str(shell)]
    else:
        command = [sys.executable, "-c", MEMFD, str(shell)]
    host = watch(processes=True)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "gone\n"
        host.sweep()
        found = [change for change in host.changes if change.writer is not None and change.writer.pid == process.pid]
        assert [change.channel for change in found] == ["sweep"]
        assert found[0].severity == "high"
        assert found[0].tags == (("attack.t1070.004",) if kind == "deleted" else ("attack.t1620",))
        host.sweep()
        assert len([item for item in host.changes if item.writer and item.writer.pid == process.pid]) == 1, "told once"
        process.communicate("\n")
