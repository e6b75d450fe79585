"""Audiences: nobody is skipped in silence, and no problem repeats a contact."""

from __future__ import annotations

import io
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breachwatch.errors import AudienceError
from breachwatch.model import Person
from breachwatch.model.contact import AudienceProblem, ContactError, RowNormaliser, normal_email, normal_phone
from breachwatch.notify.audience import read_csv
from breachwatch.store.audience import read_query

HEADER = "id,name,email,phone,language,city\n"


def read(text: str) -> list[Person | AudienceProblem]:
    return list(read_csv(io.StringIO(text, newline=""), "people.csv"))


def people(rows: list[Person | AudienceProblem]) -> list[str]:
    return [row.ref for row in rows if isinstance(row, Person)]


def problems(rows: list[Person | AudienceProblem]) -> list[tuple[str, str]]:
    return [(row.source, row.reason) for row in rows if isinstance(row, AudienceProblem)]


def test_a_whole_row_becomes_a_person() -> None:
    (person,) = read(HEADER + "KH-1,Nguyễn Thị Hoa,Hoa@Shop.Example,0900 000 001,vi-VN,Hà Nội\n")
    assert person == Person(
        ref="KH-1", name="Nguyễn Thị Hoa", email="Hoa@shop.example", phone="+84900000001", language="vi",
        extra={"city": "Hà Nội"},
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffid,name,email\n1,A,a@x.example\n",
        "Mã khách hàng;Họ tên;E-mail\r\n1;A;a@x.example\r\n",
        "Customer ID\tFull name\tMail\n1\tA\ta@x.example\n",
        '"id"|"name"|"email"\n"1"|"A"|"a@x.example"\n',
        "\ufeffid,name,email\n\n1,A,a@x.example",
    ],
)
def test_files_as_spreadsheets_write_them_are_read(text: str) -> None:
    (person,) = read(text)
    assert isinstance(person, Person)
    assert (person.ref, person.name, person.email) == ("1", "A", "a@x.example")


def test_broken_rows_are_named_by_line_and_none_beside_them_is_lost() -> None:
    rows = read(
        HEADER
        + "1,A,a@x.example,,en,\n"
        + "2,too,few\n"
        + ",no id,b@x.example,,,\n"
        + '3,"open quote,c@x.example,,,\n'
        + "4,D,d@x.example,,,\n"
        + "1,again,secret@x.example,,,\n"
        + "5,E,not-an-address,0900000005,,\n"
        + "6,F,,12,,\n"
        + '7,"multi\r\nline",g@x.example,,,"a\nb"\n'
        + "8,H,h@x.example,,,\n"
    )
    assert people(rows) == ["1", "4", "5", "6", "7", "8"]
    assert problems(rows) == [
        ("people.csv:3", "3 fields where the header has 6"),
        ("people.csv:4", "no id"),
        ("people.csv:5", "not CSV: ',' expected after '\"'"),
        ("people.csv:7", "an earlier row has the same id"),
        ("people.csv:8", "e-mail address: is none"),
        ("people.csv:9", "telephone number: has neither a country code nor a leading 0"),
        ("people.csv:9", "no usable contact: this person has to be told another way"),
        ("people.csv:10", "the name holds control characters: it is left out"),
    ]
    assert "x.example" not in str(problems(rows))


def test_a_quote_that_never_closes_costs_its_own_row_only() -> None:
    rows = read(HEADER + '1,"x,a@x.example,,,\n' + "".join(f"{n},N,n{n}@x.example,,,\n" for n in range(2, 60)))
    assert people(rows) == [str(number) for number in range(2, 60)]
    assert problems(rows) == [("people.csv:2", "not CSV: unexpected end of data")]


def test_bytes_that_are_not_utf8_cost_their_own_row_only(tmp_path: Path) -> None:
    path = tmp_path / "latin1.csv"
    path.write_bytes(b"id,name,email\n1,Ren\xe9,a@x.example\n2,B,b@x.example\n")
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        rows = list(read_csv(text, "latin1.csv"))
    assert people(rows) == ["2"]
    assert problems(rows) == [("latin1.csv:2", "not UTF-8: save the file as UTF-8")]
    with path.open(encoding="utf-8", newline="") as strict, pytest.raises(AudienceError, match="cannot be read"):
        list(read_csv(strict, "latin1.csv"))


def test_a_row_of_ten_megabytes_costs_itself_only() -> None:
    rows = read(HEADER + "1," + "x" * 10_000_000 + ",a@x.example,,,\n2,B,b@x.example,,,\n")
    assert people(rows) == ["2"]
    assert problems(rows) == [("people.csv:2", "a row of more than 100000 characters")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "empty"), ("\n\n", "empty"), ("name,email\nA,a@x.example\n", "no column `id`"),
     ("id,mail,email\n", "several columns mean `email`"), ('"id,email\n', "no CSV")],
)  # fmt: skip
def test_a_file_without_a_usable_header_is_refused(text: str, reason: str) -> None:
    with pytest.raises(AudienceError, match=reason):
        read(text)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=300))
