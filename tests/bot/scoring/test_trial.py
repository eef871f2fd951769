"""Scripts are played in order, several at once, and one that fails takes no other along."""

from bot.scoring.requests import BotRequests
from bot.scoring.trial import NUM_AT_ONCE, Line, Script, TrialOptions, ask_all, num_replies
from engine.errors import EngineError
from engine.types import GenerationRequest, SamplingSettings
from tests.bot.scoring.answering import AnsweringEngine
from tests.fakes.personas import a_persona

ANN = a_persona("Ann")
REQUESTS = BotRequests(SamplingSettings())


def script(key: str, *texts: str) -> Script:
    return Script("facts", key, tuple(Line(text) for text in texts))


async def test_each_line_comes_after_the_reply_to_the_one_before() -> None:
    engine = AnsweringEngine(lambda request: f"{len(request.turns)} turns")
    said = await ask_all(engine, REQUESTS, [(ANN, script("0", "one", "two", "three"))], TrialOptions(num_repeats=1))
    assert [one.reply for one in said] == ["1 turns", "3 turns", "5 turns"]
    assert [turn.text for turn in engine.requests[-1].turns] == ["one", "1 turns", "two", "3 turns", "three"]


async def test_everything_is_asked_as_often_as_wanted_in_conversations_of_their_own() -> None:
    engine = AnsweringEngine()
    scripts = [(ANN, script("0", "a")), (ANN, script("1", "b"))]
    replies: list[None] = []
    said = await ask_all(engine, REQUESTS, scripts, TrialOptions(num_repeats=3), on_reply=lambda: replies.append(None))
    assert [(one.key, one.repeat, one.reply) for one in said] == [
        ("0", 0, "a"), ("0", 1, "a"), ("0", 2, "a"), ("1", 0, "b"), ("1", 1, "b"), ("1", 2, "b")
    ]  # fmt: skip
    assert len(replies) == num_replies(scripts, TrialOptions(num_repeats=3)) == 6
    assert len({request.asker for request in engine.requests}) == 6


async def test_no_more_run_at_once_than_may() -> None:
    engine = AnsweringEngine()
    await ask_all(engine, REQUESTS, [(ANN, script(str(n), "a", "b")) for n in range(30)], TrialOptions(1))
    assert 1 < engine.most_running <= NUM_AT_ONCE


async def test_a_failed_reply_ends_its_script_alone() -> None:
    def answer(request: GenerationRequest) -> str | EngineError:
        return EngineError("too long") if request.turns[-1].text == "bad" else "fine"

    engine = AnsweringEngine(answer)
    scripts = [(ANN, script("0", "bad", "never")), (ANN, script("1", "good"))]
    said = await ask_all(engine, REQUESTS, scripts, TrialOptions(num_repeats=1))
    assert [(one.key, one.reply, one.failure) for one in said] == [("0", "", "too long"), ("1", "fine", None)]


async def test_with_a_seed_every_repeat_has_its_own() -> None:
    engine = AnsweringEngine()
    await ask_all(engine, REQUESTS, [(ANN, script("0", "a"))], TrialOptions(num_repeats=2, seed=4))
    seeds = {request.sampling.seed for request in engine.requests}
    assert len(seeds) == 2
    assert 4 in seeds


async def test_a_name_in_front_is_taken_away_as_for_people() -> None:
    engine = AnsweringEngine(lambda _: "Ann: Hello!")
    said = await ask_all(engine, REQUESTS, [(ANN, script("0", "a"))], TrialOptions(num_repeats=1))
    assert said[0].reply == "Hello!"
