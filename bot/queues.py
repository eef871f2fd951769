"""Who waits for whom: work of one key runs in the order in which it came, different keys side by side.

Owns locks and queues, and lets go of each as soon as nobody is in it. Knows neither messages nor replies.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
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


@dataclass(slots=True)
class _Queue:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    num_inside: int = 0
    is_void: bool = False
    running: asyncio.Task[None] | None = None


class KeyedQueues(Generic[Key]):
    """One queue a key: jobs run one after another, and a queue can be emptied, its running job included."""

    def __init__(self, *, max_inside: int) -> None:
        self._max_inside = max_inside
        self._queues: dict[Key, _Queue] = {}

    def __len__(self) -> int:
        return len(self._queues)

    def is_full(self, key: Key) -> bool:
        """Whether as many jobs wait and run as may."""
        queue = self._queues.get(key)
        return queue is not None and queue.num_inside >= self._max_inside

    async def run(self, key: Key, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `job` when its turn comes, and raise what it raises. A job whose queue was emptied ends in silence."""
        queue = self._queues.setdefault(key, _Queue())
        queue.num_inside += 1
        try:
            async with queue.lock:
                if not queue.is_void:
                    await self._run_now(queue, job)
        finally:
            queue.num_inside -= 1
            if not queue.num_inside and self._queues.get(key) is queue:
                del self._queues[key]

    async def empty(self, key: Key) -> None:
        """Forget all waiting jobs, cancel the running one and wait until it has ended."""
        queue = self._queues.pop(key, None)
        if queue is None:
            return
        queue.is_void = True
        if queue.running is not None:
            queue.running.cancel()
            await asyncio.wait({queue.running})

    async def _run_now(self, queue: _Queue, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        # A task of its own, so that `empty` can cancel the job without cancelling whoever waits for it.
        task = queue.running = asyncio.create_task(job())
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled() and (error := task.exception()) is not None:
                log_failure(logger, "a job failed while it was being cancelled", error)
            raise
        finally:
            queue.running = None
        if not task.cancelled():
            task.result()
