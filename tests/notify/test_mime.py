"""Messages read back by the standard library: what went in comes out, and nothing else."""

from __future__ import annotations

import email
import email.policy
import re
from datetime import UTC, datetime
from email.header import decode_header, make_header
from email.message import EmailMessage

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from breachwatch.errors import TemplateError
from breachwatch.notify.mime import PersonalBody, build_email, message_id, one_line, quoted_printable

DATE = datetime(2026, 1, 5, 8, 30, 7, tzinfo=UTC)
HOSTILE_NAMES = st.one_of(
    st.text(max_size=80),
    st.sampled_from(
        [
            "Eve\r\nBcc: victim@x.example", "Eve\nSubject: other", "עברית שלום", "\u202eevil",
            "👩‍👩‍👧‍👦 family", "Nguyễn Thị Hoa",
            '"quoted" <a@b.example>', "=?utf-8?q?already?=", "x" * 300, "\x00\x1b[31m", " ", "a,b;c:<d>@e", "é" * 100,
        ]
    ),
)  # fmt: skip
BODIES = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=400)


def built(**changes: object) -> bytes:
    arguments: dict[str, object] = {
        "sender": "security@shop.example", "to": "kh@customers.example", "subject": "Notice", "text": "Hello\n",
        "message_id": "abc@shop.example", "date": DATE,
    } | changes  # fmt: skip
    return build_email(**arguments)  # type: ignore[arg-type]


def parsed(message: bytes) -> EmailMessage:
    return email.message_from_bytes(message, policy=email.policy.SMTP)


def read(message: bytes, kind: str) -> str:
    body = parsed(message).get_body((kind,))
    assert body is not None
    return bytes(body.get_payload(decode=True)).decode("utf-8")


def lines_of(text: str) -> str:
    """The text as a mail holds it: CRLF lines, one at the end."""
    return text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").replace("\n", "\r\n") + "\r\n"


def header(message: bytes, name: str) -> str:
    plain = email.message_from_bytes(message, policy=email.policy.compat32)
    return re.sub(r"\r?\n[ \t]", " ", str(make_header(decode_header(str(plain[name])))))


@given(name=HOSTILE_NAMES, subject=HOSTILE_NAMES, text=BODIES, html=st.none() | BODIES)
@example(name="", subject="", text="", html="")
@example(name="a", subject="b", text=".\n..\n.x\nFrom me\n \t\n= =3D\n" + "y" * 2_000, html="\r\n\r\n")
def test_what_goes_in_comes_out_and_no_value_becomes_a_header(
    name: str, subject: str, text: str, html: str | None
) -> None:
    message = built(
        to_name=name, sender_name="Cửa hàng Mẫu", subject=subject, text=text, html=html, reply_to="r@shop.example",
        headers={"Auto-Submitted": "auto-generated"},
    )  # fmt: skip
    assert message.isascii()
    assert message.count(b"\n") == message.count(b"\r\n") == message.count(b"\r")
    assert max(map(len, message.split(b"\r\n"))) <= 76
    names = [key for key, _ in email.message_from_bytes(message, policy=email.policy.compat32).items()]
    expected = ["Date", "To", "Message-ID", "From", "Subject", "MIME-Version", "Reply-To", "Auto-Submitted"]
    assert names == [*expected, "Content-Type", *([] if html is not None else ["Content-Transfer-Encoding"])]
    assert header(message, "Subject") == one_line(subject)
    clean = one_line(name)[:200]
    assert header(message, "To").replace(" ", "") == (
        f"{clean}<kh@customers.example>" if clean else "kh@customers.example"
    ).replace(" ", "")
    assert read(message, "plain").removesuffix("\r\n") == lines_of(text).removesuffix("\r\n")
    if html is not None:
        assert read(message, "html").removesuffix("\r\n") == lines_of(html).removesuffix("\r\n")
        assert parsed(message).get_content_type() == "multipart/alternative"


def test_the_standard_library_builds_the_same_content() -> None:
    text, html = "Kính gửi Nguyễn Thị Hoa,\n\nNội dung.\n", "<p>Kính gửi Nguyễn Thị Hoa</p>\n"
    reference = EmailMessage(policy=email.policy.SMTP)
    reference["Subject"], reference["To"] = "Thông báo về dữ liệu", "Nguyễn Thị Hoa <kh@customers.example>"
    reference.set_content(text)
    reference.add_alternative(html, subtype="html")
    ours = built(to_name="Nguyễn Thị Hoa", subject="Thông báo về dữ liệu", text=text, html=html)
    for kind in ("plain", "html"):
        assert read(ours, kind) == read(reference.as_bytes(), kind)
    for name in ("Subject", "To"):
        assert str(parsed(ours)[name]) == str(parsed(reference.as_bytes())[name])
    assert parsed(ours)["Date"].datetime == DATE


@pytest.mark.parametrize(
    "changes",
    [
        {"to": "a@b.example\r\nBcc: c@d.example"},
        {"to": "a b@c.example"},
        {"to": "kh@b.example>, <x@y.example"},
        {"to": ""},
        {"to": "ánh@b.example"},
        {"to": "a" * 250 + "@b.example"},
        {"sender": "nobody"},
        {"reply_to": "a@b.example\nX: y"},
        {"message_id": "a@b>\r\nBcc: <c@d"},
        {"headers": {"Bad\r\nName": "x"}},
        {"headers": {"Bad:Name": "x"}},
        {"subject": "x" * 2_001},
        {"text": "x" * 1_100_000},
    ],
)
def test_what_is_no_address_header_or_sane_size_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(TemplateError) as refused:
        built(**changes)
    assert "kh@" not in str(refused.value)


@given(
    name=st.text(max_size=60).map(one_line).filter(bool),
    text=st.text(alphabet="aé =.\n\r\x0b\u2028\ue001", max_size=200),
)
@example(name=".", text="\ue001\n\ue001\ue001\nx")
@example(name="ễ" * 60, text="dear " + "\ue001" * 3)
def test_a_body_encoded_in_parts_is_the_body_encoded_whole(name: str, text: str) -> None:
    body = PersonalBody(text, "\ue001")
    for value in (name, name[::-1]):
        assert body.encode(value) == quoted_printable(text.replace("\ue001", value))


def test_message_ids_are_stable_keyed_and_never_meet() -> None:
    key = b"k" * 32
    first = message_id(key, "c1", "p1", "email", "shop.example")
    assert first == message_id(key, "c1", "p1", "email", "shop.example")
    assert re.fullmatch(r"[0-9a-f]{40}@shop\.example", first)
    places = [("c1p", "1", "email"), ("c", "1p1", "email"), ("c1", "p1", "sms"), ("c1", "p1", "email")]
    places.append(("c2", "p1", "email"))
    others = {message_id(b"other", "c1", "p1", "email"), *(message_id(key, *place) for place in places)}
    assert len(others) == 6
