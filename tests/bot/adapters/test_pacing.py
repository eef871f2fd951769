"""Calls at a platform's pace: in order, never too many, and nobody held up by somebody else's chat."""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.adapters.pacing import Pacer, Rate


@dataclass(order=True)
class Alarm:
    when: float
    number: int
    callback: Callable[[], None] = field(compare=False)
    is_off: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.is_off = True


class HandClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0
        self.num_rung = 0
        self._alarms: list[Alarm] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None], /) -> Alarm:
        alarm = Alarm(when, next(self._numbers), callback)
        heapq.heappush(self._alarms, alarm)
        return alarm

    async def pass_(self, seconds: float) -> None:
        end = self.now + seconds
        await settle()
        while self._alarms and self._alarms[0].when <= end:
            alarm = heapq.heappop(self._alarms)
            if not alarm.is_off:
                self.now = max(self.now, alarm.when)
                self.num_rung += 1
                alarm.callback()
                await settle()
        self.now = end


async def settle() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


class Callers:
    """People who ask a pacer, and when each was let in."""

    def __init__(self, pacer: Pacer, clock: HandClock) -> None:
        self._pacer = pacer
        self._clock = clock
        self.let_in: list[str] = []
        self.times: list[tuple[str, float]] = []
        self.tasks: list[asyncio.Task[None]] = []

    def ask(self, name: str, key: str = "chat", *, is_urgent: bool = False, is_group: bool = False) -> None:
        async def wait() -> None:
            await self._pacer.ready(key, is_urgent=is_urgent, is_group=is_group)
            self.let_in.append(name)
            self.times.append((key, self._clock.now))

        self.tasks.append(asyncio.create_task(wait()))


@dataclass
class Stage:
    clock: HandClock
    pacer: Pacer
    callers: Callers


def stage(*, per_chat: Rate | None = None, per_group: Rate | None = None, overall: Rate | None = None) -> Stage:
    clock = HandClock()
    pacer = Pacer(per_chat=per_chat, per_group=per_group, overall=overall, clock=clock)
    return Stage(clock, pacer, Callers(pacer, clock))


ONE_A_SECOND = Rate(1, 1.0)


async def test_the_first_call_waits_for_nothing_and_the_next_one_for_its_time() -> None:
    on = stage(per_chat=ONE_A_SECOND)
    for name in "abc":
        on.callers.ask(name)
    await settle()
    assert on.callers.let_in == ["a"]
    await on.clock.pass_(0.99)
    assert on.callers.let_in == ["a"]
    await on.clock.pass_(0.02)
    assert on.callers.let_in == ["a", "b"]
    await on.clock.pass_(1.0)
    assert on.callers.let_in == ["a", "b", "c"]


async def test_without_limits_everybody_goes_at_once() -> None:
    on = stage()
    for name in "abc":
        on.callers.ask(name)
    await settle()
    assert on.callers.let_in == ["a", "b", "c"]


async def test_urgent_calls_go_first_and_each_kind_in_its_order() -> None:
    on = stage(overall=ONE_A_SECOND)
    for name, is_urgent in (("first", False), ("a", False), ("B", True), ("c", False), ("D", True)):
        on.callers.ask(name, key=name, is_urgent=is_urgent)
    await on.clock.pass_(10)
    assert on.callers.let_in == ["first", "B", "D", "a", "c"]


async def test_urgent_calls_go_first_within_a_chat() -> None:
    on = stage(per_chat=ONE_A_SECOND)
    for name in ("first", "a", "B", "c", "D"):
        on.callers.ask(name, is_urgent=name.isupper())
    await on.clock.pass_(10)
    assert on.callers.let_in == ["first", "B", "D", "a", "c"]


async def test_chats_do_not_wait_for_each_other() -> None:
    on = stage(per_chat=ONE_A_SECOND, overall=Rate(30, 1.0))
    for name in ("a1", "a2", "a3", "b1"):
        on.callers.ask(name, key=name[0])
    await settle()
    assert on.callers.let_in == ["a1", "b1"]


