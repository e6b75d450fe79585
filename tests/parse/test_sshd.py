# ruff: noqa: E501, ISC004  # real log lines stay in one piece
from __future__ import annotations

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from breachwatch.parse import syslog
from breachwatch.parse.sshd import usual_login
from breachwatch.parse.syslog import SyslogParser
from tests.parse.samples import CONTEXT, parse_all, parse_one, raw_line, sshd


def test_a_failed_password_is_a_failed_login_with_user_and_address():
    event = parse_one("Dec 10 06:55:48 web01 sshd[24200]: Failed password for root from 203.0.113.7 port 38926 ssh2")
    assert event.logsource.service == "sshd"
    assert event.logsource.product == "linux"
    wanted = {
        "event.action": "ssh_login",
        "event.outcome": "failure",
        "event.category": ("authentication",),
        "event.type": ("start",),
        "user.name": "root",
        "source.ip": "203.0.113.7",
        "source.address": "203.0.113.7",
        "source.port": 38926,
        "sshd.method": "password",
        "sshd.invalid_user": False,
        "process.name": "sshd",
        "process.pid": 24200,
        "host.name": "web01",
    }
    assert wanted.items() <= event.fields.items()


@pytest.mark.parametrize(
    "user",
    [
        "root from 1.2.3.4 port 22 ssh2",
        "x from 1.2.3.4 port 22",
        "x from 1.2.3.4 port 22 ssh2: RSA SHA256:abcdefghijklmnop",
        "x from 1.2.3.4 port 22 ssh1: ruser y",
        " from 1.2.3.4 port 22 ssh2",
        "from",
        "a  from  b",
        "\\",
        "x [preauth]",
        "x from 1.2.3.4 port 22 ssh2 [preauth]",
    ],
)
def test_a_forged_user_name_never_changes_the_address(user):
    for message in (
        f"Failed password for invalid user {user} from 203.0.113.7 port 5 ssh2",
        f"Failed none for invalid user {user} from 203.0.113.7 port 5 ssh2",
        f"Failed keyboard-interactive/pam for invalid user {user} from 203.0.113.7 port 5 ssh2",
        f"Invalid user {user} from 203.0.113.7 port 5",
        f"Invalid user {user} from 203.0.113.7",
        f"Connection closed by invalid user {user} 203.0.113.7 port 5 [preauth]",
        f"Disconnected from invalid user {user} 203.0.113.7 port 5 [preauth]",
        f"maximum authentication attempts exceeded for invalid user {user} from 203.0.113.7 port 5 ssh2 [preauth]",
        f"error: PAM: Authentication failure for illegal user {user} from 203.0.113.7",
    ):
        fields = sshd(message)
        assert fields["source.ip"] == "203.0.113.7", message
        assert fields["user.name"] == user.strip() or fields["user.name"] == user, message
        assert fields["event.outcome"] == "failure", message


