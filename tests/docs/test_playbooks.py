"""docs/playbooks.md and the JSON Schema: every key is there, every example loads, and both agree with the loader."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

import jsonschema
import pytest
import yaml
from pydantic import BaseModel

from breachwatch.errors import PlaybookError
from breachwatch.playbook.expression import ENTITIES, NAMES, compile_expression
from breachwatch.playbook.schema import ChannelEntry, Playbook, load_playbook
from tests.conftest import ROOT
from tests.docs.generate import SCHEMA
from tests.docs.pages import DOCS, page, snippets

PAGE = page("playbooks.md")
(EXAMPLE,) = (one for one in snippets(DOCS / "playbooks.md") if one.more == "playbook")
CONDITIONS = [
    line for one in snippets(DOCS / "playbooks.md") if one.language == "cel" for line in one.text.splitlines()
]
VALIDATOR = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner, mark = field.annotation, ""
        if get_args(inner) and isinstance(get_args(inner)[0], type) and issubclass(get_args(inner)[0], BaseModel):
            inner, mark = get_args(inner)[0], "[]"
        key = f"{prefix}{field.alias or name}{mark}"
        if isinstance(inner, type) and issubclass(inner, BaseModel) and inner is not ChannelEntry:
            yield from keys(inner, f"{key}.")
        else:
            yield key.removesuffix("[]") if inner is ChannelEntry else key


def test_every_key_is_on_the_page():
    found = list(keys(Playbook))
    assert {"applies.when", "escalation[].wait", "on_confirm[].notice.channels", "on_confirm[].approve.not"} <= {*found}
    assert [key for key in found if f"`{key}`" not in PAGE] == []


def test_every_name_of_conditions_is_on_the_page():
    assert [name for name in NAMES if f"`{name}" not in PAGE] == []
    assert [name for name in ENTITIES if f'["{name}"]' not in PAGE] == []


def test_the_example_loads():
    assert load_playbook(EXAMPLE.text, EXAMPLE.where).on_confirm


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_condition_is_one(condition):
    compile_expression(condition)


def test_there_are_conditions():
    assert len(CONDITIONS) >= 3


PLAYBOOKS = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "playbooks").glob("*.yaml"))}


@pytest.mark.parametrize("text", [*PLAYBOOKS.values(), EXAMPLE.text], ids=[*PLAYBOOKS, "page"])
def test_the_schema_takes_what_the_loader_takes(text):
    assert list(VALIDATOR.iter_errors(yaml.safe_load(text))) == []


BROKEN: dict[str, Any] = {
    "unknown key": lambda tree: tree.update(speed=1),
    "no version": lambda tree: tree.pop("version"),
    "no escalation": lambda tree: tree.update(escalation=[]),
    "wait in words": lambda tree: tree["escalation"][0].update(wait="five minutes"),
    "unknown channel": lambda tree: tree["escalation"][0].update(via=["pigeon"]),
    "unknown condition of a channel": lambda tree: tree["on_confirm"][0]["notice"].update(
        channels=[{"sms": {"if": 1}}]
    ),
    "unknown step": lambda tree: tree["on_confirm"][0].update(delete_everything=True),
    "the requester may approve": lambda tree: tree["on_confirm"][0]["approve"].update({"not": []}),
    "nobody may approve": lambda tree: tree["on_confirm"][0]["approve"].update(roles=[]),
}


@pytest.mark.parametrize("breaking", BROKEN.values(), ids=BROKEN)
def test_the_schema_refuses_what_the_loader_refuses(breaking):
    tree = yaml.safe_load(EXAMPLE.text)
    breaking(tree)
    with pytest.raises(PlaybookError):
        load_playbook(yaml.safe_dump(tree, sort_keys=False), "broken.yaml")
    assert list(VALIDATOR.iter_errors(tree))
