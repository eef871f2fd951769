"""The plain prompt has the whole text and nothing of how it is tested; the other is the bot's own."""

from bot.scoring.plain import plain_prompt
from bot.scoring.requests import BotRequests, PlainRequests
from engine.lore import LoreEntry
from engine.persona import Persona
from engine.types import Asker, Role, SamplingSettings, Turn
from tests.fakes.personas import a_persona

ASKER = Asker("ann", "room", "chat")


def mira() -> Persona:
    return a_persona(
        "Mira",
        background="Mira mends clocks in Ghent.",
        traits=("patient", "curious"),
        identity={"age": 41},
        examples=({"user": "Who are you?", "reply": "I am Mira, {{user}}."}, {"user": None, "reply": "Tick."}),
        lore=(LoreEntry(keys=("owl",), content="The owl is called Hugo."),),
        tests={"facts": [{"ask": "What is the owl called?", "expect": ["Hugo the secret"]}]},
        notes="Only for people.",
        sampling={"temperature": 0.25},
        guard={"deflections": ["Not today."]},
    )


def test_the_plain_prompt_has_every_word_about_the_character() -> None:
    prompt = plain_prompt(mira())
    for text in ("name: Mira", "Mira mends clocks in Ghent.", "patient; curious", "age: 41", "Hugo", "keys: owl"):
        assert text in prompt
    assert prompt.index("summary") < prompt.index("background") < prompt.index("lore")


def test_the_plain_prompt_tells_neither_tests_nor_notes_nor_switches() -> None:
    prompt = plain_prompt(mira())
    for text in ("secret", "Only for people", "temperature", "deflections", "None", "id:", "position", "order"):
        assert text not in prompt


async def test_both_ways_stop_at_the_same_words_in_every_language() -> None:
    turns, settings = [Turn(Role.USER, "你好")], SamplingSettings()
    author = a_persona("Amo", language="zh-Hans")
    bot = await BotRequests(settings).write(author, turns, asker=ASKER, seed=None)
    plain = await PlainRequests(settings).write(author, turns, asker=ASKER, seed=None)
    assert plain.sampling.stop == bot.sampling.stop


async def test_both_ways_ask_the_same_with_the_same_sampling() -> None:
    turns = [Turn(Role.USER, "Is there an owl?")]
    settings = SamplingSettings(top_k=7)
    bot = await BotRequests(settings).write(mira(), turns, asker=ASKER, seed=5)
    plain = await PlainRequests(settings).write(mira(), turns, asker=ASKER, seed=5)
    assert bot.sampling == plain.sampling
    assert (bot.sampling.temperature, bot.sampling.top_k, bot.sampling.seed) == (0.25, 7, 5)
    assert bot.turns == plain.turns
    assert any("Hugo" in insertion.text for insertion in bot.insertions)
    assert "I am Mira, Alex." in plain.system_prompt


async def test_only_the_newest_turns_are_told() -> None:
    turns = [Turn(Role.USER, str(number)) for number in range(9)]
    for writer in (BotRequests(SamplingSettings(), max_turns=3), PlainRequests(SamplingSettings(), max_turns=3)):
        request = await writer.write(mira(), turns, asker=ASKER, seed=None)
        assert [turn.text for turn in request.turns] == ["6", "7", "8"]
