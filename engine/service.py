"""The asyncio façade over the one thread that owns the device.

Owns admission, the callers who wait, and the hand-over between them and the thread (`engine.thread`). Knows no torch.
Nobody waits for ever: a failed step, a dead thread, a device that hangs and an orderly end each tell every caller.

Beside replies the thread does *jobs*, such as describing a picture. A job is a generator that yields after each piece
of its work; between two pieces every reply advances by a step, so that a job slows replies down but never stops them.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from collections.abc import Sequence as SequenceOf
from typing import Any, TypeVar

from engine.admission import require_room
from engine.config import EngineConfig
from engine.errors import DeviceError, EngineBusy, EngineClosing, EngineError
from engine.generation.scheduler import MAX_RUNNING
from engine.generation.sequence import Sequence
from engine.jobs import BeginWork, Job
from engine.models.fetch import Report
from engine.seeing.work import Pieces
from engine.thread import WAS_CLOSED, BuildLoop, Close, EngineThread, Loop, resolve
from engine.tokens import EstimatedTokens
from engine.types import (
    ContextSize,
    Embedding,
    EngineLoad,
    Explanation,
    GenerationRequest,
    Image,
    ReplyChunk,
    Sight,
    TokenMeasure,
    Translation,
)

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 30.0
# Loading and a device that hangs cannot be broken off; waiting for them helps nobody.
CLOSE_TIMEOUT_WHEN_STUCK_S = 2.0
WATCH_INTERVAL_S = 1.0
MAX_WAITING_JOBS = 16

_UNKNOWN = EstimatedTokens()
T = TypeVar("T")


class EngineService:
    """An `Engine` on this machine. `report` is told how far missing weights are; it is called on the thread."""

    def __init__(
        self, config: EngineConfig, *, report: Report | None = None, build_loop: BuildLoop | None = None
    ) -> None:
        self._config = config
        self._report = report
        self._build_loop = build_loop or _build_local
        self._thread: EngineThread | None = None
        self._open: set[Sequence] = set()
        self._open_jobs: set[Job] = set()
        self._nobody_waits = asyncio.Event()
        self._nobody_waits.set()
        self._is_closing = False
        self._watch_timer: asyncio.TimerHandle | None = None
        self._has_warned_of_loading = False
        self._hang: DeviceError | None = None
        self._hung_step_began_at: float | None = None

    async def start(self) -> None:
        """Load on a thread of its own. Raises `EngineError` with a remedy."""
        if self._thread is None:
            self._thread = EngineThread(lambda: self._build_loop(self._config, self._report))
            self._watch()
        await asyncio.shield(self._thread.started)

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
            self._see_who_waits()

    @property
    def failure(self) -> EngineError | None:
        """Why nothing can be asked of it: the thread has died, or the device hangs; `None` while all is well."""
        return (self._thread.failure if self._thread is not None else None) or self._hang

    def load(self) -> EngineLoad:
        """How busy the thread was a moment ago."""
        return self._thread.load if self._thread is not None else EngineLoad()

    async def measure(self) -> TokenMeasure:
        """What texts cost here, as a value that can be had elsewhere."""
        return self._measure

    def context(self) -> ContextSize:
        """How much there is room for; unknown until it has started."""
        return self._measure.context()

    def count_tokens(self, text: str) -> int:
        """How many tokens `text` takes; an estimate until it has started."""
        return self._measure.count_tokens(text)

    @property
    def _measure(self) -> TokenMeasure:
        return self._thread.measure if self._thread is not None else _UNKNOWN

    async def aclose(self, *, drain_s: float = 0.0) -> None:
        """Take nothing new, give what was asked for `drain_s` seconds to end, end the rest and release the device.

        A thread that does not end is left behind.
        """
        thread = self._thread
        if thread is None:
            return
        self._is_closing = True
        try:
            await self._drain(drain_s)
        finally:
            thread.post(Close())
        is_stuck = thread.is_loading or self._hang is not None
        timeout_s = CLOSE_TIMEOUT_WHEN_STUCK_S if is_stuck else CLOSE_TIMEOUT_S
        done, _ = await asyncio.wait([thread.ended], timeout=timeout_s)
        self._stop_watching()
        if done:
            await asyncio.to_thread(thread.join)
            return
        logger.warning("the engine's thread does not end; it is left behind")
        resolve(thread.started, EngineError(WAS_CLOSED))
        self._tell_everybody(EngineError(WAS_CLOSED))

    # --- beside replies: a `SeeingEngine`

    async def describe(self, image: Image, *, question: str | None = None, language: str | None = None) -> Sight:
        """What `image` shows, or the answer to `question` about it."""

        def begin(loop: Any) -> Pieces[Sight]:  # noqa: ANN401 - the loop as the backend has built it
            from engine.seeing.jobs import describe

            return describe(loop, image, question=question, language=language)

        return await self._do(begin)

    async def space(self) -> str:
        """The space in which embeddings are made now."""

        def begin(loop: Any) -> Pieces[str]:  # noqa: ANN401
            from engine.seeing.jobs import space

            return space(loop)

        return await self._do(begin)

    async def embed_images(self, images: SequenceOf[Image]) -> tuple[Embedding, ...]:
        """Each picture's embedding."""

        def begin(loop: Any) -> Pieces[tuple[Embedding, ...]]:  # noqa: ANN401
            from engine.seeing.jobs import embed_images

            return embed_images(loop, images)

        return await self._do(begin)

    async def embed_text(self, text: str) -> Embedding:
        """The embedding of a description."""

        def begin(loop: Any) -> Pieces[Embedding]:  # noqa: ANN401
            from engine.seeing.jobs import embed_text

            return embed_text(loop, text)

        return await self._do(begin)

    async def match(self, text: str, images: SequenceOf[Image]) -> tuple[float, ...]:
        """How well the description fits each picture."""

        def begin(loop: Any) -> Pieces[tuple[float, ...]]:  # noqa: ANN401
            from engine.seeing.jobs import match

            return match(loop, text, images)

        return await self._do(begin)

    async def translate(self, text: str, *, language: str, images: tuple[Image, ...] = ()) -> Translation:
        """`text` in `language`, a language's English name."""

        def begin(loop: Any) -> Pieces[Translation]:  # noqa: ANN401
            from engine.seeing.jobs import translate

            return translate(loop, text, language=language, images=images)

        return await self._do(begin)

    async def explain(self, request: GenerationRequest, reply: str) -> Explanation:
        """What `reply`, the answer to `request`, was made of."""

        def begin(loop: Any) -> Pieces[Explanation]:  # noqa: ANN401
            from engine.seeing.jobs import explain

            return explain(loop, request, reply)

        return await self._do(begin)

    # --- admission

    def _submit(self, request: GenerationRequest, answers: "asyncio.Queue[ReplyChunk | EngineError]") -> Sequence:
        thread = self._require_running()
        config = self._config
        require_room(
            request,
            (sequence.request for sequence in self._open),
            max_open=config.max_waiting + (config.max_running or MAX_RUNNING),
            max_per_user=config.max_waiting_per_user,
        )

        def hand_over(answer: ReplyChunk | EngineError) -> None:
            thread.on_event_loop(lambda: answers.put_nowait(answer))

        sequence = Sequence(request, hand_over, time.monotonic())
        self._open.add(sequence)
        self._see_who_waits()
        thread.post(sequence)
        if thread.failure is not None:
            # The thread died between the check above and the hand-over, and reads no more.
            sequence.emit(thread.failure)
        return sequence

    async def _do(self, begin: BeginWork[T]) -> T:
        """Have a job done on the thread."""
        thread = self._require_running()
        if len(self._open_jobs) >= MAX_WAITING_JOBS:
            raise EngineBusy(f"{len(self._open_jobs)} pictures and texts are already being looked at: try again soon")
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        job = Job(begin, lambda value, error: thread.on_event_loop(lambda: _settle(done, value, error)))
        self._open_jobs.add(job)
        self._see_who_waits()
        thread.post(job)
        try:
            if thread.failure is not None:
                # The thread died between the check above and the hand-over, and reads no more.
                _settle(done, None, thread.failure)
            result: T = await done
            return result
        finally:
            job.is_cancelled = True
            self._open_jobs.discard(job)
            self._see_who_waits()

    def _require_running(self) -> EngineThread:
        thread = self._thread
        if thread is None:
            raise EngineError("the engine is not running: start it first, or start commedia again")
        if (failure := self.failure) is not None:
            raise type(failure)(str(failure))
        if self._is_closing:
            raise EngineClosing("the engine is closing and takes nothing new: ask again once it has started anew")
        return thread

    # --- those who wait

    def _see_who_waits(self) -> None:
        if self._open or self._open_jobs:
            self._nobody_waits.clear()
        else:
            self._nobody_waits.set()

    async def _drain(self, drain_s: float) -> None:
        if drain_s <= 0 or self._nobody_waits.is_set():
            return
        logger.info("waiting up to %.0f s for %d replies to end", drain_s, len(self._open) + len(self._open_jobs))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._nobody_waits.wait(), drain_s)

    def _tell_everybody(self, error: EngineError) -> None:
        """End every reply and job for its caller, whatever the thread does."""
        for sequence in self._open:
            sequence.is_cancelled = True
            sequence.emit(type(error)(str(error)))
        for job in self._open_jobs:
            job.is_cancelled = True
            job.settle(None, type(error)(str(error)))

    # --- a device that hangs

    def _watch(self) -> None:
        """Look after the thread, now and again until it ends."""
        thread = self._thread
        if thread is None or thread.ended.done():
            return
        if thread.is_loading:
            self._watch_loading(thread)
        elif self._hang is None:
            self._watch_step(thread)
        elif thread.watch.began_at != self._hung_step_began_at:
            logger.warning("the engine's device answers again")
            self._hang = self._hung_step_began_at = None
        interval_s = min(WATCH_INTERVAL_S, self._config.max_step_s / 4)
        self._watch_timer = asyncio.get_running_loop().call_later(interval_s, self._watch)

    def _stop_watching(self) -> None:
        if self._watch_timer is not None:
            self._watch_timer.cancel()

    def _watch_loading(self, thread: EngineThread) -> None:
        if self._has_warned_of_loading or thread.watch.in_step_for_s() <= self._config.max_step_s:
            return
        self._has_warned_of_loading = True
        logger.warning(
            "loading the model has taken %.0f s and goes on: a large model on a slow disk takes long. If the disk and "
            "the device stand idle, stop commedia and start it again",
            thread.watch.in_step_for_s(),
        )

    def _watch_step(self, thread: EngineThread) -> None:
        began_at = thread.watch.began_at
        if began_at is None or time.monotonic() - began_at <= self._config.max_step_s:
            return
        self._hung_step_began_at = began_at
        self._hang = DeviceError(
            f"the device has not answered for {self._config.max_step_s:g} s, so it seems to hang: start commedia "
            "again, and look at the device's driver if this comes back. Where the machine is only slow, raise "
            "engine.max_step_s"
        )
        logger.critical("%s", self._hang)
        self._tell_everybody(self._hang)


def _build_local(config: EngineConfig, report: Report | None) -> Loop:
    # Imports torch, and therefore happens here, on the engine's thread.
    from engine.backends.local import build

    return build(config, report)


def _settle(future: "asyncio.Future[Any]", value: object, error: EngineError | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
