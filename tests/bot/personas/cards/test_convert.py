"""From one version of the specification to another, without loss where there is a place."""

from copy import deepcopy
from typing import Any

import pytest

from bot.personas.cards.card import Card
from bot.personas.cards.convert import KEPT, losses, to_version
from tests.bot.personas.cards.making import V1, V2, V3

V3_ONLY = {"nickname", "creator_notes_multilingual", "source", "creation_date", "modification_date", "assets"}


def test_the_same_version_is_the_same_card() -> None:
    for spec, raw in ((1, V1), (2, V2), (3, V3)):
        card = Card(spec, deepcopy(raw))  # type: ignore[arg-type]
        assert to_version(card, card.spec).raw == raw


def test_v3_keeps_in_v2_what_v2_cannot_say() -> None:
    down = to_version(Card(3, deepcopy(V3)), 2).raw
    assert (down["spec"], down["spec_version"]) == ("chara_card_v2", "2.0")
    assert not V3_ONLY & down["data"].keys()
    assert down["data"]["extensions"][KEPT]["nickname"] == "Wrenny"
    assert down["data"]["extensions"]["somebody/else"] == {"deep": [None, 1.5, "x"]}


@pytest.mark.parametrize(
    "changes", [{}, {"group_only_greetings": []}, {"extensions": {}}, {"from_the_future": 1}, {"assets": []}]
)
def test_v3_comes_back_from_v2(changes: dict[str, Any]) -> None:
    raw = {**V3, "top": "level", "data": {**V3["data"], **changes}}
    assert to_version(to_version(Card(3, deepcopy(raw)), 2), 3).raw == raw


def test_a_newer_number_comes_back_from_v2() -> None:
    raw = {**V3, "spec_version": "3.2"}
    assert to_version(to_version(Card(3, deepcopy(raw)), 2), 3).raw == raw


def test_v2_becomes_v3_with_what_v3_requires() -> None:
    up = to_version(Card(2, deepcopy(V2)), 3).raw
    assert (up["spec"], up["spec_version"]) == ("chara_card_v3", "3.0")
    assert up["data"] == {**V2["data"], "group_only_greetings": []}
    assert to_version(Card(3, up), 2).raw == V2


def test_v1_becomes_v2_with_all_its_fields() -> None:
    up = to_version(Card(1, {**V1, "creatorcomment": "Slow.", "own": 1}), 2).raw
    assert up["data"]["description"] == V1["description"]
    assert up["data"]["creator_notes"] == "Slow."
    assert up["data"]["extensions"] == {}
    assert up["own"] == 1


@pytest.mark.parametrize("version", [2, 3])
def test_v1_comes_back(version: Any) -> None:
    raw = {**V1, "own": {"x": [1]}}
    assert to_version(to_version(Card(1, deepcopy(raw)), version), 1).raw == raw


def test_v1_has_strings_and_never_null() -> None:
    down = to_version(Card(2, {"spec": "chara_card_v2", "data": {"name": "Wren", "description": None}}), 1).raw
    assert down == {**dict.fromkeys(V1, ""), "name": "Wren"}


def test_what_v1_loses_is_told() -> None:
    lost = losses(Card(3, V3), 1)
    assert {"nickname", "system_prompt", "character_book", "extensions"} <= set(lost)
    assert "description" not in lost
    assert losses(Card(3, V3), 2) == losses(Card(2, V2), 3) == losses(Card(1, V1), 1) == ()


def test_converting_leaves_the_card_alone() -> None:
    raw = deepcopy(V3)
    for version in (1, 2, 3):
        to_version(Card(3, raw), version)  # type: ignore[arg-type]
    assert raw == V3