@pytest.mark.parametrize(
    ("message", "action", "outcome", "address"),
    [
        ("Accepted password for bob from 203.0.113.7 port 22 ssh2", "ssh_login", "success", "203.0.113.7"),
        (
            "Accepted publickey for bob from 2001:db8::7 port 22 ssh2: ED25519 SHA256:kzfjfps/WFgXAdNgzvHBLuI072Y",
            "ssh_login",
            "success",
            "2001:db8::7",
        ),
        (
            "Accepted publickey for bob from 203.0.113.7 port 22 ssh2: RSA-CERT SHA256:kzfjfps/WFgXAd ID a from 6.6.6.6 "
            "port 1 ssh2 (serial 0) CA RSA SHA256:kzfjfps/WFgXAdzz",
            "ssh_login",
            "success",
            "203.0.113.7",
        ),
        (
            'Failed hostbased for dan from 203.0.113.7 port 45785 ssh2: RSA 8c:e3:aa:0f, client user "a from 6.6.6.6 '
            'port 1 ssh2", client host "x"',
            "ssh_login",
            "failure",
            "203.0.113.7",
        ),
        (
            "Failed password for u from 203.0.113.7 port 20 ssh1: ruser from 1.2.3.4",
            "ssh_login",
            "failure",
            "203.0.113.7",
        ),
        (
            "Failed publickey for git from 203.0.113.7 port 57 ssh2: RSA SHA256:kzfjfps/WFgXAd",
            "ssh_key_refused",
            "unknown",
            "203.0.113.7",
        ),
        ("Postponed publickey for git from 203.0.113.7 port 57 ssh2", "ssh_login_step", "unknown", "203.0.113.7"),
        ("Connection closed by 203.0.113.7 [preauth]", "ssh_disconnect", "failure", "203.0.113.7"),
        ("Connection closed by 203.0.113.7 port 22", "ssh_disconnect", "unknown", "203.0.113.7"),
        ("Disconnected from user bob 203.0.113.7 port 22", "ssh_disconnect", "unknown", "203.0.113.7"),
        (
            "Disconnected from authenticating user bob 203.0.113.7 port 22 [preauth]",
            "ssh_disconnect",
            "unknown",
            "203.0.113.7",
        ),
        ("Received disconnect from 203.0.113.7: 11: Bye Bye [preauth]", "ssh_disconnect", "failure", "203.0.113.7"),
        ("Received disconnect from 2001:11:22::1: 11: bye", "ssh_disconnect", "unknown", "2001:11:22::1"),
        (
            "Received disconnect from 203.0.113.7 port 5:11: disconnected by user",
            "ssh_disconnect",
            "unknown",
            "203.0.113.7",
        ),
        ("error: Received disconnect from 203.0.113.7: 3: x: Auth fail", "ssh_disconnect", "failure", "203.0.113.7"),
        (
            "Disconnecting invalid user admin 203.0.113.7 port 44: Change of username or service not allowed: (a,b) -> (c,d)"
            " [preauth]",
            "ssh_disconnect",
            "failure",
            "203.0.113.7",
        ),
        (
            "Disconnecting authenticating user root 203.0.113.7 port 44: Too many authentication failures [preauth]",
            "ssh_max_auth_attempts",
            "failure",
            "203.0.113.7",
        ),
        (
            "Disconnecting: Too many authentication failures for root [preauth]",
            "ssh_max_auth_attempts",
            "failure",
            None,
        ),
        (
            "User root from 203.0.113.7 not allowed because not listed in AllowUsers",
            "ssh_user_denied",
            "failure",
            "203.0.113.7",
        ),
        ("ROOT LOGIN REFUSED FROM 203.0.113.7 port 12345 [preauth]", "ssh_user_denied", "failure", "203.0.113.7"),
        (
            "reverse mapping checking getaddrinfo for ns.example.com [203.0.113.7] failed - POSSIBLE BREAK-IN ATTEMPT!",
            "ssh_reverse_mapping_failed",
            None,
            "203.0.113.7",
        ),
        (
            "Address 203.0.113.7 maps to a.example, but this does not map back to the address - POSSIBLE BREAK-IN ATTEMPT!",
            "ssh_reverse_mapping_failed",
            None,
            "203.0.113.7",
        ),
        (
            "Unable to negotiate with 203.0.113.7 port 5: no matching cipher found. Their offer: aes256-cbc [preauth]",
            "ssh_negotiation_failed",
            "failure",
            "203.0.113.7",
        ),
        (
            "Did not receive identification string from 203.0.113.7 port 5",
            "ssh_negotiation_failed",
            "failure",
            "203.0.113.7",
        ),
        (
            "Bad protocol version identification 'x' from 6.6.6.6 port 1' from 203.0.113.7 port 31778",
            "ssh_negotiation_failed",
            "failure",
            "203.0.113.7",
        ),
        ("Connection from 203.0.113.7 port 51353 on 127.0.0.1 port 22", "ssh_connection", None, "203.0.113.7"),
        (
            "refused connect from x@::ffff:203.0.113.7 (::ffff:203.0.113.7)",
            "ssh_connection_refused",
            "failure",
            "203.0.113.7",
        ),
        ("input_userauth_request: invalid user bob [preauth]", "ssh_user_checked", "unknown", None),
        (
            "error: PAM: Authentication failure for james from 203.0.113.7 via 10.0.0.1",
            "ssh_pam_error",
            "failure",
            "203.0.113.7",
        ),
        ("Server listening on 0.0.0.0 port 22.", "ssh_message", None, None),
        ("Accepted", "ssh_message", None, None),
        ("PAM service(sshd) ignoring max retries; 6 > 3", "ssh_message", None, None),
        ("pam_unix(sshd:auth): something else", "ssh_message", None, None),
        ("error: something else", "ssh_message", None, None),
    ],
)
def test_each_message_of_sshd_has_its_action(message, action, outcome, address):
    fields = sshd(message)
    assert (fields["event.action"], fields.get("event.outcome"), fields.get("source.ip")) == (action, outcome, address)


def test_a_host_name_is_an_address_but_never_an_ip():
    fields = sshd("User root from scan.example.com not allowed because not listed in AllowUsers")
    assert fields["source.address"] == fields["source.domain"] == "scan.example.com"
    assert "source.ip" not in fields


