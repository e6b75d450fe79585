"""Which program's messages are read by whom: one readable registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from breachwatch.model import FieldValue, LogSource
from breachwatch.parse.accounts import read_accounts, read_cron, read_login
from breachwatch.parse.loginfailure import read_login_failure
from breachwatch.parse.pam import names_pam, read_pam
from breachwatch.parse.sshd import read_sshd
from breachwatch.parse.sudo import read_su, read_sudo
from breachwatch.parse.web import read_apache_message, read_nginx_message

SYSLOG = LogSource("linux", "", "syslog")

Fields = dict[str, FieldValue]
Reader = Callable[[str, Fields], LogSource]

PROGRAMS: Mapping[str, Reader] = {
    "sshd": read_sshd,
    "sshd-session": read_sshd,
    "sshd-auth": read_sshd,
    "sudo": read_sudo,
    "su": read_su,
    "su-l": read_su,
    "cron": read_cron,
    "crond": read_cron,
    "crontab": read_cron,
    "anacron": read_cron,
    "login": read_login,
    "useradd": read_accounts,
    "adduser": read_accounts,
    "userdel": read_accounts,
    "usermod": read_accounts,
    "groupadd": read_accounts,
    "groupmod": read_accounts,
    "groupdel": read_accounts,
    "gpasswd": read_accounts,
    "passwd": read_accounts,
    "chpasswd": read_accounts,
    "chage": read_accounts,
    "chfn": read_accounts,
    "chsh": read_accounts,
    "nginx": read_nginx_message,
    "httpd": read_apache_message,
    "apache2": read_apache_message,
    "apache": read_apache_message,
}


def reader_for(program: str) -> Reader:
    """Who reads the messages of the program with this (lower-case) syslog tag."""
    return PROGRAMS.get(program.partition("(")[0], read_any)


def old_pam_tag(tag: str) -> str | None:
    """The service of tags like `sshd(pam_unix)`, which PAM wrote until 2006."""
    service, opened, module = tag.partition("(")
    return service if opened and module.startswith("pam_") else None


def read_any(message: str, fields: Fields) -> LogSource:
    """A program without a reader of its own: PAM's messages, refused logins, else just its words."""
    if names_pam(message) and (found := read_pam(message, fields)) is not None:
        return found
    if (found := read_login_failure(message, fields)) is not None:
        return found
    fields["event.category"] = ("host",)
    fields["event.type"] = ("info",)
    fields["event.action"] = "syslog_message"
    return SYSLOG
