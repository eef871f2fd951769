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


# --- taking turns, and taking back


class Jobs:
    """Jobs of one key: what ran, in which order, and whether each says that it ran to its end."""

    def __init__(self, *, max_inside: int = 100) -> None:
        self.queues: KeyedQueues[str] = KeyedQueues(max_inside=max_inside)
        self.gates: dict[str, asyncio.Event] = {}
        self.started: list[str] = []
        self.ended: list[str] = []
        self.callers: dict[str, asyncio.Task[bool]] = {}

    async def add(self, *names: str) -> None:
        """A job a name, whose person is its first letter."""
        for name in names:
            self.gates[name] = asyncio.Event()
            job = partial(self._work, name)
            self.callers[name] = asyncio.create_task(self.queues.run("key", job, tag=name, person=name[0]))
            await asyncio.sleep(0)

    async def _work(self, name: str) -> None:
        self.started.append(name)
        try:
            await self.gates[name].wait()
        finally:
            self.ended.append(name)

    async def finish(self) -> dict[str, bool]:
        for gate in self.gates.values():
            gate.set()
        async with asyncio.timeout(5):
            return dict(zip(self.callers, await asyncio.gather(*self.callers.values()), strict=True))


async def test_people_take_turns_and_keep_their_own_order() -> None:
    jobs = Jobs()
    await jobs.add("a1", "a2", "a3", "b1", "b2", "c1")
    assert jobs.queues.waiting("key") == ("a2", "a3", "b1", "b2", "c1")
    assert all((await jobs.finish()).values())
    assert jobs.started == ["a1", "a2", "b1", "c1", "a3", "b2"]
    assert len(jobs.queues) == 0


async def test_whoever_comes_again_goes_behind_the_others() -> None:
    jobs = Jobs()
    await jobs.add("a1", "b1", "c1", "a2", "b2", "d1")
    await jobs.finish()
    assert jobs.started == ["a1", "b1", "c1", "a2", "d1", "b2"]


async def test_one_person_alone_may_have_all_places_and_beside_others_half() -> None:
    jobs = Jobs(max_inside=4)
    await jobs.add("a1")
    assert not jobs.queues.is_full("key", "a")
    await jobs.add("b1", "a2")
    assert jobs.queues.is_full("key", "a")
    assert not jobs.queues.is_full("key", "b")
    await jobs.add("b2")
    assert jobs.queues.is_full("key", "b")
    assert jobs.queues.is_full("key", "c")
    await jobs.finish()


async def test_whoever_took_all_places_takes_none_from_others() -> None:
    jobs = Jobs(max_inside=4)
    await jobs.add("a1", "a2", "a3")
    assert not jobs.queues.is_full("key", "a")
    await jobs.add("a4")
    assert jobs.queues.is_full("key", "a")
    for name in ("b1", "c1"):
        assert not jobs.queues.is_full("key", name[0])
        await jobs.add(name)
    for person in "abcd":
        assert jobs.queues.is_full("key", person), "and there is an end to it"
    await jobs.finish()


async def test_everybody_may_have_one_place_of_very_few() -> None:
    jobs = Jobs(max_inside=1)
    assert not jobs.queues.is_full("key", "a")
    await jobs.add("a1")
    assert jobs.queues.is_full("key", "a")
    assert jobs.queues.is_full("key", "b")
    await jobs.finish()


async def test_a_waiting_job_is_dropped() -> None:
    jobs = Jobs()
    await jobs.add("a1", "a2", "b1")
    assert await jobs.queues.cancel("key", "a2")
    assert jobs.queues.waiting("key") == ("b1",)
    assert await jobs.finish() == {"a1": True, "a2": False, "b1": True}
    assert jobs.started == ["a1", "b1"]
    assert len(jobs.queues) == 0


async def test_a_running_job_is_cancelled_and_has_ended_then() -> None:
    jobs = Jobs()
    await jobs.add("a1", "a2")
    assert await jobs.queues.cancel("key", "a1")
    assert jobs.ended == ["a1"]
    assert await jobs.finish() == {"a1": False, "a2": True}


async def test_only_the_running_job_is_cancelled() -> None:
    jobs = Jobs()
    await jobs.add("a1", "a2")
    assert await jobs.queues.cancel_running("key")
    assert jobs.ended == ["a1"]
    assert await jobs.finish() == {"a1": False, "a2": True}
    assert not await jobs.queues.cancel_running("key")


async def test_there_may_be_nothing_to_take_back() -> None:
    jobs = Jobs()
    assert not await jobs.queues.cancel("key", "a1")
    await jobs.add("a1")
    assert not await jobs.queues.cancel("key", "other")
    assert jobs.queues.waiting("key") == ()
    assert jobs.queues.waiting("no such key") == ()
    assert await jobs.finish() == {"a1": True}


async def test_a_job_that_is_taken_back_in_the_moment_of_its_turn_does_not_run() -> None:
    jobs = Jobs()
    await jobs.add("a1", "a2", "a3")
    jobs.gates["a1"].set()
    while jobs.queues.waiting("key") != ("a3",):
        await asyncio.sleep(0)
    assert jobs.started == ["a1"], "a2 has its turn, and has not begun"
    assert await jobs.queues.cancel("key", "a2")
    assert await jobs.finish() == {"a1": True, "a2": False, "a3": True}


async def test_whoever_stops_waiting_leaves_the_queue() -> None:
    jobs = Jobs()
    await jobs.add("a1", "a2", "a3")
    jobs.callers.pop("a2").cancel()
    await asyncio.sleep(0)
    assert jobs.queues.waiting("key") == ("a3",)
    assert all((await jobs.finish()).values())
    assert jobs.started == ["a1", "a3"]


async def test_whoever_was_cancelled_in_the_moment_of_the_turn_holds_up_nobody() -> None:
    jobs = Jobs()
    await jobs.add("a1", "a2", "a3")
    jobs.gates["a1"].set()
    while jobs.queues.waiting("key") != ("a3",):
        await asyncio.sleep(0)
    jobs.callers.pop("a2").cancel()
    assert all((await jobs.finish()).values())
    assert jobs.started == ["a1", "a3"]
    assert len(jobs.queues) == 0


async def test_a_job_may_be_dropped_whose_caller_was_just_cancelled() -> None:
    jobs = Jobs()
    await jobs.add("a1", "a2", "a3")
    jobs.callers.pop("a2").cancel()
    assert await jobs.queues.cancel("key", "a2")
    assert all((await jobs.finish()).values())
    assert jobs.started == ["a1", "a3"]


async def test_a_job_may_empty_its_own_queue() -> None:
    queues: KeyedQueues[str] = KeyedQueues(max_inside=8)
    done: list[str] = []

    async def clear() -> None:
        await asyncio.sleep(0)
        await queues.empty("a")
        done.append("cleared")

    async def never() -> None:
        done.append("never")

    async with asyncio.timeout(5):
        ran = await asyncio.gather(queues.run("a", clear), queues.run("a", never))
    assert ran == [True, False]
    assert done == ["cleared"]
    assert len(queues) == 0


async def test_a_job_that_comes_while_the_queue_is_emptied_waits_for_the_running_ones_end() -> None:
    queues: KeyedQueues[str] = KeyedQueues(max_inside=8)
    order: list[str] = []

    async def slow_to_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            order.append("ended")

    async def late() -> None:
        order.append("late")

    first = asyncio.create_task(queues.run("a", slow_to_end))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    emptied = asyncio.create_task(queues.empty("a"))
    await asyncio.sleep(0)
    assert await queues.run("a", late)
    await asyncio.gather(first, emptied)
    assert order == ["ended", "late"]
