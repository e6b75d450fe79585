"""`breachwatch demo`: the whole story in under a minute, with real processes in a temporary directory.

Only the receivers are stand-ins, and they say so: an SMTP server, an SMS gateway and a chat webhook on loopback.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from breachwatch.app.receivers import DemoReceivers
from breachwatch.errors import BreachWatchError

ATTACKER = "203.0.113.66"
"""TEST-NET-3 (RFC 5737): belongs to nobody."""

WAIT_S = 25.0
"""How long a step of the story may take before the demo says that it failed."""

CUSTOMERS = (
    ("KH-1001", "Nguyễn Thị Hoa", "hoa@customers.example", "+84900000001", "vi"),
    ("KH-1002", "Trần Văn Minh", "minh@customers.example", "+84900000002", "vi"),
    ("KH-1003", "Lê Quốc Anh", "", "+84900000003", "vi"),
    ("KH-1004", "Alice Martin", "alice@customers.example", "+33600000004", "en"),
    ("KH-1005", "Bob Schmidt", "gone@bounces.example", "", "en"),
    ("KH-1006", "Phạm Thu Trang", "trang@customers.example", "+84900000006", "vi"),
)
"""id, name, e-mail, phone, language: KH-1003 has only a phone, KH-1005's address bounces and has no phone."""

BOUNCING = "gone@bounces.example"

CONFIG = """\
[state]
directory = "{root}/state"

[host]
name = "shop01"

[[watch.logs]]
path = "{root}/var/log/auth.log"
format = "syslog"

[[watch.logs]]
path = "{root}/var/log/nginx/access.log"
format = "nginx"

[watch.integrity]
enabled = true
paths = ["{root}/var/www"]
own_files = false
setuid_interval_s = 0

[playbooks]
use = ["vietnam-pdpl"]

[smtp]
host = "127.0.0.1"
port = {smtp_port}
tls = "none"
sender = "security@shop.example"

[sms]
url = "http://127.0.0.1:{http_port}/sms"

[[chat]]
name = "security-room"
url = "json://127.0.0.1:{http_port}/chat"

[[team.people]]
name = "linh"
email = "linh@shop.example"
phone = "+84911111111"
chat = "security-room"
roles = ["analyst"]
language = "en"

[[team.people]]
name = "quang"
email = "quang@shop.example"
roles = ["dpo", "ciso"]
language = "en"

[team.groups]
security = ["linh"]
management = ["quang"]

[letterhead]
name = "Cửa hàng Mẫu / Example Shop JSC"
address = "1 Example Street, Hà Nội"
registration = "0100000000"
tax_code = "0100000000"
hotline = "1900 0000"
email = "privacy@shop.example"
website = "https://shop.example"
privacy_contact = "Data protection officer, privacy@shop.example"
signatory = "Director"
verify_url = "https://shop.example/incident"

[authorities.vn-mps-pdp]
name = "A05 (demo address)"
email = "authority@a05.example"
language = "vi"

[audiences.customers]
csv = "{root}/customers.csv"
"""

FACTS = (
    "inc.description=An outsider logged in over SSH with a guessed password and placed a web shell on the shop server.",
    "inc.place=Shop server shop01",
    "inc.actors=Unknown outsider",
    "data.categories=name, e-mail address, telephone number, order history",
    "data.records=6",
    "subj.count=6",
    "eff.consequences=Unwanted calls and messages, attempts at fraud that use your order history.",
    "act.done=The server was taken off the network, the web shell removed, all passwords and keys changed.",
    "act.planned=An outside review of the server by the end of the month.",
    "advice.protect=Be careful with calls and mails about your orders. We never ask for passwords or codes.",
)