def test_a_port_that_cannot_be_is_left_out():
    assert "source.port" not in sshd("Failed password for root from 203.0.113.7 port 99999 ssh2")


def test_a_repeated_message_counts_as_often_as_it_says():
    line = "Dec 10 06:55:48 web01 sshd[2]: message repeated 5 times: [ Failed password for root from 203.0.113.7 port 3 ssh2]"
    events = parse_all(line)
    assert len(events) == len({event.id for event in events}) == 5
    assert {event.fields["source.ip"] for event in events} == {"203.0.113.7"}
    assert {event.fields["event.action"] for event in events} == {"ssh_login"}


def test_a_forged_repeat_count_is_capped():
    line = "Dec 10 06:55:48 w sshd[2]: message repeated 9999999 times: [ Failed password for root from 1.2.3.4 port 3 ssh2]"
    assert len(parse_all(line)) == 1000


def test_a_repeat_inside_a_user_name_is_no_repeat():
    line = (
        "Dec 10 06:55:48 w sshd[2]: Invalid user message repeated 50 times: [ Failed password for root from 1.2.3.4 port 3"
        " ssh2] from 203.0.113.7 port 5"
    )
    assert parse_one(line).fields["source.ip"] == "203.0.113.7"


def test_a_summary_of_pam_is_no_failure_of_its_own():
    fields = sshd(
        "PAM 5 more authentication failures; logname= uid=0 euid=0 tty=ssh ruser= rhost=203.0.113.7  user=root"
    )
    assert fields["event.action"] == "pam_summary"
    assert fields["event.outcome"] != "failure"
    assert fields["pam.failures"] == 5
    assert fields["source.ip"] == "203.0.113.7"


@pytest.mark.parametrize(
    ("message", "address", "user"),
    [
        ("logname= uid=0 euid=0 tty=ssh ruser= rhost=203.0.113.7  user=root", "203.0.113.7", "root"),
        ("logname= uid=0 euid=0 tty=ssh ruser= rhost=203.0.113.7", "203.0.113.7", None),
        (
            "logname= uid=0 euid=0 tty=ssh ruser= rhost=203.0.113.7  user=root rhost=6.6.6.6",
            "203.0.113.7",
            "root rhost=6.6.6.6",
        ),
        ("logname= uid=0 euid=0 tty=ftp ruser=x rhost=6.6.6.6 rhost=203.0.113.7", "203.0.113.7", None),
        ("logname= uid=0 euid=0 tty=:0 ruser= rhost=", None, None),
        ("logname= uid=1000 euid=0 tty=pts/1 ruser=bob rhost=  user=root", None, "root"),
        ("nothing here", None, None),
    ],
)
def test_the_remote_host_of_pam_is_pams_own_word(message, address, user):
    fields = sshd(f"pam_unix(sshd:auth): authentication failure; {message}")
    assert (fields["event.action"], fields["event.outcome"]) == ("pam_authentication", "failure")
    assert fields["pam.service"] == "sshd"
    assert (fields.get("source.ip"), fields.get("user.name")) == (address, user)


def test_the_old_tag_of_pam_is_read_too():
    event = parse_one(
        "Jun 14 15:16:01 combo sshd(pam_unix)[19939]: authentication failure; logname= uid=0 euid=0 tty=NODEVssh ruser= "
        "rhost=scan.example.net  user=root"
    )
    assert event.fields["process.name"] == "sshd(pam_unix)"
    assert event.fields["pam.service"] == "sshd"
    assert event.fields["source.address"] == "scan.example.net"
    assert event.fields["event.action"] == "pam_authentication"
    assert event.logsource.service == "auth"


def test_sessions_are_opened_and_closed():
    opened = sshd("pam_unix(sshd:session): session opened for user bob(uid=1000) by (uid=0)")
    assert (opened["event.action"], opened["user.name"], opened["user.id"]) == ("session_opened", "bob", "1000")
    assert sshd("pam_unix(sshd:session): session closed for user bob")["event.action"] == "session_closed"
    assert sshd("pam_unix(sshd:auth): check pass; user unknown")["event.action"] == "pam_user_unknown"


# -- logins that are read in one step


