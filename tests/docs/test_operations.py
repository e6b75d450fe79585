"""docs/operations.md: its unit names what there is, its figures are those of the code."""

from __future__ import annotations

import configparser

from breachwatch.app.state import STALE_AFTER_S, StateLayout
from breachwatch.app.supervise import BACK_OFF_S, CONFIGURATION_EXITS, STOP_GRACE_S
from breachwatch.config.secrets import SecretFiles, read_secrets
from breachwatch.config.sections import Settings
from tests.docs import generate
from tests.docs.pages import DOCS, page, snippets

PAGE = page("operations.md")
(UNIT,) = (one for one in snippets(DOCS / "operations.md") if one.language == "ini")


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys keep their case
    parser.read_string(UNIT.text)
    return parser


def test_the_unit_starts_a_command_that_there_is():
    service = unit()["Service"]
    command = service["ExecStart"].split()
    assert " ".join(["breachwatch", *command[1:]]) in dict(generate.commands())
    assert service["Type"] == "notify"
    assert service["RestartPreventExitStatus"] == " ".join(map(str, CONFIGURATION_EXITS))
    assert float(service["TimeoutStopSec"]) > STOP_GRACE_S


def test_the_unit_keeps_the_state_where_the_settings_look_for_it():
    assert f"/var/lib/{unit()['Service']['StateDirectory']}" == "/var/lib/breachwatch"
    assert "`/var/lib/breachwatch`" in page("configuration.md")


def test_the_units_credential_is_a_secret_setting(tmp_path):
    name, _, file = unit()["Service"]["LoadCredential"].partition(":")
    assert file.endswith(f"/{name}")
    (tmp_path / name).write_text("word", encoding="utf-8")
    found: SecretFiles = read_secrets([tmp_path])
    assert Settings(**found.tree).smtp.password.get_secret_value() == "word"


def test_the_figures_are_those_of_the_code():
    text = " ".join(PAGE.split())
    waits = [f"{wait:.0f}" for wait in BACK_OFF_S]
    assert f"started again after {', '.join(waits[:-1])}, then every {waits[-1]} seconds" in text
    assert f"at most {STALE_AFTER_S:.0f} s old" in text
    assert f"after {STOP_GRACE_S:.0f} s they are killed" in text


def test_every_file_of_the_state_directory_is_on_the_page(tmp_path):
    layout = StateLayout(tmp_path)
    files = [layout.agent_db, layout.hub_db, layout.vault_db, layout.wake]
    files += [make(process) for make in (layout.alive, layout.lock) for process in ("agent", "hub", "run")]
    assert [path.name for path in files if f"`{path.name}`" not in PAGE] == []
