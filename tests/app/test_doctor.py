"""`breachwatch doctor` on a sound installation, and on one with each thing broken by itself."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from breachwatch.app import doctor_host, doctor_outside, doctor_promise
from breachwatch.app.doctor import CHECKS, examine
from breachwatch.app.finding import Finding, Status
from breachwatch.config.settings import Settings, load_settings
from breachwatch.detect.prefilter import backend
from tests.sinks import sink

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # apprise, at import
PASSWORD = "hunter2-never-shown"

SOUND = """
[state]
directory = "{root}/state"

[[watch.logs]]
path = "{root}/auth.log"

[playbooks]
use = ["vietnam-pdpl"]

[smtp]
host = "127.0.0.1"
port = {smtp}
tls = "none"
sender = "security@shop.example"

[sms]
url = "http://127.0.0.1:{sms}/send"

[[chat]]
name = "room"
url = "json://127.0.0.1:1/hook"

[[team.people]]
name = "linh"
email = "linh@shop.example"
phone = "+84900000001"
chat = "room"
roles = ["dpo"]
os_user = "linh"

[[team.people]]
name = "quang"
email = "quang@shop.example"
phone = "+84900000002"
roles = ["ciso"]
os_user = "quang"

[team.groups]
security = ["linh"]
management = ["quang"]

[letterhead]
name = "Cửa hàng Mẫu"
address = "1 Example Street, Hà Nội"
registration = "0100000000"
tax_code = "0100000000"
hotline = "1900 0000"
email = "privacy@shop.example"
website = "https://shop.example"
privacy_contact = "privacy@shop.example"
signatory = "Director"
verify_url = "https://shop.example/incident"

[authorities.vn-mps-pdp]
name = "A05"
email = "a05@authority.example"

[audiences.customers]
csv = "{root}/customers.csv"
"""


ALONE = '\n[team.groups]\nsecurity = ["linh"]\nmanagement = ["linh"]\n'


@dataclass
class Place:
    root: Path
    smtp: int
    sms: int

    def settings(self, change: tuple[str, str] | None = None, extra: str = "") -> Settings:
        text = SOUND.format(root=self.root, smtp=self.smtp, sms=self.sms)
        if change is not None:
            assert change[0] in text, change
            text = text.replace(*change)
        config = self.root / "breachwatch.toml"
        config.write_text(text + extra, encoding="utf-8")
        return load_settings(config)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("BREACHWATCH_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def sinks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    folder = tmp_path_factory.mktemp("sinks")
    with sink("smtp", folder / "smtp") as smtp, sink("http", folder / "http") as http:
        yield smtp, http


@pytest.fixture
def place(tmp_path: Path, sinks: tuple[int, int]) -> Place:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "auth.log").touch()
    (tmp_path / "customers.csv").write_text("id,name,email\n")
    return Place(tmp_path, *sinks)


HOST_CHECKS = [check for check in CHECKS if check is not doctor_host.check_clock]
"""What the test machine's own clock does is not ours to mend."""


def bad(findings: Iterable[Finding], status: Status = Status.PROBLEM) -> list[str]:
    return [f"{finding.what}: {finding.why}" for finding in findings if finding.status is status]


def test_a_sound_installation_has_no_problem_and_no_warning(place: Place) -> None:
    findings = examine(place.settings(), HOST_CHECKS)
    assert bad(findings) == []
    assert bad(findings, Status.WARNING) == []
    heard = " ".join(finding.what for finding in findings)
    for word in ("state", "volume", "log ", "rules", "playbook", "approval", "letterhead", "templates", "audience",
                 "smtp", "sms", "chat"):  # fmt: skip
        assert word in heard, "a check that ran on nothing"


