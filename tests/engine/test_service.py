"""The façade: streaming, closing, failing and ending, over a small loop that computes nothing and one real one."""

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine import service as service_module
from engine.config import EngineConfig
from engine.errors import AskerBusy, DeviceError, EngineBusy, EngineClosing, EngineError, WeightsError
from engine.generation.sequence import Sequence
from engine.models.fetch import Report
from engine.service import EngineService
from engine.thread import Close
from engine.tokens import EstimatedTokens
from engine.types import Asker, EngineLoad, FinishReason, GenerationRequest, ReplyChunk, TokenMeasure
from tests.engine.generation.requests import request
from tests.engine.tiny import save_tiny

ROOT = Path(__file__).parent.parent.parent


class CountingLoop:
    """Counts up in each reply until told otherwise. A system prompt of "die" kills the thread, "error" fails one."""

    def __init__(self, *, step_s: float = 0.0005) -> None:
        self.sequences: list[Sequence] = []
        self.step_s = step_s
        self.thread = threading.get_ident()

    @property
    def has_work(self) -> bool:
        return bool(self.sequences)

    def measure(self) -> TokenMeasure:
        return EstimatedTokens()

    def add(self, sequence: Sequence) -> None:
        self.sequences.append(sequence)

    def step(self) -> None:
        time.sleep(self.step_s)
        for sequence in list(self.sequences):
            if sequence.is_cancelled:
                self.sequences.remove(sequence)
            elif sequence.request.system_prompt == "die":
                raise RuntimeError("the device is gone")
            elif sequence.request.system_prompt == "error":
                self.sequences.remove(sequence)
                sequence.emit(EngineError("no"))
            else:
                self.count(sequence)

    def count(self, sequence: Sequence) -> None:
        sequence.num_new_tokens += 1
        if sequence.num_new_tokens == sequence.request.sampling.max_new_tokens:
            self.sequences.remove(sequence)
            sequence.finish(FinishReason.LENGTH, "end", now=time.monotonic())
        else:
            sequence.emit(ReplyChunk(f"{sequence.num_new_tokens} "))

    def load(self) -> EngineLoad:
        return EngineLoad(num_running=len(self.sequences), device="fingers")

    def cancel_all(self) -> None:
        while self.sequences:
            self.sequences.pop().finish(FinishReason.CANCELLED, "", now=time.monotonic())

    def fail_all(self, error: EngineError) -> None:
        while self.sequences:
            self.sequences.pop().emit(error)


def config(**settings: object) -> EngineConfig:
    return EngineConfig(cache_dir=Path("unused"), **settings)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def running(
    build: Callable[[EngineConfig, Report | None], CountingLoop] | None = None, **settings: object
) -> AsyncIterator[EngineService]:
    service = EngineService(config(**settings), build_loop=build or (lambda *_: CountingLoop()))
    await service.start()
    try:
        yield service
    finally:
        await service.aclose()


async def collect(service: EngineService, asked: GenerationRequest) -> str:
    return "".join([chunk.text async for chunk in service.generate(asked)])


async def test_a_reply_streams_in_order() -> None:
    async with running() as service:
        chunks = [chunk async for chunk in service.generate(request(max_new_tokens=4))]
    assert [chunk.text for chunk in chunks] == ["1 ", "2 ", "3 ", "end"]
    assert [chunk.finish_reason for chunk in chunks] == [None, None, None, FinishReason.LENGTH]
    assert chunks[-1].stats is not None


async def test_replies_run_side_by_side() -> None:
    async with running() as service:
        replies = await asyncio.gather(*(collect(service, request(max_new_tokens=n)) for n in (2, 30, 3)))
    assert [len(reply.split()) for reply in replies] == [2, 30, 3]


async def test_loading_and_steps_happen_on_one_thread_of_their_own() -> None:
    loops: list[CountingLoop] = []
    stepping: set[int] = set()

    class Watched(CountingLoop):
        def step(self) -> None:
            stepping.add(threading.get_ident())
            super().step()

    def build(*_: object) -> CountingLoop:
        loops.append(Watched())
        return loops[0]

    async with running(build) as service:
        await collect(service, request(max_new_tokens=3))
    assert stepping == {loops[0].thread}
    assert loops[0].thread != threading.get_ident()


async def test_closing_the_iterator_stops_the_generation() -> None:
    loop = CountingLoop()
    async with running(lambda *_: loop) as service:
        replies = service.generate(request(max_new_tokens=10**9))
        async for _ in replies:
            break
        await replies.aclose()  # type: ignore[attr-defined]
        async with asyncio.timeout(5):
            while loop.has_work:
                await asyncio.sleep(0.001)


