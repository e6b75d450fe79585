from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import breachwatch.law
from breachwatch.errors import PlaybookError
from breachwatch.law import load_regimes
from breachwatch.model import CampaignKind, Channel, Level
from breachwatch.playbook.actions import ChannelChoice
from breachwatch.playbook.schema import Known, load_playbook
from tests.playbook.samples import SMALL, TEXT, an_incident

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "playbooks").glob("*.yaml"))


def known_clocks() -> set[tuple[str, str]]:
    folder = Path(breachwatch.law.__file__).parent / "regimes"
    regimes = [
        row for path in folder.glob("*.yaml") for row in load_regimes(path.read_text(encoding="utf-8"), path.name)
    ]
    return {(regime.id, stage.id) for regime in regimes for stage in regime.stages}


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


def test_a_playbook_is_read_as_written():
    assert (SMALL.id, SMALL.version, SMALL.title) == ("small", 1, "A small one")
    assert SMALL.escalation[1].wait == timedelta(minutes=10)
    assert SMALL.escalation[1].repeat == 2
    customers = SMALL.step("small/customers")
    assert customers is not None
    assert customers.notice.campaign_kind is CampaignKind.CUSTOMERS
    assert customers.notice.addressee == "customers"
    assert customers.notice.choices() == (
        ChannelChoice(channel=Channel.EMAIL),
        ChannelChoice(channel=Channel.SMS, if_undelivered=True),
    )
    assert customers.approve.excluded == ("requester",)
    assert SMALL.step("other/customers") is None


def test_it_applies_to_what_its_expression_says():
    assert SMALL.applies_to(an_incident())
    assert not SMALL.applies_to(an_incident(severity=Level.MEDIUM))


def test_the_shipped_playbooks_load_and_their_clocks_are_known():
    assert [path.stem for path in SHIPPED] == ["eu-gdpr", "vietnam-pdpl"]
    for path in SHIPPED:
        playbook = load_playbook(path.read_text(encoding="utf-8"), path.name, known=Known(clocks=known_clocks()))
        assert playbook.id == path.stem
        assert {step.notice.kind for step in playbook.on_confirm} == {"authority", "customers"}
        for step in playbook.on_confirm:
            assert set(step.approve.roles) == {"dpo", "ciso"}
            assert "requester" in step.approve.excluded
            assert set(step.notice.templates) == {"vi", "en"}
        assert "NOT LEGAL ADVICE" in path.read_text(encoding="utf-8")


def test_the_commented_clocks_of_the_shipped_playbooks_exist():
    for path in SHIPPED:
        text = path.read_text(encoding="utf-8").replace("# - {regime", "- {regime")
        playbook = load_playbook(text, path.name, known=Known(clocks=known_clocks()))
        assert len(playbook.clocks) == 2


