"""The bot's side: many engines elsewhere as one `Engine`.

Owns who waits, what is told to them, and the end. Knows no Ray: an `Application` does. Nobody waits for ever: a request
that no replica takes, a replica that dies and an orderly end are each told to whoever waits.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import replace
from typing import TypeVar, cast

from engine.backends.ray_serve.application import Answers, Application, RayApplication
from engine.backends.ray_serve.loads import LoadBook
from engine.backends.ray_serve.replica import BuildEngine, Taken, build_local
from engine.backends.ray_serve.routing import session_of
from engine.config import EngineConfig
from engine.errors import EngineClosing, EngineError, ServerError
from engine.tokens import EstimatedTokens
from engine.types import (
    ContextSize,
    Embedding,
    EngineLoad,
    Explanation,
    FinishReason,
    GenerationRequest,
    Image,
    QueuePlace,
    ReplyChunk,
    ReplyStats,
    Sight,
    TokenMeasure,
    Translation,
)

logger = logging.getLogger(__name__)

LOAD_INTERVAL_S = 2.0
PLACE_INTERVAL_S = 2.0

BuildApplication = Callable[[EngineConfig, BuildEngine], Application]
T = TypeVar("T")


class RayEngine:
    """An `Engine` whose replies come from `config.num_replicas` engines in Ray Serve, each in a process of its own.

    `build` makes a replica's engine, and must be importable where the replicas run.
    """

    def __init__(
        self,
        config: EngineConfig,
        *,
        build: BuildEngine = build_local,
        build_application: BuildApplication = RayApplication,
    ) -> None:
        self._config = config
        self._application = build_application(config, build)
        self._open: set[_Reply] = set()
        self._book = LoadBook()
        self._measure: TokenMeasure = EstimatedTokens()
        self._watch: asyncio.Task[None] | None = None
        self._is_running = False
        self._is_ending = asyncio.Event()
        self._end: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Have the replicas run, and wait until they have loaded."""
        if self._end is not None:
            raise EngineClosing("the engine was closed: start commedia again")
        if self._watch is not None:
            return
        await self._application.open()
        await self._note_loads()
        await self._learn_measure()
        self._is_running = True
        self._watch = asyncio.create_task(self._keep_book())

    async def generate(self, request: GenerationRequest) -> AsyncIterator[ReplyChunk]:
        """Stream one reply; closing the iterator stops the replica within a step."""
        self._require_running()
        reply = _Reply(self._application.stream(request, session=_session(request)))
        self._open.add(reply)
        try:
            async for chunk in reply.chunks(self._place_of, max_wait_s=self._config.max_wait_s):
                yield chunk
        finally:
            self._open.discard(reply)
            reply.let_go()

    def load(self) -> EngineLoad:
        """How busy all of them are, as of a moment ago; who waits for a replica counts as well."""
        load = self._book.total()
        return replace(load, num_waiting=load.num_waiting + sum(not reply.is_taken for reply in self._open))

    def context(self) -> ContextSize:
        """How much each of them has room for; unknown until they have started."""
        return self._measure.context()

    def count_tokens(self, text: str) -> int:
        """How many tokens `text` takes; an estimate until they have started."""
        return self._measure.count_tokens(text)

    async def aclose(self, *, drain_s: float = 0.0) -> None:
        """Take nothing new, let replies end for up to `drain_s`, and take the replicas away."""
        if self._end is None:
            self._end = asyncio.create_task(self._close(drain_s))
        await asyncio.shield(self._end)

    # --- beside replies: a `SeeingEngine`

    async def describe(self, image: Image, *, question: str | None = None, language: str | None = None) -> Sight:
        """What `image` shows, or the answer to `question` about it."""
        return cast(Sight, await self._ask("describe", image, question=question, language=language))

    async def space(self) -> str:
        """The space in which embeddings are made now."""
        return cast(str, await self._ask("space"))

    async def embed_images(self, images: Sequence[Image]) -> tuple[Embedding, ...]:
        """Each picture's embedding."""
        return cast(tuple[Embedding, ...], await self._ask("embed_images", images))

    async def embed_text(self, text: str) -> Embedding:
        """The embedding of a description."""
        return cast(Embedding, await self._ask("embed_text", text))

    async def match(self, text: str, images: Sequence[Image]) -> tuple[float, ...]:
        """How well the description fits each picture."""
        return cast(tuple[float, ...], await self._ask("match", text, images))

    async def translate(self, text: str, *, language: str, images: tuple[Image, ...] = ()) -> Translation:
        """`text` in `language`, a language's English name."""
        return cast(Translation, await self._ask("translate", text, language=language, images=images))

    async def explain(self, request: GenerationRequest, reply: str) -> Explanation:
        """What `reply`, the answer to `request`, was made of."""
        return cast(Explanation, await self._ask("explain", request, reply, session=_session(request)))

    # --- inside

    async def _ask(self, name: str, *arguments: object, session: str = "", **named: object) -> object:
        self._require_running()
        answer = await self._application.ask(name, *arguments, session=session, **named)
        if isinstance(answer, EngineError):
            raise answer
        return answer

    def _require_running(self) -> None:
        if self._end is not None:
            raise EngineClosing("the engine is closing and takes nothing new: ask again once it has started anew")
        if not self._is_running:
            raise EngineError("the engine is not running: start it first")

    def _place_of(self, reply: "_Reply") -> int:
        """How many wait for a replica up to and with `reply`."""
        return sum(not other.is_taken and other.began_at <= reply.began_at for other in self._open)

    async def _keep_book(self) -> None:
        while not self._is_ending.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_ending.wait(), LOAD_INTERVAL_S)
            await self._note_loads()

    async def _note_loads(self) -> None:
        try:
            self._book.note(await self._application.loads())
        except EngineError as error:
            logger.debug("the replicas do not say how busy they are: %s", error)

    async def _learn_measure(self) -> None:
        """All of them run the same model, so that one is asked, and only once."""
        try:
            measure = await self._application.ask("measure")
        except EngineError as error:
            logger.warning("the replicas do not say what texts cost, so that it is estimated: %s", error)
        else:
            if not isinstance(measure, EngineError):
                self._measure = cast(TokenMeasure, measure)

    async def _close(self, drain_s: float) -> None:
        if self._open and drain_s > 0:
            await _wait_for_all(self._open, timeout_s=drain_s)
        for reply in list(self._open):
            reply.end()
        self._is_ending.set()
        if self._watch is not None:
            await self._watch
        await self._application.close()