USUAL = {
    "head": ("Dec 10 06:55:46", "Dec  1 06:55:46", "2026-02-10T06:55:46.123456+01:00", "2026-02-10T06:55:46Z"),
    "host": ("web01", "a.b-c.example"),
    "tag": ("sshd",),
    "pid": ("[7]: ", "[4294967295]: "),
    "verb": ("Failed", "Accepted"),
    "method": ("password", "publickey", "none", "keyboard-interactive/pam"),
    "invalid": (" for ", " for invalid user "),
    "user": ("root", "invalid", "from", "repeated", "x" * 64, "a@b.c"),
    "address": ("203.0.113.7", "1.2.3.4"),
    "port": ("5", "65535"),
    "end": (" ssh2", " ssh2: RSA SHA256:abcdefghijklmnop"),
}
ODD = {
    "head": (
        "Feb 31 06:55:46",
        "Foo 10 06:55:46",
        "<38>Dec 10 06:55:46",
        "<38>2026-02-10T06:55:46Z",
        "Dec 10 06:55:46.5",
    ),
    "host": ("Web01", "ERR", "web01:", "fe80::1", "[x]"),
    "tag": ("sshd-session", "SSHD", "/usr/sbin/sshd", "sudo", "sshd(pam_unix)"),
    "pid": ("[12345678901]: ", ": ", "[07]:", "[7]:  "),
    "verb": ("Postponed", "Partial", "failed", "message repeated 2 times: [ Failed"),
    "method": ("hostbased", "a/b/c", "Password"),
    "invalid": (" for illegal user ", " for invalid user invalid user ", "  for "),
    "user": ("x" * 65, "root from 1.2.3.4 port 22 ssh2", "x from 1.2.3.4 port 22 ssh2: RSA SHA256:abcdefghijklmnop"),
    "address": ("256.1.1.1", "1.2.3", "2001:db8::1", "01.2.3.4", "host.example", "UNKNOWN"),
    "port": ("0", "65536", "00022", "99999", "123456", "٣"),
    "end": (
        "",
        " ssh1",
        " ssh2 [preauth]",
        " ssh2: RSA short",
        " ssh2 ",
        "  ssh2",
        " ssh2: RSA-CERT SHA256:abcdefghijklmnop ID x",
    ),
}


@st.composite
def login_lines(draw: st.DrawFn) -> str:
    """Lines with a login tried as sshd writes them, in some of which a part or two are otherwise."""
    noise = st.text(st.sampled_from("aZ09 .:-_/[]()\\\t\x0b\xa0\rü٣%<>=~"), max_size=12)
    odd = draw(st.sets(st.sampled_from(sorted(ODD)), max_size=2))
    part = {
        name: draw(st.sampled_from(ODD[name]) | noise if name in odd else st.sampled_from(usual))
        for name, usual in USUAL.items()
    }
    return "{head} {host} {tag}{pid}{verb} {method}{invalid}{user} from {address} port {port}{end}".format(**part)


@settings(max_examples=500)
@given(line=login_lines())
@example(line="Dec 10 06:55:46 web01 sshd[7]: Failed password for invalid user root from 203.0.113.7 port 5 ssh2")
@example(
    line="2026-02-10T06:55:46Z web01 sshd[7]: Accepted publickey for a from 203.0.113.7 port 5 ssh2: RSA SHA256:abcdefghijklmnop"
)
@example(
    line="Dec 10 06:55:46 web01 sshd[7]: Failed publickey for a from 203.0.113.7 port 5 ssh2: RSA SHA256:abcdefghijklmnop"
)
def test_what_is_read_in_one_step_is_what_is_read_step_by_step(line):
    def all_of(is_quick: bool) -> tuple[object, object]:
        parser = SyslogParser()
        with pytest.MonkeyPatch.context() as patch:
            if not is_quick:
                patch.setattr(syslog, "usual_login", lambda *_: None)
            found = parser.parse(raw_line(line, 40), CONTEXT)
        return [(one, list(one.fields.items())) for one in found], parser.memory.saved()

    event(f"in one step: {any(usual_login(line, at, raw_line(line)) for at in range(len(line)))}")
    assert all_of(True) == all_of(False)


@pytest.mark.parametrize("head", ["Dec 10 06:55:46", "2026-02-10T06:55:46.123456+01:00"])
@pytest.mark.parametrize(
    "tried", ["Failed password for", "Failed none for invalid user", "Accepted keyboard-interactive/pam for"]
)
def test_what_sshd_writes_of_a_login_is_read_in_one_step(monkeypatch, head, tried):
    def steps(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(SyslogParser, "_tagged", steps)
    event = parse_one(f"{head} web01 sshd[24200]: {tried} root from 203.0.113.7 port 38926 ssh2")
    assert event.fields["source.port"] == 38926
