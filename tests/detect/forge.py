# ruff: noqa: E501  # tables of samples
"""Rules and lines made by chance, hostile on purpose: what an engine and the reference must answer alike.

Everything comes from one `random.Random`: a seed names a case for good. Values of rules are taken from values of events
and the other way round, so that most pairs nearly match and many do.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from breachwatch.detect.rule import (
    And,
    Condition,
    Exists,
    FieldReference,
    FieldTest,
    IsNull,
    Keyword,
    Not,
    Or,
    Rule,
    TimePart,
)
from breachwatch.detect.values import ANY, Network, Number, Piece, Regex, Scalar, Text, Value, as_text
from breachwatch.model import Event, Level, LogSource, RuleRef

WORDS = (
    "kill", "sKid", "a/b", 'say "hi"', "C:\\Windows\\x", "-r", "0", "1", "15", "1.5", "-1", "1e3", "true", "false", "null",
    "x\u00b0y", "ki\u0301", "\u212aill", "\u017fkid", "\u0130d", "\u0131d", "\u03a3\u03c3\u03c2", "stra\u00dfe", "\u4e2d\u6587",
    "\U0001f600", "tab\there", "line\nbreak", "nul\0", "\x7f", "*", "?", "a b", "init", "/ls", "etc/passwd", "<script>", "%41",
    "\\u0041", "\\/", "+", "1000000000000000000000", "0.00001", "12345678901234567", "inf", "nan", "", " ", "a", "k", "10.1.2.3",
    "::ffff:10.1.2.3", "2026-03-01T10:20:30Z", "\ud800", "\u00e9", "\u00c9", "e\u0301", "x\\", '"', "{", "}", "[", ":", ",",
)  # fmt: skip
"""Pieces of values."""

NUMBERS = (
    0,
    1,
    -1,
    15,
    1.5,
    1e3,
    1e16,
    1e-5,
    10**21,
    12345678901234567,
    0.1,
    -0.0,
    2.5e-7,
    123456789012345.0,
    True,
    False,
    None,
)

FIELDS = (
    "Image",
    "CommandLine",
    "a.b",
    "process.name",
    "User",
    "weird key",
    'q"k',
    "\u212aey",
    "message",
    "host.name",
    "log.offset",
)

SOURCES = (LogSource(), LogSource("linux"), LogSource("linux", "", "sshd"), LogSource("", "webserver"),
           LogSource("nginx", "webserver"), LogSource("linux", "process_creation"), LogSource("", "", "auditd"),
           LogSource("linux", "", "auditd"))  # fmt: skip

REGEXES = (
    r"kil+", r"^k", r"(?:init|kill)\b", r"\d+", r"[a-f]{2}", r"a.?b", r"s[Kk]id", r"\\\\", r'"hi"', r"x(?!y)", r"(?:a|)b",
    r"pass(?:wd)?", r"(?i:KILL)", r"[\s/]ls", r"^$", r"\w+\s\w", r"i", r"\.", r"%[0-9]{2}", r"(?s).", r"e\u0301", r"1e", r"un.on",
)  # fmt: skip


def value_text(draw: random.Random) -> str:
    """A text that a field may hold."""
    return "".join(draw.choice(WORDS) for _ in range(draw.choice((0, 1, 1, 1, 2, 3))))


def recased(draw: random.Random, text: str) -> str:
    """The same text but for case, in any of the ways that count as no difference, and in some that do."""
    way = draw.randrange(6)
    if way == 0:
        return text.upper()
    if way == 1:
        return text.swapcase()
    if way == 2:
        swaps = {"k": "\u212a", "s": "\u017f", "i": draw.choice("\u0130\u0131"), "K": "k", "\u03c3": "\u03c2"}
        return "".join(swaps.get(char, char) if draw.random() < 0.5 else char for char in text)
    return text


def pieces_of(draw: random.Random, text: str) -> tuple[Piece, ...]:
    """A pattern that more or less fits a text."""
    text = recased(draw, text)
    if len(text) > 2 and draw.random() < 0.5:
        start = draw.randrange(len(text))
        text = text[start : start + draw.randint(1, 8)]
    pieces: list[Piece] = [text] if text else []
    if len(text) > 1 and draw.random() < 0.3:
        cut = draw.randrange(1, len(text))
        pieces = [text[:cut], draw.choice((ANY, None)), text[cut + draw.randint(0, 1) :]]
    shape = draw.randrange(5)
    if shape in (1, 3, 4):
        pieces.insert(0, ANY)
    if shape in (2, 3, 4):
        pieces.append(ANY)
    return tuple(piece for piece in pieces if piece is None or piece == ANY or piece)


def rule_value(draw: random.Random, text: str) -> Value:
    """Something a value of that text may be compared with."""
    kind = draw.randrange(16)
    if kind == 0:
        pattern = draw.choice(REGEXES)
        return Regex(pattern, draw.choice((0, 0, 2)))
    if kind == 1:
        return Scalar(
            as_text(draw.choice([number for number in NUMBERS if not isinstance(number, bool | None)])) or "0"
        )
    if kind == 2:
        return Scalar(draw.choice(("true", "false")), boolean=True)
    if kind == 3:
        return Number(draw.choice(("lt", "lte", "gt", "gte", "eq", "neq")), draw.choice((0.0, 1.0, 1.5, 1e3)))
    if kind == 4:
        return Network(draw.choice(("10.0.0.0/8", "0.0.0.0/0", "::/0")))
    return Text(pieces_of(draw, text), cased=draw.random() < 0.15)


LEAF = 3
"""Conditions this deep have no parts."""

Known = Sequence[tuple[str, str]]
"""Names and texts of fields that lines at hand have."""


def keyword(draw: random.Random, text: str) -> Keyword:
    """A search for a text in the whole line."""
    pieces = pieces_of(draw, text)
    return Keyword(
        Text((ANY, *pieces, ANY) if pieces else ()) if draw.random() < 0.8 else Regex(draw.choice(REGEXES)), ""
    )


def condition(draw: random.Random, known: Known, names: Sequence[str], depth: int = 0) -> Condition:
    """A condition about such fields."""
    kind = draw.randrange(14 if depth < LEAF else 8)
    if kind >= 8:
        parts = tuple(condition(draw, known, names, depth + 1) for _ in range(draw.randint(1, 3)))
        return Not(parts[0]) if kind == 8 else And(parts) if kind < 12 else Or(parts)
    if kind == 1 or not names:
        return keyword(draw, draw.choice(known)[1] if known and draw.random() < 0.8 else value_text(draw))
    name, text = draw.choice(known) if known and draw.random() < 0.8 else (draw.choice(names), value_text(draw))
    also = (draw.choice(names),) if draw.random() < 0.2 else ()
    if also and draw.random() < 0.5:
        name, also = draw.choice(names), (name,)
    if kind == 0 and draw.random() < 0.5:
        return draw.choice((IsNull(name, also), Exists(name, draw.random() < 0.5, also)))
    if kind == 2 and draw.random() < 0.3:
        if draw.random() < 0.5:
            return TimePart(name, "hour", "gte", 10.0, also)
        relation = draw.choice(("equals", "startswith", "endswith", "contains"))
        return FieldReference(name, draw.choice(names), relation, also)
    return FieldTest(name, rule_value(draw, text), "", also)


def rule(draw: random.Random, number: int, known: Known, names: Sequence[str]) -> Rule:
    """A rule about such fields."""
    return Rule(
        ref=RuleRef(id=f"rule-{number}", title=f"rule {number}", level=Level.LOW),
        logsource=draw.choice(SOURCES),
        condition=condition(draw, known, names, draw.choice((0, LEAF, LEAF, LEAF))),
        source="forged",
    )


# -- JSON lines -------------------------------------------------------------------------------------------------------


def record(draw: random.Random) -> dict[str, Any]:
    """A JSON object as some program might log it."""
    found: dict[str, Any] = {}
    for _ in range(draw.randint(1, 5)):
        name = draw.choice(FIELDS)
        value: Any = value_text(draw) if draw.random() < 0.7 else draw.choice(NUMBERS)
        if draw.random() < 0.15:
            value = [value, draw.choice(NUMBERS), [value_text(draw)]]
        if "." in name and draw.random() < 0.5:
            head, _, tail = name.partition(".")
            found[head] = {tail: value}
        else:
            found[name] = value
    if draw.random() < 0.4:
        found["event.dataset"] = draw.choice(
            ("linux.sshd", "nginx.access", "system.auth", "linux", "x.auditd", "linux.auditd")
        )
    if draw.random() < 0.4:
        source = draw.choice(SOURCES)
        found |= {"product": source.product, "category": source.category, "service": draw.choice((source.service, 5))}
    if draw.random() < 0.3:
        found["@timestamp"] = draw.choice(("2026-03-01T10:20:30Z", 1_772_000_000, "bad"))
    return found


def json_string(draw: random.Random, text: str, escape: float) -> str:
    """A JSON string that stands for the text, written in some allowed way."""
    written = []
    for char in text:
        code = ord(char)
        if draw.random() < escape and code <= 0xFFFF:
            written.append(f"\\u{code:04{draw.choice('xX')}}")
        elif char in '"\\':
            written.append("\\" + char)
        elif char == "/" and draw.random() < 0.5:
            written.append("\\/")
        elif code < 0x20:
            written.append({"\n": "\\n", "\t": "\\t"}.get(char, f"\\u{code:04x}"))
        elif 0xD800 <= code < 0xE000:
            written.append(f"\\u{code:04x}")
        else:
            written.append(char)
    return '"' + "".join(written) + '"'


def json_text(draw: random.Random, value: Any, escape: float) -> str:
    """JSON for a value, written in some allowed way."""
    space = draw.choice(("", "", " ", "\t "))
    if isinstance(value, dict):
        pairs = [
            f"{json_string(draw, name, escape / 3)}{space}:{space}{json_text(draw, item, escape)}"
            for name, item in value.items()
        ]
        return "{" + space + f"{space},".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(json_text(draw, item, escape) for item in value) + "]"
    if isinstance(value, str):
        return json_string(draw, value, escape)
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    plain = repr(value)
    others = {
        "1000.0": ("1e3", "1E+3", "1000.00"),
        "1.5": ("1.50", "15e-1", "0.15e1"),
        "0": ("-0", "0.0", "0e5"),
        "1": ("1.0", "10e-1"),
    }
    return draw.choice((plain, *others.get(plain, ())))


def json_line(draw: random.Random) -> bytes:
    """One line of a JSON log, now and then none."""
    escape = draw.choice((0.0, 0.0, 0.02, 0.3, 1.0))
    text = json_text(draw, record(draw), escape)
    if draw.random() < 0.05:  # of a repeated key the last one counts
        text = text[:-1] + "," + json_text(draw, record(draw), escape)[1:]
    data = text.encode("utf-8", "surrogatepass")
    odd = draw.random()
    if odd < 0.1:
        data = damaged(draw, data)
    elif odd < 0.12:
        data = draw.choice((b"", b"\r", b"[1]", b"\xef\xbb\xbf" + data, b" \t" + data, data + b" x", b'{"a":' * 70 + data + b"}" * 70,
                            value_text(draw).encode("utf-8", "surrogatepass")))  # fmt: skip
    return data.replace(b"\n", b"\\n")


def damaged(draw: random.Random, data: bytes) -> bytes:
    """A line with some bytes changed."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(changed) + 1)
        way = draw.randrange(3)
        if way == 0:
            changed[at:at] = draw.choice(
                (b"\xff", b"\0", b"\xe2\x84\xaa", b"\\", b'"', b"\\u006b", b"\xc3", b"\x0b", b"%", b"\r", b"{")
            )
        elif way == 1 and at < len(changed):
            del changed[at]
        elif at < len(changed):
            changed[at] = draw.randrange(256)
    return bytes(changed).replace(b"\n", b" ")


