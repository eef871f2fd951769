"""Jobs beside replies: done in pieces on the engine's thread, bounded, cancelled and told when they fail."""

import asyncio
import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from engine import jobs as jobs_module
from engine import service as service_module
from engine.errors import EngineBusy, EngineError, NotAvailable
from engine.seeing.work import Pieces, finish
from tests.engine.generation.requests import request
from tests.engine.test_service import CountingLoop, collect, running


def endless(log: list[str] | None = None) -> Callable[[Any], Pieces[None]]:
    def begin(_loop: Any) -> Pieces[None]:
        try:
            while True:
                yield
        finally:
            if log is not None:
                log.append("closed")

    return begin


def counting(num_pieces: int, seen: list[int], loop_of: list[CountingLoop]) -> Callable[[Any], Pieces[int]]:
    def begin(loop: Any) -> Pieces[int]:
        loop_of.append(loop)
        for _ in range(num_pieces):
            seen.append(threading.get_ident())
            yield
        return num_pieces

    return begin


async def test_a_job_is_done_on_the_thread_with_what_is_loaded() -> None:
    loop, seen, given = CountingLoop(), list[int](), list[CountingLoop]()
    async with running(lambda *_: loop) as service:
        assert await service._do(counting(3, seen, given)) == 3
    assert given == [loop]
    assert len(seen) == 3
    assert threading.get_ident() not in seen


async def test_replies_go_on_beside_a_job_step_by_piece() -> None:
    class Watched(CountingLoop):
        num_steps = 0

        def step(self) -> None:
            super().step()
            Watched.num_steps += 1

    seen: list[int] = []

    def begin(_loop: Any) -> Pieces[int]:
        for _ in range(20):
            seen.append(Watched.num_steps)
            yield
        return 1

    async with running(lambda *_: Watched()) as service:
        reply = asyncio.create_task(collect(service, request(max_new_tokens=400)))
        await asyncio.sleep(0.02)
        await service._do(begin)
        assert not reply.done()
        assert await reply
    gaps = [after - before for before, after in itertools.pairwise(seen)]
    assert gaps == [1] * 19, "one step of the replies between two pieces"


async def test_cancelling_the_task_ends_its_job() -> None:
    log: list[str] = []
    async with running() as service:
        task = asyncio.create_task(service._do(endless(log)))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(5):
            while not log:
                await asyncio.sleep(0.001)
        assert service._thread is not None
        assert not len(service._thread._jobs)


@pytest.mark.parametrize("error", [NotAvailable("no eyes"), ZeroDivisionError("a bug")])
async def test_a_failure_is_told_to_its_caller_alone(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    def begin(_loop: Any) -> Pieces[None]:
        yield
        raise error

    async with running() as service:
        with pytest.raises(EngineError) as caught:
            await service._do(begin)
        assert await collect(service, request(max_new_tokens=2))
        assert await service._do(counting(1, [], [])) == 1
    if isinstance(error, EngineError):
        assert caught.value is error
    else:
        assert "ZeroDivisionError" in str(caught.value)
        assert "a bug" in caplog.text


async def test_a_long_job_does_not_hold_up_short_ones() -> None:
    async with running() as service:
        long = asyncio.create_task(service._do(endless()))
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            assert await asyncio.gather(*(service._do(counting(2, [], [])) for _ in range(5))) == [2] * 5
        assert not long.done()
        long.cancel()


async def test_few_jobs_are_begun_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "MAX_JOBS_AT_ONCE", 2)
    begun: list[int] = []

    def numbered(number: int) -> Callable[[Any], Pieces[None]]:
        def begin(_loop: Any) -> Pieces[None]:
            begun.append(number)
            while True:
                yield

        return begin

    async with running() as service:
        tasks = [asyncio.create_task(service._do(numbered(number))) for number in range(4)]
        await asyncio.sleep(0.05)
        assert begun == [0, 1]
        tasks[0].cancel()
        await asyncio.sleep(0.05)
        assert begun == [0, 1, 2]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_too_many_jobs_are_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "MAX_WAITING_JOBS", 2)
    async with running() as service:
        tasks = [asyncio.create_task(service._do(endless())) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(EngineBusy, match="try again"):
            await service._do(endless())
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert await service._do(counting(1, [], [])) == 1


async def test_whoever_waits_for_a_job_hears_of_the_end() -> None:
    async with running() as service:
        waiting = [asyncio.create_task(service._do(endless())) for _ in range(3)]
        await asyncio.sleep(0.02)
        await service.aclose()
        async with asyncio.timeout(5):
            results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(result, EngineError) and "was closed" in str(result) for result in results)
        with pytest.raises(EngineError, match="closing"):
            await service._do(endless())


async def test_whoever_waits_for_a_job_hears_of_a_dying_thread() -> None:
    async with running() as service:
        waiting = asyncio.create_task(service._do(endless()))
        await asyncio.sleep(0.02)
        with pytest.raises(EngineError):
            await collect(service, request(system_prompt="die"))
        async with asyncio.timeout(5):
            with pytest.raises(EngineError, match="has stopped"):
                await waiting


def test_all_pieces_at_once_give_the_result() -> None:
    assert finish(counting(4, [], [])(CountingLoop())) == 4
