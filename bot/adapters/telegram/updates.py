"""Which updates have arrived, and which of them the server may forget.

Polled, Telegram repeats every update from the asked offset on, and forgets those before it; by webhook it delivers each
until it is told that it arrived. Owns that bookkeeping; does no requests and knows nothing of what an update means.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any

logger = logging.getLogger(__name__)

RawUpdate = dict[str, Any]

# The server shows 100 at a time, repeated ones included: one that never ends must not hide what comes after it.
MAX_REPEATED = 90
# What the server delivers again, it does so soon.
MAX_REMEMBERED = 2000


class UpdateLedger:
    """Remembers what arrived and what was handed over, so that nothing is lost and nothing comes twice."""

    def __init__(self) -> None:
        self._next_id = 0
        self._waiting: set[int] = set()
        self._repeated: deque[int] = deque()  # from the first waiting one on
        self._nothing_waits = asyncio.Event()

    @property
    def offset(self) -> int:
        """Everything before it was handed over and may be forgotten. 0 before the first update."""
        return self._repeated[0] if self._repeated else self._next_id

    @property
    def has_waiting(self) -> bool:
        """Whether something has arrived that is not handed over yet, so that the server will repeat it."""
        return bool(self._waiting)

    async def wait_until_clear(self, timeout_s: float) -> None:
        """Wait until everything that has arrived is handed over, at most `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._waiting:
                    self._nothing_waits.clear()
                    await self._nothing_waits.wait()

    def new_ones(self, batch: Sequence[RawUpdate], *, asked_offset: int) -> list[RawUpdate]:
        """The updates of `batch` that were not seen before, in order; they wait from now on.

        `asked_offset` is what the server was asked with: by now more may have been handed over.
        """
        if any(raw["update_id"] < asked_offset for raw in batch):
            self._begin_anew()
        fresh = sorted((raw for raw in batch if raw["update_id"] >= self._next_id), key=lambda raw: raw["update_id"])
        for raw in fresh:
            self._waiting.add(raw["update_id"])
            self._repeated.append(raw["update_id"])
            self._next_id = raw["update_id"] + 1
        self._forget()
        return fresh

    def handed_over(self, update_id: int) -> None:
        """`update_id` has reached whoever handles it, or cannot be handled at all."""
        self._waiting.discard(update_id)
        self._forget()

    def _begin_anew(self) -> None:
        """After a week without updates Telegram goes on with any number, which may be a lower one."""
        logger.info("Telegram numbers its updates anew")
        self._waiting.clear()
        self._repeated.clear()
        self._next_id = 0

    def _forget(self) -> None:
        while self._repeated and (self._repeated[0] not in self._waiting or len(self._repeated) > MAX_REPEATED):
            self._waiting.discard(self._repeated.popleft())
        if not self._waiting:
            self._nothing_waits.set()


class DeliveryLedger:
    """Remembers which updates the server has delivered, and lets whoever delivers one wait until it is handed over."""

    def __init__(self) -> None:
        self._open: dict[int, asyncio.Event] = {}
        self._done: deque[int] = deque(maxlen=MAX_REMEMBERED)

    def is_new(self, update_id: int) -> bool:
        """Whether `update_id` comes for the first time; from now on it does not."""
        if update_id in self._open or update_id in self._done:
            return False
        self._open[update_id] = asyncio.Event()
        return True

    @property
    def num_waiting(self) -> int:
        """How many have arrived and are not handed over yet."""
        return len(self._open)

    def handed_over(self, update_id: int) -> None:
        """`update_id` has reached whoever handles it, or cannot be handled at all."""
        if (event := self._open.pop(update_id, None)) is not None:
            event.set()
            self._done.append(update_id)

    def close(self) -> None:
        """Nobody is to wait any more."""
        for event in self._open.values():
            event.set()

    async def wait(self, update_id: int, timeout_s: float) -> bool:
        """Whether `update_id` is handed over, at the latest after `timeout_s`."""
        event = self._open.get(update_id)
        if event is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await event.wait()
        return update_id not in self._open
