"""The one thread that owns the device: it loads, then serves until it is told to end or until something breaks.

Owns the inbox, the order of steps and job pieces, and what becomes of everybody when the thread ends. Knows no torch:
what it runs is built on it by `BuildLoop`. Knows nothing of who may ask: that is `engine.service`, on the event loop.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Protocol

from engine.config import EngineConfig
from engine.errors import EngineError
from engine.generation.sequence import Sequence
from engine.jobs import Job, JobQueue
from engine.models.fetch import Report
from engine.tokens import EstimatedTokens
from engine.types import EngineLoad, FinishReason, TokenMeasure
from engine.watch import StepWatch

logger = logging.getLogger(__name__)

THREAD_NAME = "commedia-engine"
# How old the answer to how busy it is may be, while it is.
LOAD_INTERVAL_S = 0.1
WAS_CLOSED = "the engine was closed: start commedia again"


class Loop(Protocol):
    """What the thread runs: `engine.generation.loop.GenerationLoop`."""

    @property
    def has_work(self) -> bool: ...
    def add(self, sequence: Sequence) -> None: ...
    def step(self) -> None: ...
    def load(self) -> EngineLoad: ...
    def measure(self) -> TokenMeasure: ...
    def cancel_all(self) -> None: ...
    def fail_all(self, error: EngineError) -> None: ...


BuildLoop = Callable[[EngineConfig, Report | None], Loop]


@dataclass(frozen=True, slots=True)
class Close:
    """Asks the thread to end."""


class EngineThread:
    """Started once, from the event loop that it answers to. `started` and `ended` are that loop's futures."""

    def __init__(self, build: Callable[[], Loop]) -> None:
        self._build = build
        self._event_loop = asyncio.get_running_loop()
        self.started: asyncio.Future[None] = self._event_loop.create_future()
        self.ended: asyncio.Future[None] = self._event_loop.create_future()
        self.watch = StepWatch()
        self.failure: EngineError | None = None
        self.measure: TokenMeasure = EstimatedTokens()
        self._inbox: SimpleQueue[Sequence | Job | Close] = SimpleQueue()
        self._jobs = JobQueue()
        # Each counted by one side alone; what is between them is on its way.
        self._num_posted = self._num_taken = 0
        self._load = EngineLoad()
        self._told_load_at = 0.0
        self._calls: deque[Callable[[], None]] = deque()
        self._is_flush_due = False
        # Should it hang for ever, it must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        self._thread.start()

    @property
    def is_loading(self) -> bool:
        """Whether it does not serve yet."""
        return not self.started.done()

    @property
    def load(self) -> EngineLoad:
        """How busy it was a moment ago, with those that it has not taken up yet."""
        num_on_their_way = self._num_posted - self._num_taken
        return replace(self._load, num_waiting=self._load.num_waiting + num_on_their_way)

    def post(self, message: Sequence | Job | Close) -> None:
        """From the event loop: hand `message` to the thread."""
        self._num_posted += isinstance(message, Sequence)
        self._inbox.put(message)

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until the thread is gone, and say whether it is."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def on_event_loop(self, call: Callable[[], None]) -> None:
        """From any thread: run `call` on the event loop, unless that has ended together with everybody who waited.

        All that comes up in one step wakes the loop once: each waking takes the interpreter's lock from the engine.
        """
        self._calls.append(call)
        if self._is_flush_due:
            return
        self._is_flush_due = True
        try:
            self._event_loop.call_soon_threadsafe(self._flush)
        except RuntimeError:
            logger.debug("the event loop has ended before the engine")

    def _flush(self) -> None:
        """On the event loop: do what was handed over, in its order."""
        # Before the calls are taken: whatever comes later wakes the loop again.
        self._is_flush_due = False
        try:
            while self._calls:
                self._calls.popleft()()
        finally:
            if self._calls:  # one of them failed: the others do not wait for what comes up next
                self._event_loop.call_soon(self._flush)

    # --- on the thread

    def _run(self) -> None:
        loop: Loop | None = None
        try:
            with self.watch.step():
                loop = self._build()
            self._load, self.measure = loop.load(), loop.measure()
            self.on_event_loop(lambda: resolve(self.started))
            self._serve(loop)
        except BaseException as error:  # noqa: BLE001 - the boundary of the thread: it is logged, and everybody is told
            self._die(loop, error)
        finally:
            self.on_event_loop(lambda: resolve(self.ended))

    def _serve(self, loop: Loop) -> None:
        while True:
            try:
                message = self._inbox.get(block=not (loop.has_work or self._jobs))
            except Empty:
                with self.watch.step():
                    self._work(loop)
                if not loop.has_work or time.monotonic() - self._told_load_at > LOAD_INTERVAL_S:
                    self._load, self._told_load_at = loop.load(), time.monotonic()
                continue
            if isinstance(message, Close):
                loop.cancel_all()
                self._load = loop.load()
                self._jobs.fail_all(EngineError(WAS_CLOSED))
                self._empty_inbox(lambda one: one.finish(FinishReason.CANCELLED, "", now=time.monotonic()))
                return
            self._take(loop, message)

    def _take(self, loop: Loop, message: Sequence | Job) -> None:
        if isinstance(message, Job):
            self._jobs.add(message)
            return
        try:
            loop.add(message)
        except Exception as error:
            # The boundary: nobody else has it in hand, so its caller would wait for ever.
            logger.error("a request could not be taken", exc_info=error)
            message.emit(
                EngineError(f"the engine cannot take this request ({type(error).__name__}); the log says more")
            )
        self._load = loop.load()
        self._num_taken += 1

    def _work(self, loop: Loop) -> None:
        """A step for every reply, then a piece of one job."""
        if loop.has_work:
            loop.step()
        if self._jobs:
            self._jobs.advance(loop)

    def _die(self, loop: Loop | None, error: BaseException) -> None:
        if isinstance(error, EngineError):
            failure = error
        else:
            logger.critical("the engine's thread has died", exc_info=error)
            failure = EngineError(
                f"the engine has stopped ({type(error).__name__}); the log says more. Start commedia again"
            )
            failure.__cause__ = error
        self.failure = failure
        self._load = replace(self._load, num_running=0, num_waiting=0)
        self.on_event_loop(lambda: resolve(self.started, failure))
        if loop is not None:
            loop.fail_all(failure)
        self._jobs.fail_all(failure)
        self._empty_inbox(lambda one: one.emit(type(failure)(str(failure))))

    def _empty_inbox(self, tell: Callable[[Sequence], None]) -> None:
        """For those who came too late. Nobody comes later still: admission is closed first."""
        while True:
            try:
                message = self._inbox.get_nowait()
            except Empty:
                return
            if isinstance(message, Sequence):
                self._num_taken += 1
                tell(message)
            elif isinstance(message, Job):
                message.fail(self.failure or EngineError(WAS_CLOSED))


def resolve(future: "asyncio.Future[None]", error: EngineError | None = None) -> None:
    """Settle `future`, unless it is settled."""
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
        # Whoever started the engine may be gone; then nobody asks for the result.
        future.exception()
