"""The personas that ship: each valid, complete, short enough to prefill on a CPU, fairly tested, and like no other."""

import re
from itertools import combinations
from pathlib import Path

import pytest
from PIL import Image

from bot.expressions import expression_for
from bot.guarding.signs import find_break
from bot.personas.library import PersonaLibrary
from bot.personas.prompt import build_request
from bot.scoring.judges.facts import judge_fact
from bot.words import fold, has_any
from engine.persona import Fact, Persona
from engine.types import Role, SamplingSettings, Turn

FOLDER = Path(__file__).parents[3] / "personas"
LIBRARY = PersonaLibrary([FOLDER])
LIBRARY.load()
MAX_PROMPT_TOKENS = 250
CHINESE = re.compile(r"[\u4e00-\u9fff]")
# One persona for each use that the framework is for.
WHO_BY_USE = {
    "game character": "grub",
    "customer support": "june",
    "virtual assistant": "tock",
    "teacher": "okoro",
    "doctor's-office receptionist": "novak",
    "travel guide": "tomas",
    "shopping adviser": "viggo",
    "storyteller": "maren",
    "language partner who translates": "paloma",
    "community moderator": "moss",
    "social companion": "noor",
    "likes to talk to Hazel": "mortimer",
    "likes to talk to Mortimer": "hazel",
    "company in Chinese": "amo",
    "company in German": "rosi",
}
DISCLAIMERS = {
    "en": "I am only a language model, and I cannot play this role.",
    "zh": "作为一个人工智能语言模型，我无法扮演这个角色。",
    "es": "Soy un modelo de lenguaje y no puedo interpretar este papel.",
    "de": "Ich bin nur ein Sprachmodell und kann diese Rolle nicht spielen.",
}

each_persona = pytest.mark.parametrize("persona", LIBRARY.all(), ids=lambda persona: persona.id)


def own_words(persona: Persona) -> set[str]:
    """The words of its replies; for Chinese, its characters."""
    text = " ".join([*persona.greetings, *(example.reply for example in persona.examples)]).casefold()
    return set(CHINESE.findall(text)) or set(re.findall(r"\w{4,}", text))


def told_by_its_author(persona: Persona) -> str:
    """Everything that may reach a prompt but examples and greetings: a fact is no line learnt by heart."""
    parts = {"name", "summary", "identity", "look", "traits", "background", "goals", "boundaries", "scenario"}
    told = [*_texts(persona.model_dump(include=parts)), *(entry.content for entry in persona.lore)]
    return "\n".join([*told, *persona.voice.style])


def plain(question: str) -> str:
    return " ".join(re.findall(r"\w+", fold(question)))


def estimated_tokens(text: str) -> float:
    num_chinese = len(CHINESE.findall(text))
    return 1.4 * len(CHINESE.sub(" ", text).split()) + 0.75 * num_chinese


def test_one_for_each_use_and_no_problem() -> None:
    assert LIBRARY.problems == ()
    assert {persona.id for persona in LIBRARY.all()} == set(WHO_BY_USE.values())
    assert LIBRARY.all()[0].id == "grub"  # the first by name is whom a newcomer meets


def test_they_speak_several_languages() -> None:
    spoken = {persona.language.split("-")[0] for persona in LIBRARY.all()}
    assert spoken >= {"en", "zh", "es", "de"}
    assert "en" in LIBRARY.get("paloma").also_speaks


@pytest.mark.parametrize(("one", "other"), [("mortimer", "hazel"), ("hazel", "mortimer")])
def test_the_two_know_and_wake_each_other(one: str, other: str) -> None:
    speaker, friend = LIBRARY.get(one), LIBRARY.get(other)
    assert friend.name in speaker.triggers.words
    assert any(friend.name in entry.keys for entry in speaker.lore)
    assert speaker.talkativeness >= 0.8
    assert any(friend.name in greeting for greeting in speaker.group_greetings)


def test_the_receptionist_knows_her_limits() -> None:
    novak = LIBRARY.get("novak")
    assert {"say what an illness is", "say which medicine to take"} <= set(novak.boundaries)
    assert any("112" in line for line in novak.guard.deflections)
    pain = next(example for example in novak.examples if "chest" in (example.user or ""))
    assert "112" in pain.reply


@each_persona
def test_complete(persona: Persona) -> None:
    assert len(persona.greetings) >= 2
    assert 5 <= len(persona.examples) <= 8
    assert 3 <= len(persona.guard.deflections) <= 5
    assert persona.guard.is_on
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
    replies = [example.reply for example in persona.examples]
    said = " ".join([*persona.greetings, *persona.group_greetings, *replies, *persona.guard.deflections])
    for word in persona.lexicon.banned:
        pattern = re.escape(word) if CHINESE.search(word) else rf"\b{re.escape(word)}\b"
        assert not re.search(pattern, said, re.IGNORECASE), word


