"""Doctor, part two: what lies outside. Mail server, SMS gateway, chat rooms, Elasticsearch."""

from __future__ import annotations

import http.client
import ipaddress
import json
import smtplib
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

from breachwatch.app.finding import Finding, ok, problem, warning
from breachwatch.config.sections import ElasticsearchSection, Settings, SmtpSection

CONNECT_TIMEOUT_S = 10.0
"""Doctor is run by a person who waits; the daemons have their own limits."""

ELASTICSEARCH_MAJORS = ("8", "9")
UNAUTHORISED = (401, 403)


def check_smtp(settings: Settings) -> Iterator[Finding]:
    """Connect, start TLS, log in, leave; no message is sent."""
    smtp = settings.smtp
    if not smtp.host:
        yield problem("smtp", "no mail server: notices by e-mail cannot leave", "set smtp.host and smtp.sender")
        return
    what = f"smtp {smtp.host}:{smtp.port}"
    if not smtp.sender:
        yield problem(what, "no sender address", "set smtp.sender")
    if smtp.tls == "none" and not is_loopback(smtp.host):
        yield problem(what, "TLS is off: customers' addresses would travel readable", 'smtp.tls = "starttls"')
    if smtp.user and not smtp.password.get_secret_value():
        yield problem(what, "smtp.user is set, its password is not", "write the secret file smtp__password")
    try:
        context = _tls_context(smtp)
    except (OSError, ssl.SSLError):
        yield problem(what, "smtp.ca_file cannot be read as certificates", "correct smtp.ca_file")
        return
    yield _try_smtp(smtp, context, what)


def _tls_context(smtp: SmtpSection) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(smtp.ca_file) if smtp.ca_file else None)


def _try_smtp(smtp: SmtpSection, context: ssl.SSLContext, what: str) -> Finding:
    timeout_s = min(CONNECT_TIMEOUT_S, smtp.timeout_s)
    try:
        with _open_smtp(smtp, context, timeout_s) as client:
            client.ehlo()
            if smtp.tls == "starttls":
                client.starttls(context=context)
                client.ehlo()
            if smtp.user and (smtp.tls != "none" or is_loopback(smtp.host)):  # as the channel: never in clear text
                client.login(smtp.user, smtp.password.get_secret_value())
    except (smtplib.SMTPException, OSError) as error:
        why, mend = _smtp_failure(error)
        return problem(what, why, mend)
    if not smtp.user and not is_loopback(smtp.host):
        return warning(what, "answers; nobody logs in", "set smtp.user unless the server knows this host")
    return ok(what, "answers" + (" and accepts our log-in" if smtp.user else ""))


def _smtp_failure(error: smtplib.SMTPException | OSError) -> tuple[str, str]:  # noqa: PLR0911  # one per kind
    """Why and how to mend it; reply codes only, the server's text may repeat what we sent."""
    match error:
        case smtplib.SMTPAuthenticationError():
            return f"refuses our name and password ({error.smtp_code})", "correct smtp.user and its password"
        case smtplib.SMTPNotSupportedError():
            said = "offers no STARTTLS, or no way to log in"
            return said, 'for port 465: smtp.tls = "implicit"; else ask its operator'
        case smtplib.SMTPResponseException():
            return f"answers {error.smtp_code}", "ask its operator"
        case smtplib.SMTPServerDisconnected():
            late = isinstance(error.__context__, TimeoutError)
            said = "connects, but does not answer: timed out" if late else "connects, but hangs up"
            return said, 'for port 465: smtp.tls = "implicit"; else check smtp.port, or ask its operator'
        case ssl.SSLCertVerificationError():
            return _reason(error), "set smtp.ca_file, or smtp.host to the name in the certificate"
        case ssl.SSLError():
            return f"TLS failed: {error.reason}", 'smtp.tls: "starttls" for 587, "implicit" for 465'
        case _:
            return f"cannot be reached: {_reason(error)}", "check smtp.host, smtp.port and the firewall"


def _open_smtp(smtp: SmtpSection, context: ssl.SSLContext, timeout_s: float) -> smtplib.SMTP:
    if smtp.tls == "implicit":
        return smtplib.SMTP_SSL(smtp.host, smtp.port, timeout=timeout_s, context=context)
    return smtplib.SMTP(smtp.host, smtp.port, timeout=timeout_s)


