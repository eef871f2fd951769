"""The asyncio façade over the one thread that owns the device.

Owns the thread, admission and hand-over between it and the event loop. Knows no torch: what the thread runs is built on
the thread, by `engine.backends.local.build` or a test's stand-in. Nobody waits for ever: a failed step, a dead thread
and an orderly end each tell every caller.

Beside replies the thread does *jobs*, such as describing a picture. A job is a generator that yields after each piece
of its work; between two pieces every reply advances by a step, so that a job slows replies down but never stops them.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

from engine.config import EngineConfig
from engine.errors import EngineBusy, EngineError
from engine.generation.scheduler import MAX_RUNNING
from engine.generation.sequence import Sequence
from engine.models.fetch import Report
from engine.seeing.work import Pieces
from engine.types import (
    Embedding,
    Explanation,
    FinishReason,
    GenerationRequest,
    Image,
    ReplyChunk,
    Sight,
    Translation,
)

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 30.0
MAX_WAITING_JOBS = 16
MAX_JOBS_AT_ONCE = 3

T = TypeVar("T")


class Loop(Protocol):
    """What the thread runs: `engine.generation.loop.GenerationLoop`."""

    @property
    def has_work(self) -> bool: ...
    def add(self, sequence: Sequence) -> None: ...
    def step(self) -> None: ...
    def cancel_all(self) -> None: ...
    def fail_all(self, error: EngineError) -> None: ...


BuildLoop = Callable[[EngineConfig, Report | None], Loop]
BeginWork = Callable[[Any], Pieces[T]]
"""Begins a job's work on the thread, from the loop with all that it has loaded."""


@dataclass(frozen=True, slots=True)
class _Close:
    """Asks the thread to end."""


@dataclass(eq=False, slots=True)
class _Job:
    """A job on its way. `is_cancelled` may be set from any thread; `pieces` belongs to the engine's."""

    begin: BeginWork[Any]
    settle: Callable[[object, EngineError | None], None]
    is_cancelled: bool = False
    pieces: Pieces[Any] | None = None

    def advance(self, loop: Loop) -> bool:
        """Do the next piece, and say whether that was the last one."""
        if self.is_cancelled:
            self.fail(EngineError("nobody waits for this any more"))
            return True
        try:
            if self.pieces is None:
                self.pieces = self.begin(loop)
            next(self.pieces)
        except StopIteration as end:
            self.settle(end.value, None)
        except EngineError as error:
            self.settle(None, error)
        except Exception as error:
            # The boundary: one job's failure is logged, and told to its caller.
            logger.error("a job of the engine failed", exc_info=error)
            failure = EngineError(f"the engine failed on this ({type(error).__name__}); the log says more")
            failure.__cause__ = error
            self.settle(None, failure)
        else:
            return False
        return True

    def fail(self, error: EngineError) -> None:
        """End it where it is."""
        if self.pieces is not None:
            self.pieces.close()
        self.settle(None, error)


class EngineService:
    """A `ReplyEngine` on this machine. `report` is told how far missing weights are; it is called on the thread."""

    def __init__(
        self, config: EngineConfig, *, report: Report | None = None, build_loop: BuildLoop | None = None
    ) -> None:
        self._config = config
        self._report = report
        self._build_loop = build_loop or _build_local
        self._inbox: SimpleQueue[Sequence | _Job | _Close] = SimpleQueue()
        self._jobs: deque[_Job] = deque()
        self._thread: threading.Thread | None = None
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._started: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._open: set[Sequence] = set()
        self._open_jobs: set[_Job] = set()
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
        self._require_running()
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

    async def _do(self, begin: BeginWork[T]) -> T:
        """Have a job done on the thread."""
        self._require_running()
        if len(self._open_jobs) >= MAX_WAITING_JOBS:
            raise EngineBusy(f"{len(self._open_jobs)} pictures and texts are already being looked at: try again soon")
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        job = _Job(begin, lambda value, error: self._on_event_loop(lambda: _settle(done, value, error)))
        self._open_jobs.add(job)
        self._inbox.put(job)
        try:
            if self._failure is not None:
                # The thread died between the check above and the hand-over, and reads no more.
                _settle(done, None, self._failure)
            result: T = await done
            return result
        finally:
            job.is_cancelled = True
            self._open_jobs.discard(job)

    def _require_running(self) -> None:
        if self._failure is not None:
            raise type(self._failure)(str(self._failure))
        if self._thread is None or self._is_closing:
            raise EngineError("the engine is not running: start it first, or start commedia again")

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
                message = self._inbox.get(block=not (loop.has_work or self._jobs))
            except Empty:
                self._work(loop)
                continue
            if isinstance(message, _Close):
                loop.cancel_all()
                self._fail_jobs(EngineError("the engine was closed: start commedia again"))
                self._empty_inbox(lambda one: one.finish(FinishReason.CANCELLED, "", now=time.monotonic()))
                return
            if isinstance(message, _Job):
                self._jobs.append(message)
            else:
                loop.add(message)

    def _work(self, loop: Loop) -> None:
        """A step for every reply, then a piece of one job.

        The oldest few take turns, so that a long translation does not hold up who only wants a picture described; not
        all, for each that has begun holds memory.
        """
        if loop.has_work:
            loop.step()
        if not self._jobs:
            return
        # It stays in sight until its piece is done: should the thread die over it, its caller is told too.
        has_ended = self._jobs[0].advance(loop)
        job = self._jobs.popleft()
        if not has_ended:
            self._jobs.insert(MAX_JOBS_AT_ONCE - 1, job)

    def _fail_jobs(self, error: EngineError) -> None:
        while self._jobs:
            self._jobs.popleft().fail(type(error)(str(error)))

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
        self._fail_jobs(failure)
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
            elif isinstance(message, _Job):
                message.fail(self._failure or EngineError("the engine was closed: start commedia again"))


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


def _resolve(future: "asyncio.Future[None] | None", error: EngineError | None = None) -> None:
    if future is None or future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
        # Whoever started the engine may be gone; then nobody asks for the result.
        future.exception()
