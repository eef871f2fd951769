"""The asyncio façade over the one thread that owns the device.

Owns the thread, admission and hand-over between it and the event loop. Knows no torch: what the thread runs is built on
the thread, by `engine.backends.local.build` or a test's stand-in. Nobody waits for ever: a failed step, a dead thread
and an orderly end each tell every caller.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Protocol

from engine.config import EngineConfig
from engine.errors import EngineBusy, EngineError
from engine.generation.scheduler import MAX_RUNNING
from engine.generation.sequence import Sequence
from engine.models.fetch import Report
from engine.types import FinishReason, GenerationRequest, ReplyChunk

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 30.0


class Loop(Protocol):
    """What the thread runs: `engine.generation.loop.GenerationLoop`."""

    @property
    def has_work(self) -> bool: ...
    def add(self, sequence: Sequence) -> None: ...
    def step(self) -> None: ...
    def cancel_all(self) -> None: ...
    def fail_all(self, error: EngineError) -> None: ...


BuildLoop = Callable[[EngineConfig, Report | None], Loop]


@dataclass(frozen=True, slots=True)
class _Close:
    """Asks the thread to end."""


class EngineService:
    """A `ReplyEngine` on this machine. `report` is told how far missing weights are; it is called on the thread."""

    def __init__(
        self, config: EngineConfig, *, report: Report | None = None, build_loop: BuildLoop | None = None
    ) -> None:
        self._config = config
        self._report = report
        self._build_loop = build_loop or _build_local
        self._inbox: SimpleQueue[Sequence | _Close] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._started: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._open: set[Sequence] = set()
        self._failure: EngineError | None = None
        self._is_closing = False

    async def start(self) -> None:
        """Load on a thread of its own. Raises `EngineError` with a remedy."""
        if self._thread is None:
            self._event_loop = asyncio.get_running_loop()
            self._started, self._ended = self._event_loop.create_future(), self._event_loop.create_future()
            self._thread = threading.Thread(target=self._run, name="commedia-engine", daemon=True)
            self._thread.start()
        assert self._started is not None  # noqa: S101 - set together with the thread
        await asyncio.shield(self._started)

    async def generate(self, request: GenerationRequest) -> AsyncIterator[ReplyChunk]:
        """Stream one reply; closing the iterator stops the generation within a step."""
        answers: asyncio.Queue[ReplyChunk | EngineError] = asyncio.Queue()
        sequence = self._submit(request, answers)
        try:
            while True:
                answer = await answers.get()
                if isinstance(answer, EngineError):
                    raise answer
                yield answer
                if answer.finish_reason is not None:
                    return
        finally:
            sequence.is_cancelled = True
            self._open.discard(sequence)

    async def aclose(self) -> None:
        """End running replies and release the device. A thread that hangs is left behind after half a minute."""
        if self._thread is None or self._ended is None:
            return
        self._is_closing = True
        self._inbox.put(_Close())
        done, _ = await asyncio.wait([self._ended], timeout=CLOSE_TIMEOUT_S)
        if done:
            await asyncio.to_thread(self._thread.join)
        else:
            logger.warning("the engine's thread does not end; it is left behind")

    def _submit(self, request: GenerationRequest, answers: "asyncio.Queue[ReplyChunk | EngineError]") -> Sequence:
        if self._failure is not None:
            raise type(self._failure)(str(self._failure))
        if self._thread is None or self._is_closing:
            raise EngineError("the engine is not running: start it first, or start commedia again")
        if len(self._open) >= self._config.max_waiting + MAX_RUNNING:
            raise EngineBusy(
                f"{len(self._open)} replies are already asked for: try again in a moment, or raise engine.max_waiting"
            )
        sequence = Sequence(request, lambda answer: self._hand_over(answers, answer), time.monotonic())
        self._open.add(sequence)
        self._inbox.put(sequence)
        if self._failure is not None:
            # The thread died between the check above and the hand-over, and reads no more.
            sequence.emit(self._failure)
        return sequence

    def _hand_over(self, answers: "asyncio.Queue[ReplyChunk | EngineError]", answer: ReplyChunk | EngineError) -> None:
        self._on_event_loop(lambda: answers.put_nowait(answer))

    def _on_event_loop(self, call: Callable[[], None]) -> None:
        """From the thread: run `call` on the event loop, unless that has ended together with everybody who waited."""
        assert self._event_loop is not None  # noqa: S101 - set before the thread starts
        try:
            self._event_loop.call_soon_threadsafe(call)
        except RuntimeError:
            logger.debug("the event loop has ended before the engine")

    def _run(self) -> None:
        """The thread: load, then serve until told to end, or until something fails that is not one reply's own."""
        loop: Loop | None = None
        try:
            loop = self._build_loop(self._config, self._report)
            self._on_event_loop(lambda: _resolve(self._started))
            self._serve(loop)
        except BaseException as error:  # noqa: BLE001 - the boundary of the thread: it is logged, and everybody is told
            self._die(loop, error)
        finally:
            self._on_event_loop(lambda: _resolve(self._ended))

    def _serve(self, loop: Loop) -> None:
        while True:
            try:
                message = self._inbox.get(block=not loop.has_work)
            except Empty:
                loop.step()
                continue
            if isinstance(message, _Close):
                loop.cancel_all()
                self._empty_inbox(lambda one: one.finish(FinishReason.CANCELLED, "", now=time.monotonic()))
                return
            loop.add(message)

    def _die(self, loop: Loop | None, error: BaseException) -> None:
        if isinstance(error, EngineError):
            failure = error
        else:
            logger.critical("the engine's thread has died", exc_info=error)
            failure = EngineError(
                f"the engine has stopped ({type(error).__name__}); the log says more. Start commedia again"
            )
            failure.__cause__ = error
        self._failure = failure
        self._on_event_loop(lambda: _resolve(self._started, failure))
        if loop is not None:
            loop.fail_all(failure)
        self._empty_inbox(lambda one: one.emit(type(failure)(str(failure))))

    def _empty_inbox(self, tell: Callable[[Sequence], None]) -> None:
        """For those who came too late. Nobody comes later still: admission is closed first."""
        while True:
            try:
                message = self._inbox.get_nowait()
            except Empty:
                return
            if isinstance(message, Sequence):
                tell(message)


def _build_local(config: EngineConfig, report: Report | None) -> Loop:
    # Imports torch, and therefore happens here, on the engine's thread.
    from engine.backends.local import build

    return build(config, report)


def _resolve(future: "asyncio.Future[None] | None", error: EngineError | None = None) -> None:
    if future is None or future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
        # Whoever started the engine may be gone; then nobody asks for the result.
        future.exception()
