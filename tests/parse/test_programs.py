# ruff: noqa: E501  # real log lines stay in one piece
from __future__ import annotations

import pytest

from tests.parse.samples import program


def test_a_sudo_command_says_who_what_where_and_as_whom():
    event = program(
        "sudo", "     bob : TTY=pts/0 ; PWD=/home/bob ; USER=root ; COMMAND=/bin/cat /etc/shadow ; COMMAND=/x"
    )
    assert event.logsource.service == "sudo"
    wanted = {
        "event.action": "sudo_command",
        "event.outcome": "success",
        "user.name": "bob",
        "user.effective.name": "root",
        "process.working_directory": "/home/bob",
        "process.command_line": "/bin/cat /etc/shadow ; COMMAND=/x",
        "process.executable": "/bin/cat",
        "sudo.tty": "pts/0",
    }
    assert wanted.items() <= event.fields.items()


@pytest.mark.parametrize(
    ("message", "action", "outcome"),
    [
        ("bob : user NOT in sudoers ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/sh", "sudo_denied", "failure"),
        ("bob : command not allowed ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/sh", "sudo_denied", "failure"),
        ("bob : 3 incorrect password attempts ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/sh", "sudo_auth_failure", "failure"),
        ("bob : a password is required ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/sh", "sudo_password_required", "failure"),
        ("bob : unable to resolve host web01", "sudo_message", None),
        ("pam_unix(sudo:auth): authentication failure; logname=bob uid=1 euid=0 tty=/dev/pts/0 ruser=bob rhost=  user=bob",
         "pam_authentication", "failure"),
        ("pam_unix(sudo:session): session opened for user root(uid=0) by bob(uid=1000)", "session_opened", "success"),
        ("pam_unix(sudo:auth): conversation failed", "sudo_message", None),
        ("unable to open /run/sudo/ts", "sudo_message", None),
    ],
)  # fmt: skip
def test_every_refusal_of_sudo_has_its_action(message, action, outcome):
    fields = program("sudo", message).fields
    assert (fields["event.action"], fields.get("event.outcome")) == (action, outcome)


@pytest.mark.parametrize(
    ("message", "outcome"),
    [
        ("Successful su for root by bob", "success"),
        ("FAILED su for root by bob", "failure"),
        ("+ /dev/pts/0 bob:root", "success"),
        ("- pts/1 bob:root", "failure"),
        ("(to root) bob on pts/1", "success"),
        ("FAILED SU (to root) bob on pts/1", "failure"),
        ("'su root' failed for bob on /dev/pts/1", "failure"),
        ("'su root' succeeded for bob on /dev/pts/1", "success"),
        ("BAD SU bob to root on /dev/ttyp1", "failure"),
        ("bob to root on /dev/ttyp1", "success"),
    ],
)
def test_su_says_who_became_whom_on_every_system(message, outcome):
    event = program("su[12]", message)
    fields = event.fields
    assert (fields["event.action"], fields["event.outcome"]) == ("su_login", outcome)
    assert (fields["user.name"], fields["user.effective.name"]) == ("bob", "root")
    assert event.logsource.service == "auth"