class _Reply:
    """A reply on its way from a replica to whoever asked."""

    def __init__(self, answers: Answers) -> None:
        self.began_at = time.monotonic()
        self.is_taken = False
        self.is_over = asyncio.Event()
        self._is_whole = False
        self._taken_after_s = 0.0
        self._first_after_s = 0.0
        self._num_chunks = 0
        self._answers = answers
        self._inbox: asyncio.Queue[Taken | ReplyChunk | EngineError] = asyncio.Queue()
        self._pump = asyncio.create_task(self._read())

    async def chunks(self, place_of: "Callable[[_Reply], int]", *, max_wait_s: float) -> AsyncIterator[ReplyChunk]:
        """What comes, up to the last chunk. Until a replica has taken the request, its place among those who wait."""
        while not self.is_taken:
            try:
                # Not `wait_for`: in Python 3.11 that loses a cancellation which comes together with an item.
                async with asyncio.timeout(PLACE_INTERVAL_S):
                    item = await self._inbox.get()
            except TimeoutError:
                if self._age_s() > max_wait_s:
                    raise _nobody_came(max_wait_s) from None
                yield ReplyChunk("", queue=QueuePlace(place_of(self), None))
                continue
            if isinstance(item, Taken):
                self.is_taken, self._taken_after_s = True, self._age_s()
                break
            yield self._checked(item)
            return
        while True:
            chunk = self._checked(cast(ReplyChunk | EngineError, await self._inbox.get()))
            self._is_whole = chunk.finish_reason is not None
            yield chunk
            if self._is_whole:
                return

    def end(self) -> None:
        """Tell whoever reads that it ends here."""
        self._pump.cancel()
        self._answers.cancel()
        stats = ReplyStats(0, self._num_chunks, self._first_after_s, self._age_s(), queue_s=self._taken_after_s)
        self._inbox.put_nowait(ReplyChunk("", FinishReason.CANCELLED, stats))

    def let_go(self) -> None:
        """Have the replica stop, if it still goes on."""
        if not (self._is_whole or self._pump.done()):
            self._pump.cancel()
            self._answers.cancel()
        self.is_over.set()

    def _checked(self, item: ReplyChunk | EngineError) -> ReplyChunk:
        if isinstance(item, EngineError):
            raise item
        if item.text and not self._num_chunks:
            self._first_after_s = self._age_s()
        self._num_chunks += bool(item.text)
        if item.stats is None:
            return item
        # The replica counts from when the request came to it.
        late_s = self._taken_after_s
        stats = replace(
            item.stats,
            time_to_first_token_s=item.stats.time_to_first_token_s + late_s,
            duration_s=item.stats.duration_s + late_s,
            queue_s=item.stats.queue_s + late_s,
        )
        return replace(item, stats=stats)

    def _age_s(self) -> float:
        return time.monotonic() - self.began_at

    async def _read(self) -> None:
        """Take from the replica what comes, until it ends or breaks."""
        try:
            async for item in self._answers:
                self._inbox.put_nowait(item)
            self._inbox.put_nowait(_broken_off())
        except EngineError as error:
            self._inbox.put_nowait(error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not we: Ray has cancelled the reply on its own side.
            self._inbox.put_nowait(_broken_off())


async def _wait_for_all(replies: "Collection[_Reply]", *, timeout_s: float) -> None:
    waits = [asyncio.create_task(reply.is_over.wait()) for reply in replies]
    _, pending = await asyncio.wait(waits, timeout=timeout_s)
    for wait in pending:
        wait.cancel()


def _session(request: GenerationRequest) -> str:
    return session_of(request.asker.conversation) if request.asker is not None else ""


def _broken_off() -> ServerError:
    return ServerError("the engine that was answering broke off in the middle of it: send the message again")


def _nobody_came(waited_s: float) -> ServerError:
    return ServerError(
        f"no engine has taken this for {waited_s:.0f} s: look at `ray status`, and whether the machines have room for "
        "engine.num_replicas; where Ray itself is gone, start commedia again"
    )