# -- text lines -------------------------------------------------------------------------------------------------------

SYSLOG = (
    "sshd[311]: Failed password for {user} from {ip} port 4711 ssh2",
    "sshd[311]: Failed password for invalid user {user} from {ip} port 4711 ssh2",
    "sshd[311]: Accepted publickey for {user} from {ip} port 22 ssh2: RSA SHA256:{word}",
    "sshd[311]: Invalid user {user} from {ip}",
    "sshd[31]: message repeated 3 times: [ Failed password for {user} from {ip} port 1 ssh2]",
    "sudo:   {user} : TTY=pts/1 ; PWD=/tmp ; USER=root ; COMMAND=/bin/{word} {word}",
    "sudo:   {user} : user NOT in sudoers ; TTY=pts/1 ; PWD=/home ; USER=root ; COMMAND=/bin/{word}",
    "su[12]: pam_unix(su:auth): authentication failure; logname={user} uid=1000 euid=0 tty=/dev/pts/2 ruser={user} rhost=  user=root",
    "CRON[99]: ({user}) CMD ({word})",
    "useradd[5]: new user: name={user}, UID=1001, GID=1001, home=/home/{user}, shell=/bin/{word}, from=/dev/pts/1",
    "passwd[7]: pam_unix(passwd:chauthtok): password changed for {user}",
    "usermod[9]: add '{user}' to group 'sudo'",
    "kernel: [12.5] {word} {word}",
    'nginx: {ip} - - [17/May/2015:10:05:03 +0000] "GET /{word} HTTP/1.1" 200 12 "-" "{word}"',
    "last message repeated 2 times",
    "dovecot: auth failed for {user} rip={ip} {word}",
    "{word}",
)  # fmt: skip