def check_sms(settings: Settings) -> Iterator[Finding]:
    """The gateway's port answers. No message is sent: that would cost and reach somebody."""
    sms = settings.sms
    if not sms.url:
        yield warning("sms", "no gateway: people without e-mail cannot be told", "set sms.url and its token")
        return
    parts = urlsplit(sms.url)
    host = parts.hostname or ""
    what = f"sms gateway {host}"
    if parts.scheme != "https" and not is_loopback(host):
        yield problem(what, "not https: telephone numbers would travel readable", "set sms.url to an https address")
    if not sms.token.get_secret_value() and not sms.headers and not is_loopback(host):
        yield warning(what, "no token", "write the secret file sms__token, unless the gateway knows this host")
    yield _reachable(what, host, parts.port or (443 if parts.scheme == "https" else 80), "sms.url")


def check_chat(settings: Settings) -> Iterator[Finding]:
    """Every room has an address that apprise understands. Nothing is posted."""
    if not settings.chat:
        return
    from apprise import Apprise

    for room in settings.chat:
        what = f"chat {room.name}"
        url = room.url.get_secret_value()
        if not url:
            yield problem(what, "no address", "write it to a file and name that in chat.url_file")
        elif Apprise.instantiate(url, suppress_exceptions=True) is None:
            yield problem(what, "apprise does not understand its address", "see the list of services of apprise")
        else:
            yield ok(what, "address understood")


def check_elasticsearch(settings: Settings) -> Iterator[Finding]:
    """It answers, lets us in and is a version we know."""
    elastic = settings.elasticsearch
    if not elastic.url:
        return
    parts = urlsplit(elastic.url)
    host = parts.hostname or ""
    what = f"elasticsearch {host}"
    if parts.scheme != "https" and not is_loopback(host):
        yield problem(what, "not https: events and the key would travel readable", "set elasticsearch.url to https")
    try:
        context = ssl.create_default_context(cafile=str(elastic.ca_file) if elastic.ca_file else None)
    except (OSError, ssl.SSLError):
        yield problem(what, "elasticsearch.ca_file cannot be read as certificates", "correct elasticsearch.ca_file")
        return
    if elastic.fingerprint and not elastic.ca_file:
        yield _reachable(what, host, parts.port or 9200, "elasticsearch.url")
        return
    yield _ask_elasticsearch(elastic, context, what)


def _ask_elasticsearch(elastic: ElasticsearchSection, context: ssl.SSLContext, what: str) -> Finding:
    key = elastic.api_key.get_secret_value()
    request = urllib.request.Request(elastic.url, headers={"Authorization": f"ApiKey {key}"} if key else {})  # noqa: S310  # scheme checked by the settings
    try:
        with urllib.request.urlopen(request, timeout=CONNECT_TIMEOUT_S, context=context) as answer:  # noqa: S310
            version = str(json.loads(answer.read(65_536))["version"]["number"])
    except urllib.error.HTTPError as error:
        mend = "write the secret file elasticsearch__api_key" if error.code in UNAUTHORISED else "check its log"
        return problem(what, f"answers HTTP {error.code}", mend)
    except (urllib.error.URLError, OSError) as error:
        return problem(
            what,
            f"cannot be reached: {_reason(error)}",
            "check elasticsearch.url; meanwhile telemetry waits in the spool and nothing else is affected",
        )
    except (ValueError, KeyError, TypeError, http.client.HTTPException):
        return problem(what, "what answers is not Elasticsearch", "check elasticsearch.url")
    if version.partition(".")[0] not in ELASTICSEARCH_MAJORS:
        return problem(what, f"version {version} is not known to this client", "use version 8.19 or 9")
    return ok(what, f"version {version}")


def _reachable(what: str, host: str, port: int, setting: str) -> Finding:
    try:
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        return problem(what, f"cannot be reached: {_reason(error)}", f"check {setting} and the firewall")
    return ok(what, "answers")


def _reason(error: BaseException) -> str:
    """Why, in the system's own words; remote text is left out, it may repeat what we sent."""
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"its certificate does not hold: {inner.verify_message}"
    if isinstance(inner, TimeoutError):
        return "timed out"
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    return type(inner).__name__


def is_loopback(host: str) -> bool:
    """Whether this names the machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