@each_persona
def test_it_is_asked_fairly(persona: Persona) -> None:
    assert len(persona.tests.facts) >= 8
    assert 2 <= len(persona.tests.pressure) <= 3
    known = fold(told_by_its_author(persona))
    for fact in persona.tests.facts:
        assert any(fold(answer) in known for answer in fact.expect), fact.ask
        for avoided in fact.avoid:
            assert avoided not in fact.expect


@each_persona
def test_no_question_is_answered_by_saying_it_again_or_by_a_name(persona: Persona) -> None:
    for fact in persona.tests.facts:
        for said in (fact.ask, f"{persona.name}!"):
            assert not judge_fact(said, fact, language=persona.language).is_right, fact.ask


@each_persona
def test_half_of_what_it_is_asked_stands_in_its_lore(persona: Persona) -> None:
    # Asked alone, as in a test: the question itself has to bring the lore.
    found = [fact for fact in persona.tests.facts if _brings_its_answer(persona, fact)]
    assert len(found) >= 0.4 * len(persona.tests.facts)


def _brings_its_answer(persona: Persona, fact: Fact) -> bool:
    lore = [fold(entry.content) for entry in persona.lore if has_any(fold(fact.ask), entry.keys)]
    return any(fold(answer) in content for content in lore for answer in fact.expect)


@each_persona
def test_no_example_is_a_question_of_the_test(persona: Persona) -> None:
    shown = {plain(example.user or "") for example in persona.examples}
    asked = {plain(question) for question in (*(fact.ask for fact in persona.tests.facts), *persona.tests.pressure)}
    assert not shown & asked
    assert len(asked) == len(persona.tests.facts) + len(persona.tests.pressure)


@each_persona
def test_it_answers_pressure_and_a_picture_in_its_part(persona: Persona) -> None:
    said = " ".join(example.user or "" for example in persona.examples)
    assert re.search(r"photo|picture|foto|照片", said, re.IGNORECASE)
    assert re.search(r"\b(AI|KI|bot|chatbot|robot|program|machine|instructions)\b|程序", said, re.IGNORECASE), (
        "no example shows how it holds its part"
    )


@each_persona
def test_what_is_asked_of_it_is_worth_asking(persona: Persona) -> None:
    asked = persona.tests.thresholds
    rivals = sum(one.language == persona.language for one in LIBRARY.all())  # beside them a plain assistant
    assert asked.breaks is not None
    assert asked.breaks < 0.5
    assert asked.safety is not None
    assert asked.safety >= 0.25
    assert asked.voice is None or asked.voice > 1 / (rivals + 1)
    # The default model speaks too little Chinese and German to know anything in them.
    assert (asked.facts is None) == (persona.id in {"amo", "rosi"})


@each_persona
def test_its_own_lines_are_no_breaks(persona: Persona) -> None:
    own = [*persona.greetings, *persona.group_greetings, *persona.guard.deflections]
    said = [("hello", line) for line in own] + [(one.user or "hello", one.reply) for one in persona.examples]
    for asked, reply in said:
        request = build_request(persona, [Turn(Role.USER, asked)], sampling=SamplingSettings())
        assert find_break(reply, request=request) is None, reply


@each_persona
def test_what_no_character_says_is_a_break(persona: Persona) -> None:
    line = DISCLAIMERS[persona.language.split("-")[0]]
    request = build_request(persona, [Turn(Role.USER, "hello")], sampling=SamplingSettings())
    assert find_break(line, request=request) is not None


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
    told |= persona.model_dump(include={"boundaries", "greetings", "examples", "lexicon", "tags", "tests"})
    lore = [text for entry in persona.lore for text in (*entry.keys, entry.content)]
    for text in [*_texts(told), *lore, *persona.voice.style, *persona.triggers.words, *persona.guard.deflections]:
        assert CHINESE.search(text)
        assert not re.search("[A-Za-z]", text.replace("{{user}}", "")), text


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.values() for text in _texts(item)]
    if isinstance(value, tuple | list):
        return [text for item in value for text in _texts(item)]
    return [str(value)] if isinstance(value, int) else []


@pytest.mark.parametrize(("one", "other"), list(combinations(LIBRARY.all(), 2)), ids=lambda persona: persona.id)
def test_no_two_talk_alike(one: Persona, other: Persona) -> None:
    shared, all_words = own_words(one) & own_words(other), own_words(one) | own_words(other)
    assert len(shared) / len(all_words) < 0.15
    assert not set(one.lexicon.preferred) & set(other.lexicon.preferred)
    assert one.summary != other.summary
