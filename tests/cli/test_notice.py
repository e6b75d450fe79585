"""`notice` and `playbook` commands on a real campaign: what is exported and previewed is what is sent, to the byte."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from breachwatch.model import Campaign, StepState
from tests.app.hub_host import PLAYBOOK, Desk
from tests.cli.run import run
from tests.conftest import FakeClock
from tests.sinks import index, sink

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # apprise, at import


@dataclass
class Sent:
    """An incident whose notices have left, with what the mail server got."""

    desk: Desk
    incident: str
    mails: Path
    previewed: str

    def campaign(self, step: str) -> Campaign:
        (found,) = self.desk.campaigns(self.incident, f"mine/{step}")
        return found


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sent]:
    root = tmp_path_factory.mktemp("sent")
    mails = root / "mail"
    (root / "customers.csv").write_text(
        "id,name,email,language\nKH-1,Lê & <Ánh>,kh1@customers.example,vi\nKH-2,Jane,kh2@customers.example,en\n"
        "KH-3,Gone,gone@customers.example,en\n",
        encoding="utf-8",
    )
    with sink("smtp", mails, "--bodies", "--reject", "gone@customers.example") as port:
        desk = Desk(root, port, FakeClock())
        incident = desk.break_in()
        desk.confirm(incident)
        customers = desk.draft(incident, "customers")
        previewed = run(desk.config, "playbook", "preview", customers.id).out
        for step in ("authority", "customers"):
            desk.approve(desk.draft(incident, step))
        desk.settle()
        desk.send(lambda: desk.step(incident, "customers").state is StepState.DONE, "everybody is told")
        yield Sent(desk, incident, mails, previewed)
        desk.close()


def received(mails: Path) -> dict[str, bytes]:
    """Address to the message that its server took, without the two lines that the sink puts before it."""
    got: dict[str, bytes] = {}
    for item in index(mails):
        data = (mails / f"{int(str(item['n'])):06d}.eml").read_bytes()
        got[str(item["to"][0])] = data.split(b"\r\n", 2)[2]  # type: ignore[index]
    return got


def test_an_export_is_what_was_sent_to_the_byte(sent: Sent, tmp_path: Path) -> None:
    campaign = sent.campaign("customers")
    folder = tmp_path / "export"
    done = run(sent.desk.config, "notice", "export", campaign.id, str(folder))
    assert done.code == 0, done.err
    assert "2 messages written" in done.out
    assert "0 differ" in done.out
    written = sorted(path.read_bytes() for path in folder.iterdir())
    got = received(sent.mails)
    assert written == sorted(got[f"kh{n}@customers.example"] for n in (1, 2))
    assert folder.stat().st_mode & 0o077 == 0, "contacts: for its owner only"
    assert not any("customers" in path.name for path in folder.iterdir()), "no contact in a name"


def test_an_export_of_changed_words_says_which_message_differs(sent: Sent, tmp_path: Path) -> None:
    campaign = sent.campaign("authority")
    with sent.desk.hub.store.transaction() as tx:
        tx.connection.exec_driver_sql(
            "UPDATE delivery SET sent_sha256 = ? WHERE campaign_id = ?", ("0" * 64, campaign.id)
        )
    done = run(sent.desk.config, "notice", "export", campaign.id, str(tmp_path / "export"))
    assert done.code == 1
    assert "DIFFERS from what was recorded as sent" in done.err
    assert "1 differ" in done.out


def test_a_preview_shows_every_language_and_the_hash_that_is_approved_and_no_contact(sent: Sent) -> None:
    campaign = sent.campaign("customers")
    assert f"approve {campaign.id} --hash {campaign.content_hash}" in sent.previewed
    assert sent.previewed.count("----- email -----") == 2
    assert "customers.example" not in sent.previewed
    assert "customers to 3, awaiting_approval" in sent.previewed


def test_the_list_names_campaigns_and_states_and_the_view_whom_no_channel_reached(sent: Sent) -> None:
    listed = {item["id"]: item for item in run(sent.desk.config, "notice", "list", "--json").objects()}
    campaign = sent.campaign("customers")
    assert listed[campaign.id]["deliveries"] == {"accepted": 2, "failed": 1}
    assert listed[campaign.id]["state"] == "done"
    only = run(sent.desk.config, "notice", "list", "--incident", sent.incident, "--json").objects()
    assert {item["incident"] for item in only} == {sent.incident}
    assert run(sent.desk.config, "notice", "list", "--incident", "INC-2026-999999", "--json").objects() == []
    shown = run(sent.desk.config, "notice", "show", campaign.id, "--json")
    assert shown.code == 1, "somebody was not reached"
    (unreached,) = [item for item in shown.objects() if item["kind"] == "undeliverable"]
    assert unreached["code"] == "550 5.1.1"
    assert "gone@" not in shown.out
    plain = run(sent.desk.config, "notice", "show", campaign.id)
    assert f"not reached     {unreached['person']} by email: 550 5.1.1" in plain.out
    assert run(sent.desk.config, "notice", "show", sent.campaign("authority").id).code == 0


@pytest.mark.parametrize("command", [("show",), ("export", "folder")])
def test_a_campaign_that_there_is_not_is_one_message(sent: Sent, command: tuple[str, ...], tmp_path: Path) -> None:
    rest = [str(tmp_path / one) for one in command[1:]]
    done = run(sent.desk.config, "notice", command[0], "cmp-none", *rest)
    assert (done.code, done.err) == (
        3,
        "breachwatch: cmp-none: no such campaign (`breachwatch notice list` shows them)\n",
    )


def test_lint_says_file_line_and_how_many(sent: Sent, tmp_path: Path) -> None:
    sound, broken = tmp_path / "sound.yaml", tmp_path / "broken.yaml"
    sound.write_text(PLAYBOOK)
    broken.write_text(PLAYBOOK.replace("wait: 10m", "wait: soon"))
    done = run(sent.desk.config, "playbook", "lint", str(sound), str(broken))
    assert done.code == 1
    assert f"{broken}:7" in done.out
    assert "1 playbooks fine, 1 refused" in done.out
    assert run(sent.desk.config, "playbook", "lint").out == "1 playbooks fine, 0 refused\n"


def simulated(config: Path, file: Path, *options: str) -> list[tuple[float, str, str]]:
    items = run(config, "playbook", "simulate", str(file), "--json", *options).objects()
    return [(float(str(item["after_s"])), str(item["action"]), str(item["what"])) for item in items]


def test_a_simulation_plays_escalation_approval_and_notices_in_time(sent: Sent, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(PLAYBOOK)
    quiet = simulated(sent.desk.config, file, "--ack-after", "3", "--confirm-after", "120", "--approve-after", "60")
    assert quiet[0][:2] == (0.0, "PageTeam")
    assert sum(action == "PageTeam" for _, action, _ in quiet) == 1, "acknowledged after three minutes"
    prepared = [(after, what) for after, action, what in quiet if action == "PrepareNotice"]
    assert [after for after, _ in prepared] == [7_200.0] * 2
    started = [(after, what) for after, action, what in quiet if action == "StartCampaign"]
    assert started[0] == (10_800.0, "step=mine/authority")
    nobody = simulated(sent.desk.config, file, "--ack-after", "-1")
    pages = [(after, what) for after, action, what in nobody if action == "PageTeam"]
    assert [after for after, _ in pages[:3]] == [0.0, 300.0, 900.0]
    assert "to=security" in pages[0][1]
    assert "to=management" in pages[1][1]
    assert {action for _, action, _ in nobody} == {"PageTeam"}, "nothing leaves that nobody confirmed"
    assert simulated(sent.desk.config, file, "--severity", "low") == [], "the playbook is for high ones"


def test_help_of_every_command_comes_without_a_configuration(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "breachwatch", "--config", str(tmp_path / "none.toml"), "notice", "export", "--help"],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0
    assert "Write every message as sent" in done.stdout
    assert done.stderr == ""