async def test_cancelling_the_task_stops_the_generation() -> None:
    loop = CountingLoop()
    async with running(lambda *_: loop) as service:
        task = asyncio.create_task(collect(service, request(max_new_tokens=10**9)))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(5):
            while loop.has_work:
                await asyncio.sleep(0.001)


async def test_one_failure_is_one_callers() -> None:
    async with running() as service:
        good = asyncio.create_task(collect(service, request(max_new_tokens=20)))
        with pytest.raises(EngineError, match="no"):
            await collect(service, request(system_prompt="error"))
        assert (await good).endswith("end")


async def test_a_request_that_cannot_be_taken_is_told_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    class Choosy(CountingLoop):
        def add(self, sequence: Sequence) -> None:
            if sequence.request.system_prompt == "odd":
                raise OverflowError("what a request")
            super().add(sequence)

    async with running(lambda *_: Choosy()) as service:
        with pytest.raises(EngineError, match=r"cannot take this request.*OverflowError"):
            await asyncio.wait_for(collect(service, request(system_prompt="odd")), 5)
        assert await collect(service, request(max_new_tokens=2)) == "1 end"
        assert service.load().num_waiting == 0
    assert "what a request" in caplog.text


async def test_a_dying_thread_fails_everybody_then_and_later() -> None:
    async with running() as service:
        waiting = [asyncio.create_task(collect(service, request(max_new_tokens=10**9))) for _ in range(3)]
        await asyncio.sleep(0.01)
        waiting.append(asyncio.create_task(collect(service, request(system_prompt="die"))))
        async with asyncio.timeout(5):
            results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(
            isinstance(result, EngineError) and "has stopped (RuntimeError)" in str(result) for result in results
        )
        with pytest.raises(EngineError, match="has stopped"):
            await collect(service, request())


async def test_a_failed_start_says_why_and_stays_failed() -> None:
    def build(*_: object) -> CountingLoop:
        raise WeightsError("put the file there")

    service = EngineService(config(), build_loop=build)
    for _ in range(2):
        with pytest.raises(WeightsError, match="put the file there"):
            await service.start()
    with pytest.raises(WeightsError, match="put the file there"):
        await collect(service, request())
    await service.aclose()


@pytest.mark.parametrize("has_failed", [True, False])
async def test_who_asks_while_it_loads_is_told_when_nothing_comes_of_it(has_failed: bool) -> None:
    go = threading.Event()

    def build(*_: object) -> CountingLoop:
        go.wait(5)
        if has_failed:
            raise WeightsError("put the file there")
        return CountingLoop()

    service = EngineService(config(), build_loop=build)
    starting = asyncio.create_task(service.start())
    await asyncio.sleep(0)
    early = asyncio.create_task(collect(service, request(max_new_tokens=10**9)))
    await asyncio.sleep(0)
    closing = asyncio.create_task(service.aclose())
    await asyncio.sleep(0)
    go.set()
    async with asyncio.timeout(5):
        results = await asyncio.gather(starting, early, closing, return_exceptions=True)
    if has_failed:
        assert [type(result) for result in results] == [WeightsError, WeightsError, type(None)]
    else:
        assert results == [None, "", None]


async def test_who_asks_in_the_moment_of_the_end_is_told() -> None:
    class Late(CountingLoop):
        """Gets one more request while it ends."""

        def cancel_all(self) -> None:
            super().cancel_all()
            assert service._thread is not None
            service._thread.post(late)

    told: list[object] = []
    late = Sequence(request(), told.append, time.monotonic())
    service = EngineService(config(), build_loop=lambda *_: Late())
    await service.start()
    await service.aclose()
    (answer,) = told
    assert isinstance(answer, ReplyChunk)
    assert answer.finish_reason is FinishReason.CANCELLED


async def test_beyond_the_queue_callers_are_sent_away() -> None:
    loop = CountingLoop()
    async with running(lambda *_: loop, max_waiting=2, max_running=3) as service:
        tasks = [asyncio.create_task(collect(service, request(max_new_tokens=10**9))) for _ in range(5)]
        await asyncio.sleep(0.02)
        with pytest.raises(EngineBusy, match="max_waiting"):
            await collect(service, request())
        tasks[0].cancel()
        await asyncio.wait([tasks[0]])
        assert await collect(service, request(max_new_tokens=1)) == "end"
        for task in tasks:
            task.cancel()


