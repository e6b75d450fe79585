# ruff: noqa: E501  # real log lines stay in one piece
"""Lines are dismissed by the program they name only where none of its messages can match."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breachwatch.app.pipeline import SourceFormat
from breachwatch.detect import byprogram
from breachwatch.detect.byprogram import ByProgram
from breachwatch.detect.hits import Hit
from breachwatch.detect.plan import Plan, Scope
from breachwatch.detect.rule import And, Condition, FieldTest, Keyword, Not, Rule, Text, applies
from breachwatch.detect.ruleset import RuleSet
from breachwatch.detect.values import ANY
from breachwatch.model import Level, LogSource, RuleRef
from breachwatch.parse.rawform import ACTIONS, SYSLOG
from tests.detect.test_engine import blocks, found_in, pipeline
from tests.parse.samples import parse_all

HEADS = (
    "Dec 10 06:55:46 web01", "Dec  1 06:55:46 a.b-c", "2026-02-10T06:55:46.123456+01:00 web01", "2026-02-10T06:55:46Z web01",
    "Feb 31 06:55:46 web01", "Foo 10 06:55:46 web01", "Dec 10 66:55:46 web01", "Dec 10 :::::::: web01", "2026-02-10T12345678Z web01",
)  # fmt: skip
MESSAGES = (
    "Failed password for root from 203.0.113.7 port 5 ssh2", "Accepted publickey for bob from 203.0.113.7 port 5 ssh2",
    "error: maximum authentication attempts exceeded for root from 203.0.113.7 port 5 ssh2 [preauth]",
    "login failed for user bob from 203.0.113.7: bad password", "pam_unix(sshd:auth): authentication failure; rhost=203.0.113.7",
    "pam_unix(cron:session): session opened for user bob(uid=1) by (uid=0)", "(bob) CMD (sshd)", "COMMAND=/bin/sh", "new user: name=x",
    "password changed for bob", "Invalid user x from 203.0.113.7", "PAM 5 more authentication failures; rhost=203.0.113.7",
    '203.0.113.7 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 404 5', "", "sudo: x", "web01 sshd[5]: refused connect from 203.0.113.7",
)  # fmt: skip
SOURCES = (
    LogSource(),
    LogSource("linux"),
    LogSource("linux", "", "sshd"),
    LogSource("linux", "", "auth"),
    LogSource("linux", "", "syslog"),
)


def rule(number: int, condition: Condition, logsource: LogSource = SOURCES[1]) -> Rule:
    return Rule(
        ref=RuleRef(id=f"r{number}", title="r", level=Level.LOW),
        logsource=logsource,
        condition=condition,
        source="test",
    )


def action(name: str) -> FieldTest:
    return FieldTest("event.action", Text((name,)), "")


APP_LOGIN, SSH_LOGIN = rule(0, action("app_login")), rule(1, action("ssh_login"))


@given(
    head=st.sampled_from(HEADS),
    tag=st.sampled_from(sorted(SYSLOG.programs)),
    message=st.sampled_from(MESSAGES) | st.text(max_size=80),
    more=st.sampled_from(("", " from 203.0.113.7 port 5", "\r")),
)
def test_messages_of_a_program_are_of_its_sources_and_have_its_actions(head, tag, message, more):
    line = f"{head} {tag}[24200]: {message}{more}"
    assert re.match(SYSLOG.named, line)
    form = SYSLOG.programs[tag]
    for event in parse_all(line.replace("\n", " ")):
        assert any(applies(event.logsource, source) and applies(source, event.logsource) for source in form.sources)
        assert event.fields.get("event.action") in (None, *form.signs["event.action"][0])


@pytest.mark.parametrize("often", [2, 64])
def test_what_is_dismissed_by_program_matches_nothing(monkeypatch, often):
    monkeypatch.setattr(byprogram, "OFTEN", often)
    monkeypatch.setattr(byprogram, "REST", 8)
    tags = (*SYSLOG.programs, "sshd", "sshd", "dovecot", "su", "SSHD", "sshd(pam_unix)", "/usr/sbin/sshd")
    draw, judge = random.Random(7), ByProgram.judged
    answers: list[tuple[int, ...] | None] = []

    def noted(self: ByProgram, rules: tuple[int, ...], hit: Hit, line: bytes, plan: Plan) -> tuple[int, ...] | None:
        answers.append(judge(self, rules, hit, line, plan))
        return answers[-1]

    monkeypatch.setattr(ByProgram, "judged", noted)
    for _ in range(40):
        conditions: list[Condition] = [action(name) for name in (*draw.sample(sorted(ACTIONS), 4), "app_login")]
        conditions += [Not(one) for one in draw.sample(conditions, draw.choice((0, 2)))]
        conditions += [
            And((Keyword(Text((ANY, word, ANY)), ""), draw.choice(conditions))) for word in ("root", "fail", "bob")
        ]
        rules = RuleSet(rules=tuple(rule(number, one, draw.choice(SOURCES)) for number, one in enumerate(conditions)))
        lines = [f"{draw.choice(HEADS)} {draw.choice(tags)}[7]: {draw.choice(MESSAGES)}\n" for _ in range(60)]
        data = blocks("".join(lines).encode(), draw)
        for log_format in ("syslog", "auto"):
            how = SourceFormat(format=log_format)
            work = pipeline(rules, any_logsource=False, prefilter=True)
            assert found_in(work, data, how) == found_in(
                pipeline(rules, any_logsource=False, prefilter=False), data, how
            )
    assert answers.count(()) > 100


def judged(judge: ByProgram, rules: Sequence[Rule], line: bytes) -> tuple[int, ...] | None:
    plan = Plan(rules, SYSLOG, Scope())
    return judge.judged(tuple(range(len(rules))), 0, line, plan)


def test_a_refused_login_in_the_log_of_a_program_is_none_that_sshd_writes():
    message = b"[7]: login failed for user bob from 203.0.113.7: bad password"
    for rules, answer in (([APP_LOGIN], ()), ([APP_LOGIN, SSH_LOGIN], None)):
        judge = ByProgram(rules, SYSLOG, Scope())
        assert judged(judge, rules, b"Dec 10 06:55:46 web01 sshd" + message) == answer
        assert judged(judge, rules, b"Dec 10 06:55:46 web01 dovecot" + message) is None
        assert judged(judge, rules, b"dovecot: Dec 10 06:55:46 web01 sshd" + message) is None


def test_where_hardly_any_line_is_dismissed_no_more_are_asked_about_for_a_while():
    judge = ByProgram([APP_LOGIN], SYSLOG, Scope())
    ours, others = b"Dec 10 06:55:46 web01 sshd[7]: login failed", b"Dec 10 06:55:46 web01 dovecot[7]: login failed"
    answers = [judged(judge, [APP_LOGIN], others) for _ in range(byprogram.OFTEN)]
    answers += [judged(judge, [APP_LOGIN], ours) for _ in range(byprogram.REST + 2)]
    assert answers == [None] * (byprogram.OFTEN + byprogram.REST) + [(), ()]