BROKEN: dict[str, tuple[tuple[str, str], str]] = {
    "a log that is not there": (('auth.log"', 'auht.log"'), "auht.log: no file matches"),
    "nothing to watch": (('[[watch.logs]]\npath = "', '[[chat]]\nname="'), "sources: nothing is watched"),
    "no mail server": (('host = "127.0.0.1"', 'host = ""'), "smtp: no mail server"),
    "no sender": (('sender = "security@shop.example"', ""), "no sender address"),
    "a mail server without TLS": (('tls = "none"', 'tls = "starttls"'), "offers no STARTTLS"),
    "TLS where none is spoken": (('tls = "none"', 'tls = "implicit"'), "TLS failed"),
    "a user without password": (('tls = "none"', 'tls = "none"\nuser = "x"'), "smtp.user is set, its password is not"),
    "a letterhead with holes": (('hotline = "1900 0000"', ""), "letterhead: missing: hotline"),
    "a letterhead of blanks": (('signatory = "Director"', 'signatory = "  "'), "letterhead: missing: signatory"),
    "no playbook": (('use = ["vietnam-pdpl"]', "use = []"), "playbooks: none in use"),
    "a playbook that is none": (('"vietnam-pdpl"', '"vietnam-pdlp"'), "no playbook named vietnam-pdlp"),
    "no second approver": (('roles = ["ciso"]', "roles = []"), "fails when an approver asks"),
    "no approver at all": (('roles = ["ciso"]', 'roles = ["x"]'), "fails when an approver asks"),
    "an authority without address": (("[authorities.vn-mps-pdp]", "[authorities.other]"), "the authority vn-mps-pdp"),
    "an audience that is not defined": (("[audiences.customers]", "[audiences.guests]"), "the audience customers"),
    "an audience file that is not there": (("customers.csv", "customer.csv"), "customer.csv cannot be read"),
    "a group that nobody is in": (('management = ["quang"]', "management = []"), "management: is empty"),
    "a group that is missing": (('management = ["quang"]', ""), "pages management"),
    "a chat address that is none": (("json://127.0.0.1:1/hook", "what is this"), "apprise does not understand"),
    "a state volume that is elsewhere": (('/state"', '/missing/state"'), ""),
}  # fmt: skip
WARNINGS = {"no second approver", "no approver at all", "a state volume that is elsewhere"}


@pytest.mark.parametrize("name", [name for name in BROKEN if name not in WARNINGS])
def test_each_thing_broken_alone_is_a_problem_with_a_mend(place: Place, name: str) -> None:
    change, says = BROKEN[name]
    findings = examine(place.settings(change), HOST_CHECKS)
    found = [item for item in findings if item.status is Status.PROBLEM and says in f"{item.what}: {item.why}"]
    assert found, [f"{item.what}: {item.why}" for item in findings]
    assert all(item.mend for item in findings if item.status is not Status.OK)


def test_one_approver_is_a_warning_and_none_besides_who_asks_a_problem(place: Place) -> None:
    one = list(doctor_promise.check_approvers(place.settings(('roles = ["ciso"]', "roles = []"))))
    assert {item.status for item in one} == {Status.WARNING}

    alone = place.settings(
        (SOUND[SOUND.index('\n[[team.people]]\nname = "quang"') : SOUND.index("\n[letterhead]")], ALONE)
    )
    problems = list(doctor_promise.check_approvers(alone))
    assert {item.status for item in problems} == {Status.PROBLEM}
    assert all("no second approver" in item.why for item in problems)


def test_a_refused_rule_and_one_that_can_never_match_are_named(place: Place) -> None:
    rules = place.root / "rules"
    rules.mkdir()
    (rules / "broken.yml").write_text("title: broken\nlogsource: {product: linux}\ndetection: {sel: {a|nonsense: 1}, condition: sel}\n")  # fmt: skip  # noqa: E501
    (rules / "windows.yml").write_text(
        "title: lost\nid: 11111111-2222-4333-8444-555555555555\nlogsource: {product: windows, service: security}\n"
        "detection: {sel: {EventID: 1}, condition: sel}\n"
    )
    findings = list(doctor_promise.check_rules(place.settings(extra=f'[rules]\ndirectories = ["{rules}"]\n')))
    assert any("broken.yml" in text and "nonsense" in text for text in bad(findings))
    assert any("windows.yml" in text for text in bad(findings, Status.WARNING))