async def test_over_all_chats_no_more_than_may() -> None:
    on = stage(per_chat=ONE_A_SECOND, overall=Rate(3, 1.0))
    for number in range(10):
        on.callers.ask(str(number), key=f"chat {number}")
    await settle()
    assert len(on.callers.let_in) == 3
    await on.clock.pass_(1.0)
    assert len(on.callers.let_in) == 6
    await on.clock.pass_(10)
    assert on.callers.let_in == [str(number) for number in range(10)]


async def test_a_group_has_a_limit_beside_a_chats() -> None:
    on = stage(per_chat=ONE_A_SECOND, per_group=Rate(3, 60.0))
    for number in range(5):
        on.callers.ask(f"group {number}", key="group", is_group=True)
        on.callers.ask(f"direct {number}", key="direct")
    await on.clock.pass_(30)
    assert len([name for name in on.callers.let_in if name.startswith("group")]) == 3
    assert len([name for name in on.callers.let_in if name.startswith("direct")]) == 5
    await on.clock.pass_(35)
    assert len(on.callers.let_in) == 10


async def test_some_calls_are_kept_for_urgent_ones() -> None:
    on = stage(per_chat=Rate(3, 60.0, num_urgent=1))
    for name in ("a", "b", "c", "D"):
        on.callers.ask(name, is_urgent=name.isupper())
    await settle()
    assert on.callers.let_in == ["a", "b", "D"]
    await on.clock.pass_(61)
    assert on.callers.let_in == ["a", "b", "D", "c"]


async def test_a_hold_holds_one_chat_only() -> None:
    on = stage(per_chat=ONE_A_SECOND)
    on.pacer.hold("a", 20.0)
    on.pacer.hold("a", 5.0)  # a shorter one takes nothing back
    for key in "ab":
        on.callers.ask(key, key=key, is_urgent=True)
    await on.clock.pass_(19.9)
    assert on.callers.let_in == ["b"]
    await on.clock.pass_(0.2)
    assert on.callers.let_in == ["b", "a"]


async def test_how_long_a_chat_is_held() -> None:
    on = stage(per_chat=ONE_A_SECOND)
    assert on.pacer.held_s("a") == 0.0
    on.pacer.hold("a", 20.0)
    await on.clock.pass_(15.0)
    assert (on.pacer.held_s("a"), on.pacer.held_s("b")) == (5.0, 0.0)
    await on.clock.pass_(6.0)
    assert on.pacer.held_s("a") == 0.0


async def test_a_hold_that_comes_while_somebody_waits_counts() -> None:
    on = stage(per_chat=ONE_A_SECOND)
    for name in "ab":
        on.callers.ask(name)
    await settle()
    on.pacer.hold("chat", 7.0)
    await on.clock.pass_(6.9)
    assert on.callers.let_in == ["a"]
    await on.clock.pass_(0.2)
    assert on.callers.let_in == ["a", "b"]


async def test_a_hold_of_all_holds_all() -> None:
    on = stage()
    on.pacer.hold_all(3.0)
    for key in "ab":
        on.callers.ask(key, key=key)
    await on.clock.pass_(2.9)
    assert on.callers.let_in == []
    await on.clock.pass_(0.2)
    assert on.callers.let_in == ["a", "b"]


async def test_whoever_gives_up_waiting_takes_nobodys_turn() -> None:
    on = stage(per_chat=ONE_A_SECOND)
    for name in "abc":
        on.callers.ask(name)
    await settle()
    on.callers.tasks[1].cancel()
    await on.clock.pass_(1.0)
    assert on.callers.let_in == ["a", "c"]
    assert on.pacer.num_waiting == 0


