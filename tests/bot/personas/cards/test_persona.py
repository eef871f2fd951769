"""Which field of a card is which of a persona, both ways."""

import json
from copy import deepcopy
from typing import Any

import pytest

from bot.personas.cards.card import Card, parse_card
from bot.personas.cards.containers import CardError
from bot.personas.cards.convert import to_version
from bot.personas.cards.persona import KEPT_CARD, OWN_EXTENSION, card_from_persona, persona_from_card, understand
from bot.personas.prompt import build_request
from engine.persona import Example, Expression, Identity, Persona
from engine.types import Role, SamplingSettings, Turn
from tests.bot.personas.cards.making import ALL, V1, V2, V3


def persona_of(raw: dict[str, Any], **changes: Any) -> Persona:
    """The persona of a card with some fields changed."""
    raw = deepcopy(raw)
    (raw.get("data") or raw).update(changes)
    return persona_from_card(parse_card(json.dumps(raw).encode(), name="wren.json"), id="wren")


def test_every_field_has_its_place() -> None:
    persona = persona_of(V3)
    assert persona.id == "wren"
    assert persona.name == "Wren"
    assert persona.nickname == "Wrenny"
    assert persona.summary == "{{char}} mends clocks in a tower."
    assert persona.background == V1["description"]
    assert persona.traits == ("patient", "exact", "a little lonely")
    assert persona.scenario == "{{user}} has climbed the tower stairs."
    assert persona.greetings == ("Mind the pendulum, {{user}}.", "Twelve already?", "You are early.")
    assert persona.group_greetings == ("So many of you!",)
    assert persona.examples == (Example(user="Is it late?", reply="It is exactly now."),)
    assert persona.system_prompt == "Write as {{char}}. {{original}}"
    assert persona.post_history_instructions == "Keep time."
    assert persona.notes == "Be patient."
    assert persona.tags == ("clocks", "tower")
    assert persona.creator == "Ada"
    assert persona.version == "1.3"
    assert persona.talkativeness == 0.8
    assert persona.lorebook.scan_depth == 3
    assert [entry.name for entry in persona.lore] == ["Bell"]
    assert persona.expressions == {"happy": Expression(avatar="assets/emotion/images/happy.png")}


@pytest.mark.parametrize("raw", ALL)
def test_a_card_comes_back_as_it_was(raw: dict[str, Any]) -> None:
    for extra in ({}, {"unknown": {"x": [None, 1.0, "\ud800"]}}):
        card = parse_card(json.dumps({**raw, **extra}).encode(), name="x")
        back = card_from_persona(persona_from_card(card, id="wren"))
        assert (back.spec, back.raw) == (card.spec, card.raw)


def test_a_changed_persona_is_written_anew_and_loses_nothing_unknown() -> None:
    persona = persona_of(V3, extensions={"own": 1}, from_the_future=2).model_copy(update={"scenario": "A fair."})
    data = card_from_persona(persona).raw["data"]
    assert data["scenario"] == "A fair."
    assert data["source"] == ["https://example.org/wren"]
    assert data["from_the_future"] == 2
    assert data["extensions"]["own"] == 1
    assert KEPT_CARD not in json.dumps(data)


def test_creator_notes_are_in_no_prompt() -> None:
    persona = persona_of(V2, creator_notes="ZEBRA", tags=["ZEBRA"], creator="ZEBRA", character_version="ZEBRA")
    request = build_request(persona, [Turn(Role.USER, "Hello")], sampling=SamplingSettings())
    assert persona.notes == "ZEBRA"
    assert "ZEBRA" not in request.system_prompt
    assert not any("ZEBRA" in facet.text for facet in persona.facets())


@pytest.mark.parametrize(
    ("changes", "notes"),
    [
        ({}, "Be patient."),
        ({"creator_notes_multilingual": {"de": "Geduld."}}, "Best with a patient model."),
        ({"creator_notes_multilingual": {"de": "Geduld."}, "creator_notes": ""}, "Geduld."),
        ({"first_mes": "你好，欢迎来到钟楼。" * 20}, "Be patient."),
        ({"first_mes": "你好" * 200, "creator_notes_multilingual": {"zh": "耐心", "en": "Be"}}, "耐心"),
    ],
)
def test_notes_are_told_in_the_characters_language(changes: dict[str, Any], notes: str) -> None:
    assert persona_of(V3, **changes).notes == notes


@pytest.mark.parametrize(
    ("personality", "traits"),
    [
        ("patient, exact, a little lonely", ("patient", "exact", "a little lonely")),
        ("patient; exact.", ("patient", "exact")),
        ("温柔、固执，爱笑", ("温柔", "固执", "爱笑")),
        ("patient", ()),
        ("She waits. She counts, and she listens.", ()),
        (", ".join(["trait"] * 30), ()),
        ("a very long trait that nobody would ever call a word, short", ()),
        ("", ()),
    ],
)
def test_a_list_of_traits_is_told_from_prose(personality: str, traits: tuple[str, ...]) -> None:
    persona = persona_of(V2, personality=personality)
    assert persona.traits == traits
    assert ("\n\n" + personality in (persona.background or "")) == bool(personality and not traits)


