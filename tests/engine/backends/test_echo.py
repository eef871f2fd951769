"""The rehearsal backend repeats what it heard."""

import asyncio
from dataclasses import replace

import pytest

from engine.backends.echo import EchoEngine
from engine.errors import EngineClosing, EngineError, NotAvailable, RequestError
from engine.types import FinishReason, GenerationRequest, Image, Role, SamplingSettings, Turn
from tests.fakes.personas import a_persona


def request(
    text: str = "hello  there\nfriend",
    *,
    earlier: tuple[Turn, ...] = (),
    num_pictures: int = 0,
    max_new_tokens: int = 256,
) -> GenerationRequest:
    images = tuple(Image(str(number), b"") for number in range(num_pictures))
    return GenerationRequest(
        a_persona("Luna"),
        "",
        (*earlier, Turn(Role.USER, text, images)),
        SamplingSettings(max_new_tokens=max_new_tokens),
    )


async def test_it_repeats_the_last_turn_word_by_word() -> None:
    engine = EchoEngine()
    await engine.start()
    chunks = [chunk async for chunk in engine.generate(request())]
    assert [chunk.text for chunk in chunks] == ["Luna", " heard:", " hello", "  there", "\nfriend", ""]
    assert chunks[-1].finish_reason is FinishReason.STOP
    assert chunks[-1].stats is not None
    assert chunks[-1].stats.num_new_tokens == 5


@pytest.mark.parametrize(
    ("num_pictures", "words"), [(0, "heard:"), (1, "heard (1 picture):"), (3, "heard (3 pictures):")]
)
async def test_it_counts_pictures(num_pictures: int, words: str) -> None:
    text = "".join([chunk.text async for chunk in EchoEngine().generate(request("x", num_pictures=num_pictures))])
    assert text == f"Luna {words} x"


async def test_it_counts_what_came_before() -> None:
    turns = (Turn(Role.USER, "earlier"), Turn(Role.ASSISTANT, "yes"))
    text = "".join([chunk.text async for chunk in EchoEngine().generate(request("x", earlier=turns, num_pictures=1))])
    assert text == "Luna heard (1 picture, 2 earlier turns): x"


async def test_it_keeps_to_the_length() -> None:
    chunks = [chunk async for chunk in EchoEngine().generate(request(max_new_tokens=3))]
    assert "".join(chunk.text for chunk in chunks) == "Luna heard: hello"
    assert chunks[-1].finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize(
    ("start", "rest"),
    [
        ("Luna heard:", " hello  there\nfriend"),
        ("Luna heard: hel", "lo  there\nfriend"),
        ("Luna heard: hello  there\nfriend", ""),
        ("I say:", " Luna heard: hello  there\nfriend"),
        ("I say: ", "Luna heard: hello  there\nfriend"),
    ],
)
async def test_it_goes_on_where_it_was_cut(start: str, rest: str) -> None:
    *_, last = chunks = [c async for c in EchoEngine().generate(replace(request(), reply_start=start))]
    assert "".join(chunk.text for chunk in chunks) == rest
    assert last.finish_reason is FinishReason.STOP


async def test_it_takes_its_time() -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    assert [chunk async for chunk in EchoEngine(seconds_per_word=0.02).generate(request())]
    assert loop.time() - started >= 0.1


async def test_closing_it_ends_running_replies() -> None:
    engine = EchoEngine()
    chunks = engine.generate(request())
    await anext(chunks)
    await engine.aclose()
    with pytest.raises(EngineError, match="closed"):
        await anext(chunks)
    await engine.aclose()


async def test_it_drains_before_it_closes() -> None:
    engine = EchoEngine(seconds_per_word=0.01)
    chunks = engine.generate(request())
    first = await anext(chunks)
    closing = asyncio.create_task(engine.aclose(drain_s=5))
    rest = [chunk async for chunk in chunks]
    assert (first.text + "".join(chunk.text for chunk in rest)).endswith("friend")
    async with asyncio.timeout(1):
        await closing
    with pytest.raises(EngineClosing, match="closing"):
        await anext(engine.generate(request()))
    await engine.start()
    assert await anext(engine.generate(request()))


async def test_it_says_how_busy_it_is() -> None:
    engine = EchoEngine()
    chunks = engine.generate(request())
    await anext(chunks)
    assert (engine.load().num_running, engine.load().num_replies) == (1, 0)
    assert [chunk async for chunk in chunks]
    load = engine.load()
    assert (load.num_running, load.num_waiting, load.num_replies) == (0, 0, 1)
    assert load.num_new_tokens > 3


async def test_nothing_to_answer_is_refused() -> None:
    with pytest.raises(RequestError):
        await anext(EchoEngine().generate(GenerationRequest(a_persona("Luna"), "", ())))


async def test_there_is_nothing_to_see_with() -> None:
    engine, picture = EchoEngine(), Image("x" * 64, b"")
    for asked in (
        engine.describe(picture),
        engine.space(),
        engine.embed_images([picture]),
        engine.embed_text("a dog"),
        engine.match("a dog", [picture]),
        engine.translate("a dog", language="German"),
        engine.explain(request(), "a dog"),
    ):
        with pytest.raises(NotAvailable, match="rehearsal"):
            await asked
