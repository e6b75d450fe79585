"""docs/notices.md: every channel, template and fact is there; its CSV is read and its template is taken."""

from __future__ import annotations

import io
from datetime import timedelta

from breachwatch.config.sections import LetterheadSection
from breachwatch.model import CampaignKind, Channel, Person
from breachwatch.notify.audience import read_csv
from breachwatch.notify.campaign import letterhead_facts
from breachwatch.notify.channels import CHANNELS
from breachwatch.notify.retry import POLICIES
from breachwatch.notify.template import MAX_SMS_SEGMENTS, load_templates
from tests.docs.pages import DOCS, page, rows, snippets

PAGE = page("notices.md")
FOUND = {one.language: one for one in snippets(DOCS / "notices.md")}


def test_every_channel_is_on_the_page():
    listed = {cells[0].strip("`") for cells in rows(PAGE.partition("## Channels")[2].partition("\n## ")[0], 3)}
    assert listed - {"channel"} == {str(channel) for channel in CHANNELS} == {str(channel) for channel in Channel}


def test_every_shipped_template_is_on_the_page():
    names = {name for name, _ in load_templates().names()}
    assert names
    assert sorted(name for name in names if f"| `{name}` |" not in PAGE) == []


def test_every_fact_that_a_shipped_template_needs_is_on_the_page():
    templates = load_templates()
    needed = {fact for name, language in templates.names() for fact in templates.required(name, language)}
    assert "data.categories" in needed
    assert sorted(fact for fact in needed if f"`{fact}`" not in PAGE) == []


def test_every_fact_of_the_letterhead_is_on_the_page():
    facts = letterhead_facts(dict.fromkeys(LetterheadSection.model_fields, "x"))
    assert sorted(fact for fact in facts if f"`{fact}`" not in PAGE) == []


def test_the_audience_of_the_page_is_read_whole():
    people = list(read_csv(io.StringIO(FOUND["csv"].text), "page"))
    assert [type(person) for person in people] == [Person] * 3
    last = people[2]
    assert isinstance(last, Person)
    assert last.phone == "+84900000003"


def test_the_template_of_the_page_is_taken(tmp_path):
    (tmp_path / "mine.en.txt.j2").write_text(FOUND["jinja2"].text, encoding="utf-8")
    templates = load_templates([tmp_path])
    assert templates.required("mine", "en") == {"inc.reference", "inc.description", "org.name", "org.hotline"}
    words = templates.render("mine", "en", None, {**dict.fromkeys(templates.required("mine", "en"), "word")})
    assert "Dear customer," in words.text


def test_the_patience_that_the_page_states_is_that_of_the_policies():
    def stated(kind: CampaignKind) -> str:
        tries, delay = POLICIES[kind].stop.stops  # type: ignore[attr-defined]  # stop_any
        age = timedelta(seconds=delay.max_delay)
        said = f"{age.seconds // 60} minutes" if age < timedelta(hours=1) else f"{age // timedelta(hours=1)} hours"
        return f"{said} or {tries.max_attempt_number} tries"

    text = " ".join(PAGE.split())
    assert [str(kind) for kind in POLICIES if stated(kind) not in text] == []
    assert MAX_SMS_SEGMENTS == 6
    assert "at most six segments" in text
