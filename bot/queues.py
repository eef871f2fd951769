"""Who waits for whom: work of one key runs one after another, different keys side by side.

Owns locks and queues, how people share a queue, and taking back what is in it; lets go of each as soon as nobody is
inside. Knows neither messages nor replies: a person and a tag are whatever a caller takes for them.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any, Generic, TypeVar

from bot.logs import log_failure

logger = logging.getLogger(__name__)
Key = TypeVar("Key", bound=Hashable)


@dataclass(slots=True)
class _Lane:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    num_inside: int = 0


class KeyedLocks(Generic[Key]):
    """One lock a key, given in the order of asking."""

    def __init__(self) -> None:
        self._lanes: dict[Key, _Lane] = {}

    def __len__(self) -> int:
        return len(self._lanes)

    @asynccontextmanager
    async def hold(self, key: Key) -> AsyncIterator[None]:
        """Be alone with `key`."""
        lane = self._lanes.setdefault(key, _Lane())
        lane.num_inside += 1
        try:
            async with lane.lock:
                yield
        finally:
            lane.num_inside -= 1
            if not lane.num_inside:
                del self._lanes[key]


@dataclass(eq=False, slots=True)
class _Entry:
    """One job. `turn` wakes whoever asked for it."""

    number: int
    tag: Hashable
    person: Hashable
    turn: asyncio.Future[None]
    is_dropped: bool = False
    task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        # Whoever asked may have been cancelled, and not know it yet.
        if not self.turn.done():
            self.turn.set_result(None)


@dataclass(eq=False, slots=True)
class _Queue:
    """The jobs of one key. `lines` are the waiting ones of each person, whose turn is next first; none is empty."""

    running: _Entry | None = None
    lines: dict[Hashable, deque[_Entry]] = field(default_factory=dict)

    def waiting(self) -> list[_Entry]:
        return sorted(chain.from_iterable(self.lines.values()), key=lambda entry: entry.number)

    def inside(self) -> list[_Entry]:
        return self.waiting() + ([self.running] if self.running is not None else [])

    def num_inside(self) -> Counter[Hashable]:
        """How many jobs each person has here."""
        counts: Counter[Hashable] = Counter({person: len(line) for person, line in self.lines.items()})
        if self.running is not None:
            counts[self.running.person] += 1
        return counts

    def add(self, entry: _Entry) -> None:
        self.lines.setdefault(entry.person, deque()).append(entry)

    def take_next(self) -> _Entry:
        """The next job; after that it is everybody else's turn."""
        person = next(iter(self.lines))
        line = self.lines.pop(person)
        entry = line.popleft()
        if line:
            self.lines[person] = line
        return entry

    def remove(self, entry: _Entry) -> None:
        self.lines[entry.person].remove(entry)
        if not self.lines[entry.person]:
            del self.lines[entry.person]


class KeyedQueues(Generic[Key]):
    """One queue a key: jobs run one after another, and can be taken back, the running one included.

    Within a key people take turns, and the jobs of each run in their order. `max_inside` jobs may wait and run: one
    person alone may have them all, but beside others only half of them, at least one. Whoever has more, because nobody
    else was there, takes no place from others: then there is room for that half again.
    """

    def __init__(self, *, max_inside: int) -> None:
        self._max_inside = max_inside
        self._max_beside_others = max(1, max_inside // 2)
        self._queues: dict[Key, _Queue] = {}
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._queues)

    def busy(self) -> tuple[Key, ...]:
        """The keys of which a job runs or waits."""
        return tuple(self._queues)

    def is_full(self, key: Key, person: Hashable = None) -> bool:
        """Whether `person` may add no job."""
        queue = self._queues.get(key)
        if queue is None:
            return False
        counts = queue.num_inside()
        own = counts.pop(person, 0)
        if not counts:
            return own >= self._max_inside
        if own >= self._max_beside_others:
            return True
        return own + sum(min(num, self._max_beside_others) for num in counts.values()) >= self._max_inside

    def waiting(self, key: Key) -> tuple[Hashable, ...]:
        """The tags of all jobs that wait, in the order in which they came. The running job waits no more."""
        queue = self._queues.get(key)
        return tuple(entry.tag for entry in queue.waiting()) if queue is not None else ()

    def person_running(self, key: Key) -> Hashable:
        """Whose job runs; `None` where none does."""
        queue = self._queues.get(key)
        return queue.running.person if queue is not None and queue.running is not None else None

    async def run(
        self, key: Key, job: Callable[[], Coroutine[Any, Any, None]], *, tag: Hashable = None, person: Hashable = None
    ) -> bool:
        """Run `job` when its turn comes, and raise what it raises.

        Returns whether it ran to its end: `False` where somebody else took it back.
        """
        queue = self._queues.setdefault(key, _Queue())
        entry = _Entry(next(self._numbers), tag, person, asyncio.get_running_loop().create_future())
        queue.add(entry)
        self._advance(key, queue)
        try:
            await entry.turn
            return not entry.is_dropped and await self._run_now(entry, job)
        finally:
            self._leave(key, queue, entry)

    async def empty(self, key: Key) -> None:
        """Drop all waiting jobs, cancel the running one and wait until it has ended."""
        queue = self._queues.get(key)
        if queue is not None:
            await self._take_back(queue, queue.inside())

    async def cancel(self, key: Key, tag: Hashable) -> bool:
        """Drop the jobs with that tag that wait; cancel the one that runs, and wait until it has ended.

        Returns whether there was one.
        """
        queue = self._queues.get(key)
        if queue is None:
            return False
        meant = [entry for entry in queue.inside() if entry.tag == tag]
        await self._take_back(queue, meant)
        return bool(meant)

    async def cancel_running(self, key: Key) -> bool:
        """Cancel the running job and wait until it has ended; those that wait go on. Returns whether there was one."""
        queue = self._queues.get(key)
        if queue is None or queue.running is None:
            return False
        await self._take_back(queue, [queue.running])
        return True

    def _advance(self, key: Key, queue: _Queue) -> None:
        if queue.running is None and queue.lines:
            queue.running = queue.take_next()
            queue.running.wake()
        elif queue.running is None and self._queues.get(key) is queue:
            del self._queues[key]

    def _leave(self, key: Key, queue: _Queue, entry: _Entry) -> None:
        if queue.running is entry:
            queue.running = None
        elif entry in queue.lines.get(entry.person, ()):
            queue.remove(entry)
        self._advance(key, queue)

    async def _take_back(self, queue: _Queue, entries: list[_Entry]) -> None:
        for entry in entries:
            entry.is_dropped = True
            if entry is not queue.running:
                queue.remove(entry)
                entry.wake()
        running = queue.running.task if queue.running is not None and queue.running.is_dropped else None
        # A job cannot wait for its own end.
        if running is not None and running is not asyncio.current_task():
            running.cancel()
            await asyncio.wait({running})

    async def _run_now(self, entry: _Entry, job: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        # A task of its own, so that it can be cancelled without cancelling whoever waits for it.
        task = entry.task = asyncio.create_task(job())
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled() and (error := task.exception()) is not None:
                log_failure(logger, "a job failed while it was being cancelled", error)
            raise
        if task.cancelled():
            return False
        task.result()
        return True
