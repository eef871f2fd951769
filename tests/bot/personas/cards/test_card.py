"""Which version a card is of, and what it says, however oddly it is written."""

import json
from typing import Any

import pytest

from bot.personas.cards.card import Card, as_text, parse_card, version_of
from bot.personas.cards.containers import CardError, NoCard
from bot.personas.cards.persona import persona_from_card
from tests.bot.personas.cards.making import V1, V2, V3


def card_of(raw: dict[str, Any]) -> Card:
    return parse_card(json.dumps(raw).encode(), name="file.json")


@pytest.mark.parametrize(
    ("raw", "spec"),
    [
        (V1, 1),
        (V2, 2),
        (V3, 3),
        ({**V2, "spec_version": 2}, 2),
        ({key: value for key, value in V2.items() if key != "spec_version"}, 2),
        ({key: value for key, value in V2.items() if key != "spec"}, 2),
        ({"data": V2["data"]}, 2),
        ({**V3, "spec_version": "3.1"}, 3),
        ({**V3, "spec_version": 3.0}, 3),
        ({**V3, "spec": "CHARA_CARD_V3"}, 3),
        ({**V3, "spec": "chara_card_v4", "spec_version": "4.0"}, 3),
        ({**V1, "spec": "chara_card_v2", "spec_version": "2.0"}, 2),
        ({**V1, **V2}, 2),
        ({"char_name": "Wren", "char_persona": "mends clocks"}, 1),
        ({"name": "a program", "version": "1.0"}, None),
        ({"data": {"name": "Wren"}}, None),
    ],
)
def test_the_version_is_told_by_what_is_there(raw: dict[str, Any], spec: int | None) -> None:
    assert version_of(raw) == spec


def test_a_newer_version_is_read_and_kept() -> None:
    newer = {**V3, "spec_version": "3.1", "data": {**V3["data"], "mood": {"from": "the future"}}}
    card = card_of(newer)
    assert card.raw == newer
    assert persona_from_card(card, id="wren").nickname == "Wrenny"


def test_missing_fields_and_nulls_are_empty() -> None:
    bare = {"spec": "chara_card_v2", "data": {"name": "Wren", "description": None, "first_mes": "Hi", "tags": None}}
    persona = persona_from_card(card_of(bare), id="wren")
    assert (persona.background, persona.greetings, persona.tags) == (None, ("Hi",), ())
    assert persona.summary == "Wren"


def test_numbers_stand_for_text() -> None:
    odd = {**V2, "data": {**V2["data"], "character_version": 2, "creator": 77, "talkativeness": "x"}}
    persona = persona_from_card(card_of(odd), id="wren")
    assert (persona.version, persona.creator) == ("2", "77")


def test_fields_of_v1_inside_of_v2() -> None:
    persona = persona_from_card(card_of({**V1, "spec": "chara_card_v2", "spec_version": "2.0"}), id="wren")
    assert persona.greetings == ("Mind the pendulum, {{user}}.",)


def test_the_data_goes_over_what_stands_beside_it() -> None:
    mixed = {**V2, "name": "Old", "first_mes": "Old", "description": "Old"}
    mixed["data"] = {key: value for key, value in V2["data"].items() if key != "description"}
    persona = persona_from_card(card_of(mixed), id="wren")
    assert (persona.name, persona.greetings[0], persona.background) == ("Wren", "Mind the pendulum, {{user}}.", "Old")


def test_an_empty_field_of_the_data_stays_empty() -> None:
    mixed = {**V2, "scenario": "Old", "data": {**V2["data"], "scenario": ""}}
    assert persona_from_card(card_of(mixed), id="wren").scenario is None


def test_names_of_older_programs() -> None:
    raw = {"char_name": "Wren", "char_persona": "Mends clocks.", "char_greeting": "Hi", "world_scenario": "A tower."}
    persona = persona_from_card(card_of({**raw, "example_dialogue": "{{char}}: Tick."}), id="wren")
    assert (persona.name, persona.background, persona.greetings) == ("Wren", "Mends clocks.", ("Hi",))
    assert persona.scenario == "A tower."
    assert persona.examples[0].reply == "Tick."


def test_a_list_that_is_a_text() -> None:
    odd = {**V2, "data": {**V2["data"], "alternate_greetings": "Another", "tags": "clocks, tower"}}
    persona = persona_from_card(card_of(odd), id="wren")
    assert persona.greetings[1:] == ("Another",)
    assert persona.tags == ("clocks", "tower")


def test_a_card_without_a_name_is_called_by_its_file() -> None:
    nameless = {**V2, "data": {**V2["data"], "name": ""}}
    assert persona_from_card(card_of(nameless), id="wren").name == "wren"
    with pytest.raises(CardError, match="no name"):
        parse_card(json.dumps(nameless).encode(), name="")


def test_what_claims_to_be_a_card_and_is_none() -> None:
    with pytest.raises(CardError) as caught:
        card_of(
            {"name": "x", "description": "", "spec": "something"} | {"description": 1} and {"spec": "x", "data": {}}
        )
    assert not isinstance(caught.value, NoCard)


@pytest.mark.parametrize(("value", "text"), [("a", "a"), (3, "3"), (1.5, "1.5"), (True, ""), (None, ""), ([], "")])
def test_as_text(value: object, text: str) -> None:
    assert as_text(value) == text


def test_a_card_shows_nothing_of_its_text() -> None:
    assert "clocks" not in str(card_of(V3))
