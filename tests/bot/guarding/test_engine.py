"""What is held back, what is asked for again, and how it ends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace

import pytest

from bot.guarding.engine import KEPT_LETTERS, MAX_HELD_LETTERS, GuardedEngine
from bot.guarding.lines import reminder
from bot.personas.prompt import build_request
from engine.errors import DeviceError, EngineBusy, EngineError
from engine.persona import GuardRules, Persona
from engine.tokens import EstimatedTokens
from engine.types import (
    FinishReason,
    GenerationRequest,
    Insertion,
    QueuePlace,
    ReplyChunk,
    ReplyStats,
    Role,
    SamplingSettings,
    Turn,
)
from tests.bot.guarding.judging import persona
from tests.fakes.engine import ScriptedEngine, Step

AI = "As an AI, I cannot say."


def tries(*scripts: Sequence[Step]) -> Callable[[GenerationRequest], Sequence[Step]]:
    """Each try follows its own script; the last one is repeated."""
    left = list(scripts)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def request(who: Persona | None = None, user: str = "Are you real?", **sampling: object) -> GenerationRequest:
    settings = SamplingSettings(**sampling)  # type: ignore[arg-type]
    return build_request(who or persona(), [Turn(Role.USER, user)], sampling=settings)


class Guarded:
    """A guarded scripted engine, and what it counted."""

    def __init__(self, *scripts: Sequence[Step], max_tries: int = 2) -> None:
        self.engine = ScriptedEngine(tries(*scripts))
        self.counted: list[tuple[str, str]] = []
        self.guarded = GuardedEngine(
            self.engine, max_tries=max_tries, counting=lambda kind, outcome: self.counted.append((kind, outcome))
        )

    async def chunks(self, asked: GenerationRequest | None = None) -> list[ReplyChunk]:
        return [chunk async for chunk in self.guarded.generate(asked or request())]

    async def reply(self, asked: GenerationRequest | None = None) -> str:
        return "".join(chunk.text for chunk in await self.chunks(asked))

    @property
    def asked_again(self) -> list[GenerationRequest]:
        return self.engine.requests[1:]


def deflecting(*lines: str) -> Persona:
    return persona().model_copy(update={"guard": GuardRules(deflections=lines)})


# --- what is good


async def test_a_good_reply_is_asked_for_once_and_goes_through_word_for_word() -> None:
    guard = Guarded(["The lamp", " is lit. ", " Come in,\n", "\nchild.  "])
    chunks = await guard.chunks()
    assert "".join(chunk.text for chunk in chunks) == "The lamp is lit.  Come in,\n\nchild.  "
    assert chunks[-1].finish_reason is FinishReason.STOP
    assert [chunk for chunk in chunks[:-1] if chunk.finish_reason] == []
    assert len(guard.engine.requests) == 1
    assert guard.engine.requests[0].insertions == ()
    assert guard.counted == []


@pytest.mark.parametrize("reason", [FinishReason.LENGTH, FinishReason.TIME])
async def test_why_a_reply_ended_is_told(reason: FinishReason) -> None:
    chunks = await Guarded(["The lamp is", reason]).chunks()
    assert "".join(chunk.text for chunk in chunks) == "The lamp is"
    assert chunks[-1].finish_reason is reason


async def test_a_sentence_is_shown_as_soon_as_it_is_complete() -> None:
    more = asyncio.Event()
    guard = Guarded(["The lamp is lit. ", "Come", more, " in."])
    async with aclosing(guard.guarded.generate(request())) as chunks:
        async with asyncio.timeout(5):
            assert (await anext(chunks)).text == "The lamp is lit."
        waiting = asyncio.ensure_future(anext(chunks))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        more.set()
        assert (await waiting).text == " Come in."


async def test_what_never_ends_is_shown_all_the_same() -> None:
    words = [f"word{number} " for number in range(100)]
    guard = Guarded(words)
    chunks = await guard.chunks()
    assert "".join(chunk.text for chunk in chunks) == "".join(words)
    assert len(chunks) > 3
    assert max(len(chunk.text) for chunk in chunks) <= MAX_HELD_LETTERS + KEPT_LETTERS


async def test_what_never_ends_in_chinese_is_held_back_for_less() -> None:
    guard = Guarded(["灯"] * 300)
    chunks = await guard.chunks(request(persona(language="zh"), user="你好"))
    assert "".join(chunk.text for chunk in chunks) == "灯" * 300
    assert max(len(chunk.text) for chunk in chunks) <= MAX_HELD_LETTERS / 2


async def test_places_in_the_queue_are_told_at_once() -> None:
    place = QueuePlace(3, 10.0)
    guard = Guarded([place, "The lamp is lit."])
    chunks = await guard.chunks()
    assert chunks[0].queue == place
    assert chunks[0].text == ""


async def test_a_persona_may_go_unguarded() -> None:
    who = persona().model_copy(update={"guard": GuardRules(enabled=False)})
    guard = Guarded([f"Hm. {AI}"])
    assert await guard.reply(request(who)) == f"Hm. {AI}"
    assert len(guard.engine.requests) == 1


# --- once more


async def test_a_break_is_asked_for_again_from_the_last_good_point() -> None:
    guard = Guarded(["The lamp is lit. ", AI, " More."], [" The wind", " is cold."])
    assert await guard.reply() == "The lamp is lit. The wind is cold."
    (again,) = guard.asked_again
    assert again.reply_start == "The lamp is lit."
    assert again.insertions[-1].text == reminder(persona())
    assert again.insertions[-1].depth == 0
    assert guard.engine.num_closed_early == 1
    assert guard.counted == [("disclaimer", "resampled")]


async def test_the_space_before_a_break_is_left_out() -> None:
    guard = Guarded([f"The lamp is lit.\n\n{AI} More."], [" Come in."])
    assert await guard.reply() == "The lamp is lit. Come in."
    assert guard.asked_again[0].reply_start == "The lamp is lit."


async def test_a_break_at_the_beginning_is_asked_for_again_from_nothing() -> None:
    guard = Guarded([AI, " More."], ["The wind is cold."])
    assert await guard.reply() == "The wind is cold."
    assert guard.asked_again[0].reply_start == ""


async def test_the_reminder_is_in_the_personas_language() -> None:
    who = persona(language="de")
    guard = Guarded(["Ich bin nur ein Chatbot."], ["Komm herein."])
    await guard.reply(request(who, user="Hallo, wer bist du?"))
    assert "Deutsch" in guard.asked_again[0].insertions[-1].text


async def test_a_seeded_reply_stays_repeatable_and_each_try_differs() -> None:
    async def seeds(seed: int) -> list[int | None]:
        guard = Guarded([AI])
        await guard.reply(request(seed=seed))
        return [asked.sampling.seed for asked in guard.engine.requests]

    first = await seeds(7)
    assert first == await seeds(7)
    assert len(set(first)) == 3
    assert first[0] == 7
    assert not set(first) & set(await seeds(8))


async def test_a_greedy_reply_is_varied_and_stays_repeatable() -> None:
    guard = Guarded([AI], ["The wind is cold."])
    await guard.reply(request(temperature=0.0))
    again = guard.asked_again[0].sampling
    assert again.temperature > 0
    assert again.seed is not None


async def test_an_unseeded_reply_stays_unseeded() -> None:
    guard = Guarded([AI], ["The wind is cold."])
    await guard.reply(request(temperature=0.5))
    assert guard.asked_again[0].sampling.seed is None
    assert guard.asked_again[0].sampling.temperature == pytest.approx(0.6)


async def test_only_so_many_tries_are_made() -> None:
    for max_tries in (0, 1, 3):
        guard = Guarded([f"Hm. {AI}"], max_tries=max_tries)
        assert await guard.reply() == "Hm." * (max_tries + 1)
        assert len(guard.engine.requests) == max_tries + 1


async def test_tries_share_the_replys_length() -> None:
    good = "The lamp is lit and the wind is cold."
    guard = Guarded([f"{good} {AI}"], [" Come in."])
    await guard.reply(request(max_new_tokens=60))
    assert guard.asked_again[0].sampling.max_new_tokens == 60 - guard.engine.count_tokens(good)
    short = Guarded([f"{good} {AI}"], [" Come in."])
    assert await short.reply(request(max_new_tokens=16)) == good
    assert len(short.engine.requests) == 1


async def test_tries_share_the_replys_time() -> None:
    guard = Guarded([0.05, f"Hm. {AI}"], [" Come in."])
    await guard.reply(request(max_duration_s=60.0))
    left = guard.asked_again[0].sampling.max_duration_s
    assert left is not None
    assert left <= 59.95
    late = Guarded([0.05, f"Hm. {AI}"], [" Come in."])
    assert await late.reply(request(max_duration_s=0.5)) == "Hm."
    assert len(late.engine.requests) == 1


async def test_a_reply_that_has_begun_goes_on_behind_its_beginning() -> None:
    asked = replace(request(), reply_start="Well, child.")
    guard = Guarded([" The lamp is lit.", f" {AI}", " More."], [" Come in."])
    assert await guard.reply(asked) == " The lamp is lit. Come in."
    assert [one.reply_start for one in guard.engine.requests] == ["Well, child.", "Well, child. The lamp is lit."]


async def test_a_beginning_that_is_a_break_itself_is_not_judged() -> None:
    asked = replace(request(), reply_start="I am a chatbot.")
    guard = Guarded([" The lamp is lit."])
    assert await guard.reply(asked) == " The lamp is lit."


async def test_a_break_in_a_sentence_of_which_much_was_shown_goes_on_there() -> None:
    words = [f"word{number} " for number in range(50)]
    guard = Guarded([*words, "and, as an AI, I ", "sleep. ", "More."], ["and more."])
    reply = await guard.reply()
    (again,) = guard.asked_again
    assert again.reply_start.startswith("word0 word1 ")
    assert len(again.reply_start) >= MAX_HELD_LETTERS - KEPT_LETTERS - len("word00 ")
    assert reply == f"{again.reply_start}and more."


async def test_the_end_of_a_long_sentence_is_kept_back() -> None:
    words = [f"word{number:02} " for number in range(28)]
    assert MAX_HELD_LETTERS - len("as an") < len("".join(words)) <= MAX_HELD_LETTERS
    guard = Guarded(["".join(words)[:-1], ", as an ", "AI, I sleep. ", "More."], [" and more."])
    reply = await guard.reply()
    assert "as an" not in reply
    assert reply.endswith(" and more.")


# --- no way back


async def test_where_nothing_follows_what_had_begun_the_reply_ends_there() -> None:
    asked = replace(request(deflecting("Ask the tide.")), reply_start="Well, child.")
    guard = Guarded([f" {AI}"])
    assert await guard.reply(asked) == ""
    assert guard.counted[-1] == ("disclaimer", "shortened")


async def test_where_something_was_good_the_reply_ends_there() -> None:
    guard = Guarded(["The lamp is lit. ", AI], [f" {AI}"])
    chunks = await guard.chunks()
    assert "".join(chunk.text for chunk in chunks) == "The lamp is lit."
    assert chunks[-1].finish_reason is FinishReason.STOP
    assert guard.counted == [("disclaimer", "resampled")] * 2 + [("disclaimer", "shortened")]


async def test_where_nothing_was_good_a_deflection_is_said() -> None:
    guard = Guarded([AI])
    assert await guard.reply(request(deflecting("The gull says no, {{char}} too."))) == "The gull says no, Mira too."
    assert guard.counted[-1] == ("disclaimer", "deflected")


async def test_a_deflection_does_not_come_twice_in_a_row() -> None:
    who = deflecting("The gull says no.", "Ask the tide.")
    turns = (Turn(Role.USER, "Hm?"), Turn(Role.ASSISTANT, "The gull says no."), Turn(Role.USER, "Are you real?"))
    for _ in range(8):
        assert await Guarded([AI]).reply(replace(request(who), turns=turns)) == "Ask the tide."


async def test_without_deflections_it_says_a_line_of_its_own() -> None:
    assert await Guarded([AI]).reply() == "I am Mira, and I keep the lamp of Gannet Light."
    turned = persona().model_copy(update={"examples": persona().examples[::-1]})
    assert await Guarded([AI]).reply(request(turned)) == "I am Mira, and I keep the lamp of Gannet Light."
    asked = request(user="Is it late?")
    assert await Guarded([AI]).reply(asked) == "It is always late here, child, and never too late."


async def test_without_examples_it_greets_and_without_greetings_it_is_silent() -> None:
    bare = persona().model_copy(update={"examples": ()})
    assert (await Guarded([AI]).reply(request(bare))).startswith("Come in out of the wind, ")
    assert "{{" not in await Guarded([AI]).reply(request(bare))
    mute = bare.model_copy(update={"greetings": ()})
    assert await Guarded([AI]).reply(request(mute)) == "…"


async def test_what_breaks_little_is_rather_said_than_nothing() -> None:
    asked = request(user="Where did you learn to tell such stories?")
    guard = Guarded(["Where did you learn to tell such stories? "])
    assert await guard.reply(asked) == "Where did you learn to tell such stories?"
    assert guard.counted[-1] == ("echo", "deflected")
    deflected = await Guarded(["Where did you learn to tell such stories? "]).reply(
        replace(asked, persona=deflecting("Ask the tide."))
    )
    assert deflected == "Ask the tide."


async def test_a_try_that_has_nothing_to_say_is_no_reply() -> None:
    guard = Guarded([AI], [""], ["The wind is cold."])
    assert await guard.reply() == "The wind is cold."
    assert await Guarded([AI], [" \n"]).reply(request(deflecting("Ask the tide."))) == "Ask the tide."
    # One that follows something is the end of it, and whoever has nothing to say at first may be silent.
    assert await Guarded([f"Hm. {AI}"], [""]).reply() == "Hm."
    assert await Guarded([""]).reply() == ""


# --- errors and ends


async def test_an_error_of_the_first_try_is_raised() -> None:
    with pytest.raises(DeviceError):
        await Guarded([DeviceError("broken")]).reply()


async def test_an_error_of_another_try_ends_the_reply_where_it_was_good() -> None:
    guard = Guarded([f"Hm. {AI}"], [EngineBusy("full")])
    assert await guard.reply() == "Hm."
    assert await Guarded([AI], [EngineError("gone")]).reply(request(deflecting("Ask the tide."))) == "Ask the tide."


@pytest.mark.parametrize("num_heard", [0, 1, 2])
async def test_closing_it_at_any_time_closes_the_engine(num_heard: int) -> None:
    guard = Guarded(["One. ", "Two. ", AI, " "], ["Three. ", "Four. ", asyncio.Event()])
    chunks = guard.guarded.generate(request())
    for _ in range(num_heard):
        await anext(chunks)
    await chunks.aclose()  # type: ignore[attr-defined]
    assert guard.engine.num_running == 0


async def test_cancelling_it_in_a_second_try_closes_the_engine() -> None:
    guard = Guarded([f"One. {AI}"], [asyncio.Event()])
    task = asyncio.create_task(guard.reply())
    async with asyncio.timeout(5):
        while len(guard.engine.requests) < 2:
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert guard.engine.num_running == 0


# --- what it cost


class TellingEngine(EstimatedTokens):
    """Tells with each reply what it cost."""

    def __init__(self, *replies: str) -> None:
        self._replies: Iterator[str] = iter(replies)

    async def start(self) -> None:
        """Nothing to load."""

    async def generate(self, request: GenerationRequest) -> AsyncIterator[ReplyChunk]:
        yield ReplyChunk(next(self._replies))
        yield ReplyChunk("", FinishReason.STOP, ReplyStats(100, 10, 0.5, 1.0, num_cached_tokens=40, queue_s=0.25))

    def load(self) -> object:
        """Nothing."""

    async def aclose(self, *, drain_s: float = 0.0) -> None:
        """Nothing."""


async def stats_of(*replies: str) -> ReplyStats:
    guarded = GuardedEngine(TellingEngine(*replies))  # type: ignore[arg-type]
    *_, last = [chunk async for chunk in guarded.generate(request())]
    assert last.stats is not None
    return last.stats


async def test_one_try_tells_its_own_cost() -> None:
    assert await stats_of("The lamp is lit.") == ReplyStats(100, 10, 0.5, 1.0, num_cached_tokens=40, queue_s=0.25)


async def test_the_cost_of_all_tries_is_summed() -> None:
    broken_at_its_end, good = AI, "The lamp is lit."
    stats = await stats_of(broken_at_its_end, good)
    assert (stats.num_prompt_tokens, stats.num_new_tokens, stats.num_cached_tokens) == (200, 20, 80)
    assert stats.queue_s == 0.5
    early = await stats_of(f"{AI} More", good)
    assert early.num_prompt_tokens == 200
    assert early.num_new_tokens == 10 + EstimatedTokens().count_tokens(f"{AI} More")


# --- the rest of an engine


async def test_everything_else_is_the_engines() -> None:
    guard = Guarded(["Hm."])
    await guard.guarded.start()
    assert guard.guarded.context() == guard.engine.context()
    assert guard.guarded.count_tokens("abc") == guard.engine.count_tokens("abc")
    assert guard.guarded.load() == guard.engine.load()
    await guard.guarded.aclose(drain_s=3.0)
    assert guard.engine.drained_s == 3.0


async def test_what_stands_among_the_turns_stands_there_again() -> None:
    guard = Guarded([AI], ["Come in, child."])
    lore = Insertion("You know: the bell sank.", 1)
    await guard.reply(replace(request(), insertions=(lore,)))
    assert [one.insertions for one in guard.asked_again] == [(lore, Insertion(reminder(persona())))]
