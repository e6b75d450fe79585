"""Templates: what is refused, what is missing, what people read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breachwatch.errors import TemplateError
from breachwatch.notify.campaign import letterhead_facts
from breachwatch.notify.template import SHIPPED, TemplateSet, load_templates, sms_segments
from tests.notify.installation import FACTS, LETTERHEAD

VALUES = {**letterhead_facts(LETTERHEAD), **FACTS, "person.name": "Lê Ánh"}
NAMES = [(name, language) for name in ("page", "authority", "customer") for language in ("vi", "en")]


SHIPPED_SET = load_templates()


@pytest.fixture(scope="module")
def shipped() -> TemplateSet:
    return SHIPPED_SET


@pytest.mark.parametrize(("name", "language"), NAMES)
def test_every_shipped_notice_renders_in_every_kind(shipped: TemplateSet, name: str, language: str) -> None:
    shipped.check(name, [language], VALUES, kinds=("txt", "html", "sms"))
    words = shipped.render(name, language, None, VALUES)
    assert "INC-2026-000001" in words.subject
    assert words.html is not None
    assert words.sms is not None
    assert "\n" not in words.subject
    for text in (words.text, words.html, words.sms):
        assert "INC-2026-000001" in text
        assert "{{" not in text
        assert not re.search(r"\bNone\b", text)
    assert "<web shell>" not in words.html
    assert sms_segments(words.sms) <= 6
    assert "\n\n\n\n" not in words.text


@pytest.mark.parametrize("language", ["vi", "en"])
def test_a_customer_reads_who_writes_what_happened_what_to_do_and_how_to_check(
    shipped: TemplateSet, language: str
) -> None:
    words = shipped.render("customer", language, None, VALUES)
    wanted = ["org.name", "org.address", "org.tax_code", "org.hotline", "org.verify_url", "contact.privacy"]
    wanted += ["inc.description", "data.categories", "eff.consequences", "act.done", "advice.protect", "person.name"]
    for fact in wanted:
        assert VALUES[fact] in words.text, fact
    assert "href" not in str(words.html), "a notice that asks to click is what fraud looks like"


def test_vietnamese_has_its_diacritics(shipped: TemplateSet) -> None:
    text = shipped.render("customer", "vi", None, VALUES).text
    assert "Chúng tôi không" not in text or "ô" in text
    for word in ("Kính gửi", "Dữ liệu", "mật khẩu", "Hậu quả", "Quý khách", "Trân trọng"):
        assert word in text


def test_missing_facts_are_all_named(shipped: TemplateSet) -> None:
    known = {name: value for name, value in VALUES.items() if name not in {"act.done", "org.hotline"}}
    with pytest.raises(TemplateError, match=r"facts missing: act\.done, org\.hotline") as refused:
        shipped.check("customer", ["vi", "en"], known)
    assert re.search(r"customer\.vi\.txt\.j2:\d+", str(refused.value))


def test_a_missing_language_or_notice_is_named(shipped: TemplateSet) -> None:
    with pytest.raises(TemplateError, match=r"customer\.fr\.txt\.j2"):
        shipped.check("customer", ["fr"], VALUES)
    with pytest.raises(TemplateError, match=r"nosuch\.vi\.txt\.j2"):
        shipped.render("nosuch", "vi", None, VALUES)


def test_the_operators_folder_lies_over_the_shipped_one(tmp_path: Path, shipped: TemplateSet) -> None:
    (tmp_path / "customer.en.txt.j2").write_text("subject: Ours {{ inc.reference }}\n---\nOur words\n")
    mine = load_templates([tmp_path])
    assert mine.render("customer", "en", None, VALUES).text == "Our words\n"
    assert mine.render("customer", "vi", None, VALUES) == shipped.render("customer", "vi", None, VALUES)


@pytest.mark.parametrize(
    ("body", "reason", "line"),
    [
        ("{{ 'a' * 10**9 }}", "mul", 3),
        ("{{ 'a' ~ 'b' }}", "concat", 3),
        ("x\n{% for i in inc.x %}{% endfor %}", "for", 4),
        ("{{ inc.x.__class__ }}", "two parts", 3),
        ("{{ inc }}", "two parts", 3),
        ("{{ inc.x() }}", "call", 3),
        ("{{ inc['x'] }}", "getitem", 3),
        ("{% set a = inc.x %}", "assign", 3),
        ("{% include 'x' %}", "include", 3),
        ("{% macro m() %}{% endmacro %}", "macro", 3),
        ("{{ inc.x|center(1000000000) }}", "filter center", 3),
        ("{{ inc.x|attr('y') }}", "filter attr", 3),
        ("{% if inc.x is divisibleby(3) %}{% endif %}", "test divisibleby", 3),
        ("\n\n{{ inc.x", "not a template", 5),
        ("{{ '%d' % 3 }}", "mod", 3),
        ("{{ range(3) }}", "call", 3),
    ],
)
def test_what_could_grow_or_escape_is_refused_with_file_and_line(
    tmp_path: Path, body: str, reason: str, line: int
) -> None:
    path = tmp_path / "evil.en.txt.j2"
    path.write_text(f"subject: x\n---\n{body}\n")
    with pytest.raises(TemplateError, match=re.escape(reason)) as refused:
        load_templates([tmp_path])
    assert refused.value.source == f"{path}:{line}"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("Bad Name.j2", "x", "not a template name"),
        ("a.en.txt.j2", "no subject\n", "begins with"),
        ("a.en.txt.j2", "subject:\n---\nx", "empty"),
        ("a.en.txt.j2", "subject: x\n---\n" + "x" * 70_000, "at most"),
    ],
)
def test_a_file_that_is_no_template_is_refused(tmp_path: Path, name: str, content: str, reason: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(TemplateError, match=reason):
        load_templates([tmp_path])


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.en.txt.j2").write_bytes(b"subject: \xff\n---\nx")
    with pytest.raises(TemplateError, match="cannot be read"):
        load_templates([tmp_path])


def test_guards_count_only_where_they_stand(tmp_path: Path) -> None:
    body = (
        "subject: x\n---\n{% if a.one is defined and a.two is defined %}{{ a.one }}{{ a.two }}{{ b.three }}{% else %}"
        "{{ a.one }}{% endif %}{{ b.four if b.four is defined else c.five }}{% if a.six == 'x' %}y{% endif %}"
        "{% if a.nine is defined and a.nine == 'x' %}y{% elif a.seven is defined %}{{ a.seven }}{% endif %}\n"
    )
    (tmp_path / "guards.en.txt.j2").write_text(body)
    assert load_templates([tmp_path]).required("guards", "en") == {"a.one", "b.three", "c.five", "a.six"}


@given(value=st.text(min_size=1, max_size=200))
def test_no_value_is_markup_or_a_template(value: str) -> None:
    shipped = SHIPPED_SET
    hostile = {**VALUES, "inc.description": value + "{{ org.name }}<script>x</script>"}
    words = shipped.render("customer", "en", None, hostile)
    assert "<script>" not in str(words.html)
    assert "{{ org.name }}" in words.text


def test_method_names_of_dicts_are_only_names(tmp_path: Path) -> None:
    (tmp_path / "m.en.txt.j2").write_text("subject: x\n---\n{{ inc.items }} {{ inc.keys }}\n")
    templates = load_templates([tmp_path])
    assert templates.render("m", "en", None, {"inc.items": "1", "inc.keys": "2"}).text == "1 2\n"
    with pytest.raises(TemplateError, match="items"):
        templates.render("m", "en", None, {"inc.keys": "2"})


def test_too_much_output_is_refused(shipped: TemplateSet) -> None:
    with pytest.raises(TemplateError, match="at most"):
        shipped.render("customer", "en", "txt", {**VALUES, "inc.description": "x" * 300_000})
    with pytest.raises(TemplateError, match="segments"):
        shipped.render("customer", "en", "sms", {**VALUES, "org.name": "x" * 2_000})


@pytest.mark.parametrize(
    ("text", "segments"),
    [("a" * 160, 1), ("a" * 161, 2), ("a" * 306, 2), ("€" * 80, 1), ("€" * 81, 2), ("ễ" * 70, 1), ("ễ" * 71, 2),
     ("ễ" * 134, 2), ("👍" * 35, 1), ("👍" * 36, 2)],
)  # fmt: skip
def test_segments_are_counted_as_telephones_do(text: str, segments: int) -> None:
    assert sms_segments(text) == segments


def test_the_shipped_folder_holds_every_notice_in_both_languages() -> None:
    expected = {f"{name}.{language}.{kind}.j2" for name, language in NAMES for kind in ("txt", "html", "sms")}
    assert {path.name for path in SHIPPED.iterdir()} == expected
