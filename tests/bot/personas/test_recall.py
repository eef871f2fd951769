"""What a question is about, by meaning and by words."""

import asyncio

import pytest

from bot.personas import recall as recall_module
from bot.personas.recall import MAX_RECALLED, MAX_STATEMENTS, Recall, Recalled, by_words, statements
from engine.errors import EngineBusy
from engine.persona import Persona
from engine.types import Embedding


def persona(**fields: object) -> Persona:
    return Persona.model_validate({"id": "mira", "name": "Mira", "summary": "Keeper.", "greetings": ["Hi"], **fields})


class Meanings:
    """Knows three directions, by words in a text."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.failure: Exception | None = None
        self.is_stuck = False
        self.space = "one"

    async def embed_text(self, text: str) -> Embedding:
        self.texts.append(text)
        if self.failure is not None:
            raise self.failure
        if self.is_stuck:
            await asyncio.sleep(3600)
        values = [float(any(word in text for word in words)) for words in (("old", "age"), ("sea",), ("tea",))]
        length = sum(values) ** 0.5 or 1.0
        return Embedding(self.space, tuple(value / length for value in values))


MIRA = persona(
    identity={"age": 61, "home": "by the sea"},
    traits=["old-fashioned"],
    lore=[
        {"keys": ["kettle"], "content": "The tea is peppermint."},
        {"keys": ["kettle"], "content": "The tea is poisoned.", "probability": 10},
        {"constant": True, "content": "It is tea time."},
    ],
)


async def test_it_is_found_by_meaning_in_other_words() -> None:
    recall = Recall(Meanings())
    assert await recall.about(MIRA, "How old are you?") == (Recalled("age", "Your age is 61."),)
    assert await recall.about(MIRA, "Nice weather!") == ()


async def test_lore_is_recalled_only_where_nothing_but_keys_rules_it() -> None:
    assert [one.text for one in await Recall(Meanings()).about(MIRA, "Some tea?")] == ["The tea is peppermint."]
    secretive = MIRA.model_copy(update={"lorebook": MIRA.lorebook.model_copy(update={"has_recall": False})})
    assert await Recall(Meanings()).about(secretive, "Some tea?") == ()


async def test_statements_are_read_once_a_persona() -> None:
    meanings = Meanings()
    recall = Recall(meanings)
    await asyncio.gather(*(recall.about(MIRA, f"How old? {number}") for number in range(5)))
    assert len(meanings.texts) == len(statements(MIRA)) + 5


async def test_an_engine_that_is_busy_or_blind_leaves_it_to_words() -> None:
    meanings = Meanings()
    meanings.failure = EngineBusy("16 jobs wait")
    recall = Recall(meanings)
    assert [one.name for one in await recall.about(MIRA, "peppermint tea?")] == ["kettle"]
    meanings.failure = None
    assert [one.name for one in await recall.about(MIRA, "How old are you?")] == ["age"], "and it is tried again"


async def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall_module, "MAX_WAIT_S", 0.01)
    meanings = Meanings()
    meanings.is_stuck = True
    recall = Recall(meanings)
    assert [one.name for one in await recall.about(MIRA, "peppermint tea?")] == ["kettle"]
    await recall.aclose()


async def test_embeddings_of_other_weights_do_not_compare() -> None:
    meanings = Meanings()
    recall = Recall(meanings)
    await recall.about(MIRA, "tea")
    meanings.space = "two"
    assert await recall.about(MIRA, "tea") == ()


async def test_other_languages_go_by_words() -> None:
    meanings = Meanings()
    cat = persona(
        language="zh", lore=[{"keys": ["鱼"], "content": "阿墨收鱼干当书钱。"}, {"keys": ["雨"], "content": "下雨。"}]
    )
    assert [one.name for one in await Recall(meanings).about(cat, "用鱼干能当书钱吗")] == ["鱼"]
    assert meanings.texts == []


def test_rare_words_count_more() -> None:
    known = [
        Recalled("a", "Ember loves tea and coins."),
        Recalled("b", "Coins and more coins."),
        Recalled("c", "Coins."),
    ]
    assert by_words(known, "coins for Ember")[0].name == "a"
    assert by_words(known, "something else") == ()
    assert by_words([], "coins") == ()


def test_not_more_than_a_few() -> None:
    known = [Recalled(str(number), f"The dragon {number}.") for number in range(9)]
    assert len(by_words(known, "dragon")) == MAX_RECALLED


def test_a_large_lorebook_is_gone_through_once() -> None:
    large = persona(lore=[{"keys": [f"k{number}"], "content": f"Fact {number}."} for number in range(100)])
    assert statements(large) is statements(large)
    assert len(statements(large)) == MAX_STATEMENTS
    assert statements(large) != statements(MIRA)


async def test_many_personas_at_once_take_nothing_from_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall_module, "MAX_PERSONAS", 2)
    recall = Recall(Meanings())
    cast = [MIRA.model_copy(update={"name": f"Mira {number}"}) for number in range(9)]
    found = await asyncio.gather(*(recall.about(one, "How old are you?") for one in cast))
    assert all([one.name for one in told] == ["age"] for told in found)