@pytest.mark.parametrize(
    ("tag", "message", "action", "user"),
    [
        ("useradd[1]", "new user: name=eve, UID=0, GID=0, home=/root, shell=/bin/bash, from=/dev/pts/0", "user_created", "eve"),
        ("useradd[1]", "new group: name=eve, GID=1001", "group_changed", None),
        ("groupadd[1]", "group added to /etc/group: name=eve, GID=1001", "group_changed", None),
        ("usermod[1]", "add 'eve' to group 'sudo'", "group_changed", "eve"),
        ("usermod[1]", "add 'eve' to shadow group 'sudo'", "group_changed", "eve"),
        ("gpasswd[1]", "user eve added by root to group sudo", "group_changed", "eve"),
        ("usermod[1]", "change user 'eve' UID from '1001' to '0'", "user_changed", "eve"),
        ("usermod[1]", "change user 'eve' shell from '/bin/false' to '/bin/bash'", "user_changed", "eve"),
        ("usermod[1]", "lock user 'eve' password", "user_changed", "eve"),
        ("userdel[1]", "delete user 'eve'", "user_deleted", "eve"),
        ("passwd[1]", "pam_unix(passwd:chauthtok): password changed for eve", "password_changed", "eve"),
        ("passwd[1]", "password for 'eve' changed by 'root'", "password_changed", "eve"),
        ("chpasswd[1]", "password changed for eve", "password_changed", "eve"),
        ("useradd[1]", "failed adding user 'eve', exit code: 9", "account_message", None),
        ("passwd[1]", "pam_unix(passwd:x): y", "account_message", None),
        ("CRON[1]", "(root) CMD (run-parts (x) --report)", "cron_command", "root"),
        ("crontab[1]", "(eve) REPLACE (eve)", "cron_changed", "eve"),
        ("crontab[1]", "(eve) LIST (eve)", "cron_message", "eve"),
        ("cron[1]", "pam_unix(cron:session): session opened for user root by (uid=0)", "session_opened", "root"),
        ("cron[1]", "pam_unix(cron:x): y", "cron_message", None),
        ("anacron[1]", "Normal exit (1 job run)", "cron_message", None),
        ("login[1]", "FAILED LOGIN (1) on '/dev/tty1' FOR 'root', Authentication failure", "console_login", "root"),
        ("login[1]", "FAILED LOGIN 1 FROM 203.0.113.7 FOR eve, Authentication failure", "console_login", "eve"),
        ("login[1]", "ROOT LOGIN ON tty2", "console_login", "root"),
        ("login[1]", "LOGIN ON tty1 BY eve", "console_login", "eve"),
        ("login[1]", "pam_unix(login:auth): authentication failure; logname= uid=0 euid=0 tty=tty1 ruser= rhost= ", "pam_authentication",
         None),
        ("login(pam_unix)[1]", "session opened for user root by LOGIN(uid=0)", "session_opened", "root"),
        ("login[1]", "pam_unix(login:x): y", "login_message", None),
        ("login[1]", "something", "login_message", None),
        ("vsftpd", "pam_unix(vsftpd:auth): authentication failure; logname= uid=0 euid=0 tty=ftp ruser=a rhost=203.0.113.7",
         "pam_authentication", None),
        ("pure-ftpd", "(pam_unix) authentication failure; logname= uid=0 euid=0 tty=pure-ftpd ruser=a rhost=203.0.113.7 ",
         "pam_authentication", None),
        ("dovecot", "imap-login: Disconnected (auth failed, 1 attempts): user=<x>, method=PLAIN, rip=203.0.113.7, TLS", "app_login", None),
        ("app", "Login failed for x from 203.0.113.7 and 203.0.113.8", "syslog_message", None),
        ("app", "user x logged in from 203.0.113.7", "syslog_message", None),
        ("app", "Login failed", "syslog_message", None),
    ],
)  # fmt: skip
def test_accounts_jobs_and_logins_have_their_action(tag, message, action, user):
    fields = program(tag, message).fields
    assert (fields["event.action"], fields.get("user.name")) == (action, user)


def test_a_new_account_with_uid_zero_can_be_told():
    fields = program("useradd[1]", "new user: name=eve, UID=0, GID=0, home=/root, shell=/bin/bash, from=none").fields
    assert (fields["user.id"], fields["account.shell"], fields["event.type"]) == (
        "0",
        "/bin/bash",
        ("user", "creation"),
    )


def test_a_failed_console_login_over_the_network_has_its_address():
    fields = program("login[1]", "FAILED LOGIN 1 FROM 203.0.113.7 FOR eve, Authentication failure").fields
    assert (fields["source.ip"], fields["event.outcome"]) == ("203.0.113.7", "failure")


@pytest.mark.parametrize(("tag", "product"), [("nginx", "nginx"), ("httpd[7]", "apache"), ("apache2[7]", "apache")])
def test_web_servers_may_log_through_syslog(tag, product):
    access = program(tag, '203.0.113.7 - - [10/Dec/2025:06:55:46 +0000] "GET /x HTTP/1.1" 404 1 "-" "curl"')
    assert access.logsource == (type(access.logsource))(product, "webserver", "")
    assert access.fields["url.path"] == "/x"
    error = program(tag, "[error] [client 203.0.113.7] user eve not found: /basic/file")
    assert error.fields["event.action"] == "http_authentication"
    assert error.logsource.service == "error"
    assert program(tag, "signal process started").fields["event.action"] == "http_message"
