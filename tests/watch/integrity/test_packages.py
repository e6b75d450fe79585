"""Evasion cases 30 and 31, and their RPM kin: real packages, built and installed by the real tools into a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import md5
from pathlib import Path

import pytest

from breachwatch.model import FileChange
from breachwatch.watch.integrity.dpkg import Dpkg
from breachwatch.watch.integrity.dpkg_log import parse_log, parse_runs
from breachwatch.watch.integrity.owners import Owners
from breachwatch.watch.integrity.packages import Packages, is_locked
from breachwatch.watch.integrity.rpm import Rpm
from tests.watch.integrity.host import Host

needs_dpkg = pytest.mark.skipif(
    not (shutil.which("dpkg") and shutil.which("dpkg-deb")) or os.geteuid() != 0,
    reason="takes dpkg, dpkg-deb and root (dpkg installs nothing for others)",
)
needs_rpm = pytest.mark.skipif(
    not (shutil.which("rpm") and shutil.which("rpmbuild")) or os.geteuid() != 0, reason="takes rpm, rpmbuild and root"
)

CONTROL = """Package: bw-sample
Version: {version}
Architecture: all
Maintainer: Nobody <nobody@example.invalid>
Description: five hundred files
"""


class Debian:
    """A folder with a dpkg database of its own."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "target"
        self.folder = folder
        for name in ("var/lib/dpkg/info", "var/lib/dpkg/updates", "var/log", "etc"):
            (self.root / name).mkdir(parents=True)
        (self.root / "var/lib/dpkg/status").touch()
        (self.root / "var/lib/dpkg/available").touch()

    def build(self, version: str, *, count: int = 500) -> Path:
        tree = self.folder / f"build-{version}"
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(CONTROL.format(version=version))
        (tree / "DEBIAN/conffiles").write_text("/etc/bw-sample.conf\n")
        (tree / "etc").mkdir()
        (tree / "etc/bw-sample.conf").write_text(f"version = {version}\n")
        sums = []
        for number in range(count):
            path = tree / f"usr/share/bw-sample/{number % 20:02}/{number:03}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{version} {number}\n")
            sums.append(f"{md5(path.read_bytes()).hexdigest()}  {path.relative_to(tree)}")
        (tree / f"usr/share/bw-sample/only-in-{version}").write_text(version)
        sums.append(f"{md5(version.encode()).hexdigest()}  usr/share/bw-sample/only-in-{version}")
        (tree / "usr/share/bw-sample/link").symlink_to("00/000")
        (tree / "DEBIAN/md5sums").write_text("\n".join(sums) + "\n")
        package = self.folder / f"{version}.deb"
        command = ["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(tree), str(package)]
        subprocess.run(command, check=True, capture_output=True)
        return package

    def command(self, *arguments: str | Path) -> list[str | Path]:
        return [
            "dpkg", f"--root={self.root}", f"--log={self.root}/var/log/dpkg.log", "--force-confnew",
            "--force-script-chrootless", "--force-unsafe-io", *arguments,
        ]  # fmt: skip

    def run(self, *arguments: str | Path) -> None:
        done = subprocess.run(self.command(*arguments), check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def debian(tmp_path: Path) -> Debian:
    return Debian(tmp_path)


@pytest.fixture
def upgraded(debian: Debian, tmp_path: Path) -> Iterator[Callable[[], Host]]:
    """Watch a target with version 1.0 installed."""
    debian.run("-i", debian.build("1.0"))
    host = Host(tmp_path, [debian.root / "usr", debian.root / "etc", debian.root / "var/lib/dpkg/info"])
    packages = Packages([Dpkg(debian.root)], time.monotonic)
    packages.remember()
    host.packages = packages

    def start() -> Host:
        return host.start()

    yield start
    host.stop()


def unexplained(host: Host) -> list[FileChange]:
    return [change for change in host.changes if not change.explained_by]


@needs_dpkg
def test_evasion_30_an_upgrade_of_500_files_leaves_nothing_unexplained(
    debian: Debian, upgraded: Callable[[], Host]
) -> None:
    package, host = debian.build("2.0"), upgraded()
    debian.run("-i", package)
    new = debian.root / "usr/share/bw-sample/only-in-2.0"
    host.until(lambda: host.found(new, "created"), 60)
    host.settle()
    host.sweep()
    assert unexplained(host) == []
    files = {change.path for change in host.changes if change.after is not None and change.after.type == "file"}
    assert len([path for path in files if b"/bw-sample/" in path and b"only-in" not in path]) == 500, (
        "explained is told, not dropped"
    )
    assert host.found(debian.root / "usr/share/bw-sample/only-in-1.0", "deleted")
    assert {change.explained_by for change in host.changes} == {"bw-sample 2.0"}
    assert host.store is not None
    assert {item.explained_by for item in host.store.baseline.deviations()} == {"bw-sample 2.0"}


@needs_dpkg
def test_evasion_30_verdicts_come_while_the_upgrade_runs_and_are_still_explained(
    debian: Debian, upgraded: Callable[[], Host]
) -> None:
    package, host = debian.build("2.0"), upgraded()
    with subprocess.Popen(debian.command("-i", package), stdout=subprocess.DEVNULL) as dpkg:
        host.until(lambda: dpkg.poll() is not None, 60)
    assert dpkg.returncode == 0
    host.until(lambda: host.found(debian.root / "usr/share/bw-sample/only-in-2.0", "created"), 60)
    host.settle()
    assert unexplained(host) == []


@needs_dpkg
def test_evasion_30_one_trojan_among_500_files_is_the_one_that_is_told(
    debian: Debian, upgraded: Callable[[], Host]
) -> None:
    package, host = debian.build("2.0"), upgraded()
    trojan = debian.root / "usr/share/bw-sample/07/007"
    debian.run("-i", package)
    trojan.write_text("2.0 x\n")  # of the same length, within the same second
    host.until(lambda: host.found(debian.root / "usr/share/bw-sample/only-in-2.0", "created"), 60)
    host.settle()
    host.sweep()
    assert [change.path for change in unexplained(host)] == [os.fsencode(trojan)]


@needs_dpkg
def test_an_upgrade_while_nothing_ran_is_explained_at_start(debian: Debian, upgraded: Callable[[], Host]) -> None:
    package, host = debian.build("2.0"), upgraded()
    host.stop()
    debian.run("-i", package)
    (debian.root / "usr/share/bw-sample/03/003").write_text("trojan\n")
    host.start()
    host.settle()
    assert [change.path for change in unexplained(host)] == [os.fsencode(debian.root / "usr/share/bw-sample/03/003")]
    assert {change.channel for change in host.changes} == {"sweep"}


@needs_dpkg
def test_evasion_31_a_trojan_with_forged_sums_is_not_explained(debian: Debian, upgraded: Callable[[], Host]) -> None:
    package, host = debian.build("2.0"), upgraded()
    debian.run("-i", package)
    host.until(lambda: host.found(debian.root / "usr/share/bw-sample/only-in-2.0", "created"), 60)
    host.settle()
    host.take()
    time.sleep(2.5 + 1.0)  # past the whole seconds that dpkg's log has: an attacker comes later
    trojan = debian.root / "usr/share/bw-sample/07/007"
    sums = debian.root / "var/lib/dpkg/info/bw-sample.md5sums"
    old = md5(trojan.read_bytes()).hexdigest()
    trojan.write_text("trojan\n")
    sums.write_text(sums.read_text().replace(old, md5(b"trojan\n").hexdigest()))
    host.until(lambda: host.found(trojan) and host.found(sums))
    assert {change.path for change in unexplained(host)} == {os.fsencode(trojan), os.fsencode(sums)}
    assert host.found(sums)[0].severity in {"low", "high"}


@needs_dpkg
def test_a_setuid_bit_is_never_explained(debian: Debian, upgraded: Callable[[], Host]) -> None:
    package, host = debian.build("2.0"), upgraded()
    debian.run("-i", package)
    (debian.root / "usr/share/bw-sample/05/005").chmod(0o4755)
    host.until(lambda: host.found(debian.root / "usr/share/bw-sample/only-in-2.0", "created"), 60)
    host.settle()
    assert [change.path for change in unexplained(host)] == [os.fsencode(debian.root / "usr/share/bw-sample/05/005")]


@needs_dpkg
def test_a_removal_is_explained(debian: Debian, upgraded: Callable[[], Host]) -> None:
    host = upgraded()
    debian.run("-r", "bw-sample")
    host.until(lambda: host.found(debian.root / "usr/share/bw-sample", "deleted"), 60)
    host.settle()
    assert unexplained(host) == []


SPEC = """
Name: bw-sample
Version: {version}
Release: 1
Summary: sample
License: none
BuildArch: noarch
%description
sample
%install
mkdir -p %{{buildroot}}/usr/share/bw-sample
for i in $(seq 100 399); do echo "{version} $i" > %{{buildroot}}/usr/share/bw-sample/$i; done
ln -s 100 %{{buildroot}}/usr/share/bw-sample/link
%files
/usr/share/bw-sample
"""


@needs_rpm
def test_an_rpm_upgrade_leaves_one_trojan_unexplained_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "target"
    (root / "var/lib/rpm").mkdir(parents=True)

    def build(version: str) -> Path:
        spec = tmp_path / f"{version}.spec"
        spec.write_text(SPEC.format(version=version))
        command = ["rpmbuild", "-bb", "--define", f"_topdir {tmp_path}/rpmbuild", str(spec)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return next((tmp_path / "rpmbuild/RPMS").rglob(f"*-{version}-*.rpm"))

    def rpm(*arguments: str | Path) -> None:
        done = subprocess.run(
            ["rpm", "--root", str(root), "--dbpath", "/var/lib/rpm", "--nodeps", *map(str, arguments)],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    rpm("-i", build("1.0"))
    newer = build("2.0")
    host = Host(tmp_path, [root / "usr"])
    host.packages = Packages([Rpm(root)], time.monotonic)
    host.start()
    try:
        rpm("-U", newer)
        trojan = root / "usr/share/bw-sample/123"
        trojan.write_text("2.0 x\n")
        host.until(lambda: host.found(root / "usr/share/bw-sample/399"), 60)
        host.settle()
        host.sweep()
        assert [change.path for change in unexplained(host)] == [os.fsencode(trojan)]
        assert {change.explained_by for change in host.changes} == {"", "bw-sample-2.0-1"}
    finally:
        host.stop()


def test_a_log_gives_each_package_its_span() -> None:
    log = (
        "2026-11-26 13:00:00 startup archives unpack\n"
        "2026-11-26 13:00:01 upgrade openssl:amd64 3.0.11-1 3.0.15-1\n"
        "2026-11-26 13:00:01 status half-installed openssl:amd64 3.0.11-1\n"
        "2026-11-26 13:00:04 status unpacked openssl:amd64 3.0.15-1\n"
        "nonsense\n"
        "2026-11-26 13:00:09 configure openssl:amd64 3.0.15-1 <none>\n"
        "2026-11-26 13:00:10 status installed openssl:amd64 3.0.15-1\n"
    )
    (found,) = parse_log(log)
    assert (found.package, found.name, found.end_s - found.begin_s) == ("openssl:amd64", "openssl 3.0.15-1", 9.0)


def test_a_later_trigger_does_not_make_a_transaction_longer() -> None:
    log = (
        "2026-01-26 13:00:01 upgrade libc-bin:amd64 2.36-1 2.36-2\n"
        "2026-01-26 13:00:04 status installed libc-bin:amd64 2.36-2\n"
        "2026-03-26 13:00:09 trigproc libc-bin:amd64 2.36-2 <none>\n"
        "2026-03-26 13:00:09 status half-configured libc-bin:amd64 2.36-2\n"
        "2026-03-26 13:00:11 status installed libc-bin:amd64 2.36-2\n"
    )
    (transaction,), (run,) = parse_log(log), parse_runs(log)
    assert transaction.end_s - transaction.begin_s == 3.0
    assert (run.name, run.end_s - run.begin_s) == ("libc-bin 2.36-2", 2.0)


SCRIPT = """#!/bin/sh
set -e
mkdir -p "$DPKG_ROOT/usr/lib/python3/__pycache__"
echo compiled > "$DPKG_ROOT/usr/lib/python3/__pycache__/own.cpython-311.pyc"
echo compiled > "$DPKG_ROOT/usr/lib/python3/__pycache__/other.cpython-311.pyc"
echo cache > "$DPKG_ROOT/etc/ld.so.cache"
"""


@needs_dpkg
@pytest.mark.parametrize("name", ["libc-bin", "bw-other"])
def test_what_a_script_writes_is_named_rated_lower_and_stays_unexplained(
    tmp_path: Path, debian: Debian, upgraded: Callable[[], Host], name: str
) -> None:
    tree = tmp_path / "scripted"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(CONTROL.format(version="9").replace("bw-sample", name))
    (tree / "DEBIAN/postinst").write_text(SCRIPT)
    (tree / "DEBIAN/postinst").chmod(0o755)
    (tree / "usr/lib/python3").mkdir(parents=True)
    (tree / "usr/lib/python3/own.py").write_text("pass\n")
    package = tmp_path / "scripted.deb"
    command = ["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(tree), str(package)]
    subprocess.run(command, check=True, capture_output=True)
    host = upgraded()
    debian.run("-i", package)
    cached = debian.root / "usr/lib/python3/__pycache__"
    host.until(lambda: host.found(cached / "own.cpython-311.pyc"), 60)
    host.settle()
    host.sweep()
    found = {change.path: change for change in host.changes}
    cache, own, other = (
        found[os.fsencode(path)]
        for path in (
            debian.root / "etc/ld.so.cache", cached / "own.cpython-311.pyc", cached / "other.cpython-311.pyc",
        )
    )  # fmt: skip
    assert [change.explained_by for change in (cache, own, other)] == ["", "", ""]
    assert (cache.probably_by, own.probably_by, other.probably_by) == (
        "libc-bin 9" if name == "libc-bin" else "", f"{name} 9", "",
    )  # fmt: skip


def test_a_change_that_a_script_probably_made_is_rated_one_level_lower(tmp_path: Path) -> None:
    class Suspecting(Dpkg):
        def suspect(self, change: FileChange) -> str:
            return "x 1" if change.path.endswith(b"cache") else ""

    at = datetime(2026, 1, 5, tzinfo=UTC)
    rated = {
        severity: Packages([Suspecting(tmp_path)], time.monotonic)
        .explain([FileChange(path=name, action="created", before=None, after=None, severity=severity, seen_at=at)])[0]
        .severity
        for severity, name in (
            ("low", b"/a/cache"),
            ("medium", b"/cache"),
            ("high", b"/cache"),
            ("critical", b"/cache"),
        )
    }
    assert rated == {"low": "low", "medium": "low", "high": "medium", "critical": "high"}
    (other,) = Packages([Suspecting(tmp_path)], time.monotonic).explain(
        [FileChange(path=b"/other", action="created", before=None, after=None, severity="high", seen_at=at)]
    )
    assert (other.severity, other.probably_by) == ("high", "")


def test_owners_tell_packages_apart() -> None:
    owners = Owners([("a", b"/x"), ("b:amd64", b"/y"), ("a", b"/y")])
    assert owners.has(b"/x", "a:amd64")
    assert not owners.has(b"/x", "b:amd64")
    assert owners.has(b"/y", "b:amd64")
    assert owners.has(b"/y", "")
    assert not owners.has(b"/z", "")


def test_a_lock_that_another_process_holds_is_seen(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    assert not is_locked(lock)
    script = (
        "import fcntl,sys\nf=open(sys.argv[1],'r+')\nfcntl.lockf(f,fcntl.LOCK_EX)\nprint('held',flush=True)\ninput()\n"
    )
    with subprocess.Popen(
        ["python3", "-c", script, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert is_locked(lock)
        holder.communicate("\n")
    assert not is_locked(lock)