async def test_ending_lets_running_replies_end_and_refuses_new_ones() -> None:
    async with running() as service:
        tasks = [asyncio.create_task(collect(service, request(max_new_tokens=10**9))) for _ in range(3)]
        await asyncio.sleep(0.02)
        await service.aclose()
        async with asyncio.timeout(5):
            replies = await asyncio.gather(*tasks)
        assert all(reply.startswith("1 2 ") for reply in replies)
        await service.aclose()
        with pytest.raises(EngineClosing, match="takes nothing new"):
            await collect(service, request())


async def test_one_person_may_ask_for_so_many_at_once() -> None:
    def of(user: str | None, **options: int) -> GenerationRequest:
        asker = Asker(user, "club") if user is not None else None
        return replace(request(**{"max_new_tokens": 10**9, **options}), asker=asker)

    async with running(max_waiting_per_user=2) as service:
        tasks = [asyncio.create_task(collect(service, of("ana"))) for _ in range(2)]
        tasks += [asyncio.create_task(collect(service, of(None))) for _ in range(3)]
        await asyncio.sleep(0.02)
        with pytest.raises(AskerBusy, match="max_waiting_per_user"):
            await collect(service, of("ana"))
        assert await collect(service, of("ben", max_new_tokens=1)) == "end"
        assert await collect(service, of(None, max_new_tokens=1)) == "end", "these are nobody's in particular"
        tasks[0].cancel()
        await asyncio.wait([tasks[0]])
        assert await collect(service, of("ana", max_new_tokens=1)) == "end"
        for task in tasks:
            task.cancel()


# --- how busy it is


async def test_the_load_is_the_loops_and_counts_those_on_their_way() -> None:
    go = threading.Event()

    class Slow(CountingLoop):
        def step(self) -> None:
            go.wait(5)
            super().step()

    service = EngineService(config(), build_loop=lambda *_: Slow())
    assert service.load() == EngineLoad()
    await service.start()
    assert service.load() == EngineLoad(device="fingers")
    tasks = [asyncio.create_task(collect(service, request(max_new_tokens=3)))]
    await asyncio.sleep(0.05)
    tasks += [asyncio.create_task(collect(service, request(max_new_tokens=3))) for _ in range(2)]
    await asyncio.sleep(0)
    assert (service.load().num_running, service.load().num_waiting) == (1, 2)
    go.set()
    await asyncio.gather(*tasks)
    async with asyncio.timeout(5):
        while service.load() != EngineLoad(device="fingers"):
            await asyncio.sleep(0.001)
    await service.aclose()


# --- draining