@pytest.mark.parametrize(
    ("description", "summary"),
    [
        ("Mends clocks. Sings.", "Mends clocks."),
        ("Mends clocks\nSings", "Mends clocks"),
        ("[Wren = mends clocks]", "Wren = mends clocks"),
        ("<CHR>Wren mends. Sings.</CHR>", "Wren mends."),
        ("修钟的人。爱唱歌。", "修钟的人。"),
        ("J. R. Wren mends clocks. Sings.", "J. R. Wren mends clocks."),
        ("tick " * 100, f"{('tick ' * 39).strip()}…"),
        ("t" * 300, f"{'t' * 199}…"),
        ("<BOT> greets <user>.", "{{char}} greets {{user}}."),
    ],
)
def test_the_summary_is_how_the_description_begins(description: str, summary: str) -> None:
    assert persona_of(V2, description=description).summary == summary


def test_old_macros_become_todays() -> None:
    persona = persona_of(V1, first_mes="<BOT> waves at <USER> and <user>.", mes_example="<USER>: a\n<BOT>: b")
    assert persona.greetings == ("{{char}} waves at {{user}} and {{user}}.",)
    assert persona.examples == (Example(user="a", reply="b"),)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Hello there.", "en"),
        ("你好，今天天气很好。", "zh"),
        ("こんにちは、時計の塔へようこそ。", "ja"),
        ("안녕하세요, 시계탑에 오신 것을 환영합니다.", "ko"),
        ("Привет, добро пожаловать.", "ru"),
        ("สวัสดี ยินดีต้อนรับ", "th"),
        ("Der Turm ist alt, und die Uhr ist nicht von mir. Ich bin auf dem Dach, mit der Katze.", "de"),
        ("Es la torre de los relojes, y el reloj es muy viejo pero con su campana, que es para ella.", "es"),
        ("{{user}} 你好", "zh"),
    ],
)
def test_the_language_is_guessed(text: str, language: str) -> None:
    bare = {"description": "", "mes_example": "", "alternate_greetings": [], "scenario": "", "first_mes": text}
    assert persona_of(V2, **bare).language == language


def test_the_only_language_of_the_notes_is_a_hint() -> None:
    changes = {"description": "…", "mes_example": "", "first_mes": "…", "alternate_greetings": []}
    assert persona_of(V3, **changes, creator_notes_multilingual={"pt": "Olá"}).language == "pt"
    assert persona_of(V3, **changes, creator_notes_multilingual={"../x": "Olá"}).language == "en"


@pytest.mark.parametrize(
    ("value", "share"), [("0.8", 0.8), (0.3, 0.3), (7, 1.0), (-1, 0.0), ("often", 0.5), (None, 0.5), ("nan", 0.5)]
)
def test_talkativeness(value: object, share: float) -> None:
    assert persona_of(V2, extensions={"talkativeness": value}).talkativeness == share


def test_the_characters_note_is_lore_at_its_depth() -> None:
    persona = persona_of(V2, extensions={"depth_prompt": {"prompt": "Tick.", "depth": 2, "role": "system"}})
    assert [(entry.content, entry.depth) for entry in persona.lore][-1] == ("Tick.", 2)
    assert len(persona_of(V2, extensions={"depth_prompt": "nonsense"}).lore) == 1


def test_a_card_without_greetings_lets_people_begin() -> None:
    assert persona_of(V2, first_mes="", alternate_greetings=["", None]).greetings == ()


def test_empty_prompts_leave_commedias_own() -> None:
    persona = persona_of(V2, system_prompt="  ", post_history_instructions="")
    assert (persona.system_prompt, persona.post_history_instructions) == (None, None)


@pytest.mark.parametrize("field", ["description", "first_mes", "mes_example", "system_prompt", "scenario"])
def test_a_text_without_end_is_refused(field: str) -> None:
    with pytest.raises(CardError, match=r"100,001 characters, and at most 100,000"):
        persona_of(V2, **{field: "a" * 100_001})


def test_two_long_texts_that_are_one_here() -> None:
    with pytest.raises(CardError, match="`description` with `personality`"):
        persona_of(V2, description="a" * 60_000, personality="b. " * 20_000)


def warnings_of(raw: dict[str, Any], **changes: Any) -> str:
    raw = deepcopy(raw)
    raw["data"].update(changes)
    return "; ".join(understand(Card(3, raw), id="wren").warnings)


def test_what_has_no_effect_is_said() -> None:
    assert warnings_of(V3) == ""
    web = {"type": "icon", "uri": "https://example.org/a.png", "name": "main", "ext": "png"}
    assert "not fetched" in warnings_of(V3, assets=[web])
    assert "backgrounds" in warnings_of(V3, assets=[{**web, "uri": "ccdefault:", "type": "background"}])
    assert "lorebook does not come" in warnings_of(V3, character_book=None, extensions={"world": "Tower"})
    assert "not run" in warnings_of(V3, extensions={"regex_scripts": [{"a": 1}]})
    assert "cut to 80" in warnings_of(V3, name="n" * 10_000)
    assert "newer" in "".join(understand(Card(3, {**V3, "spec_version": "3.1"}), id="w").warnings)


