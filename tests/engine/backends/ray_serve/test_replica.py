"""A replica without Ray: what it streams, and how its errors cross."""

import asyncio
import pickle
from pathlib import Path

import pytest

from engine import errors
from engine.backends.ray_serve.replica import (
    BuildEngine,
    EngineReplica,
    Item,
    StartRefused,
    Taken,
    crossing,
    refusal_in,
)
from engine.config import EngineConfig
from engine.errors import DeviceError, EngineError, NotAvailable, PromptTooLong, WeightsError
from engine.types import FinishReason, Image
from tests.engine.backends.ray_serve.engines import ObedientEngine, build_obedient, build_unstartable
from tests.engine.generation.requests import request

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EngineError)]


async def replica_of(build: BuildEngine) -> EngineReplica:
    replica = EngineReplica.__new__(EngineReplica)
    await replica.__init__(EngineConfig(cache_dir=Path("unused")), build)  # type: ignore[misc, func-returns-value]
    return replica


async def all_of(replica: EngineReplica, text: str) -> list[Item]:
    """What it streams, as it arrives elsewhere."""
    return [pickle.loads(pickle.dumps(item)) async for item in replica.generate(request(text, max_new_tokens=99))]


async def test_a_reply_streams_whole() -> None:
    taken, *chunks, last = await all_of(await replica_of(build_obedient), "Hello there")
    assert isinstance(taken, Taken)
    assert "".join(chunk.text for chunk in chunks) == "Nell heard: Hello there"
    assert last.finish_reason is FinishReason.STOP
    assert last.stats is not None


async def test_an_error_arrives_with_its_type_and_words() -> None:
    *_, error = await all_of(await replica_of(build_obedient), "refuse")
    assert type(error) is PromptTooLong
    assert str(error) == "too long by 7 tokens: shorten it"


async def test_a_bug_is_not_dressed_up_as_an_answer() -> None:
    with pytest.raises(KeyError):
        await all_of(await replica_of(build_obedient), "break")


async def test_letting_go_stops_the_engine_at_once() -> None:
    engine = ObedientEngine()
    replica = await replica_of(lambda _: engine)  # type: ignore[arg-type, return-value]
    items = replica.generate(request("count"))
    async for item in items:
        if not isinstance(item, Taken):
            break
    assert engine.num_running == 1
    await items.aclose()  # type: ignore[attr-defined]
    assert engine.num_running == 0


async def test_cancelling_stops_the_engine_at_once() -> None:
    engine = ObedientEngine()
    replica = await replica_of(lambda _: engine)  # type: ignore[arg-type, return-value]
    task = asyncio.create_task(all_of(replica, "count"))
    await asyncio.sleep(0.02)
    assert engine.num_running == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.num_running == 0


async def test_what_is_asked_beside_replies_answers_or_refuses_with_a_value() -> None:
    replica = await replica_of(build_obedient)
    assert type(await replica.ask("describe", Image("ab", b""), question=None)) is NotAvailable
    name, load = await replica.load()
    assert load.device == "cpu"
    assert (await replica.load())[0] == name


async def test_a_dead_engine_is_unhealthy() -> None:
    engine = ObedientEngine()
    replica = await replica_of(lambda _: engine)  # type: ignore[arg-type, return-value]
    await replica.check_health()
    engine.failure = DeviceError("the device is gone")  # type: ignore[attr-defined]
    with pytest.raises(DeviceError, match="gone"):
        await replica.check_health()


async def test_who_cannot_start_says_why() -> None:
    with pytest.raises(StartRefused) as refused:
        await replica_of(build_unstartable)
    quoted = f"Traceback …\n  raise\nStartRefused: {refused.value}\nRetrying"
    error = refusal_in(quoted)
    assert type(error) is WeightsError
    assert str(error) == 'the weights are gone: fetch them with "commedia models fetch"\nor name a folder'


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_error_crosses(kind: type[EngineError]) -> None:
    error = kind("words, “quoted” >> and\nmore")
    error.__cause__ = ValueError(lambda: "not to be pickled")
    arrived = pickle.loads(pickle.dumps(crossing(error)))
    assert (type(arrived), str(arrived)) == (kind, str(error))
    refused = refusal_in(f"a\n{StartRefused.because(error)}\nb")
    assert (type(refused), str(refused)) == (kind, str(error))


@pytest.mark.parametrize(
    "text",
    ["", "no mark", "commedia-refusal:no json", "commedia-refusal:", "commedia-refusal:[1]", "commedia-refusal:1"],
)
def test_other_texts_hold_no_refusal(text: str) -> None:
    assert refusal_in(text) is None


def test_a_refusal_of_an_unknown_kind_is_still_one() -> None:
    error = refusal_in('commedia-refusal:["Strange", "words"] and more')
    assert (type(error), str(error)) == (EngineError, "words")
    assert type(refusal_in('commedia-refusal:["__name__", "words"]')) is EngineError