ACCESS = (
    '{ip} - {user} [17/May/2015:10:05:03 +0000] "GET /{url}?q={url} HTTP/1.1" {status} 203 "-" "{word}"',
    '{ip} - - [17/May/2015:10:05:03 +0000] "POST /{url} HTTP/1.1" {status} - "{url}" "{word}"',
    '{ip} - - [17/May/2015:10:05:03 +0000] "{word}" {status} 0',
    'shop.example:443 {ip} - - [17/May/2015:10:05:03 +0000] "GET http://{user}/{url} HTTP/1.1" {status} 1 "-" "-" "{ip}"',
    '2016/10/25 14:49:34 [error] 54053#0: *1 open() "/{url}" failed (2: No such file), client: {ip}, request: "GET /{url} HTTP/1.1"',
    '[Wed Jul 17 23:20:45 2013] [error] [client {ip}] user {user}: authentication failure for "/{url}": Password Mismatch',
    '{url} - {user} [17/May/2015:10:05:03 +0000] "GET /{url} HTTP/1.1" {status} 203 "-" "{word}"',
    *(
        '203.0.113.7 - - [17/May/2015:10:05:03 +0000] "GET /{calm}?q={calm} HTTP/1.1" {code} 203 "-" "{said}"',
        '203.0.113.7 - bob [17/May/2015:10:05:03 +0000] "POST /{calm} HTTP/1.1" {code} 1 "{said}" "{said}"',
    ) * 4,
    '{ip},{user} - - [17/May/2015:10:05:03 +0000] "GET /{url}?{url} HTTP/1.1" {status} 203 "-" "{word}"',
)  # fmt: skip

