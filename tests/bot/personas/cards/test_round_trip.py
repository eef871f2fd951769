"""Whatever a persona says comes back from its card, in every container."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.personas.cards.card import parse_card
from bot.personas.cards.convert import to_version, write_card
from bot.personas.cards.persona import card_from_persona, persona_from_card
from engine.persona import Persona

# Also what cards give a meaning to: labels, starts, decorators, macros, and signs that no card should have.
_PIECES = st.sampled_from(
    ["{{char}}", "{{user}}", "<USER>", "<bot>", "<START>", "\n", "{{user}}: ", "Mira: ", ", ", ". ", "@@depth 2\n", "a",
     "wry", "你好", "é", "\u202e", "\x07", "😄", "/x+/i", "  ", "1"]
)  # fmt: skip
text = st.lists(_PIECES | st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).map("".join)
said = text.filter(lambda written: written.strip() != "")
lines = st.lists(said, max_size=3)
whole = st.integers(0, 9)
lore = st.fixed_dictionaries(
    {"content": said, "is_constant": st.just(True)},
    optional={
        "keys": st.lists(said, max_size=2), "name": text, "order": st.integers(-9, 9), "priority": whole,
        "position": st.sampled_from(["before_char", "at_depth", "scenario", "after_examples"]), "depth": whole,
        "role": st.sampled_from(["system", "user", "assistant"]), "secondary_keys": st.lists(said, max_size=2),
        "logic": st.sampled_from(["and_any", "and_all", "not_any", "not_all"]), "is_case_sensitive": st.booleans(),
        "is_regex": st.booleans(), "has_whole_words": st.booleans(), "scan_depth": st.none() | whole,
        "probability": st.floats(0, 100), "groups": st.lists(text, max_size=2), "group_weight": st.floats(0, 1e6),
        "sticky": whole, "cooldown": whole, "delay": whole, "recursion_level": whole, "ignores_budget": st.booleans(),
    },
)  # fmt: skip
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2),
    max_leaves=4,
)
fields = st.fixed_dictionaries(
    {"name": said, "summary": said, "greetings": lines},
    optional={
        "nickname": said, "language": st.sampled_from(["en", "de", "zh-Hans"]), "also_speaks": st.just(["fr"]),
        "avatar": said, "identity": st.fixed_dictionaries({}, optional={"age": whole | said, "home": said}),
        "look": lines, "traits": lines, "background": said, "voice": st.just({"style": ["dry"], "length": "long"}),
        "goals": lines, "boundaries": lines, "scenario": said, "group_greetings": lines, "system_prompt": said,
        "post_history_instructions": said,
        "examples": st.lists(st.fixed_dictionaries({"user": st.none() | said, "reply": said}), max_size=3),
        "lexicon": st.fixed_dictionaries({}, optional={"banned": lines, "emoji_rate": st.floats(0, 5)}),
        "lore": st.lists(lore, max_size=3),
        "lorebook": st.fixed_dictionaries({}, optional={"scan_depth": whole, "token_budget": st.none() | whole}),
        "talkativeness": st.floats(0, 1), "tags": lines, "creator": said, "notes": said, "version": said,
        "licence": said, "expressions": st.dictionaries(said, st.fixed_dictionaries({"avatar": said}), max_size=2),
        "extensions": st.dictionaries(
            st.sampled_from(["commedia", "talkativeness", "character_card", "depth_prompt", "world", "own"]),
            json_values,
            max_size=3,
        ),
    },
)  # fmt: skip


def persona_of(values: dict[str, Any]) -> Persona | None:
    try:
        return Persona.model_validate({**values, "id": "mira"})
    except ValueError:  # too long, or nothing left of it
        return None


personas = fields.map(persona_of).filter(lambda persona: persona is not None)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(personas, st.sampled_from(["json", "png", "charx"]), st.sampled_from([2, 3]))
def test_every_persona_comes_back_from_its_card(persona: Persona, container: Any, version: Any) -> None:
    data = write_card(to_version(card_from_persona(persona), version), container)
    card = parse_card(data, name="x")
    assert persona_from_card(to_version(card, 3), id="mira") == persona


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(text, json_values, max_size=4), st.dictionaries(text, json_values, max_size=4), st.booleans())
def test_every_card_comes_back_from_its_persona(
    data: dict[str, Any], extensions: dict[str, Any], has_version: bool
) -> None:
    raw: dict[str, Any] = {"name": "Wren", "description": "x", **data, "extensions": extensions}
    if has_version:
        raw = {"spec": "chara_card_v3", "spec_version": "3.0", "data": raw}
    card = parse_card(write_card(parse_card_of(raw), "json"), name="x")
    assert card.raw == raw
    assert card_from_persona(persona_from_card(card, id="wren")).raw == raw


def parse_card_of(raw: dict[str, Any]) -> Any:
    from bot.personas.cards.card import Card, version_of

    spec = version_of(raw)
    assert spec is not None
    return Card(spec, raw)
