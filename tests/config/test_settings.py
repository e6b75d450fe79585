# ruff: noqa: E501  # one wrong setting a line: the table reads better than its wrapping
"""Every way to write the configuration wrongly is one clear message with its place, and never shows a secret."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from breachwatch.config.lines import TomlLines
from breachwatch.config.settings import load_settings
from breachwatch.errors import ConfigError

SECRET = "hunter2-never-shown"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("BREACHWATCH_") or name == "CREDENTIALS_DIRECTORY":
            monkeypatch.delenv(name)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "breachwatch.toml"


def refused(config: Path, text: str | bytes) -> str:
    config.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError) as caught:
        load_settings(config)
    return str(caught.value)


# -- the file ----------------------------------------------------------------------------------------------------------

WRONG = {
    "a misspelt table": ("[smpt]\nhost = 'x'\n", 1, "unknown setting 'smpt': did you mean 'smtp'?"),
    "a misspelt key": ("\n[smtp]\nhost = 'x'\nprot = 25\n", 4, "unknown setting 'smtp.prot': did you mean 'port'?"),
    "a key of another table": ("[state]\nfrobnicate = 1\n", 2, "allowed here: directory, signal_retention_days"),
    "a wrong type": ("[smtp]\nport = 'many'\n", 2, "smtp.port: Input should be a valid integer"),
    "a number out of range": ("[smtp]\nport = 70000\n", 2, "smtp.port: Input should be less than or equal to 65535"),
    "a word that is none of the choices": ("[smtp]\ntls = 'maybe'\n", 2, "smtp.tls: Input should be 'starttls', 'implicit' or"),
    "a table where a value belongs": ("[smtp.host]\nx = 1\n", 1, "smtp.host: Input should be a valid string"),
    "a value where a table belongs": ("smtp = 3\n", 1, "smtp: Input should be"),
    "a list where a table belongs": ("[[smtp]]\nhost = 'x'\n", 1, "smtp: Input should be"),
    "a required key left out": ("[[watch.logs]]\nformat = 'syslog'\n", 1, "watch.logs.0.path: Field required"),
    "the second of a list": (
        "[[watch.logs]]\npath = '/a'\n\n[[watch.logs]]\npath = '/b'\nforma = 'x'\n", 6,
        "unknown setting 'watch.logs.1.forma': did you mean 'format'?",
    ),
    "an unknown log format": ("[[watch.logs]]\npath = '/a'\nformat = 'sylog'\n", 3, "unknown format 'sylog': did you mean 'syslog'?"),
    "a relative log path": ("[[watch.logs]]\npath = 'var/log/x'\n", 2, "not an absolute path: var/log/x"),
    "an unknown time zone": ("[[watch.logs]]\npath = '/a'\ntz = 'Asia/Hanoi'\n", 3, "unknown time zone 'Asia/Hanoi'"),
    "a rules folder that is not there": ("[rules]\ndirectories = ['/nowhere/rules']\n", 2, "no such folder: /nowhere/rules"),
    "a certificate file that is not there": ("[smtp]\nca_file = '/nowhere/ca.pem'\n", 2, "no such file: /nowhere/ca.pem"),
    "an address that is none": ("[sms]\nurl = 'gateway.example/sms'\n", 2, "sms.url: not an http:// or https:// address"),
    "a person in a room that is not there": (
        "[[team.people]]\nname = 'linh'\nchat = 'roon'\n[[chat]]\nname = 'room'\n", 3, "no room called 'roon': did you mean 'room'?",
    ),
    "two people of one name": ("[[team.people]]\nname = 'a'\n[[team.people]]\nname = 'a'\n", 4, "another person is called 'a'"),
    "two people of one account": (
        "[[team.people]]\nname = 'a'\nos_user = 'u'\n[[team.people]]\nname = 'b'\nos_user = 'u'\n", 6,
        "an approval would not show who gave it",
    ),
    "a group of nobody": ("[team.groups]\nsecurity = ['linh']\n", 2, "no person called 'linh': known: none"),
    "a group called like a person": ("[[team.people]]\nname = 'a'\n[team.groups]\na = ['a']\n", 4, "a person is called so already"),
    "two rooms of one name": ("[[chat]]\nname = 'r'\n[[chat]]\nname = 'r'\n", 4, "another room is called 'r'"),
    "an audience from nowhere": ("[audiences.customers]\nquery = 'SELECT 1'\n", 1, "give either csv, or url_file with query"),
    "an audience from two places": ("[audiences.c]\ncsv = '/a'\nurl = 'sqlite://'\n", 1, "give either csv, or url_file with query"),
    "an audience without a query": ("[audiences.c]\nurl = 'sqlite://'\n", 1, "a database needs a query"),
    "a quoted key": ("[authorities.\"vn mps\"]\nname = 'x'\nemail = 3\n", 3, "authorities.vn mps.email: Input should be"),
    "a dotted key": ("smtp.port = 0\n", 1, "smtp.port: Input should be greater than or equal to 1"),
    "a host name with a blank": ("[host]\nname = 'web 01'\n", 2, "host.name: String should match pattern"),
    "a trail's name with a plus": ("[audit]\norigin = 'a+b'\n", 2, "audit.origin: String should match pattern"),
    "a key after a text of many lines": ('[letterhead]\naddress = """\n[smtp]\nport = 1\n"""\nfax = "1"\n', 6, "unknown setting 'letterhead.fax'"),
    "a key after a strange blank": ("[smtp]\nhost = 'a\u2028b'\nprot = 1\n", 3, "unknown setting 'smtp.prot'"),
    "Windows line ends": ("[smtp]\r\nhost = 'x'\r\nprot = 1\r\n", 3, "unknown setting 'smtp.prot'"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_setting_is_named_with_file_and_line(config: Path, text: str, line: int, says: str) -> None:
    message = refused(config, text)
    assert f"{config}:{line}: " in message
    assert says in message
    assert message.count(f"{config}") == 1


def test_all_problems_are_said_at_once(config: Path) -> None:
    message = refused(config, "[smtp]\nport = 0\nprot = 1\n[sms]\ntimeout_s = -1\n[[watch.logs]]\n")
    assert {part.partition(": ")[0] for part in message.splitlines()} == {f"{config}:{n}" for n in (2, 3, 5, 6)}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[smtp\n", "not valid TOML"),
        (b"a = 1\na = 2\n", "not valid TOML"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[smtp]\nhost = 'x\0'\n", "not valid TOML"),
        (b"a = " + b"[" * 100_000, "within each other"),
    ],
)
def test_what_is_no_toml_is_said_so(config: Path, content: bytes, says: str) -> None:
    assert says in refused(config, content)


def test_a_file_that_is_named_has_to_exist(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="`breachwatch init` writes one"):
        load_settings(config)
    monkeypatch.setenv("BREACHWATCH_CONFIG", str(config))
    with pytest.raises(ConfigError, match="no such configuration file"):
        load_settings()
    config.mkdir()
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load_settings(config)


def test_an_empty_file_gives_the_defaults(config: Path) -> None:
    config.write_text("")
    settings = load_settings(config)
    assert settings.smtp.port == 587
    assert settings.rules.shipped
    assert settings.audit.origin == f"breachwatch.invalid/{settings.host.name}"


def test_settings_cannot_be_changed_after_loading(config: Path) -> None:
    config.write_text("")
    settings = load_settings(config)
    with pytest.raises(ValueError, match="frozen"):
        settings.smtp.port = 25
    with pytest.raises(ValueError, match="frozen"):
        settings.host = settings.host


# -- environment -------------------------------------------------------------------------------------------------------


def test_precedence_is_overrides_environment_secret_file_toml_default(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert loaded_user(config) == ""
    config.write_text("[smtp]\nuser = 'toml'\nhost = 'kept'\n")
    assert loaded_user(config) == "toml"
    secret(config, "smtp__user", "secret-file")
    assert loaded_user(config) == "secret-file"
    monkeypatch.setenv("BREACHWATCH_SMTP__USER", "environment")
    assert loaded_user(config) == "environment"
    assert load_settings(config, overrides={"smtp": {"user": "caller"}}).smtp.user == "caller"
    assert load_settings(config).smtp.host == "kept"


def loaded_user(config: Path) -> str:
    config.touch()
    return load_settings(config).smtp.user


def test_lists_and_tables_come_from_the_environment_as_json(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.touch()
    monkeypatch.setenv("BREACHWATCH_WATCH__LOGS", '[{"path": "/var/log/x", "format": "syslog"}]')
    monkeypatch.setenv("breachwatch_watch__max_line_bytes", "2048")
    monkeypatch.setenv("BREACHWATCH_AUTHORITIES__VN", '{"name": "A05", "email": "a@b.example"}')
    settings = load_settings(config)
    assert (settings.watch.logs[0].path, settings.watch.max_line_bytes) == ("/var/log/x", 2048)
    assert settings.authorities["vn"].name == "A05"


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("BREACHWATCH_SMPT__HOST", "x", "environment: BREACHWATCH_SMPT__HOST: unknown setting"),
        ("BREACHWATCH_SMTP_HOST", "x", "environment: BREACHWATCH_SMTP_HOST: unknown setting"),
        ("BREACHWATCH_SMTP__PROT", "25", "environment BREACHWATCH_SMTP__PROT: unknown setting 'smtp.prot'"),
        ("BREACHWATCH_SMTP__PORT", "many", "environment BREACHWATCH_SMTP__PORT: smtp.port: Input should be"),
        ("BREACHWATCH_SMTP__PORT", "", "environment BREACHWATCH_SMTP__PORT: smtp.port: Input should be"),
        ("breachwatch_smtp__port", "0", "environment breachwatch_smtp__port: smtp.port: Input should be"),
        ("BREACHWATCH_SMTP__HOST__X", "1", "environment BREACHWATCH_SMTP__HOST__X: smtp.host: Input should be"),
        ("BREACHWATCH_CHAT", '[{"name": ""}]', "environment BREACHWATCH_CHAT: chat.0.name: String should have"),
        ("BREACHWATCH_CHAT", "[{", "lists and tables are written as JSON"),
        ("BREACHWATCH_WATCH__LOGS", "/var/log/x", "lists and tables are written as JSON"),
        ("BREACHWATCH_RULES__DIRECTORIES", '["/nowhere"]', "environment BREACHWATCH_RULES__DIRECTORIES: "),
    ],
)
def test_a_wrong_variable_is_named(
    config: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    monkeypatch.setenv(variable, value)
    message = refused(config, "[smtp]\nhost = 'x'\n")
    assert says in message
    assert str(config) not in message


# -- secrets -----------------------------------------------------------------------------------------------------------


def secret(config: Path, name: str, content: str | bytes, folder: str = "secrets") -> Path:
    place = config.parent / folder
    place.mkdir(exist_ok=True)
    (place / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return place


def test_secrets_come_from_the_folder_beside_the_configuration(config: Path) -> None:
    config.touch()
    secret(config, "smtp__password", f" {SECRET}\n")
    secret(config, "BREACHWATCH_SMS__TOKEN", "t0ken")
    secret(config, "chat-room", "not a setting: no double underscore")
    secret(config, ".hidden__file", "neither is this")
    settings = load_settings(config)
    assert settings.smtp.password.get_secret_value() == SECRET
    assert settings.sms.token.get_secret_value() == "t0ken"
    assert SECRET not in repr(settings)
    assert SECRET not in settings.model_dump_json()


def test_systemd_credentials_and_a_named_folder_count_instead_of_the_one_beside(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.touch()
    secret(config, "smtp__user", "beside")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(secret(config, "smtp__password", SECRET, "credentials")))
    monkeypatch.setenv("BREACHWATCH_SECRETS_DIR", str(secret(config, "sms__token", "t0ken", "named")))
    settings = load_settings(config)
    assert settings.smtp.password.get_secret_value() == SECRET
    assert settings.sms.token.get_secret_value() == "t0ken"
    assert settings.smtp.user == ""


@pytest.mark.parametrize("variable", ["CREDENTIALS_DIRECTORY", "BREACHWATCH_SECRETS_DIR"])
@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_secrets_folder_that_is_none_is_refused(
    config: Path, monkeypatch: pytest.MonkeyPatch, variable: str, kind: str
) -> None:
    place = config.parent / "place"
    if kind == "file":
        place.write_text("x")
    monkeypatch.setenv(variable, str(place))
    assert f"{variable}: no such folder, or not readable: {place}" in refused(config, "")


def test_files_that_settings_name_hold_secrets(config: Path) -> None:
    place = secret(config, "room", "json://127.0.0.1/hook\n", "elsewhere")
    secret(config, "db", "sqlite:////srv/customers.db", "elsewhere")
    secret(config, "pw", SECRET, "elsewhere")
    config.write_text(
        f"[smtp]\npassword_file = '{place}/pw'\n[[chat]]\nname = 'r'\nurl_file = '{place}/room'\n"
        f"[audiences.customers]\nurl_file = '{place}/db'\nquery = 'SELECT 1'\n"
    )
    settings = load_settings(config)
    assert settings.smtp.password.get_secret_value() == SECRET
    assert settings.chat[0].url.get_secret_value() == "json://127.0.0.1/hook"
    assert settings.audiences["customers"].url.get_secret_value() == "sqlite:////srv/customers.db"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (Path.resolve, "cannot read the secret file"),
        (lambda path: path.mkdir(), "cannot read the secret file"),
        (lambda path: path.write_text(" \n"), "is empty"),
        (lambda path: path.write_bytes(b"\xff\xfe\xfd"), "is not UTF-8"),
        (lambda path: path.write_bytes(b"x" * 70_000), "is too large for a secret"),
    ],
    ids=["missing", "folder", "empty", "no text", "too large"],
)
def test_a_secret_file_that_cannot_be_used_is_named_with_the_setting_s_line(
    config: Path, make: Callable[[Path], object], says: str
) -> None:
    file = config.parent / "password"
    make(file)
    message = refused(config, f"[smtp]\npassword_file = '{file}'\n")
    assert says in message
    assert str(file) in message
    assert f"{config}:2" in message


def test_a_password_in_two_places_is_refused_without_showing_it(config: Path) -> None:
    file = config.parent / "pw"
    file.write_text("other")
    message = refused(config, f"[smtp]\npassword = '{SECRET}'\npassword_file = '{file}'\n")
    assert f"{config}:2: smtp.password and smtp.password_file are both set" in message
    assert SECRET not in message


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("smtp__passwort", "unknown setting 'smtp.passwort': did you mean 'password"),
        ("smpt__password", "unknown setting 'smpt'"),
        ("smtp__port", "smtp.port: Input should be a valid integer"),
        ("smtp__password__x", "smtp.password: Input should be a valid string"),
        ("smtp__tls", "smtp.tls: Input should be"),
    ],
)
def test_a_secret_file_of_no_setting_is_named_and_not_shown(config: Path, name: str, says: str) -> None:
    secret(config, name, SECRET)
    message = refused(config, "")
    assert says in message
    assert SECRET not in message
    if name not in {"smtp__password__x", "smpt__password"}:
        assert str(config.parent / "secrets" / name) in message


@pytest.mark.parametrize("names", [("smtp__password", "smtp__password__x"), ("a__b__c", "a__b")])
def test_secret_files_that_lie_inside_each_other_are_refused(config: Path, names: tuple[str, str]) -> None:
    for name in names:
        secret(config, name, SECRET)
    message = refused(config, "")
    assert "secrets" in message
    assert SECRET not in message


@pytest.mark.parametrize(
    "text",
    [
        f"[smtp]\npassword = ['{SECRET}']\n",
        f"[sms]\ntoken = {{value = '{SECRET}'}}\n",
        f"[sms]\nurl = 'https://user:{SECRET}@gateway.example/'\n",
        f"[elasticsearch]\nurl = 'https://elastic:{SECRET}@elastic.example:9200'\n",
        f"[elasticsearch]\nurl = '{SECRET}'\n",
        f"[[chat]]\nurl = 'slack://{SECRET}'\n",
        f"[audiences.c]\nurl = 'postgresql://u:{SECRET}@db/x'\nquery = 3\n",
        f"[smtp]\nport = '{SECRET}'\n",
    ],
)
def test_no_error_shows_a_value(config: Path, text: str) -> None:
    assert SECRET not in refused(config, text)


# -- as a command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("run",), ("agent",), ("hub",), ("doctor",), ("audit", "verify"), ("incident", "list")])  # fmt: skip
def test_every_command_ends_with_two_and_one_message(config: Path, command: tuple[str, ...]) -> None:
    config.write_text(f"[smtp]\npassword = ['{SECRET}']\nprot = 1\n")
    done = subprocess.run(
        [sys.executable, "-m", "breachwatch", "--config", str(config), *command],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(
        f"breachwatch: {config}:2: smtp.password: Input should be a valid string\n{config}:3:"
    )
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr


# -- where things stand ------------------------------------------------------------------------------------------------


NESTED = """\
# comment [smtp]
[[team.people]] # first
name = "a"
[team.groups]
x = ["a = 1",
  "[smtp]",
]
[[team.people]]
'name' = 'b'
a.b.c = 1
text = '''
port = 5
'''
last = 1
"""


def test_lines_are_found_in_nested_and_repeated_tables() -> None:
    lines = TomlLines(NESTED)
    assert lines.find(("team", "people", 0, "name")) == 3
    assert lines.find(("team", "people", 1, "name")) == 9
    assert lines.find(("team", "people", 1, "a", "b", "c")) == 10
    assert lines.find(("team", "people", 1, "port")) == 8
    assert lines.find(("team", "people", 1, "last")) == 14
    assert lines.find(("team", "groups", "x")) == 5
    assert lines.find(("smtp",)) is None
