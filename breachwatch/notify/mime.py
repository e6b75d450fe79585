"""E-mails as bytes: 8-bit clean in, 7-bit lines of at most 76 out, nothing from a value can become a header.

Written out by hand because `email.message` costs more than sending does (facts/notify.md 3.1); a differential test
reads every kind of message back with the standard library's parser.
Source: RFC 5322 (format), RFC 2045 (quoted-printable), RFC 2046 5.1.4 (alternative), RFC 2047 (encoded words).
"""

from __future__ import annotations

import re
from binascii import b2a_base64, b2a_qp
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b

from breachwatch.errors import TemplateError

MAX_MESSAGE_BYTES = 1_000_000
"""A notice is text; anything larger is a mistake or an attack on mailboxes."""

MAX_HEADER_CHARS = 2_000

_ENCODED_WORD_BYTES = 39
"""39 bytes are 52 base64 characters: with `=?utf-8?b??=` and `Subject: ` below the 76 of RFC 2047 section 2."""

_LINE = 76
_PLAIN_PART, _HTML_PART = (
    b"Content-Type: text/" + kind + b'; charset="utf-8"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n'
    for kind in (b"plain", b"html")
)
_PLAIN_HEADER = re.compile(r"[\x20-\x7e]*\Z")
_PLAIN_PHRASE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]+\Z")
_ADDRESS = re.compile(r"[\x21-\x3b=\x3f-\x7e]+@[A-Za-z0-9.-]+\Z|[\x21-\x3b=\x3f-\x7e]+@\[[0-9A-Fa-f.:IPv]+\]\Z")
_HEADER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}\Z")
_MESSAGE_ID = re.compile(r"[A-Za-z0-9.-]+@[A-Za-z0-9.-]+\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def build_email(
    *,
    sender: str,
    to: str,
    reply_to: str = "",
    subject: str,
    text: str | bytes,
    html: str | bytes | None = None,
    message_id: str,
    date: datetime,
    headers: Mapping[str, str] | None = None,
    to_name: str = "",
    sender_name: str = "",
) -> bytes:
    """One message with CRLF lines, `multipart/alternative` where there is HTML.

    `text` and `html` as bytes are bodies that `quoted_printable` or `PersonalBody` has encoded already.
    Raises: TemplateError for an address, header name or Message-ID that is none, and for a message that is too large.
    """
    if not _MESSAGE_ID.match(message_id):
        raise TemplateError("not a Message-ID")
    same = _same_head(sender, sender_name, reply_to, subject, tuple(headers.items()) if headers else ())
    head = f"Date: {_date(date)}\r\nTo: {_mailbox(to, to_name)}\r\nMessage-ID: <{message_id}>\r\n{same}".encode("ascii")
    plain = text if isinstance(text, bytes) else quoted_printable(text)
    if html is None:
        message = head + _PLAIN_PART + plain
    else:
        rich = html if isinstance(html, bytes) else quoted_printable(html)
        # `=_` can stand in no quoted-printable line (RFC 2045 6.7 (1)), so no body can hold the boundary
        boundary = b"=_" + blake2b(message_id.encode("ascii"), digest_size=12).hexdigest().encode("ascii")
        # the CRLF in front of a boundary is the boundary's own, not the text's (RFC 2046 5.1.1)
        message = b"".join(
            (
                head, b'Content-Type: multipart/alternative; boundary="', boundary, b'"\r\n\r\n',
                b"--", boundary, b"\r\n", _PLAIN_PART, plain,
                b"\r\n--", boundary, b"\r\n", _HTML_PART, rich,
                b"\r\n--", boundary, b"--\r\n",
            )
        )  # fmt: skip
    if len(message) > MAX_MESSAGE_BYTES:
        raise TemplateError(f"message of {len(message)} bytes; at most {MAX_MESSAGE_BYTES}")
    return message


@lru_cache(maxsize=64)
def _same_head(sender: str, sender_name: str, reply_to: str, subject: str, headers: tuple[tuple[str, str], ...]) -> str:
    """The header lines that a whole campaign shares, each with its line end."""
    lines = [f"From: {_mailbox(sender, sender_name)}", _header("Subject", subject), "MIME-Version: 1.0"]
    if reply_to:
        lines.append(f"Reply-To: {_mailbox(reply_to, '')}")
    for name, value in headers:
        if not _HEADER_NAME.match(name):
            raise TemplateError("not a header name")
        lines.append(_header(name, value))
    return "\r\n".join(lines) + "\r\n"