@dataclass(slots=True)
class Demo:
    """One playing of the story."""

    say: Callable[[str], None]
    root: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="breachwatch-demo-")))
    _started: float = field(default_factory=time.monotonic)

    def play(self) -> int:
        """Tell it; 0 when every step held, 3 with the reason when one did not."""
        receivers = DemoReceivers(self.root / "received", bounce={BOUNCING})
        receivers.start()
        try:
            self._prepare(receivers)
            with self._daemon() as daemon:
                self._story(daemon)
        except (BreachWatchError, DemoFailedError) as error:
            self.say(f"\nThe demo did not hold: {error}\nLog of the daemons: {self.root / 'breachwatch.log'}")
            return 3
        else:
            return 0
        finally:
            receivers.stop()

    # -- the story ------------------------------------------------------------------------------------------------

    def _story(self, daemon: subprocess.Popen[bytes]) -> None:
        self._wait("agent and hub are running", lambda: self._command("status", check=False) == 0)
        self.tell(f"breachwatch run: two processes (pid {daemon.pid} supervises) watch {self.root / 'var'}")
        self._attack()
        incident = self._wait_for_incident()
        self._wait("the team is paged", lambda: self._received("mail", "linh@shop.example") > 0)
        self.tell("the security team is paged by e-mail and chat (demo receivers on loopback)")
        self._command("incident", "ack", incident, "--as", "linh", "--reason", "looking into it")
        self.tell("linh acknowledges: escalation stops")
        facts = [option for fact in FACTS for option in ("--fact", fact)]
        self._command("incident", "confirm", incident, "--as", "linh", "--reason", "web shell found", *facts)
        self.tell("linh confirms and states the facts: notices are prepared, nothing leaves yet")
        self._approve_all(incident)
        self._wait("every notice is delivered or given up with a reason", lambda: self._settled(incident))
        self._report(incident)
        self._command("audit", "verify")
        export = self.root / "audit-export"
        self._command("audit", "export", str(export))
        self.tell("the audit trail verifies: recomputed from its stored bytes, signature checked")
        self.say(
            f"\nTold in {time.monotonic() - self._started:.0f} s. Look around:\n"
            f"  mails, SMS and chat as received   {self.root / 'received'}\n"
            f"  audit trail as tlog-tiles         {export}\n"
            f"  configuration                     {self.root / 'breachwatch.toml'}\n"
            f"  logs that were attacked           {self.root / 'var'}\n"
            f"\nFor real: `breachwatch init` writes a configuration for this host, `breachwatch doctor` says what is\n"
            f"not ready, `breachwatch run` starts agent and hub."
        )

    def _attack(self) -> None:
        self.tell(f"{ATTACKER} guesses SSH passwords and gets in (real lines into a real auth.log)")
        start = datetime.now(UTC) - timedelta(seconds=40)
        users = ("root", "admin", "test", "oracle", "deploy", "deploy", "deploy", "deploy")
        lines = []
        for number, user in enumerate(users):
            stamp = f"{start + timedelta(seconds=3 * number):%b %e %H:%M:%S}"
            invalid = "" if user in {"root", "deploy"} else "invalid user "
            lines.append(
                f"{stamp} shop01 sshd[{900 + number}]: Failed password for {invalid}{user} "
                f"from {ATTACKER} port {40_000 + number} ssh2"
            )
        stamp = f"{start + timedelta(seconds=30):%b %e %H:%M:%S}"
        lines.append(f"{stamp} shop01 sshd[999]: Accepted password for root from {ATTACKER} port 40099 ssh2")
        _append(self.root / "var/log/auth.log", lines)
        self.tell("a web shell appears in the web root and is used (real file, real access.log)")
        shell = self.root / "var/www/shop/uploads/thumb.php"
        shell.write_text("<?php /* harmless stand-in of the demo */ ?>\n", encoding="utf-8")
        stamp = f"{datetime.now(UTC):%d/%b/%Y:%H:%M:%S +0000}"
        request = f'"GET /uploads/thumb.php?cmd=cat%20/etc/passwd HTTP/1.1" 200 1337 "-" "curl/8.5.0"'  # noqa: F541
        _append(self.root / "var/log/nginx/access.log", [f"{ATTACKER} - - [{stamp}] {request}"])

    def _wait_for_incident(self) -> str:
        found: list[dict[str, object]] = []

        def opened() -> bool:
            found[:] = [
                item
                for item in self._objects("incident", "list")
                if item["severity"] in {"high", "critical"} and _names(item, ATTACKER)
            ]
            return bool(found)

        self._wait("an incident names the attacker", opened)
        incident = found[0]
        self.tell(f"{incident['id']} opens: {incident['title']} ({incident['severity']}), names {ATTACKER}")
        return str(incident["id"])

    def _approve_all(self, incident: str) -> None:
        waiting: list[dict[str, object]] = []

        def prepared() -> bool:
            campaigns = self._objects("notice", "list")
            waiting[:] = [
                item for item in campaigns if item["incident"] == incident and item["state"] == "awaiting_approval"
            ]
            return len(waiting) >= 2  # noqa: PLR2004  # authority and customers

        self._wait("notices to the authority and to customers are prepared", prepared)
        for campaign in waiting:
            people = campaign["audience_count"]
            content = str(campaign["content_hash"])
            self._command("playbook", "approve", str(campaign["id"]), "--hash", content, "--as", "quang")
            self.tell(f"quang (not linh) approves the {campaign['notice']} notice to {people}: sha256 {content[:16]}…")

    def _settled(self, incident: str) -> bool:
        campaigns = [item for item in self._objects("notice", "list") if item["incident"] == incident]
        notices = [item for item in campaigns if item["notice"] in {"authority", "customers"}]
        return len(notices) >= 2 and all(item["state"] == "done" for item in notices)  # noqa: PLR2004

    def _report(self, incident: str) -> None:
        for campaign in self._objects("notice", "list"):
            if campaign["incident"] != incident or campaign["notice"] == "page":
                continue
            counts = campaign["deliveries"]
            assert isinstance(counts, dict)
            said = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
            self.tell(f"{campaign['notice']}: {said}")
        self.tell(
            f"received: {self._received('mail', '')} mails, {self._received('sms', '')} SMS, "
            f"{self._received('chat', '')} chat messages; KH-1003 was told by SMS, KH-1005's address bounced"
        )

    # -- its stage ------------------------------------------------------------------------------------------------

    def _prepare(self, receivers: DemoReceivers) -> None:
        for folder in ("var/log/nginx", "var/www/shop/uploads"):
            (self.root / folder).mkdir(parents=True)
        for log in ("var/log/auth.log", "var/log/nginx/access.log"):
            (self.root / log).touch()
        with (self.root / "customers.csv").open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(("id", "name", "email", "phone", "language"))
            rows.writerows(CUSTOMERS)
        config = self.root / "breachwatch.toml"
        config.write_text(
            CONFIG.format(root=self.root, smtp_port=receivers.smtp_port, http_port=receivers.http_port),
            encoding="utf-8",
        )
        config.chmod(0o600)
        self.tell(f"everything happens in {self.root}")

    def _daemon(self) -> _Stopping:
        log = (self.root / "breachwatch.log").open("ab")
        process = subprocess.Popen([*self._base(), "run"], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()
        return _Stopping(process)

    def _base(self) -> list[str]:
        return [sys.executable, "-m", "breachwatch", "--config", str(self.root / "breachwatch.toml")]

    def _run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._base(), *command], capture_output=True, text=True, check=False, timeout=60, env=dict(os.environ)
        )

    def _command(self, *command: str, check: bool = True) -> int:
        done = self._run(command)
        if check and done.returncode != 0:
            raise DemoFailedError(f"`breachwatch {' '.join(command[:2])}` said: {done.stderr.strip() or done.stdout}")
        return done.returncode

    def _objects(self, *command: str) -> list[dict[str, object]]:
        done = self._run([*command, "--json"])
        if done.returncode != 0:
            raise DemoFailedError(f"`breachwatch {' '.join(command[:2])}` said: {done.stderr.strip()}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def _received(self, kind: str, whom: str) -> int:
        folder = self.root / "received" / kind
        return sum(whom in file.read_text(encoding="utf-8", errors="replace") for file in folder.glob("*.*"))

    def _wait(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        pause = threading.Event()
        while not condition():
            if time.monotonic() > deadline:
                raise DemoFailedError(f"waited {WAIT_S:.0f} s in vain until {what}")
            pause.wait(0.2)

    def tell(self, line: str) -> None:
        """One line of the story with its time."""
        self.say(f"[{time.monotonic() - self._started:5.1f} s] {line}")


class DemoFailedError(BreachWatchError):
    """A step of the story did not happen."""


@dataclass(slots=True)
class _Stopping:
    """The daemon for the length of a `with`: stopped by SIGTERM at its end."""

    process: subprocess.Popen[bytes]

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self.process

    def __exit__(self, *_error: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _append(path: Path, lines: Sequence[str]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def _names(item: dict[str, object], address: str) -> bool:
    entities = item["entities"]
    return isinstance(entities, dict) and address in entities.get("source.ip", [])
