"""`breachwatch init`: what it writes loads, says what was found, and never replaces anything."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from breachwatch.app.initialise import Host, configuration_text, look_around, write_configuration
from breachwatch.config.settings import load_settings
from breachwatch.errors import ConfigError


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("BREACHWATCH_"):
            monkeypatch.delenv(name)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A file tree like that of a Debian shop server."""
    root = tmp_path / "host"
    for name in ("auth.log", "syslog", "nginx/shop-access.log", "nginx/shop-error.log", "nginx/access.log.1"):
        file = root / "var/log" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (root / "etc/ssh").mkdir(parents=True)
    (root / "run/log/journal").mkdir(parents=True)
    (root / "etc/localtime").symlink_to("/usr/share/zoneinfo/Asia/Ho_Chi_Minh")
    (root / "etc/timezone").write_text("Europe/Berlin\n")
    return root


def test_it_watches_what_is_there_in_the_zone_of_the_host(host: Path) -> None:
    found = look_around(host)
    assert [path for path, _, _ in found.logs] == [
        "/var/log/auth.log", "/var/log/syslog", "/var/log/nginx/*access.log", "/var/log/nginx/*error.log",
    ]  # fmt: skip
    assert found.zone == "Asia/Ho_Chi_Minh"
    assert found.journal
    assert found.integrity == ("/etc",)


@pytest.mark.parametrize(
    ("timezone", "zone"),
    [
        ("Europe/Berlin\n", "Europe/Berlin"),
        ("Etc/UTC\n", "UTC"),
        ("Etc/GMT-7", "Etc/GMT-7"),
        ("nonsense", "UTC"),
        ("é", "UTC"),
    ],
)
def test_the_zone_comes_from_etc_timezone_where_localtime_is_no_link(host: Path, timezone: str, zone: str) -> None:
    (host / "etc/localtime").unlink()
    (host / "etc/timezone").write_text(timezone, encoding="utf-8")
    assert look_around(host).zone == zone


def test_what_it_writes_loads_and_says_the_same(host: Path, tmp_path: Path) -> None:
    text = configuration_text(look_around(host), state=tmp_path / "state")
    target = tmp_path / "breachwatch.toml"
    target.write_text(text, encoding="utf-8")
    settings = load_settings(target)
    assert [(log.path, log.format, log.tz) for log in settings.watch.logs] == [
        ("/var/log/auth.log", "syslog", "Asia/Ho_Chi_Minh"),
        ("/var/log/syslog", "syslog", "Asia/Ho_Chi_Minh"),
        ("/var/log/nginx/*access.log", "nginx", "Asia/Ho_Chi_Minh"),
        ("/var/log/nginx/*error.log", "auto", "Asia/Ho_Chi_Minh"),
    ]
    assert not settings.watch.journal.enabled, "the same line from a file and the journal would count twice"
    assert settings.watch.integrity.enabled
    assert settings.state.directory == tmp_path / "state"
    assert text.count("FILL IN") >= 4


def test_what_is_commented_out_loads_too_when_filled_in(tmp_path: Path) -> None:
    """A comment that nobody can use as it stands is worse than none."""
    text = configuration_text(
        Host(name="web01", zone="UTC", logs=(), journal=False, integrity=()), state=tmp_path / "state"
    )
    secrets = tmp_path / "room"
    secrets.write_text("json://127.0.0.1/")
    shown = []
    for line in text.splitlines():
        bare = line.removeprefix("# ")
        is_setting = (
            line.startswith("# ") and (bare[:1] == "[" or " = " in bare) and "…" not in bare and "*" not in bare
        )
        shown.append(bare if is_setting and not bare.startswith(("or:", "query", "[[watch.logs]]")) else line)
    filled = (
        "\n".join(shown)
        .replace("/etc/breachwatch/secrets/chat-security-room", str(secrets))
        .replace('management = ["quang"]', 'management = ["linh"]')
        .replace('name = "Ministry of Public Security, A05"', 'name = "A05"\nemail = "a05@authority.example"')
    )
    target = tmp_path / "breachwatch.toml"
    target.write_text(filled, encoding="utf-8")
    settings = load_settings(target)
    assert settings.team.people[0].chat == settings.chat[0].name == "security-room"
    assert settings.sms.url
    assert settings.authorities["vn-mps-pdp"].name == "A05"
    assert settings.audiences["customers"].csv
    assert settings.elasticsearch.url


