"""How many replies are asked of a server at once, who waits meanwhile, and who is turned away.

Owns the bounds and the hand-over from `FairQueue` to the tasks that wait. Lives on one event loop; knows nothing of
what runs behind it.
"""

import asyncio
import time

from engine.admission import require_room
from engine.errors import EngineBusy
from engine.generation.queue import FairQueue
from engine.generation.sequence import Sequence

WATCH_INTERVAL_S = 0.25


class Gate:
    """Lets a bounded number of sequences through, in the queue's fair order."""

    def __init__(
        self, *, max_running: int, max_waiting: int, max_waiting_per_user: int, max_wait_s: float = 300.0
    ) -> None:
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._max_waiting_per_user = max_waiting_per_user
        self._max_wait_s = max_wait_s
        self._queue = FairQueue(max_running=max_running, max_wait_s=max_wait_s)
        # Of everybody inside; those whose future is not done wait.
        self._turns: dict[Sequence, asyncio.Future[None]] = {}
        self._running: list[Sequence] = []
        self._watch: asyncio.Task[None] | None = None

    @property
    def num_running(self) -> int:
        """Those let through that have not left."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Those that wait."""
        return len(self._queue)

    def add(self, sequence: Sequence) -> None:
        """Take `sequence` in, to run at once or to wait. Raises `EngineBusy` where too many others are before it."""
        require_room(
            sequence.request,
            (other.request for other in self._turns),
            max_open=self._max_running + self._max_waiting,
            max_per_user=self._max_waiting_per_user,
        )
        self._turns[sequence] = asyncio.get_running_loop().create_future()
        self._queue.add(sequence)
        self._let_in()
        if len(self._queue) and (self._watch is None or self._watch.done()):
            self._watch = asyncio.create_task(self._watch_those_waiting(), name="engine queue")

    async def turn(self, sequence: Sequence) -> None:
        """Wait until it is `sequence`'s turn; places are told through its `emit`. Raises `EngineBusy` where that takes
        too long."""
        await self._turns[sequence]

    def remove(self, sequence: Sequence) -> None:
        """`sequence` has ended, or waits no more: make room for the next."""
        turn = self._turns.pop(sequence)
        if sequence in self._running:
            self._running.remove(sequence)
            self._queue.note_finished(sequence, time.monotonic())
        elif not turn.done() or turn.cancelled():
            self._queue.remove(sequence)
        self._let_in()

    def _let_in(self) -> None:
        now = time.monotonic()
        while (sequence := self._queue.next(self._running, now)) is not None:
            self._queue.pop(sequence, now)
            self._running.append(sequence)
            if not (turn := self._turns[sequence]).done():
                turn.set_result(None)
        if not len(self._queue) and self._watch is not None:
            self._watch.cancel()
            self._watch = None

    async def _watch_those_waiting(self) -> None:
        """Tell places and turn away those that waited too long, as long as anybody waits."""
        while len(self._queue):
            now = time.monotonic()
            for sequence in self._queue.expired(now):
                # Whoever was cancelled at this moment is about to be removed.
                if not (turn := self._turns[sequence]).done():
                    self._queue.remove(sequence)
                    turn.set_exception(self._too_long())
            self._let_in()
            self._queue.tell(now)
            await asyncio.sleep(WATCH_INTERVAL_S)

    def _too_long(self) -> EngineBusy:
        return EngineBusy(
            f"nobody could answer within {self._max_wait_s:g} s, because others were answered all that time: try again "
            "later, or raise engine.max_wait_s"
        )
