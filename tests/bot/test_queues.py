"""Order within a key, none between keys, and nothing left behind."""

import asyncio
from functools import partial

import pytest

from bot.errors import StoreError
from bot.queues import KeyedLocks, KeyedQueues


async def test_jobs_of_a_key_run_in_order_and_keys_side_by_side() -> None:
    queues: KeyedQueues[str] = KeyedQueues(max_inside=8)
    done: list[str] = []
    gate = asyncio.Event()

    async def job(name: str, *, waits: bool = False) -> None:
        if waits:
            await gate.wait()
        done.append(name)

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        tasks.create_task(queues.run("a", partial(job, "a1", waits=True)))
        tasks.create_task(queues.run("a", partial(job, "a2")))
        other = tasks.create_task(queues.run("b", partial(job, "b1")))
        await other
        assert done == ["b1"]
        gate.set()
    assert done == ["b1", "a1", "a2"]
    assert len(queues) == 0


async def test_a_queue_is_full_at_its_bound() -> None:
    queues: KeyedQueues[str] = KeyedQueues(max_inside=2)
    gate = asyncio.Event()

    async def job() -> None:
        await gate.wait()

    async with asyncio.TaskGroup() as tasks:
        for expected in (False, False, True):
            assert queues.is_full("a") is expected
            tasks.create_task(queues.run("a", job))
            await asyncio.sleep(0)
        assert not queues.is_full("b")
        gate.set()
    assert not queues.is_full("a")


async def test_a_job_that_fails_lets_the_next_run() -> None:
    queues: KeyedQueues[str] = KeyedQueues(max_inside=2)

    async def fail() -> None:
        raise LookupError("on purpose")

    async def succeed() -> None:
        pass

    with pytest.raises(LookupError):
        await queues.run("a", fail)
    await queues.run("a", succeed)
    assert len(queues) == 0


async def test_cancelling_the_caller_cancels_the_job() -> None:
    queues: KeyedQueues[str] = KeyedQueues(max_inside=2)
    ended: list[str] = []

    async def job() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("job")

    caller = asyncio.create_task(queues.run("a", job))
    await asyncio.sleep(0.01)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended == ["job"]
    assert len(queues) == 0


async def test_emptying_ends_the_running_job_and_skips_the_waiting() -> None:
    queues: KeyedQueues[str] = KeyedQueues(max_inside=8)
    started: list[int] = []

    async def job(number: int) -> None:
        started.append(number)
        await asyncio.Event().wait()

    callers = [asyncio.create_task(queues.run("a", partial(job, number))) for number in range(3)]
    await asyncio.sleep(0.01)
    await queues.empty("a")
    async with asyncio.timeout(5):
        await asyncio.gather(*callers)  # none raises
    assert started == [0]
    assert len(queues) == 0
    await queues.empty("a")  # nothing to do


async def test_locks_are_given_in_order_and_let_go() -> None:
    locks: KeyedLocks[str] = KeyedLocks()
    order: list[int] = []

    async def visit(number: int) -> None:
        async with locks.hold("a"):
            await asyncio.sleep(0)
            order.append(number)

    await asyncio.gather(*(visit(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4]
    assert len(locks) == 0


@pytest.mark.parametrize(("error", "has_trace"), [(StoreError("the disk is full"), False), (KeyError("a bug"), True)])
async def test_a_job_that_fails_while_it_is_cancelled_is_in_the_log(
    caplog: pytest.LogCaptureFixture, error: Exception, has_trace: bool
) -> None:
    async def job() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise error

    queues: KeyedQueues[str] = KeyedQueues(max_inside=2)
    caller = asyncio.create_task(queues.run("a", job))
    await asyncio.sleep(0.01)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert str(error) in caplog.text
    assert ("Traceback" in caplog.text) is has_trace
