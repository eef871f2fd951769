"""Who may call a platform next: limits for each chat and over all, and the holds that a platform asks for.

Owns the order of calls, urgent ones first, and when each may be made. Knows no platform, no requests and no texts: an
adapter asks before it calls, and tells when the platform refused.
"""

import asyncio
import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `num_calls` in any `per_s` seconds, of which the last `num_urgent` are kept for urgent ones."""

    num_calls: int
    per_s: float
    num_urgent: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.num_urgent < self.num_calls or self.per_s <= 0:
            raise ValueError(f"a rate needs calls that are not all urgent ones, and seconds above 0: {self}")


class Timer(Protocol):
    """What `Clock.call_at` gives."""

    def cancel(self) -> None:
        """Do not call any more."""


class Clock(Protocol):
    """What tells the time: an event loop, or in tests one that is set by hand."""

    def time(self) -> float:
        """Seconds since some moment, never fewer than before."""
        ...

    def call_at(self, when: float, callback: Callable[[], None], /) -> Timer:
        """Call `callback` at `when`."""
        ...


class _Meter:
    """The latest calls, held against a rate."""

    __slots__ = ("_made_at", "_rate")

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._made_at: deque[float] = deque(maxlen=rate.num_calls)

    def free_at(self, *, is_urgent: bool) -> float:
        num_calls = self._rate.num_calls - (0 if is_urgent else self._rate.num_urgent)
        return -math.inf if len(self._made_at) < num_calls else self._made_at[-num_calls] + self._rate.per_s

    def count(self, now: float) -> None:
        self._made_at.append(now)

    def take_back(self, made_at: float) -> None:
        if made_at in self._made_at:
            self._made_at.remove(made_at)

    def is_idle(self, now: float) -> bool:
        return not self._made_at or self._made_at[-1] + self._rate.per_s <= now


@dataclass(eq=False, slots=True)
class _Waiter:
    number: int
    is_urgent: bool
    is_let_in: asyncio.Future[None]
    let_in_at: float = 0.0


@dataclass(eq=False, slots=True)
class _Lane:
    """One chat: its calls, and who waits to make another."""

    meters: list[_Meter]
    has_group_meter: bool = False
    held_until: float = -math.inf
    urgent: deque[_Waiter] = field(default_factory=deque)
    patient: deque[_Waiter] = field(default_factory=deque)

    @property
    def has_waiters(self) -> bool:
        return bool(self.urgent or self.patient)

    @property
    def head(self) -> _Waiter:
        return (self.urgent or self.patient)[0]

    def line(self, waiter: _Waiter) -> deque[_Waiter]:
        return self.urgent if waiter.is_urgent else self.patient

    def free_at(self) -> float:
        return self.free_for(self.head)

    def free_for(self, waiter: _Waiter) -> float:
        return max([self.held_until, *(meter.free_at(is_urgent=waiter.is_urgent) for meter in self.meters)])

    def is_idle(self, now: float) -> bool:
        return not self.has_waiters and self.held_until <= now and all(meter.is_idle(now) for meter in self.meters)


class Pacer:
    """Lets calls through at a platform's pace: first come, first served, urgent ones before all others.

    `per_chat` holds for every chat, `per_group` beside it for groups, `overall` for all together; `None` is no limit.
    A chat that was not written to for as long as its limits look back takes no memory.
    """

    def __init__(
        self,
        *,
        per_chat: Rate | None = None,
        per_group: Rate | None = None,
        overall: Rate | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._per_chat = per_chat
        self._per_group = per_group
        self._overall = _Lane(_meters(overall))
        self._given_clock = clock
        self._lanes: dict[Hashable, _Lane] = {}
        self._busy: dict[Hashable, _Lane] = {}
        self._numbers = itertools.count()
        self._timer: Timer | None = None
        self._wakes_at = math.inf
        self._looks_back_s = max((rate.per_s for rate in (per_chat, per_group) if rate is not None), default=1.0)
        self._sweeps_at = -math.inf

    def __len__(self) -> int:
        """How many chats are known."""
        return len(self._lanes)

    @property
    def num_waiting(self) -> int:
        """How many calls wait."""
        return sum(len(lane.urgent) + len(lane.patient) for lane in self._busy.values())

    async def ready(self, key: Hashable, *, is_urgent: bool = False, is_group: bool = False) -> None:
        """Wait until one more call may be made in the chat `key`. It counts as made when this returns."""
        now = self._clock.time()
        self._forget_idle(now)
        lane = self._lane(key, is_group=is_group)
        waiter = _Waiter(next(self._numbers), is_urgent, asyncio.get_running_loop().create_future())
        lane.line(waiter).append(waiter)
        self._busy[key] = lane
        self._wake(at=self._free_at(lane))
        try:
            await waiter.is_let_in
        except asyncio.CancelledError:
            self._leave(key, lane, waiter)
            raise

    def hold(self, key: Hashable, retry_after_s: float) -> None:
        """Let nobody through in the chat `key` for so long: the platform asked for it. Other chats go on."""
        self._hold(self._lane(key, is_group=False), retry_after_s)

    def held_s(self, key: Hashable) -> float:
        """For how long nobody is let through in the chat `key` because the platform asked for it."""
        lane = self._lanes.get(key)
        return max(0.0, lane.held_until - self._clock.time()) if lane is not None else 0.0

    def hold_all(self, retry_after_s: float) -> None:
        """Let nobody through in any chat for so long."""
        self._hold(self._overall, retry_after_s)

    @property
    def _clock(self) -> Clock:
        return self._given_clock or asyncio.get_running_loop()

    def _lane(self, key: Hashable, *, is_group: bool) -> _Lane:
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(_meters(self._per_chat))
        if is_group and not lane.has_group_meter:
            lane.has_group_meter = True
            lane.meters += _meters(self._per_group)
        return lane

    def _hold(self, lane: _Lane, hold_s: float) -> None:
        # A timer that is set already comes too early then, finds nobody to let in, and is set anew.
        lane.held_until = max(lane.held_until, self._clock.time() + hold_s)

    def _free_at(self, lane: _Lane) -> float:
        """When the first who waits in `lane` may go, if nobody goes before."""
        return max(lane.free_at(), self._overall.free_for(lane.head))

    def _wake(self, *, at: float) -> None:
        """Look again at `at`, or sooner where that was asked for; now, if it has passed."""
        at = min(at, self._wakes_at)
        if at <= self._clock.time():
            self._let_in()
        elif at < self._wakes_at:
            self._set_timer(at)

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_at(at, self._let_in) if at < math.inf else None
        self._wakes_at = at

    def _let_in(self) -> None:
        """Let in all who may go now, and come back when the next one may."""
        now = self._clock.time()
        ripe = [_entry(key, lane) for key, lane in self._busy.items() if lane.free_at() <= now]
        heapq.heapify(ripe)
        while ripe and self._overall.free_for(ripe[0][3].head) <= now:
            *_, key, lane = heapq.heappop(ripe)
            self._let_first_in(key, lane, now)
            if lane.has_waiters and lane.free_at() <= now:
                heapq.heappush(ripe, _entry(key, lane))
        self._set_timer(min(map(self._free_at, self._busy.values()), default=math.inf))

    def _let_first_in(self, key: Hashable, lane: _Lane, now: float) -> None:
        waiter = lane.head
        self._take_out(key, lane, waiter)
        if waiter.is_let_in.cancelled():
            return
        waiter.let_in_at = now
        for meter in (*lane.meters, *self._overall.meters):
            meter.count(now)
        waiter.is_let_in.set_result(None)

    def _leave(self, key: Hashable, lane: _Lane, waiter: _Waiter) -> None:
        """`waiter` was cancelled, perhaps in the very moment in which it was let in."""
        if waiter in lane.line(waiter):
            self._take_out(key, lane, waiter)
        elif not waiter.is_let_in.cancelled():
            for meter in (*lane.meters, *self._overall.meters):
                meter.take_back(waiter.let_in_at)
        self._let_in()

    def _take_out(self, key: Hashable, lane: _Lane, waiter: _Waiter) -> None:
        lane.line(waiter).remove(waiter)
        if not lane.has_waiters:
            del self._busy[key]

    def _forget_idle(self, now: float) -> None:
        if now < self._sweeps_at:
            return
        self._sweeps_at = now + self._looks_back_s
        for key in [key for key, lane in self._lanes.items() if lane.is_idle(now)]:
            del self._lanes[key]


def _meters(rate: Rate | None) -> list[_Meter]:
    return [] if rate is None else [_Meter(rate)]


def _entry(key: Hashable, lane: _Lane) -> tuple[bool, int, Hashable, _Lane]:
    """Urgent ones first, then in the order of asking. No two have the same number."""
    return not lane.head.is_urgent, lane.head.number, key, lane