USERS = ("root", "admin", "\u212aurt", "b\u00f6b", "o'neil", "x y", "\u0661\u0662", "a\tb", "invalid user", "")
IPS = ("203.0.113.7", "::ffff:203.0.113.7", "host.example", "10.1.2.3", "\u0661.2.3.4", "2001:db8::1")


def url_text(draw: random.Random) -> str:
    """Part of a URL, encoded in whatever way a server may undo."""
    written = []
    for char in value_text(draw) or "index.php":
        way = draw.randrange(12)
        octets = char.encode("utf-8", "surrogatepass")
        if way == 0:
            written.append("".join(f"%{octet:02{draw.choice('xX')}}" for octet in octets))
        elif way == 1:
            written.append("".join(f"%25{octet:02x}" for octet in octets))
        elif way == 2 and ord(char) < 0x10000:
            written.append(f"%u{ord(char):04x}")
        elif way == 3:
            written.append("".join(f"\\x{octet:02x}" for octet in octets))
        elif way == 4 and ord(char) < 0x80:
            written.append(f"%c{ord(char) >> 6:x}%{0x80 | ord(char) & 0x3F:02x}")
        else:
            written.append(char)
    return "".join(written).replace(" ", draw.choice(("+", "%20", " ")))


def text_line(draw: random.Random, shapes: Sequence[str], head: Callable[[random.Random], str]) -> bytes:
    """One line of a text log, now and then damaged."""
    line = head(draw) + draw.choice(shapes).format(
        user=recased(draw, draw.choice(USERS)), ip=draw.choice(IPS), word=value_text(draw), url=url_text(draw),
        status=draw.choice(("200", "404", "\u0662\u0660\u0660", "500")), code=draw.choice((200, 404)),
        calm=quote(value_text(draw), errors="ignore"), said=value_text(draw).replace('"', "").replace("\\", ""),
    )  # fmt: skip
    data = line.encode("utf-8", "surrogatepass").replace(b"\n", b" ")
    odd = draw.random()
    if odd < 0.15:
        return damaged(draw, data)
    if odd < 0.17:
        return draw.choice((b"", b"\r", b'{"message": "kill"}', b" " + data, data + b"\r", data * 3))
    return data