@pytest.mark.parametrize(
    ("old", "new", "at", "what"),
    [
        ("    kind: authority\n", "    kind: regulator\n", "kind: regulator", "'authority' or 'customers'"),
        ("  notice:\n    kind: customers", "  letter:\n    kind: customers", "letter:", "unknown kind of step"),
        ("  needs: [authority]", "  wait: 3d", "wait: 3d", "allowed: id, notice, needs, approve"),
        ("title: A small one", "titel: A small one", "titel:", "allowed: playbook, version, title"),
        ("version: 1\n", "", "playbook: small", "version: missing"),
        ("version: 1", "version: one", "version: one", "integer"),
        ("version: 1", "version: true", "version: true", "integer"),
        ("playbook: small", "playbook: Small One", "playbook:", "pattern"),
        ('>= "high"', '>= "hot"', "when:", "'hot' is no severity"),
        ('when: incident.severity >= "high"', "when: ''", "when:", "at least 1"),
        ("wait: 5m", "wait: soon", "wait: soon", "for example 5m"),
        ("wait: 5m", "wait: 0m", "wait: 0m", "for example 5m"),
        ("wait: 5m", "wait: 300", "wait: 300", "for example 5m"),
        ("wait: 5m", "wait: 8d", "wait: 8d", "at most 7d"),
        ("repeat: 2", "repeat: 0", "repeat: 0", "greater than or equal to 1"),
        ("via: [sms]", "via: [pigeon]", "pigeon", "'email', 'sms' or 'chat'"),
        ("via: [sms]", "via: []", "via: []", "at least 1"),
        ("escalation:\n- {to: oncall, via: [chat, sms], wait: 5m}\n- {to: boss, via: [sms], wait: 10m, repeat: 2}\n",
         "escalation: []\n", "escalation: []", "at least 1"),
        ("channels: [email]", "channels: [{email: {if: never}}]", "channels:", "if: undelivered"),
        ("channels: [email]", "channels: [{email: {if: undelivered}}]", "channels:", "first channel cannot wait"),
        ("channels: [email]", "channels: [email, email]", "channels:", "named twice"),
        ("channels: [email]", "channels: [[email]]", "channels:", "expected a channel"),
        ("channels: [email]", "channels: [fax]", "channels:", "'email', 'sms' or 'chat'"),
        ("    to: the-authority\n", "", "notice:", "an authority notice has `to`"),
        ("    audience: customers\n", "    to: x\n", "notice:\n    kind: customers", "customer notice has `audience`"),
        ("{vi: customer, en: customer}", "{vi: customer}", "notice:\n    kind: customers", "templates in vi and en"),
        ("{en: authority}", "{fr: authority}", "templates: {fr", "'vi' or 'en'"),
        ("{need: 2, roles: [dpo]}", "{need: 0, roles: [dpo]}", "approve: {need: 0", "greater than or equal to 1"),
        ("{need: 2, roles: [dpo]}", "{need: 2, roles: []}", "approve: {need: 2", "at least 1"),
        ("{need: 2, roles: [dpo]}", "{need: 2}", "approve: {need: 2}", "missing"),
        ("not: [requester]", "not: []", "approve: {need: 1", "at least 1"),
        ("not: [requester]", "not: [nobody]", "approve: {need: 1", "requester"),
        ("  approve: {need: 2, roles: [dpo]}\n", "", "- id: customers", "approve: missing"),
        ("needs: [authority]", "needs: [autority]", "needs:", "unknown step 'autority'"),
        ("needs: [authority]", "needs: [customers]", "needs:", "needs itself"),
        ("- id: customers", "- id: authority", "- id: authority\n  notice:\n    kind: customers", "second step"),
        ("met_by: authority", "met_by: nobody", "met_by: nobody", "no step 'nobody'"),
        ("- id: authority", "- id: Authority!", "- id: Authority!", "pattern"),
        ("version: 1", "version: 1\nversion: 2", "version: 2", "duplicate key"),
        ("version: 1", "version: &v 1", "version: &v", "anchors"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_line_and_what_is_allowed(old, new, at, what):
    text = TEXT.replace(old, new, 1) if not new.startswith("- id: authority") else TEXT.replace(old, new)
    assert text != TEXT
    with pytest.raises(PlaybookError) as refused:
        load_playbook(text, "mine.yaml")
    assert what in str(refused.value)
    assert refused.value.source == f"mine.yaml:{line_of(text, at)}"


@pytest.mark.parametrize("text", ["", "- 1\n", "just words\n", "a: [\n", "{}", "\0", "[" * 9_000])
def test_what_is_no_playbook_is_refused(text):
    with pytest.raises(PlaybookError) as refused:
        load_playbook(text, "mine.yaml")
    assert refused.value.source is not None
    assert refused.value.source.startswith("mine.yaml:")


@pytest.mark.parametrize(
    ("known", "what", "at"),
    [
        (Known(teams={"oncall"}), "unknown team or person boss", "- {to: boss"),
        (Known(clocks={("law", "open_end")}), "unknown clock law authority_notice", "- {regime: law"),
        (Known(authorities=set()), "unknown authority the-authority", "to: the-authority"),
        (Known(audiences={"staff"}), "unknown audience customers", "audience: customers"),
        (Known(templates={("authority", "en"), ("customer", "vi")}), "unknown template customer en", "templates: {vi:"),
        (Known(roles={"ciso"}), "unknown role dpo", "approve: {need: 1"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_because_nobody_would_be_told(known, what, at):
    with pytest.raises(PlaybookError, match=what) as refused:
        load_playbook(TEXT, "mine.yaml", known=known)
    assert refused.value.source == f"mine.yaml:{line_of(TEXT, at)}"
    assert "known:" in str(refused.value)


def test_errors_do_not_repeat_values():
    with pytest.raises(PlaybookError) as refused:
        load_playbook(TEXT.replace("to: oncall", "to: 'lan@example.com secret'"), "mine.yaml")
    assert "secret" not in str(refused.value)


def test_a_circle_of_needs_is_found_however_long():
    steps = "".join(
        f"- id: s{n}\n  notice: {{kind: authority, to: x, templates: {{en: a}}, channels: [email]}}\n"
        f"  needs: [s{(n + 1) % 40}]\n  approve: {{roles: [dpo]}}\n"
        for n in range(40)
    )
    text = TEXT[: TEXT.index("clocks:")] + "on_confirm:\n" + steps
    with pytest.raises(PlaybookError, match="needs itself"):
        load_playbook(text, "mine.yaml")
    assert len(load_playbook(text.replace("needs: [s0]", "needs: []"), "mine.yaml").on_confirm) == 40
    diamond = text.replace("needs: [s0]", "needs: []").replace("needs: [s1]", "needs: [s1, s2, s3]")
    assert len(load_playbook(diamond, "mine.yaml").on_confirm) == 40


@given(st.integers(0, len(TEXT)), st.integers(0, 30), st.text(max_size=12))
def test_a_playbook_damaged_anywhere_is_read_or_refused_with_a_line(start, length, noise):
    text = TEXT[:start] + noise + TEXT[start + length :]
    where = "mine.yaml:1"
    try:
        load_playbook(text, "mine.yaml")
    except PlaybookError as error:
        where = error.source or ""
    assert where.startswith("mine.yaml:")
    assert int(where.rpartition(":")[2]) >= 1