# A persona as a card


def rich() -> Persona:
    return Persona.model_validate(
        {
            "id": "mira", "name": "Mira", "nickname": "Mi", "summary": "Keeps a lighthouse.", "language": "de",
            "also_speaks": ["en"], "avatar": "avatars/mira.png", "identity": {"age": 34, "home": "a rock"},
            "look": ["grey coat"], "traits": ["calm", "wry, at times"], "background": "Born at sea.",
            "voice": {"length": "short"}, "goals": ["to sleep"], "boundaries": ["lie"], "greetings": ["Ahoy!", "Hm?"],
            "examples": [{"user": "Hi", "reply": "User: no"}, {"user": None, "reply": "<START>"}],
            "lexicon": {"banned": ["land"]}, "sampling": {"temperature": 0.4},
            "lore": [{"keys": ["sea"], "content": "Deep.", "position": "before_desc"}],
            "lorebook": {"token_budget": 0}, "guard": {"is_on": False}, "triggers": {"words": ["ship"]},
            "expressions": {"joy": {"avatar": "avatars/mira-joy.png", "cues": ["ha"]}},
            "platforms": {"discord": {"name": "M"}}, "licence": "CC0-1.0",
            "extensions": {"talkativeness": "own", "commedia": {"a": 1}, "character_card": "no card", "x": [1.5, None]},
            "tests": {"facts": [{"ask": "Where?", "expect": ["rock"]}]},
        }
    )  # fmt: skip


def test_a_persona_comes_back_from_its_card() -> None:
    assert persona_from_card(card_from_persona(rich()), id="mira") == rich()


@pytest.mark.parametrize("version", [2, 3])
def test_it_comes_back_from_an_older_version_too(version: Any) -> None:
    down = to_version(card_from_persona(rich()), version)
    again = persona_from_card(to_version(down, 3), id="mira")
    assert again == rich()


def test_a_program_that_writes_numbers_otherwise_changes_nothing() -> None:
    def rewritten(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rewritten(value[key]) for key in sorted(value)}
        if isinstance(value, list):
            return [rewritten(inner) for inner in value]
        return int(value) if isinstance(value, float) and value.is_integer() else value

    raw = rewritten(card_from_persona(rich()).raw)
    assert persona_from_card(Card(3, raw), id="mira") == rich()


def test_other_programs_get_to_know_the_character() -> None:
    data = card_from_persona(rich()).raw["data"]
    assert data["description"].splitlines()[0] == "Keeps a lighthouse."
    for told in ("Age: 34", "Look: grey coat", "Wants: to sleep", "Never: lie", "Born at sea."):
        assert told in data["description"]
    assert data["personality"] == "calm, wry, at times"
    assert (data["first_mes"], data["alternate_greetings"]) == ("Ahoy!", ["Hm?"])
    assert data["extensions"]["x"] == [1.5, None]
    assert {asset["uri"] for asset in data["assets"]} == {"ccdefault:", "embeded://avatars/mira-joy.png"}


def test_what_other_programs_changed_counts() -> None:
    raw = deepcopy(card_from_persona(rich()).raw)
    raw["data"]["description"] = "A baker now."
    raw["data"]["first_mes"] = "Bread?"
    persona = persona_from_card(Card(3, raw), id="mira")
    assert (persona.background, persona.identity, persona.look) == ("A baker now.", Identity(), ())
    assert persona.greetings == ("Bread?", "Hm?")
    assert persona.sampling.temperature == 0.4  # nobody touched it
    assert card_from_persona(persona).raw == raw


def test_what_strangers_write_into_our_extension_does_no_harm() -> None:
    for fields in ({"id": "other"}, {"avatar": 3}, {"nonsense": 1}, {"lore": [{"keys": []}]}, [], "x"):
        raw = deepcopy(V3)
        raw["data"]["extensions"][OWN_EXTENSION] = {"fields": fields, "of": {}}
        persona = persona_from_card(Card(3, raw), id="wren")
        assert (persona.id, persona.name) == ("wren", "Wren")
        assert card_from_persona(persona).raw == raw


@pytest.mark.parametrize(
    "description",
    [
        "[Wren = mends clocks] Sings.",
        "<CHR>Wren  mends clocks. Sings.</CHR>",
        " ".join(f"tick{number}" for number in range(90)),
    ],
)
def test_the_prompt_does_not_say_the_summary_twice(description: str) -> None:
    persona = persona_of(V2, description=description)
    prompt = build_request(persona, [Turn(Role.USER, "Hello")], sampling=SamplingSettings()).system_prompt
    assert " ".join(prompt.split()).count(persona.summary.rstrip("….")[:100]) == 1
