"""Each way out against a server with bad habits: every answer becomes the right kind of error."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from breachwatch.errors import (
    AmbiguousDeliveryError,
    ChannelDownError,
    ConfigError,
    DeliveryError,
    PermanentDeliveryError,
    TransientDeliveryError,
)
from breachwatch.model import Channel, OutgoingMessage
from breachwatch.notify.channels import ChatChannel, SmsGatewayChannel, SmsSettings, SmtpChannel, SmtpSettings
from breachwatch.notify.mime import build_email
from tests.sinks import index, sink

APPRISE_LOADS = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
"""apprise asks for a module that Python 3.13 removed, and copes without it."""

SECRET = "hunter2-very-secret"


def mail(to: str, number: int = 1, text: str = "Hello\n.\n..dots\n.x\n") -> OutgoingMessage:
    payload = build_email(
        sender="security@shop.example", to=to, subject="Notice", text=text, message_id=f"m{number}@shop.example",
        date=datetime(2026, 1, 5, tzinfo=UTC),
    )  # fmt: skip
    return OutgoingMessage(channel=Channel.EMAIL, to=to, message_id=f"m{number}@shop.example", payload=payload)


def smtp(port: int, **changes: object) -> SmtpChannel:
    settings: dict[str, object] = {
        "host": "127.0.0.1", "port": port, "tls": "none", "sender": "security@shop.example", "timeout_s": 5.0,
    } | changes  # fmt: skip
    return SmtpChannel(SmtpSettings(**settings))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 and localhost, key and certificate in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(pem + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.mark.parametrize("options", [(), ("--no-pipelining",)])
def test_mail_arrives_as_built_dots_and_all_on_one_connection(tmp_path: Path, options: tuple[str, ...]) -> None:
    with sink("smtp", tmp_path, "--bodies", *options) as port:
        channel = smtp(port)
        for number in (1, 2):
            accepted = channel.send(mail("a@x.example", number))
            assert accepted.code == "250 2.0.0"
            assert accepted.provider_id == f"{number:08X}"
        channel.close()
    saved = (tmp_path / "000001.eml").read_bytes()
    assert saved.endswith(mail("a@x.example").payload)
    assert saved.startswith(b"X-Envelope-From: security@shop.example\r\nX-Envelope-To: a@x.example\r\n")


@pytest.mark.parametrize("options", [(), ("--no-pipelining",)])
def test_a_refused_recipient_leaves_the_connection_usable(tmp_path: Path, options: tuple[str, ...]) -> None:
    with sink("smtp", tmp_path, "--reject", "gone@x.example", "--defer", "busy@x.example", *options) as port:
        channel = smtp(port)
        with pytest.raises(PermanentDeliveryError) as gone:
            channel.send(mail("gone@x.example"))
        assert gone.value.code == "550 5.1.1"
        assert "gone@" not in str(gone.value)
        with pytest.raises(TransientDeliveryError) as busy:
            channel.send(mail("busy@x.example"))
        assert (busy.value.code, type(busy.value)) == ("451 4.7.1", TransientDeliveryError)
        assert "busy@" not in str(busy.value)
        channel.send(mail("a@x.example"))
        channel.close()
    assert [line["to"] for line in index(tmp_path)] == [["a@x.example"]]


@pytest.mark.parametrize(
    ("options", "kind", "code"),
    [
        (("--refuse-content",), PermanentDeliveryError, "554 5.7.1"),
        (("--closing",), ChannelDownError, "421 4.3.2"),
        (("--hang", "a@x.example"), ChannelDownError, "timeout"),
        (("--hang-at-greeting",), ChannelDownError, "unreachable"),
        (("--hang-after-dot",), AmbiguousDeliveryError, "timeout after data"),
        (("--close-after-dot", "1"), AmbiguousDeliveryError, "lost after data"),
        (("--user", "u", "--password", "p"), ChannelDownError, "530 5.7.0"),
    ],
)
def test_what_the_server_does_decides_what_the_failure_means(
    tmp_path: Path, options: tuple[str, ...], kind: type[DeliveryError], code: str
) -> None:
    with sink("smtp", tmp_path, *options) as port:
        channel = smtp(port, timeout_s=0.5)
        with pytest.raises(kind) as failed:
            channel.send(mail("a@x.example"))
        assert (type(failed.value), failed.value.code) == (kind, code)
        channel.close()


def test_a_server_that_ends_the_connection_between_mails_costs_nothing(tmp_path: Path) -> None:
    with sink("smtp", tmp_path, "--die-after", "1") as port:
        channel = smtp(port)
        for number in range(5):
            channel.send(mail("a@x.example", number))
        channel.close()
    assert len(index(tmp_path)) == 5


def test_nobody_listening_is_the_channel_being_down() -> None:
    with pytest.raises(ChannelDownError, match="mail server"):
        smtp(1).send(mail("a@x.example"))


def test_close_from_another_thread_ends_a_send_that_hangs(tmp_path: Path) -> None:
    with sink("smtp", tmp_path, "--hang", "a@x.example") as port:
        channel = smtp(port, timeout_s=60.0)
        errors: list[Exception] = []

        def hang() -> None:
            try:
                channel.send(mail("a@x.example"))
            except DeliveryError as error:
                errors.append(error)

        thread = threading.Thread(target=hang)
        thread.start()
        time.sleep(0.3)
        channel.close()
        thread.join(5)
        assert not thread.is_alive()
        assert isinstance(errors[0], TransientDeliveryError)


@pytest.mark.parametrize(("tls", "options"), [("starttls", ()), ("implicit", ("--implicit-tls",))])
def test_tls_and_log_in_work(tmp_path: Path, certificate: Path, tls: str, options: tuple[str, ...]) -> None:
    log_in = ("--user", "mailer", "--password", SECRET, "--certificate", str(certificate))
    with sink("smtp", tmp_path, *log_in, *options) as port:
        channel = smtp(port, tls=tls, user="mailer", password=SECRET, ca_file=certificate)
        for number in range(3):
            channel.send(mail("a@x.example", number))
        channel.close()
        wrong = smtp(port, tls=tls, user="mailer", password="wrong", ca_file=certificate)
        with pytest.raises(ChannelDownError, match="log-in was refused") as refused:
            wrong.send(mail("a@x.example"))
        assert refused.value.code == "535"
        strangers = smtp(port, tls=tls, user="mailer", password=SECRET)
        with pytest.raises(ChannelDownError, match="certificate is refused"):
            strangers.send(mail("a@x.example"))
    assert len(index(tmp_path)) == 3


def test_starttls_that_is_not_offered_is_never_done_without(tmp_path: Path) -> None:
    with sink("smtp", tmp_path) as port, pytest.raises(ChannelDownError, match="does not offer"):
        smtp(port, tls="starttls").send(mail("a@x.example"))
    assert index(tmp_path) == []


def test_a_password_is_refused_without_tls_to_another_host_and_never_shown() -> None:
    with pytest.raises(ConfigError, match="never sent without TLS") as refused:
        smtp(25, host="mail.example", user="u", password=SECRET)
    assert SECRET not in str(refused.value)
    assert SECRET not in repr(SmtpSettings(host="h", password=SECRET))
    assert SECRET not in repr(SmsSettings(url=f"https://gw.example/{SECRET}", token=SECRET))


def text_to(number: str) -> OutgoingMessage:
    return OutgoingMessage(channel=Channel.SMS, to=number, message_id="f" * 40, payload="Chào {to}".encode())


def sms(port: int, **changes: object) -> SmsGatewayChannel:
    settings: dict[str, object] = {"url": f"http://127.0.0.1:{port}/send?v=1", "timeout_s": 5.0} | changes
    return SmsGatewayChannel(SmsSettings(**settings))  # type: ignore[arg-type]


def test_an_sms_carries_number_text_token_and_request_id(tmp_path: Path) -> None:
    with sink("http", tmp_path, "--token", f"Bearer {SECRET}", "--body", '{"data": {"sid": "SM42"}}') as port:
        channel = sms(port, token=SECRET, body={"To": "{to}", "Body": "{text}", "RequestId": "{request_id}"})
        for _ in range(2):
            assert channel.send(text_to("+84900000001")).provider_id == "SM42"
        channel.close()
    first, second = index(tmp_path)
    assert first["body"] == second["body"]
    assert first["body"] == '{"To": "+84900000001", "Body": "Ch\\u00e0o {to}", "RequestId": "' + "f" * 40 + '"}'
    assert first["path"] == "/send?v=1"
    assert first["headers"]["idempotency-key"] == "f" * 40  # type: ignore[index]


@pytest.mark.parametrize(
    ("options", "kind", "code", "wait_s"),
    [
        (("--status", "500"), TransientDeliveryError, "http 500", None),
        (("--status", "503", "--retry-after", "17"), TransientDeliveryError, "http 503", 17.0),
        (("--status", "429", "--retry-after", "30"), ChannelDownError, "http 429", 30.0),
        (("--status", "400"), PermanentDeliveryError, "http 400", None),
        (("--status", "401"), ChannelDownError, "http 401", None),
        (("--status", "302"), ChannelDownError, "http 302", None),
    ],
)
def test_what_the_gateway_answers_decides_what_it_means(
    tmp_path: Path, options: tuple[str, ...], kind: type[DeliveryError], code: str, wait_s: float | None
) -> None:
    with sink("http", tmp_path, *options) as port:
        channel = sms(port)
        with pytest.raises(kind) as failed:
            channel.send(text_to("+84900000001"))
        assert (type(failed.value), failed.value.code, failed.value.retry_after_s) == (kind, code, wait_s)
        assert "849000" not in str(failed.value)
        channel.close()


def test_a_gateway_that_says_no_with_two_hundred_is_understood(tmp_path: Path) -> None:
    with sink("http", tmp_path, "--body", '{"CodeResult": "104"}') as port:
        channel = sms(port, ok_field="CodeResult", ok_values=("100",))
        with pytest.raises(PermanentDeliveryError) as failed:
            channel.send(text_to("+84900000001"))
        assert failed.value.code == "http 200 104"
        channel.close()


def test_a_gateway_elsewhere_is_asked_over_https_only(certificate: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="https only"):
        SmsGatewayChannel(SmsSettings(url="http://gateway.example/send"))
    with sink("http", tmp_path, "--certificate", str(certificate)) as port:
        trusting = sms(port, url=f"https://localhost:{port}/send", ca_file=certificate)
        assert trusting.send(text_to("+84900000001")).code == "http 200"
        trusting.close()
        stranger = sms(port, url=f"https://localhost:{port}/send")
        with pytest.raises(ChannelDownError, match="certificate is refused"):
            stranger.send(text_to("+84900000001"))


def to_room(room: str) -> OutgoingMessage:
    return OutgoingMessage(
        channel=Channel.CHAT, to=room, message_id="c" * 40, payload="Sự cố *mới*\n".encode(), subject="INC-1"
    )


@APPRISE_LOADS
def test_a_chat_message_reaches_a_webhook_without_a_pause_between_two(tmp_path: Path) -> None:
    with sink("http", tmp_path) as port:
        channel = ChatChannel({"room": f"json://127.0.0.1:{port}/{SECRET}"})
        started = time.monotonic()
        for _ in range(2):
            channel.send(to_room("room"))
        assert time.monotonic() - started < 5
        channel.close()
    lines = index(tmp_path)
    assert len(lines) == 2
    assert "S\\u1ef1 c\\u1ed1 *m\\u1edbi*" in str(lines[0]["body"])


@APPRISE_LOADS
def test_chat_failures_never_show_the_address(tmp_path: Path) -> None:
    with sink("http", tmp_path, "--status", "500") as port:
        rooms = {"room": f"json://127.0.0.1:{port}/{SECRET}", "bad": f"nosuch://{SECRET}"}
        channel = ChatChannel(rooms)
        cases: list[tuple[str, type[DeliveryError]]] = [
            ("room", TransientDeliveryError),
            ("bad", ChannelDownError),
            ("missing", PermanentDeliveryError),
        ]
        for room, kind in cases:
            with pytest.raises(kind) as failed:
                channel.send(to_room(room))
            assert SECRET not in str(failed.value)
        assert SECRET not in repr(channel)


@APPRISE_LOADS
@pytest.mark.parametrize(
    "address",
    [
        "tgram://123456789:AAabcdefghijklmnopqrstuvwxyz012345/-100123/",
        "slack://xoxb-1234567890-1234567890-abcdefghijklmnopqrstuvwx/#security",
        "workflows://prod-01.westus.logic.azure.com:443/643e69f83c8944438d68119179a10a64/abcdefghijklmnopqrstuvwx",
        "json://hooks.example/team",
    ],
)
def test_the_services_that_the_manual_names_are_known(address: str) -> None:
    service = ChatChannel({"room": address})._service("room")
    assert len(service) == 1
    assert [server.request_rate_per_sec for server in service] == [0]