def test_a_host_with_nothing_but_a_journal_watches_the_journal(tmp_path: Path) -> None:
    (tmp_path / "host/var/log/journal").mkdir(parents=True)
    text = configuration_text(look_around(tmp_path / "host"), state=tmp_path / "state")
    parsed = tomllib.loads(text)
    assert parsed["watch"]["journal"]["enabled"] is True
    assert parsed["watch"]["integrity"]["enabled"] is False
    assert "Name yours" in text


def test_names_with_quotes_and_backslashes_stay_themselves(tmp_path: Path) -> None:
    odd = 'a"b\\c\x7f\td'
    host = Host(name=odd, zone="UTC", logs=((f"/var/log/{odd}", "syslog", "x"),), journal=False, integrity=())
    parsed = tomllib.loads(configuration_text(host, state=tmp_path / odd))
    assert parsed["host"]["name"] == odd
    assert parsed["watch"]["logs"][0]["path"] == f"/var/log/{odd}"
    assert parsed["state"]["directory"] == str(tmp_path / odd)


def run_init(target: Path, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BREACHWATCH_")}
    return subprocess.run(
        [sys.executable, "-m", "breachwatch", "--config", str(target), "init"],
        capture_output=True, text=True, timeout=60, env={**clean, "HOME": str(home), **environment},
    )  # fmt: skip


def test_a_file_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    target = tmp_path / "breachwatch.toml"
    target.write_text("# mine\n")
    done = run_init(target, tmp_path)
    assert done.returncode == 2
    assert f"{target}: exists already and is left as it is" in done.stderr
    assert target.read_text() == "# mine\n"
    dangling = tmp_path / "dangling.toml"
    dangling.symlink_to(tmp_path / "elsewhere.toml")
    assert run_init(dangling, tmp_path).returncode == 2
    assert not (tmp_path / "elsewhere.toml").exists()


def test_nothing_is_left_behind_when_the_result_would_not_load(tmp_path: Path) -> None:
    target = tmp_path / "breachwatch.toml"
    done = run_init(target, tmp_path, BREACHWATCH_SMPT__HOST="x")
    assert done.returncode == 2
    assert "BREACHWATCH_SMPT__HOST: unknown setting" in done.stderr
    assert not target.exists()


def test_a_full_disk_leaves_no_half_configuration(tmp_path: Path, host: Path) -> None:
    target = tmp_path / "breachwatch.toml"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, before[1]))
    try:
        with pytest.raises(ConfigError, match="cannot be written"):
            write_configuration(target, root=host)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not target.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="an account that may not write is taken from root")
def test_an_account_that_may_not_write_is_told_what_to_do(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from breachwatch.app.initialise import _write_new\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "_write_new(Path(sys.argv[1]), 'x')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "/etc/breachwatch-test-never/breachwatch.toml"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "cannot be written: Permission denied (run as root, or name a file with --config)" in done.stderr


def test_folders_for_state_and_secrets_are_private(tmp_path: Path, host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BREACHWATCH_STATE__DIRECTORY", str(tmp_path / "state"))
    said = write_configuration(tmp_path / "etc/breachwatch.toml", root=host)
    for folder in ("state", "etc/secrets"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o700
        assert f"{tmp_path / folder}" in "\n".join(said)
    assert stat.S_IMODE((tmp_path / "etc/breachwatch.toml").stat().st_mode) == 0o640
    assert said[-1].endswith("doctor`")
