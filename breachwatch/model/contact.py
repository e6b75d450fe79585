"""Rows of any audience source become people, or problems that say why not. Pure; shared by CSV files and databases."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from breachwatch.model.notice import Person

MAX_NAME_CHARS = 200
MAX_REF_CHARS = 200
MAX_EXTRA_CHARS = 1_000
MAX_LOCAL_CHARS = 64
MAX_ADDRESS_CHARS = 254
MAX_DOMAIN_CHARS = 253
E164_MIN_DIGITS = 8
E164_MAX_DIGITS = 15
"""ITU-T E.164: at most fifteen digits; nothing shorter than eight is a mobile number anywhere."""

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "id": "id", "customer_id": "id", "customerid": "id", "ref": "id", "ma_khach_hang": "id", "makh": "id",
        "name": "name", "full_name": "name", "fullname": "name", "ho_ten": "name", "ho_va_ten": "name",
        "email": "email", "e_mail": "email", "mail": "email", "email_address": "email", "thu_dien_tu": "email",
        "phone": "phone", "telephone": "phone", "tel": "phone", "mobile": "phone", "msisdn": "phone",
        "dien_thoai": "phone", "so_dien_thoai": "phone", "sdt": "phone",
        "language": "language", "lang": "language", "locale": "language", "ngon_ngu": "language",
    }
)  # fmt: skip
"""How columns are called out there, with blanks and signs as `_` and without diacritics."""

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LOCAL = re.compile(rf"{_ATOM}(?:\.{_ATOM})*\Z")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\Z")
_PHONE_SIGNS = re.compile(r"[\s().\u00a0/-]+")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?=[-_]|\Z)")
_NOT_WORD = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class AudienceProblem:
    """A row, or a contact in it, that cannot be used. Never says the contact itself."""

    source: str
    """file:line, or the query and its row number."""
    reason: str


class ContactError(ValueError):
    """Why a contact cannot be used; the text never repeats it."""


@dataclass(slots=True)
class RowNormaliser:
    """Rows to people; remembers ids to find duplicates."""

    country_code: str = "84"
    """For national numbers with a leading 0."""
    default_language: str = "vi"
    _seen: set[str] = field(default_factory=set)

    def normalise(self, row: Mapping[str, object], where: str) -> Iterator[Person | AudienceProblem]:
        """Problems of a row and, unless it has no usable id, its person.

        A person whom no contact reaches is a problem and a person: the caller lists them as undeliverable.
        """
        ref = _text(row.get("id"))
        problem = self._id_problem(ref)
        if problem:
            yield AudienceProblem(source=where, reason=problem)
            return
        self._seen.add(ref)
        email, phone = "", ""
        try:
            email = normal_email(_text(row.get("email")))
        except ContactError as error:
            yield AudienceProblem(source=where, reason=f"e-mail address: {error}")
        try:
            phone = normal_phone(_text(row.get("phone")), self.country_code)
        except ContactError as error:
            yield AudienceProblem(source=where, reason=f"telephone number: {error}")
        if not email and not phone:
            yield AudienceProblem(source=where, reason="no usable contact: this person has to be told another way")
        name = _text(row.get("name"))
        if _has_controls(name):
            yield AudienceProblem(source=where, reason="the name holds control characters: it is left out")
            name = ""
        language = _LANGUAGE.match(_text(row.get("language")))
        yield Person(
            ref=ref,
            name=name[:MAX_NAME_CHARS],
            email=email,
            phone=phone,
            language=language[0].lower() if language else self.default_language,
            extra=_extra(row),
        )

    def _id_problem(self, ref: str) -> str:
        if not ref:
            return "no id"
        if len(ref) > MAX_REF_CHARS or _has_controls(ref):
            return "the id is too long or holds control characters"
        return "an earlier row has the same id" if ref in self._seen else ""


def column_name(header: str) -> str:
    """Our name for a column, or its own in plain letters."""
    decomposed = unicodedata.normalize("NFKD", header.casefold().replace("đ", "d"))
    plain = "".join(character for character in decomposed if not unicodedata.combining(character))
    key = _NOT_WORD.sub("_", plain).strip("_")
    return ALIASES.get(key, key)


def normal_email(text: str) -> str:
    """The address with its domain in ASCII, or "" for none. Raises: ContactError.

    Source: RFC 5321 4.1.2 without quoted local parts and address literals, RFC 5891 through IDNA. A local part beyond
    ASCII needs SMTPUTF8 on the whole way, which is not supported.
    """
    if not text:
        return ""
    if _has_controls(text):
        raise ContactError("holds control characters")
    local, at, domain = text.rpartition("@")
    if not at or not local or not domain:
        raise ContactError("is none")
    if not local.isascii():
        raise ContactError("its local part is not ASCII (SMTPUTF8 is not supported)")
    if len(local) > MAX_LOCAL_CHARS or not _LOCAL.match(local):
        raise ContactError("its local part is malformed")
    try:
        ascii_domain = domain.lower() if domain.isascii() else domain.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise ContactError("its domain is malformed") from None
    labels = ascii_domain.split(".")
    if len(labels) < 2 or len(ascii_domain) > MAX_DOMAIN_CHARS or not all(map(_LABEL.match, labels)):  # noqa: PLR2004
        raise ContactError("its domain is malformed")
    if labels[-1].isdigit() or len(local) + 1 + len(ascii_domain) > MAX_ADDRESS_CHARS:
        raise ContactError("its domain is malformed or it is too long")
    return f"{local}@{ascii_domain}"


def normal_phone(text: str, country_code: str = "84") -> str:
    """The number as `+` and digits, or "" for none. Raises: ContactError. Source: ITU-T E.164."""
    if not text:
        return ""
    if _has_controls(text):
        raise ContactError("holds control characters")
    bare = _PHONE_SIGNS.sub("", text)
    plus = bare.startswith("+")
    digits = bare[1:] if plus else bare
    if not digits.isascii() or not digits.isdigit():
        raise ContactError("is none")
    if not plus:
        if digits.startswith("00"):
            digits = digits[2:]
        elif digits.startswith("0"):
            digits = country_code + digits[1:]
        elif not digits.startswith(country_code):
            raise ContactError("has neither a country code nor a leading 0")
    if digits.startswith("0") or not E164_MIN_DIGITS <= len(digits) <= E164_MAX_DIGITS:
        raise ContactError("has a wrong length or country code")
    return f"+{digits}"


def _text(value: object) -> str:
    return "" if value is None else str(value).strip(" \t\u00a0")


def _has_controls(text: str) -> bool:
    return any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in text)


def _extra(row: Mapping[str, object]) -> Mapping[str, str]:
    known = {"id", "name", "email", "phone", "language"}
    return {
        name: text[:MAX_EXTRA_CHARS]
        for name, value in row.items()
        if name and name not in known and (text := _text(value)) and not _has_controls(text)
    }
