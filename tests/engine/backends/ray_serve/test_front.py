"""The bot's side of Ray Serve, over replicas in this process."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.backends.ray_serve import RayEngine, front
from engine.backends.ray_serve.replica import BuildEngine, EngineReplica
from engine.config import EngineConfig
from engine.errors import ConfigurationError, EngineClosing, EngineError, NotAvailable, PromptTooLong, ServerError
from engine.types import Asker, Engine, FinishReason, GenerationRequest, Image, ReplyChunk
from tests.engine.backends.ray_serve.applications import NearbyApplication
from tests.engine.backends.ray_serve.engines import build_obedient, build_unstartable
from tests.engine.generation.requests import request

ROOT = Path(__file__).parent.parent.parent.parent.parent


def ask(text: str, conversation: str = "c") -> GenerationRequest:
    return replace(request(text, max_new_tokens=99), asker=Asker("u", "r", conversation))


class Subject:
    """An engine under test, and the application behind it."""

    def __init__(self, *, build: BuildEngine = build_obedient, **settings: object) -> None:
        self.engine = RayEngine(
            EngineConfig(cache_dir=Path("unused"), backend="ray", **settings),  # type: ignore[arg-type]
            build=build,
            build_application=self._build,
        )

    def _build(self, config: EngineConfig, build: BuildEngine) -> NearbyApplication:
        self.application = NearbyApplication(config, build)
        return self.application

    def num_running(self) -> int:
        return sum(replica._engine.load().num_running for replica in self.application.replicas.values())

    async def until_running(self, number: int) -> None:
        async with asyncio.timeout(20):
            while self.num_running() != number:
                await asyncio.sleep(0.001)

    def say(self, text: str, conversation: str = "c") -> "asyncio.Task[list[ReplyChunk]]":
        return asyncio.create_task(_collect(self.engine, ask(text, conversation)))


async def _collect(engine: Engine, asked: GenerationRequest) -> list[ReplyChunk]:
    return [chunk async for chunk in engine.generate(asked)]


@contextlib.asynccontextmanager
async def running(**settings: object) -> AsyncIterator[Subject]:
    subject = Subject(**settings)  # type: ignore[arg-type]
    await subject.engine.start()
    try:
        yield subject
    finally:
        await subject.engine.aclose()


async def test_a_reply_streams_and_ends_with_its_stats() -> None:
    async with running() as subject:
        *chunks, last = await subject.say("Hello there")
    assert "".join(chunk.text for chunk in chunks) == "Nell heard: Hello there"
    assert len(chunks) > 2
    assert last.finish_reason is FinishReason.STOP
    assert last.stats is not None
    assert last.stats.num_new_tokens == 4
    assert subject.application.answers[0].num_cancelled == 0


async def test_waiting_for_a_replica_counts_as_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "PLACE_INTERVAL_S", 0.02)
    async with running() as subject:
        subject.application.has_room.clear()
        first, second = subject.say("Hi"), subject.say("Ho")
        await asyncio.sleep(0.1)
        assert subject.engine.load().num_waiting == 2
        subject.application.has_room.set()
        told, also_told = await first, await second
        assert subject.engine.load().num_waiting == 0
    assert {chunk.queue.position for chunk in told if chunk.queue} == {1}
    assert {chunk.queue.position for chunk in also_told if chunk.queue} == {2}
    assert told[-1].stats is not None
    assert told[-1].stats.queue_s >= 0.05
    assert told[-1].stats.duration_s >= told[-1].stats.time_to_first_token_s >= told[-1].stats.queue_s


async def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "PLACE_INTERVAL_S", 0.01)
    async with running(max_wait_s=0.05) as subject:
        subject.application.has_room.clear()
        async with asyncio.timeout(20):
            with pytest.raises(ServerError, match="no engine has taken this"):
                await subject.say("Hi")
        assert subject.application.answers[0].num_cancelled == 1
        assert subject.engine.load().num_waiting == 0


async def test_errors_arrive_as_they_were() -> None:
    async with running() as subject:
        with pytest.raises(PromptTooLong, match="too long by 7 tokens: shorten it"):
            await subject.say("refuse")


@pytest.mark.parametrize("cause", [ServerError("gone away"), asyncio.CancelledError()])
async def test_a_lost_replica_is_one_chats_error(cause: BaseException) -> None:
    async with running() as subject:
        lost, other = subject.say("count", "a"), subject.say("count", "b")
        await subject.until_running(2)
        subject.application.answers[0].break_with(cause)
        with pytest.raises(ServerError):
            await lost
        assert not other.done()
        assert (await subject.say("Hi", "a"))[-1].finish_reason is FinishReason.STOP
        other.cancel()


async def test_a_stream_without_an_end_is_an_error() -> None:
    async with running() as subject:
        task = subject.say("count")
        await subject.until_running(1)
        subject.application.answers[0].break_with(StopAsyncIteration())
        with pytest.raises(ServerError, match="broke off"):
            await task


async def test_closing_the_iterator_stops_the_replica() -> None:
    async with running() as subject:
        chunks = subject.engine.generate(ask("count"))
        async for chunk in chunks:
            if chunk.text:
                break
        assert subject.num_running() == 1
        await chunks.aclose()  # type: ignore[attr-defined]
        await subject.until_running(0)


async def test_cancelling_the_task_stops_the_replica() -> None:
    async with running() as subject:
        task = subject.say("count")
        await subject.until_running(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await subject.until_running(0)


@pytest.mark.parametrize("num_passes", range(6))
async def test_cancelling_at_the_moment_when_a_replica_takes_it_stops_the_replica(num_passes: int) -> None:
    async with running() as subject:
        subject.application.has_room.clear()
        task = subject.say("count")
        await asyncio.sleep(0.001)
        subject.application.has_room.set()
        for _ in range(num_passes):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=5)
        assert task.cancelled()
        await subject.until_running(0)


async def test_a_conversation_comes_back_to_its_replica() -> None:
    async with running(num_replicas=(3, 3)) as subject:
        for number in range(12):
            for _ in range(3):
                await subject.say("Hi", f"c{number}")
        served = sorted(replica._engine.load().num_replies for replica in subject.application.replicas.values())
    assert sum(served) == 36
    assert all(number % 3 == 0 for number in served)
    assert served[0] > 0


async def test_loads_are_summed_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "LOAD_INTERVAL_S", 0.01)
    async with running(num_replicas=(2, 2)) as subject:
        tasks = [subject.say("count", f"c{number}") for number in range(4)]
        async with asyncio.timeout(20):
            while subject.engine.load().num_running != 4:
                await asyncio.sleep(0.01)
        assert subject.engine.load().device == "2 x cpu"
        for task in tasks:
            task.cancel()


async def test_a_replica_that_does_not_say_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "LOAD_INTERVAL_S", 0.01)
    async with running() as subject:
        failures = iter([ServerError("no answer")] * 3)
        loads = EngineReplica.load

        async def load(self: EngineReplica) -> object:
            if failure := next(failures, None):
                raise failure
            return await loads(self)

        monkeypatch.setattr(EngineReplica, "load", load)
        await subject.say("Hi")
        async with asyncio.timeout(20):
            while subject.engine.load().num_replies != 1:
                await asyncio.sleep(0.01)


async def test_closing_lets_replies_end_for_a_while() -> None:
    async with running() as subject:
        subject.application.has_room.clear()
        late = subject.say("Hi")
        await asyncio.sleep(0.01)
        closing = asyncio.create_task(subject.engine.aclose(drain_s=5))
        await asyncio.sleep(0.01)
        with pytest.raises(EngineClosing, match="takes nothing new"):
            await subject.say("Too late")
        assert subject.application.num_closed == 0
        subject.application.has_room.set()
        assert (await late)[-1].finish_reason is FinishReason.STOP
        await asyncio.wait_for(closing, 2)
    assert subject.application.num_closed == 1


@pytest.mark.parametrize("drain_s", [0.0, 0.05])
async def test_what_does_not_end_is_ended(drain_s: float) -> None:
    async with running() as subject:
        task = subject.say("count")
        await subject.until_running(1)
        await asyncio.sleep(0.02)
        await subject.engine.aclose(drain_s=drain_s)
        last = (await asyncio.wait_for(task, 1))[-1]
        assert last.finish_reason is FinishReason.CANCELLED
        assert last.stats is not None
        assert last.stats.num_new_tokens > 0
        await subject.until_running(0)
        await subject.engine.aclose()
    assert subject.application.num_closed == 1


async def test_it_starts_once_and_not_after_its_end() -> None:
    async with running() as subject:
        replicas = dict(subject.application.replicas)
        await subject.engine.start()
        assert subject.application.replicas == replicas
        await subject.engine.aclose()
        with pytest.raises(EngineClosing, match="closed"):
            await subject.engine.start()


async def test_a_start_that_fails_says_why_and_can_be_closed() -> None:
    subject = Subject(build=build_unstartable)
    with pytest.raises(Exception, match="the weights are gone"):
        await subject.engine.start()
    with pytest.raises(EngineError, match="not running"):
        await subject.say("Hi")
    await subject.engine.aclose()
    assert subject.application.num_closed == 1


async def test_what_replicas_cannot_see_is_said() -> None:
    image = Image("ab", b"")
    async with running() as subject:
        engine = subject.engine
        for asking in (
            engine.describe(image),
            engine.space(),
            engine.embed_images([image]),
            engine.embed_text("a cat"),
            engine.match("a cat", [image]),
            engine.translate("a cat", language="German"),
            engine.explain(ask("Hi"), "Ho"),
        ):
            with pytest.raises(NotAvailable, match="rehearsal"):
                await asking


async def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    engine = RayEngine(EngineConfig(cache_dir=Path("unused"), backend="ray"))
    with pytest.raises(ConfigurationError, match=r"pip install \"commedia\[ray\]\""):
        await engine.start()
    await engine.aclose()


@pytest.mark.parametrize(
    ("address", "kind", "words"),
    [
        ("127.0.0.1:1", ServerError, "Ray at 127.0.0.1:1 cannot be used"),
        ("nowhere:port", ServerError, "cannot be used"),
        ("ray://head:10001", ConfigurationError, "cannot stream through Ray's client"),
    ],
)
async def test_an_address_that_cannot_work_is_refused_at_once(
    address: str, kind: type[EngineError], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    engine = RayEngine(EngineConfig(cache_dir=Path("unused"), backend="ray"))
    async with asyncio.timeout(8):
        with pytest.raises(kind, match=words):
            await engine.start()
    await engine.aclose()


def test_importing_it_brings_neither_ray_nor_torch() -> None:
    code = "import sys, engine.backends.ray_serve; sys.exit(bool({'ray', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