def quoted_printable(text: str) -> bytes:
    """Text as lines of at most 76 ASCII bytes with CRLF ends."""
    raw = ("\r\n".join(_lines(text)) + "\r\n").encode("utf-8", "replace")
    return b2a_qp(raw, istext=True)


def _lines(text: str) -> list[str]:
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.removesuffix("\n").split("\n")


class PersonalBody:
    """A body that differs between people only where `mark` stands: encoded once, but for the lines with the mark.

    Quoted-printable works line by line, so the bytes are those of `quoted_printable` on the whole text. The first
    message of each body is checked for that; should it not hold, every body is encoded whole.
    """

    def __init__(self, text: str, mark: str) -> None:
        self._mark, self._text, self._checked = mark, text, False
        self._runs: list[bytes | str] = []
        for line in _lines(text):
            if mark in line:
                self._runs.append(line)
            elif self._runs and isinstance(self._runs[-1], bytes):
                self._runs[-1] += quoted_printable(line)
            else:
                self._runs.append(quoted_printable(line))

    def encode(self, value: str) -> bytes:
        """The body with `value` (one line, not empty) at the mark."""
        mark = self._mark
        made = b"".join(
            [run if isinstance(run, bytes) else quoted_printable(run.replace(mark, value)) for run in self._runs]
        )
        if not self._checked:
            whole = quoted_printable(self._text.replace(mark, value))
            if made != whole:
                self._runs = [self._text]
                return whole
            self._checked = True
        return made


def message_id(key: bytes, campaign: str, person: str, channel: str, domain: str = "") -> str:
    """The same id for every try of one notice to one person on one channel; nobody without `key` can guess it.

    With a domain it is a Message-ID (without brackets), without one a request id for gateways.
    """
    # lengths in front: ("ab", "c") and ("a", "bc") must not meet
    named = b"".join(len(part).to_bytes(4) + part for part in (v.encode() for v in (campaign, person, channel)))
    token = blake2b(named, key=key[:64], digest_size=20, person=b"bw-message-id").hexdigest()
    return f"{token}@{domain}" if domain else token


def one_line(text: str) -> str:
    """Text that cannot leave its header: control characters and line ends become one space."""
    return _CONTROL.sub(" ", text).strip()


def _header(name: str, value: str) -> str:
    clean = one_line(value)
    if len(clean) > MAX_HEADER_CHARS:
        raise TemplateError(f"a {name} header of {len(clean)} characters; at most {MAX_HEADER_CHARS}")
    # `=?` in plain text would be read as an encoded word
    if _PLAIN_HEADER.match(clean) and len(name) + 2 + len(clean) <= _LINE and "=?" not in clean:
        return f"{name}: {clean}"
    # a long name stands on a line of its own, or its first encoded word would pass column 76
    return f"{name}: {_encoded_words(clean)}" if len(name) <= 10 else f"{name}:\r\n {_encoded_words(clean)}"  # noqa: PLR2004


@lru_cache(maxsize=256)
def _encoded_words(text: str) -> str:
    """Encoded words, one a line, cut between characters. Source: RFC 2047 section 5 (3), section 2."""
    chunks: list[bytes] = []
    current = b""
    for character in text:
        encoded = character.encode("utf-8")
        if len(current) + len(encoded) > _ENCODED_WORD_BYTES:
            chunks.append(current)
            current = b""
        current += encoded
    chunks.append(current)
    return "\r\n ".join(f"=?utf-8?b?{b2a_base64(chunk, newline=False).decode('ascii')}?=" for chunk in chunks)


def _mailbox(address: str, name: str) -> str:
    if not _ADDRESS.match(address) or len(address) > 254:  # noqa: PLR2004  # RFC 5321 4.5.3.1.3 less the brackets
        raise TemplateError("not an address that a header can hold")
    clean = one_line(name)[:200]
    if not clean:
        return address
    if _PLAIN_PHRASE.match(clean) and len(clean) + len(address) < _LINE - 12 and "=?" not in clean:
        return f"{clean} <{address}>"
    return f"{_encoded_words(clean)}\r\n <{address}>"


@lru_cache(maxsize=64)
def _date(moment: datetime) -> str:
    utc = moment.astimezone(UTC)
    return (
        f"{_DAYS[utc.weekday()]}, {utc.day:02d} {_MONTHS[utc.month - 1]} {utc.year:04d} "
        f"{utc.hour:02d}:{utc.minute:02d}:{utc.second:02d} +0000"
    )
