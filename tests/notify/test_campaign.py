"""Frozen notices: the hash covers all that people will read, and survives a restart."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breachwatch.errors import TemplateError
from breachwatch.model import Campaign, CampaignKind, CampaignState, Channel, DeliveryState, Person
from breachwatch.notify.campaign import (
    NAME_MARK,
    FrozenNotice,
    NoticeRenderer,
    first_deliveries,
    freeze,
    preview,
    thaw,
)
from breachwatch.notify.mime import build_email
from breachwatch.notify.template import load_templates
from tests.notify.installation import FACTS, LETTERHEAD, NOW

TEMPLATES = load_templates()
BASE: Mapping[str, Any] = {
    "templates": TEMPLATES, "names": {"vi": "customer", "en": "customer"}, "letterhead": LETTERHEAD, "facts": FACTS,
    "person_ids": ["b", "a"], "channels": [Channel.EMAIL, Channel.SMS], "sender": "security@shop.example",
    "reply_to": "privacy@shop.example",
}  # fmt: skip
RENDERER = NoticeRenderer(key=b"k" * 32, domain="shop.example")
HOA = Person(ref="1", name="Nguyễn Thị Hoa", email="hoa@customers.example", phone="+84900000001", language="vi")


def frozen(**changes: Any) -> FrozenNotice:
    return freeze(**{**BASE, **changes})


def test_the_same_input_gives_the_same_hash_in_any_order() -> None:
    facts = dict(reversed(FACTS.items()))
    assert frozen(facts=facts, person_ids=["a", "b"]).content_hash == frozen().content_hash


@pytest.mark.parametrize(
    "changes",
    [
        {"facts": {**FACTS, "act.done": "Other."}},
        {"letterhead": {**LETTERHEAD, "hotline": "1900 1111"}},
        {"person_ids": ["a", "c"]},
        {"person_ids": ["a", "b", "c"]},
        {"channels": [Channel.EMAIL]},
        {"channels": [Channel.SMS, Channel.EMAIL]},
        {"sender": "other@shop.example"},
        {"reply_to": ""},
        {"sender_name": "Shop"},
        {"names": {"vi": "customer"}},
    ],
)
def test_any_change_makes_another_hash(changes: dict[str, Any]) -> None:
    assert frozen(**changes).content_hash != frozen().content_hash


def test_a_thawed_notice_builds_the_same_bytes() -> None:
    notice = frozen()
    again = thaw(notice.content)
    assert again.content_hash == notice.content_hash
    for channel in Channel:
        both = [
            preview(RENDERER, one, campaign_id="c", person_id="p", person=HOA, channel=channel, date=NOW)
            for one in (notice, again)
        ]
        assert both[0] == both[1]


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"v": 99}', b"\xff", b'{"v":1,"names":{"vi":"x"}}'])
def test_frozen_bytes_that_are_damaged_are_refused(content: bytes) -> None:
    with pytest.raises(TemplateError):
        thaw(content)


def test_missing_letterhead_and_facts_forbid_freezing_and_are_named() -> None:
    letterhead = {key: "" if key == "hotline" else value for key, value in LETTERHEAD.items()}
    facts = {name: value for name, value in FACTS.items() if name != "advice.protect"}
    with pytest.raises(TemplateError, match=r"advice\.protect, org\.hotline"):
        frozen(letterhead=letterhead, facts=facts)


def test_the_date_alone_changes_between_tries() -> None:
    first, second = (
        preview(RENDERER, frozen(), campaign_id="c", person_id="p", person=HOA, channel=Channel.EMAIL, date=date)
        for date in (NOW, NOW + timedelta(days=1))
    )
    pairs = zip(first.payload.splitlines(), second.payload.splitlines(), strict=True)
    changed = [(one, other) for one, other in pairs if one != other]
    assert [one.split(b":")[0] for one, _ in changed] == [b"Date"]
    assert first.message_id == second.message_id


@given(
    name=st.one_of(st.text(max_size=250), st.sampled_from([NAME_MARK, "a & b", "<b>x</b>", "\n\n", "{{ org.name }}"]))
)
def test_prepared_bodies_are_what_a_plain_rendering_gives(name: str) -> None:
    notice = NOTICE
    person = Person(ref="1", name=name, email="a@customers.example", language="vi")
    sent = RENDERER.build(notice, message_id="m@shop.example", person=person, channel=Channel.EMAIL, date=NOW)
    clean = sent_name(name)
    words = notice.words("vi", clean, None)
    whole = build_email(
        sender=notice.sender, to=person.email, to_name=clean, reply_to=notice.reply_to, subject=words.subject,
        text=words.text, html=words.html, message_id="m@shop.example", date=NOW,
        headers={"Auto-Submitted": "auto-generated", "Content-Language": "vi"},
    )  # fmt: skip
    assert sent.payload == whole


NOTICE = frozen()


def sent_name(name: str) -> str:
    from breachwatch.notify.campaign import MAX_NAME_CHARS
    from breachwatch.notify.mime import one_line

    return one_line(name)[:MAX_NAME_CHARS]


def test_a_language_that_the_notice_lacks_falls_back_to_english() -> None:
    assert frozen().language_for(Person(ref="1", language="fr")) == "en"
    assert frozen(names={"vi": "customer"}).language_for(Person(ref="1", language="fr")) == "vi"


def campaign(*channels: Channel) -> Campaign:
    return Campaign(
        id="c", incident_id="i", step="s", kind=CampaignKind.CUSTOMERS, state=CampaignState.RUNNING, content_hash="h",
        audience_count=1, channels=channels, created_at=NOW, created_by="system",
    )  # fmt: skip


def test_people_start_on_the_first_channel_that_reaches_them() -> None:
    def starts(person: Person, *, every: bool = False) -> list[tuple[Channel, DeliveryState]]:
        rows = first_deliveries(RENDERER, campaign(Channel.EMAIL, Channel.SMS), "p", person, now=NOW, every=every)
        return [(row.channel, row.state) for row in rows]

    assert starts(HOA) == [(Channel.EMAIL, DeliveryState.READY)]
    assert starts(HOA, every=True) == [(Channel.EMAIL, DeliveryState.READY), (Channel.SMS, DeliveryState.READY)]
    assert starts(Person(ref="1", phone="+84900000001")) == [(Channel.SMS, DeliveryState.READY)]
    assert starts(Person(ref="1")) == [(Channel.EMAIL, DeliveryState.FAILED)]


def test_the_key_of_the_renderer_is_never_shown() -> None:
    assert "kkkk" not in repr(RENDERER)
