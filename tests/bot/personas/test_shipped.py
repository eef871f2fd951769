"""The personas that ship: each valid, complete, short enough to prefill on a CPU, and like no other."""

import re
from itertools import combinations
from pathlib import Path

import pytest
from PIL import Image

from bot.expressions import expression_for
from bot.personas.library import PersonaLibrary
from bot.personas.prompt import build_request
from engine.persona import Persona
from engine.types import Role, SamplingSettings, Turn

FOLDER = Path(__file__).parents[3] / "personas"
LIBRARY = PersonaLibrary([FOLDER])
LIBRARY.load()
MAX_PROMPT_TOKENS = 250
CHINESE = re.compile(r"[\u4e00-\u9fff]")

each_persona = pytest.mark.parametrize("persona", LIBRARY.all(), ids=lambda persona: persona.id)


def own_words(persona: Persona) -> set[str]:
    """The words of its replies; for Chinese, its characters."""
    text = " ".join([*persona.greetings, *(example.reply for example in persona.examples)]).casefold()
    return set(CHINESE.findall(text)) or set(re.findall(r"\w{4,}", text))


def estimated_tokens(text: str) -> float:
    num_chinese = len(CHINESE.findall(text))
    return 1.4 * len(CHINESE.sub(" ", text).split()) + 0.75 * num_chinese


def test_six_and_no_problem() -> None:
    assert LIBRARY.problems == ()
    assert [persona.id for persona in LIBRARY.all()] == ["grub", "june", "okoro", "maren", "tomas", "amo"]


@each_persona
def test_complete(persona: Persona) -> None:
    assert len(persona.greetings) >= 2
    assert len(persona.examples) >= 4
    assert len(persona.lore) >= 4
    assert all(entry.keys for entry in persona.lore)
    for part in (persona.traits, persona.look, persona.voice.style, persona.goals, persona.boundaries):
        assert part
    assert persona.background
    assert persona.lexicon.preferred
    assert persona.lexicon.banned
    assert persona.triggers.words
    assert persona.licence == "CC0-1.0"


@each_persona
def test_the_prompt_is_short(persona: Persona) -> None:
    request = build_request(persona, [Turn(Role.USER, "hello")], sampling=SamplingSettings())
    assert estimated_tokens(request.system_prompt) <= MAX_PROMPT_TOKENS
    assert request.sampling.max_new_tokens <= 150
    assert 0.4 <= request.sampling.temperature <= 0.6


@each_persona
def test_it_keeps_to_its_own_lexicon(persona: Persona) -> None:
    said = " ".join([*persona.greetings, *(example.reply for example in persona.examples)])
    for word in persona.lexicon.banned:
        pattern = re.escape(word) if CHINESE.search(word) else rf"\b{re.escape(word)}\b"
        assert not re.search(pattern, said, re.IGNORECASE), word


@each_persona
def test_the_face(persona: Persona) -> None:
    path = LIBRARY.card(persona).avatar
    assert path is not None
    assert path.stat().st_size < 60_000
    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", (256, 256))
        image.load()


@pytest.mark.parametrize(
    ("persona_id", "text", "face", "reaction"),
    [
        ("grub", "Shiny! A customer!", "grub-joy.png", "🤩"),
        ("grub", "Grub also scared, always.", "grub-fear.png", "😱"),
        ("grub", "Rope! Potions! A spoon that screams!", None, None),
        ("amo", "哼，垫子借你坐一会儿。", "amo-annoyance.png", "🤨"),
        ("amo", "进来吧，鱼干一条。", "amo-joy.png", "❤"),
        ("amo", "门没锁，进来吧。", None, None),
        ("june", "Thank you so much!", None, None),
    ],
)
def test_the_faces_that_they_make(persona_id: str, text: str, face: str | None, reaction: str | None) -> None:
    persona = LIBRARY.get(persona_id)
    found = expression_for(text, persona)
    assert (found[1].reaction if found else None) == reaction
    path = LIBRARY.avatar_for(persona, text)
    assert (path.name if path else None) == face


@pytest.mark.parametrize("path", sorted((FOLDER / "avatars").glob("*-*.png")), ids=lambda path: path.stem)
def test_a_face_is_as_large_as_the_avatar(path: Path) -> None:
    assert path.stat().st_size < 60_000
    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", (256, 256))
        image.load()
    assert any(f"avatars/{path.name}" == face.avatar for one in LIBRARY.all() for face in one.expressions.values())


def test_everything_chinese_is_chinese() -> None:
    persona = LIBRARY.get("amo")
    told = persona.model_dump(include={"name", "summary", "identity", "look", "traits", "background", "goals"})
    told |= persona.model_dump(include={"boundaries", "greetings", "examples", "lexicon", "lore", "tags"})
    for text in [*_texts(told), *persona.voice.style, *persona.triggers.words]:
        assert CHINESE.search(text)
        assert not re.search("[A-Za-z]", text.replace("{{user}}", "")), text


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.values() for text in _texts(item)]
    return [text for item in value for text in _texts(item)] if isinstance(value, tuple | list) else []


@pytest.mark.parametrize(("one", "other"), list(combinations(LIBRARY.all(), 2)), ids=lambda persona: persona.id)
def test_no_two_talk_alike(one: Persona, other: Persona) -> None:
    shared, all_words = own_words(one) & own_words(other), own_words(one) | own_words(other)
    assert len(shared) / len(all_words) < 0.15
    assert not set(one.lexicon.preferred) & set(other.lexicon.preferred)
    assert one.summary != other.summary