def test_no_input_raises_or_loses_the_last_row(noise: str) -> None:
    noise = noise.replace('"', "").replace("\r", " ").replace("\n", " ")
    rows = read(HEADER + noise + "\nlast-one,Z,z@x.example,,,\n")
    assert "last-one" in people(rows)


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("a@x.example", "a@x.example"), ("A.b+c@X.Example", "A.b+c@x.example"),
        ("a@münchen.example", "a@xn--mnchen-3ya.example"),
        ("", ""), ("o'neil@x-y.example", "o'neil@x-y.example"),
    ],
)  # fmt: skip
def test_addresses_are_normalised(given_text: str, expected: str) -> None:
    assert normal_email(given_text) == expected


@pytest.mark.parametrize(
    "text",
    ["a", "a@", "@x.example", "a@localhost", "a@b@x.example", "a b@x.example", "a..b@x.example", ".a@x.example",
     "a@x..example", "a@-x.example", "a@x.example\r\nBcc: b@x.example", "ánh@x.example", "a@[127.0.0.1]", "a@1.2.3.4",
     '"a b"@x.example', "a" * 65 + "@x.example", "a@" + "x." * 130 + "example",
     "<a@x.example>", "a@x.example,b@x.example",
     "a\x00@x.example", "a@x_y.example"],
)  # fmt: skip
def test_what_is_no_address_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ContactError) as refused:
        normal_email(text)
    assert text not in str(refused.value) or text == "a"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0900 000 001", "+84900000001"), ("+84 (90) 000-0001", "+84900000001"), ("0084900000001", "+84900000001"),
     ("84900000001", "+84900000001"), ("+33 6 12 34 56 78", "+33612345678"), ("", "")],
)  # fmt: skip
def test_numbers_are_normalised(text: str, expected: str) -> None:
    assert normal_phone(text) == expected


@pytest.mark.parametrize(
    "text", ["12", "phone", "+0900000001", "+1" * 9, "0" * 20, "٠٩٠٠٠٠٠٠٠١", "+84900\n001", "600000001"]
)
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ContactError):
        normal_phone(text)


@given(st.text(max_size=100))
def test_no_contact_raises_anything_else(text: str) -> None:
    for normal in (normal_email, normal_phone):
        try:
            found = normal(text)
        except ContactError:
            continue
        assert normal(found) == found
        assert not set(found) & set("\r\n<> ,;\x00")


def test_a_database_is_read_like_a_file(tmp_path: Path) -> None:
    path = tmp_path / "crm.db"
    with sqlite3.connect(path) as crm:
        crm.execute("CREATE TABLE customer (no INTEGER, ten TEXT, mail TEXT, sdt TEXT, at TEXT)")
        crm.executemany(
            "INSERT INTO customer VALUES (?, ?, ?, ?, '10:30')",
            [(1, "Hoa", "hoa@x.example", "0900000001"), (2, "Minh", "broken", None), (None, "x", "y@x.example", None)],
        )
    crm.close()
    rows = list(
        read_query(f"sqlite:///{path}", "SELECT no AS id, ten AS name, mail, sdt FROM customer WHERE at > '10:29'")
    )
    assert people(rows) == ["1", "2"]
    assert problems(rows) == [
        ("audience query, row 2", "e-mail address: is none"),
        ("audience query, row 2", "no usable contact: this person has to be told another way"),
        ("audience query, row 3", "no id"),
    ]
    with pytest.raises(AudienceError, match="no SELECT"):
        list(read_query(f"sqlite:///{path}", "DELETE FROM customer"))
    with pytest.raises(AudienceError, match="failed"):
        list(read_query(f"sqlite:///{path}", "WITH x AS (SELECT 1) DELETE FROM customer"))
    with pytest.raises(AudienceError, match="no column `id`"):
        list(read_query(f"sqlite:///{path}", "SELECT ten FROM customer"))


@pytest.mark.parametrize("url", ["nonsense", "nosuch://user:hunter2@host/db", "sqlite:////no/such/folder/hunter2.db"])
def test_an_address_that_does_not_work_is_never_repeated(url: str) -> None:
    with pytest.raises(AudienceError) as refused:
        list(read_query(url, "SELECT 1 AS id"))
    assert "hunter2" not in str(refused.value)


def test_ids_are_remembered_over_several_files() -> None:
    rules = RowNormaliser()
    first = list(read_csv(io.StringIO("id,email\n1,a@x.example\n"), "a.csv", normaliser=rules))
    second = list(read_csv(io.StringIO("id,email\n1,a@x.example\n"), "b.csv", normaliser=rules))
    assert people(first) == ["1"]
    assert problems(second) == [("b.csv:2", "an earlier row has the same id")]