async def test_a_turn_that_came_with_the_cancellation_is_given_back() -> None:
    on = stage(overall=ONE_A_SECOND)
    for name in "abc":
        on.callers.ask(name, key=name)
    await settle()
    on.clock.now += 1.0
    on.pacer._let_in()  # b has its turn, but has not run yet
    on.callers.tasks[1].cancel()
    await settle()
    assert on.callers.let_in == ["a", "c"]


async def test_a_caller_who_was_cancelled_and_has_not_noticed_yet_is_passed_over() -> None:
    on = stage(overall=ONE_A_SECOND)
    for name in "abc":
        on.callers.ask(name, key=name)
    await settle()
    on.callers.tasks[1].cancel()
    on.clock.now += 1.0
    on.pacer._let_in()
    await settle()
    assert on.callers.let_in == ["a", "c"]


async def test_idle_chats_are_forgotten() -> None:
    on = stage(per_chat=ONE_A_SECOND, per_group=Rate(20, 60.0))
    for number in range(500):
        on.callers.ask("x", key=f"chat {number}", is_group=number % 2 == 0)
        await on.clock.pass_(1.0)
    assert len(on.pacer) < 200
    on.pacer.hold("held", 1000.0)
    await on.clock.pass_(200.0)
    on.callers.ask("x", key="the last one")
    await settle()
    assert len(on.pacer) == 2, "the one that is held, and the last one"


async def test_waiting_costs_a_look_a_turn() -> None:
    on = stage(per_chat=ONE_A_SECOND)
    for number in range(50):
        on.callers.ask(str(number))
    on.pacer.hold("chat", 500.0)
    await on.clock.pass_(600)
    assert len(on.callers.let_in) == 50
    assert on.clock.num_rung < 60


@pytest.mark.parametrize("wrong", [(0, 1.0, 0), (1, 0.0, 0), (1, 1.0, 1), (3, 1.0, -1)])
def test_a_rate_that_lets_nobody_through_is_refused(wrong: tuple[int, float, int]) -> None:
    with pytest.raises(ValueError, match="a rate needs calls"):
        Rate(*wrong)


async def test_the_loop_is_the_clock() -> None:
    pacer = Pacer(per_chat=Rate(1, 0.03))
    started = asyncio.get_running_loop().time()
    async with asyncio.timeout(5):
        for _ in range(3):
            await pacer.ready("chat")
    assert 0.059 <= asyncio.get_running_loop().time() - started < 2


asks = st.lists(
    st.tuples(st.sampled_from("abcd"), st.booleans(), st.booleans(), st.floats(0, 3), st.floats(0, 5)), max_size=40
)


@given(asks)
def test_no_limit_is_ever_passed_and_nobody_is_forgotten(asked: list[tuple[str, bool, bool, float, float]]) -> None:
    chat, group, overall = Rate(2, 3.0), Rate(3, 20.0, num_urgent=1), Rate(4, 2.0, num_urgent=2)

    async def run() -> None:
        on = stage(per_chat=chat, per_group=group, overall=overall)
        for number, (key, is_urgent, is_given_up, pause_s, hold_s) in enumerate(asked):
            on.callers.ask(str(number), key=key, is_urgent=is_urgent, is_group=key in "ab")
            if hold_s > 4:
                on.pacer.hold(key, hold_s)
            await on.clock.pass_(pause_s)
            if is_given_up:
                on.callers.tasks[-1].cancel()
        await on.clock.pass_(1000)
        await settle()
        assert on.pacer.num_waiting == 0
        assert all(task.done() for task in on.callers.tasks)
        assert fits(overall, (at for _, at in on.callers.times))
        for key in "abcd":
            times = [at for name, at in on.callers.times if name == key]
            assert fits(chat, times)
            assert key not in "ab" or fits(group, times)

    asyncio.run(run())


def fits(rate: Rate, times: Iterable[float]) -> bool:
    made = sorted(times)
    return all(late - early >= rate.per_s - 1e-6 for early, late in zip(made, made[rate.num_calls :], strict=False))