def test_what_scans_is_named_and_its_absence_a_warning(place: Place) -> None:
    (found,) = doctor_host.check_scanner(place.settings())
    assert (found.status, found.why.split(",")[0].split(";")[0]) == (Status.OK, backend())
    assert bad(doctor_host.check_scanner(place.settings(), ""), Status.WARNING)


def test_no_rules_at_all_is_a_problem(place: Place) -> None:
    findings = list(doctor_promise.check_rules(place.settings(extra="[rules]\nshipped = false\n")))
    assert bad(findings) == ["rules: none: nothing would ever match"]


def test_a_template_that_does_not_compile_is_a_problem_with_its_line(place: Place) -> None:
    folder = place.root / "templates"
    folder.mkdir()
    (folder / "customer.vi.txt.j2").write_text("hello\n{{ nonsense( }}\n")
    findings = list(doctor_promise.check_templates(place.settings(extra=f'[templates]\ndirectories = ["{folder}"]\n')))
    assert any("customer.vi.txt.j2" in text and "2" in text for text in bad(findings))


# -- the state directory and logs --------------------------------------------------------------------------------------


def test_a_state_directory_that_others_can_enter_is_a_problem(place: Place) -> None:
    (place.root / "state").chmod(0o750)
    findings = list(doctor_host.check_state(place.settings()))
    assert any("mode 0750 lets other accounts in" in text for text in bad(findings))
    assert any(f"chmod 0700 {place.root}/state" == item.mend for item in findings)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_state_directory_of_another_user_is_a_problem(place: Place) -> None:
    os.chown(place.root / "state", 65_534, 65_534)
    assert any("belongs to uid 65534, this is uid 0" in text for text in bad(doctor_host.check_state(place.settings())))


def test_a_state_directory_that_does_not_exist_yet_is_only_said(place: Place) -> None:
    (place.root / "state").rmdir()
    findings = list(doctor_host.check_state(place.settings()))
    assert bad(findings) == []
    assert any("does not exist yet" in text for text in bad(findings, Status.WARNING))


@pytest.mark.skipif(os.geteuid() != 0, reason="the account that may not read is taken from root")
def test_a_log_that_this_account_may_not_read_is_a_problem_with_the_group_to_join(place: Place) -> None:
    (place.root / "auth.log").chmod(0o600)
    code = (
        "import os, sys; from breachwatch.app.doctor_host import _readable_log\n"
        "os.setgid(65534); os.setuid(65534); found = _readable_log(sys.argv[1])\n"
        "print(found.status, found.why, found.mend, sep='|')"
    )
    for folder in [place.root, *place.root.parents][:3]:
        folder.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", code, str(place.root / "auth.log")], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("problem|cannot be read: Permission denied|run the agent as root, or add its account")


def test_a_pipe_in_the_place_of_a_log_does_not_hang_the_doctor(place: Place) -> None:
    (place.root / "auth.log").unlink()
    os.mkfifo(place.root / "auth.log")
    assert any("is a pipe or device" in text for text in bad(doctor_host.check_logs(place.settings())))


def test_a_glob_names_each_file(place: Place) -> None:
    (place.root / "b.log").touch()
    settings = place.settings(('/auth.log"', '/*.log"'))
    assert [item.what for item in doctor_host.check_logs(settings)] == [
        f"log {place.root}/auth.log",
        f"log {place.root}/b.log",
    ]


def test_few_inotify_watches_are_a_warning(tmp_path: Path) -> None:
    limit = tmp_path / "max_user_watches"
    limit.write_text("8192\n")
    assert any("is 8192" in text for text in bad(doctor_host.check_inotify(limit), Status.WARNING))
    limit.write_text("524288\n")
    assert bad(doctor_host.check_inotify(limit), Status.WARNING) == []
    assert bad(doctor_host.check_inotify(tmp_path / "missing"), Status.WARNING) != []


@pytest.mark.parametrize(
    ("state", "status"), [(True, Status.OK), (False, Status.PROBLEM), (None, Status.WARNING)]
)  # fmt: skip
def test_a_clock_that_nothing_keeps_right_is_a_problem(
    place: Place, monkeypatch: pytest.MonkeyPatch, state: bool | None, status: Status
) -> None:
    monkeypatch.setattr(doctor_host, "clock_is_synchronised", lambda: state)
    (finding,) = doctor_host.check_clock(place.settings())
    assert finding.status is status
    assert (finding.status is Status.OK) == (not finding.mend)


