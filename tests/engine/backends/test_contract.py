"""What the bot relies on, whichever engine it talks to. `subjects` says how each is set up."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import EngineBusy, EngineError, PromptTooLong, RequestError
from engine.types import Engine, FinishReason, GenerationRequest, Insertion, ReplyChunk, Role, Turn
from tests.engine.backends.subjects import LONG, MAX_RUNNING, SUBJECTS, Subject
from tests.engine.generation.requests import request

TIMEOUT_S = 20.0


@pytest.fixture(params=SUBJECTS)
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    async with SUBJECTS[request.param](tmp_path) as subject:
        await subject.engine.start()
        try:
            yield subject
        finally:
            await subject.engine.aclose()


def long_request(subject: Subject) -> GenerationRequest:
    """A reply that takes a while."""
    return request(subject.long_text, max_new_tokens=LONG)


async def chunks_of(engine: Engine, asked: GenerationRequest) -> list[ReplyChunk]:
    async with asyncio.timeout(TIMEOUT_S):
        return [chunk async for chunk in engine.generate(asked)]


async def text_of(engine: Engine, asked: GenerationRequest) -> str:
    return "".join(chunk.text for chunk in await chunks_of(engine, asked))


async def begin(engine: Engine, asked: GenerationRequest) -> tuple[AsyncIterator[ReplyChunk], ReplyChunk]:
    """A reply that has begun, and its first words."""
    reply = engine.generate(asked)
    async with asyncio.timeout(TIMEOUT_S):
        async for chunk in reply:
            if chunk.text:
                return reply, chunk
    raise AssertionError("there were no words")


async def rest_of(reply: AsyncIterator[ReplyChunk]) -> list[ReplyChunk]:
    async with asyncio.timeout(TIMEOUT_S):
        return [chunk async for chunk in reply]


async def close(reply: AsyncIterator[ReplyChunk]) -> None:
    await reply.aclose()  # type: ignore[attr-defined]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():
            await asyncio.sleep(0.005)


async def test_chunks_join_to_the_reply_and_the_last_one_says_how_it_ended(subject: Subject) -> None:
    chunks = await chunks_of(subject.engine, request("Hi!", max_new_tokens=6))
    *earlier, last = chunks
    assert all(chunk.finish_reason is None and chunk.stats is None for chunk in earlier)
    assert last.finish_reason in (FinishReason.STOP, FinishReason.LENGTH)
    assert last.stats is not None
    assert last.stats.num_new_tokens <= 6
    assert last.stats.num_prompt_tokens > 0
    assert 0 <= last.stats.queue_s <= last.stats.time_to_first_token_s <= last.stats.duration_s
    joined = "".join(chunk.text for chunk in chunks)
    assert joined
    assert joined == await text_of(subject.engine, request("Hi!", max_new_tokens=6))


async def test_a_reply_is_no_longer_than_asked(subject: Subject) -> None:
    (*_, short), (*_, longer) = [
        await chunks_of(subject.engine, request("one two three four five six", max_new_tokens=size)) for size in (2, 5)
    ]
    assert short.finish_reason == longer.finish_reason == FinishReason.LENGTH
    assert short.stats is not None
    assert longer.stats is not None
    assert (short.stats.num_new_tokens, longer.stats.num_new_tokens) == (2, 5)


async def test_nothing_of_a_stop_string_is_shown(subject: Subject) -> None:
    if not subject.heeds_stop:
        pytest.skip("it knows no stop strings")
    whole = await text_of(subject.engine, request("Hi!", max_new_tokens=24))
    middle = len(whole) // 2
    stop = whole[middle : middle + 3]
    *_, last = chunks = await chunks_of(subject.engine, request("Hi!", max_new_tokens=24, stop=(stop,)))
    assert "".join(chunk.text for chunk in chunks) == whole[: whole.index(stop)]
    assert last.finish_reason is FinishReason.STOP


async def test_a_reply_goes_on_where_it_was_cut(subject: Subject) -> None:
    asked = request("Hi!", max_new_tokens=9, temperature=0.0)
    whole = await text_of(subject.engine, asked)
    start = await text_of(subject.engine, request("Hi!", max_new_tokens=3, temperature=0.0))
    assert start
    assert start.isascii()  # tokens of half a character would be other ones when they are read again
    rest = request("Hi!", max_new_tokens=6, temperature=0.0)
    assert start + await text_of(subject.engine, replace(rest, reply_start=start)) == whole


async def test_replies_side_by_side_do_not_mix(subject: Subject) -> None:
    asked = [request(f"My name is {name}.", max_new_tokens=12) for name in ("Ann", "Bob", "Cleo")]
    alone = [await text_of(subject.engine, one) for one in asked]
    together = await asyncio.gather(*(text_of(subject.engine, one) for one in asked))
    assert together == alone
    assert len(set(alone)) == 3


async def test_closing_a_reply_stops_the_work(subject: Subject) -> None:
    reply, _ = await begin(subject.engine, long_request(subject))
    await until(lambda: subject.engine.load().num_running == 1)
    await close(reply)
    await until(lambda: subject.engine.load().num_running == 0)


async def test_cancelling_the_task_stops_the_work(subject: Subject) -> None:
    task = asyncio.create_task(text_of(subject.engine, long_request(subject)))
    await until(lambda: subject.engine.load().num_running == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: subject.engine.load().num_running == 0)


async def test_nothing_to_answer_is_refused(subject: Subject) -> None:
    with pytest.raises(RequestError, match="at least one"):
        await chunks_of(subject.engine, replace(request(), turns=()))


async def test_an_error_is_one_callers_only(subject: Subject) -> None:
    reply, first = await begin(subject.engine, long_request(subject))
    with pytest.raises(EngineError):
        await chunks_of(subject.engine, replace(request(), turns=()))
    *_, last = await rest_of(reply)
    assert first.text
    assert last.finish_reason in (FinishReason.STOP, FinishReason.LENGTH)


async def test_an_unknown_adapter_is_refused_by_name(subject: Subject) -> None:
    if not subject.knows_adapters:
        pytest.skip("it has no weights that an adapter could change")
    with pytest.raises(RequestError, match="nobody-trained-it"):
        await chunks_of(subject.engine, replace(request(), adapter="nobody-trained-it"))


async def test_a_full_queue_says_so_and_leaves_the_others_alone(subject: Subject) -> None:
    if not subject.has_queue:
        pytest.skip("nobody waits for it")
    engine = subject.engine
    tasks = [asyncio.create_task(text_of(engine, long_request(subject))) for _ in range(MAX_RUNNING + 1)]
    await until(lambda: (engine.load().num_running, engine.load().num_waiting) == (MAX_RUNNING, 1))
    with pytest.raises(EngineBusy, match="try again"):
        await chunks_of(engine, request("one too many"))
    assert all(await asyncio.gather(*tasks))


async def test_load_counts(subject: Subject) -> None:
    before = subject.engine.load()
    assert (before.num_running, before.num_waiting, before.num_replies) == (0, 0, 0)
    assert before.device
    for _ in range(2):
        await chunks_of(subject.engine, request("Hi there!", max_new_tokens=3))
    await until(lambda: subject.engine.load().num_replies == 2)
    after = subject.engine.load()
    assert after.num_running == 0
    assert after.num_new_tokens == 6
    assert after.num_prompt_tokens > 0
    assert after.num_failures == 0


async def test_closing_ends_what_runs_and_takes_nothing_new(subject: Subject) -> None:
    reply, _ = await begin(subject.engine, long_request(subject))
    ending = asyncio.create_task(rest_of(reply))
    await asyncio.sleep(0)
    async with asyncio.timeout(TIMEOUT_S):
        await subject.engine.aclose()
        await subject.engine.aclose()
    with contextlib.suppress(EngineError):
        *_, last = await ending
        assert last.finish_reason is FinishReason.CANCELLED
    with pytest.raises(EngineError):
        await chunks_of(subject.engine, request())


async def test_closing_in_good_order_lets_a_reply_end(subject: Subject) -> None:
    reply, _ = await begin(subject.engine, request("one two three four five six seven", max_new_tokens=7))
    ending = asyncio.create_task(rest_of(reply))
    closing = asyncio.create_task(subject.engine.aclose(drain_s=TIMEOUT_S))
    *_, last = await ending
    assert last.finish_reason is FinishReason.LENGTH
    async with asyncio.timeout(TIMEOUT_S):
        await closing


async def test_any_history_is_taken(subject: Subject) -> None:
    turns = (Turn(Role.ASSISTANT, "Ahoy!"), Turn(Role.USER, "Hi."), Turn(Role.USER, "Are you there?"))
    assert await text_of(subject.engine, replace(request(), turns=turns))


async def test_what_is_inserted_comes_along(subject: Subject) -> None:
    inserted = (Insertion("Psst."), Insertion("Hush.", 1), Insertion("I know.", 9, "assistant"), Insertion("", 3))
    asked = replace(request("Hi!", "Ahoy!", "Who?"), insertions=inserted)
    assert await text_of(subject.engine, asked)


async def test_what_is_inserted_is_never_dropped(subject: Subject) -> None:
    if not subject.has_context:
        pytest.skip("there is no context that could be too short")
    with pytest.raises(PromptTooLong):
        await chunks_of(subject.engine, replace(request(), insertions=(Insertion("word " * 3000, 9),)))


async def test_what_texts_cost_is_told_and_not_too_low(subject: Subject) -> None:
    """After a few replies at the latest, from which an engine elsewhere learns."""
    engine, text = subject.engine, "What a fine day it is to sail. " * 12
    for _ in range(3):
        *_, last = await chunks_of(engine, request(text, max_new_tokens=2))
    assert last.stats is not None
    size = engine.context()
    assert size.per_turn >= 0
    if subject.has_context:
        counted = engine.count_tokens(text) + engine.count_tokens(request().system_prompt) + 2 * size.per_turn
        assert last.stats.num_prompt_tokens <= counted + 10  # what asks for the reply is no turn
        assert counted < 3 * last.stats.num_prompt_tokens + 200
    assert engine.count_tokens("") == 0
    assert engine.count_tokens("half a pair \ud83d") > 0


async def test_what_cannot_fit_is_refused(subject: Subject) -> None:
    if not subject.has_context:
        pytest.skip("there is no context that could be too short")
    with pytest.raises(PromptTooLong, match="shorten"):
        await chunks_of(subject.engine, request("word " * 3000))