def syslog_head(draw: random.Random) -> str:
    """The start of a syslog line."""
    second = draw.randrange(60)
    return draw.choice((
        f"Dec 10 06:55:{second:02} web01 ", f"2026-02-03T04:05:{second:02}.5+01:00 web01 ", f"<38>Dec  1 06:55:{second:02} web01 ",
        "<34>1 2026-02-03T04:05:06Z web01 su 77 ID47 - ", "web01 ", "",
    ))  # fmt: skip


AUDIT = (
    "type=SYSCALL {head} arch=c000003e syscall={number} success=yes exit=0 a0=1 pid=3 uid=0 comm={word} exe={word} key={word}",
    "type=EXECVE {head} argc=3 a0={word} a1={word} a2={word}",
    "type=PATH {head} item=0 name={word} nametype=NORMAL",
    "type=PATH {head} item=1 name={word} nametype=CREATE",
    "type=PROCTITLE {head} proctitle={word}",
    "type=PROCTITLE {head} proctitle={word}",
    "type=USER_LOGIN {head} pid=1 uid=0 msg='op=login acct={word} exe=\"/usr/sbin/sshd\" addr={ip} res=failed'",
)


def audit_value(draw: random.Random) -> str:
    """A value as the kernel writes it: in hex where it has to be, and now and then where not."""
    text = value_text(draw)
    if draw.random() < 0.8 and text.isascii() and text.isprintable() and not {" ", '"'} & set(text):
        return f'"{text}"'
    return text.encode("utf-8", "surrogatepass").hex().upper()


def audit_line(draw: random.Random) -> bytes:
    """A part of one of a few events."""
    serial = draw.randrange(4)
    shape = draw.choice(AUDIT)
    for _ in range(shape.count("{word}")):
        shape = shape.replace("{word}", audit_value(draw).replace("{", "(").replace("}", ")"), 1)
    head = f"msg=audit(1783414661.{serial:03}:{serial}):"
    line = shape.format(head=head, number=draw.choice((59, 2, 313)), ip=draw.choice(IPS))
    data = line.encode("utf-8", "surrogatepass").replace(b"\n", b" ")
    return damaged(draw, data) if draw.random() < 0.1 else data


def lines(draw: random.Random, log_format: str, count: int) -> bytes:
    """So many lines of a format, each with its line feed."""
    if log_format == "json":
        made = [json_line(draw) for _ in range(count)]
    elif log_format in ("nginx", "apache"):
        made = [text_line(draw, ACCESS, lambda _draw: "") for _ in range(count)]
    elif log_format == "auditd":
        made = [audit_line(draw) for _ in range(count)]
    elif log_format == "mixed":
        made = [lines(draw, draw.choice(("syslog", "syslog", "nginx", "json")), 1)[:-1] for _ in range(count)]
    else:
        made = [text_line(draw, SYSLOG, syslog_head) for _ in range(count)]
    return b"".join(line + b"\n" for line in made)


def known_fields(events: Sequence[Event]) -> list[tuple[str, str]]:
    """Names and texts that occur in events."""
    found: list[tuple[str, str]] = []
    for event in events:
        for name, value in event.fields.items():
            items = (
                list(value.values())
                if isinstance(value, dict)
                else value
                if isinstance(value, list | tuple)
                else [value]
            )
            found.extend((name, text) for item in items if (text := as_text(item)) is not None)
            if isinstance(value, dict):
                found.extend(
                    (f"{name}.{key}", text) for key, item in value.items() if (text := as_text(item)) is not None
                )
    return found