def test_what_the_kernel_says_of_the_clock_is_what_adjtimex_says() -> None:
    """timedatectl and chrony write it; where the kernel cannot be asked the answer is neither yes nor no."""
    assert doctor_host.clock_is_synchronised() in {True, False, None}
    assert doctor_host.TIMESYNCD_MARK.exists() is False or doctor_host.clock_is_synchronised() is True


# -- what lies outside -------------------------------------------------------------------------------------------------


@contextmanager
def server(answer: Callable[[socket.socket], object]) -> Iterator[int]:
    """A TCP server for one connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(20)

    def serve() -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(20)
            answer(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()
        thread.join(25)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def smtp_findings(place: Place, port: int, extra: str = "") -> list[Finding]:
    change = (f"port = {place.smtp}", f"port = {port}\n{extra}")
    return list(doctor_outside.check_smtp(place.settings(change)))


def test_a_mail_server_that_is_down_is_a_problem(place: Place) -> None:
    port = closed_port()
    findings = smtp_findings(place, port)
    assert bad(findings) == [f"smtp 127.0.0.1:{port}: cannot be reached: Connection refused"]
    assert findings[-1].mend == "check smtp.host, smtp.port and the firewall"


def test_a_mail_server_that_says_nothing_is_given_up_on(place: Place) -> None:
    with server(lambda connection: connection.recv(1)) as port:
        assert any("timed out" in text for text in bad(smtp_findings(place, port, "timeout_s = 0.3")))


def test_a_mail_server_that_hangs_up_or_refuses_is_a_problem(place: Place) -> None:
    with server(lambda connection: connection.sendall(b"554 5.7.1 go away kh1@customers.example\r\n")) as port:
        found = bad(smtp_findings(place, port))
    assert found == [f"smtp 127.0.0.1:{port}: answers 554"], "the server's text may repeat a contact"
    with server(socket.socket.getsockname) as port:
        assert len(bad(smtp_findings(place, port))) == 1


def test_a_wrong_mail_password_is_a_problem_and_is_not_shown(place: Place, tmp_path: Path) -> None:
    with sink("smtp", tmp_path / "auth", "--user", "mailer", "--password", "right") as port:
        extra = f'user = "mailer"\npassword = "{PASSWORD}"'
        findings = smtp_findings(place, port, extra)
        assert any("refuses our name and password (535)" in text for text in bad(findings))
        assert PASSWORD not in repr(findings)
        assert bad(smtp_findings(place, port, 'user = "mailer"\npassword = "right"')) == []


def test_no_password_is_tried_in_clear_text_on_another_host(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[bytes] = []

    def listen(connection: socket.socket) -> None:
        connection.sendall(b"220 hello\r\n")
        while data := connection.recv(4096):
            heard.append(data)
            connection.sendall(b"250-hello\r\n250 AUTH PLAIN LOGIN\r\n" if data.startswith(b"ehlo") else b"221 bye\r\n")

    monkeypatch.setattr(doctor_outside, "is_loopback", lambda _host: False)
    with server(listen) as port:
        findings = smtp_findings(place, port, f'user = "mailer"\npassword = "{PASSWORD}"')
    assert any("TLS is off" in text for text in bad(findings))
    assert heard
    assert not any(b"AUTH" in data for data in heard)


def test_a_certificate_nobody_vouches_for_is_a_problem(place: Place, certificate: Path, tmp_path: Path) -> None:
    with sink("smtp", tmp_path / "tls", "--certificate", str(certificate)) as port:
        change = ('tls = "none"', 'tls = "starttls"')
        settings = place.settings((f"port = {place.smtp}\n{change[0]}", f"port = {port}\n{change[1]}"))
        assert any("its certificate does not hold" in text for text in bad(doctor_outside.check_smtp(settings)))
        trusting = place.settings(
            (f"port = {place.smtp}\n{change[0]}", f'port = {port}\n{change[1]}\nca_file = "{certificate}"')
        )
        assert bad(doctor_outside.check_smtp(trusting)) == []
    broken = place.root / "broken.pem"
    broken.write_text("no certificate")
    settings = place.settings((change[0], f'{change[1]}\nca_file = "{broken}"'))
    assert any("smtp.ca_file cannot be read" in text for text in bad(doctor_outside.check_smtp(settings)))


def test_an_sms_gateway_that_is_down_or_not_https_is_a_problem(place: Place) -> None:
    down = place.settings((f"127.0.0.1:{place.sms}", f"127.0.0.1:{closed_port()}"))
    assert any("cannot be reached: Connection refused" in text for text in bad(doctor_outside.check_sms(down)))
    plain = place.settings((f"http://127.0.0.1:{place.sms}/", "http://gateway.invalid/"))
    assert any("not https" in text for text in bad(doctor_outside.check_sms(plain)))


def elastic(place: Place, port: int, extra: str = "") -> list[Finding]:
    settings = place.settings(extra=f'[elasticsearch]\nurl = "http://127.0.0.1:{port}"\n{extra}')
    return list(doctor_outside.check_elasticsearch(settings))


def http(status: str, body: bytes) -> Callable[[socket.socket], object]:
    def answer(connection: socket.socket) -> None:
        connection.recv(4096)
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + body)

    return answer


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (http("200 OK", b'{"version": {"number": "8.19.3"}}'), None),
        (http("200 OK", b'{"version": {"number": "7.10.2"}}'), "version 7.10.2 is not known"),
        (http("200 OK", b"<html>"), "what answers is not Elasticsearch"),
        (http("200 OK", b"[]"), "what answers is not Elasticsearch"),
        (http("401 Unauthorized", b""), "answers HTTP 401"),
        (http("503 Service Unavailable", b""), "answers HTTP 503"),
        (lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"), "what answers is not Elasticsearch"),
    ],
)
def test_what_elasticsearch_answers(place: Place, answer: Callable[[socket.socket], object], says: str | None) -> None:
    with server(answer) as port:
        found = bad(elastic(place, port))
    assert found == [] if says is None else says in found[0]


def test_elasticsearch_that_is_away_is_a_problem_that_says_nothing_is_lost(place: Place) -> None:
    (finding,) = elastic(place, closed_port())
    assert finding.status is Status.PROBLEM
    assert "waits in the spool" in finding.mend


# -- all together ------------------------------------------------------------------------------------------------------


def test_a_check_that_fails_itself_is_a_problem_and_the_others_are_heard(place: Place) -> None:
    def check_nothing(_settings: Settings) -> Iterator[Finding]:
        raise RuntimeError(PASSWORD)
        yield

    findings = examine(place.settings(), [check_nothing, doctor_promise.check_letterhead])
    assert bad(findings) == ["nothing: the check itself failed: RuntimeError"]
    assert len(findings) == 2


def call(place: Place, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "breachwatch", "--config", str(place.root / "breachwatch.toml"), "doctor", *options],
        capture_output=True, text=True, timeout=90,
    )  # fmt: skip


def test_the_command_says_status_reason_and_mend_and_ends_with_one(place: Place) -> None:
    place.settings(('hotline = "1900 0000"', ""), extra=f'[rules]\nplaceholders = {{x = ["{PASSWORD}"]}}\n')
    done = call(place)
    assert done.returncode == 1
    assert "problem  letterhead: missing: hotline" in done.stdout
    assert "         mend: fill in [letterhead]" in done.stdout
    objects = [json.loads(line) for line in call(place, "--json").stdout.splitlines()]
    assert {tuple(item) for item in objects} == {("kind", "status", "what", "why", "mend")}
    assert {item["status"] for item in objects} >= {"ok", "problem"}
    assert PASSWORD not in done.stdout + done.stderr


def test_the_command_changes_nothing(place: Place) -> None:
    place.settings()
    before = sorted(str(path) for path in place.root.rglob("*"))
    call(place)
    assert sorted(str(path) for path in place.root.rglob("*")) == before