async def test_draining_lets_everybody_end_and_nobody_begin() -> None:
    async with running() as service:
        tasks = [asyncio.create_task(collect(service, request(max_new_tokens=n))) for n in (20, 60)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(service.aclose(drain_s=10))
        await asyncio.sleep(0)
        with pytest.raises(EngineClosing, match="takes nothing new"):
            await collect(service, request())
        async with asyncio.timeout(5):
            replies = await asyncio.gather(*tasks)
            await closing
        assert [len(reply.split()) for reply in replies] == [20, 60]


async def test_what_has_not_ended_by_then_is_broken_off() -> None:
    async with running() as service:
        task = asyncio.create_task(collect(service, request(max_new_tokens=10**9)))
        await asyncio.sleep(0.02)
        started = time.monotonic()
        async with asyncio.timeout(5):
            await service.aclose(drain_s=0.1)
            assert not (await task).endswith("end")
        assert time.monotonic() - started >= 0.1


async def test_closing_again_at_once_cuts_the_draining_short() -> None:
    async with running() as service:
        task = asyncio.create_task(collect(service, request(max_new_tokens=10**9)))
        await asyncio.sleep(0.02)
        draining = asyncio.create_task(service.aclose(drain_s=60))
        await asyncio.sleep(0.02)
        async with asyncio.timeout(5):
            await service.aclose()
            await task
            await draining


async def test_giving_up_on_draining_still_ends_the_thread() -> None:
    service = EngineService(config(), build_loop=lambda *_: CountingLoop())
    await service.start()
    task = asyncio.create_task(collect(service, request(max_new_tokens=10**9)))
    await asyncio.sleep(0.02)
    draining = asyncio.create_task(service.aclose(drain_s=60))
    await asyncio.sleep(0.02)
    draining.cancel()
    async with asyncio.timeout(5):
        await task
    assert service._thread is not None
    assert await asyncio.to_thread(service._thread.join, 5)


# --- a device that hangs


class Stubborn(CountingLoop):
    """Stays in its step as long as a request with the system prompt "hang" has not been let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()

    def step(self) -> None:
        if any(sequence.request.system_prompt == "hang" for sequence in self.sequences):
            self.let_go.wait(10)
        super().step()


async def test_a_device_that_hangs_is_noticed_and_everybody_is_told(caplog: pytest.LogCaptureFixture) -> None:
    loop = Stubborn()
    async with running(lambda *_: loop, max_step_s=0.1) as service:
        waiting = [asyncio.create_task(collect(service, request(system_prompt=prompt))) for prompt in ("hang", "go")]
        waiting.append(asyncio.create_task(service.space()))
        async with asyncio.timeout(5):
            results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [DeviceError] * 3
        assert "max_step_s" in str(results[0])
        for _ in range(2):
            with pytest.raises(DeviceError, match="hang"):
                await collect(service, request())
        await asyncio.sleep(0.2)
        assert [record.levelname for record in caplog.records] == ["CRITICAL"], "it is said once"
        loop.let_go.set()


async def test_a_device_that_comes_back_serves_again(caplog: pytest.LogCaptureFixture) -> None:
    loop = Stubborn()
    async with running(lambda *_: loop, max_step_s=0.3) as service:
        with pytest.raises(DeviceError):
            await collect(service, request(system_prompt="hang"))
        loop.let_go.set()
        async with asyncio.timeout(5):
            while service._hang is not None:
                await asyncio.sleep(0.01)
            assert (await collect(service, request(max_new_tokens=2))).endswith("end")
            while loop.has_work:
                await asyncio.sleep(0.01)
        assert "answers again" in caplog.text


async def test_a_device_that_hangs_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "CLOSE_TIMEOUT_WHEN_STUCK_S", 0.05)
    loop = Stubborn()
    service = EngineService(config(max_step_s=0.1), build_loop=lambda *_: loop)
    await service.start()
    with pytest.raises(DeviceError):
        await collect(service, request(system_prompt="hang"))
    async with asyncio.timeout(2):
        await service.aclose(drain_s=30)
    loop.let_go.set()


async def test_many_short_steps_are_no_hang() -> None:
    async with running(lambda *_: CountingLoop(step_s=0.02), max_step_s=0.5) as service:
        assert await collect(service, request(max_new_tokens=40))


async def test_slow_loading_is_remarked_on_and_no_hang(caplog: pytest.LogCaptureFixture) -> None:
    def build(*_: object) -> CountingLoop:
        time.sleep(0.3)
        return CountingLoop()

    async with running(build, max_step_s=0.1) as service:
        assert await collect(service, request(max_new_tokens=2))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "loading" in caplog.text


async def test_closing_while_it_loads_does_not_wait_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "CLOSE_TIMEOUT_WHEN_STUCK_S", 0.05)
    go = threading.Event()

    def build(*_: object) -> CountingLoop:
        go.wait(10)
        return CountingLoop()

    service = EngineService(config(), build_loop=build)
    starting = asyncio.create_task(service.start())
    await asyncio.sleep(0)
    early = asyncio.create_task(collect(service, request()))
    await asyncio.sleep(0)
    async with asyncio.timeout(2):
        await service.aclose()
        results = await asyncio.gather(starting, early, return_exceptions=True)
    assert all(isinstance(result, EngineError) and "was closed" in str(result) for result in results)
    go.set()
    assert service._thread is not None
    assert await asyncio.to_thread(service._thread.join, 5)


async def test_before_the_start_there_is_nothing_to_ask_or_close() -> None:
    service = EngineService(config())
    with pytest.raises(EngineError, match="not running"):
        await collect(service, request())
    await service.aclose()


async def test_a_caller_that_left_its_event_loop_breaks_nothing() -> None:
    async def leave() -> EngineService:
        service = EngineService(config(), build_loop=lambda *_: CountingLoop())
        await service.start()
        replies = service.generate(request(max_new_tokens=10**9))
        await anext(replies)  # type: ignore[call-overload]
        return service

    service = await asyncio.to_thread(lambda: asyncio.run(leave()))
    thread = service._thread
    assert thread is not None
    thread.post(Close())
    assert await asyncio.to_thread(thread.join, 5)


async def test_a_real_backbone_answers_through_the_whole_service(tmp_path: Path) -> None:
    settings = EngineConfig(
        cache_dir=tmp_path / "cache", decoder=str(save_tiny(tmp_path / "tiny")), dtype="float32", fusion="none"
    )
    service = EngineService(settings)
    await service.start()
    try:
        one, again = await asyncio.gather(*(collect(service, request(max_new_tokens=20, seed=3)) for _ in range(2)))
    finally:
        await service.aclose()
    assert one == again
    assert one


def test_importing_the_service_brings_no_torch() -> None:
    code = "import sys, engine.service; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0
