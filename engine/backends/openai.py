"""Replies from a server that speaks OpenAI's API: Ollama, llama.cpp's server, a cloud.

Owns the way of a request there and back: admission, time limits, refusals, what is counted. Knows no torch, and neither
how HTTP is spoken (`chat_server`) nor how a request is worded (`chat_request`). The model gets text alone:
docs/remote.md says what is lost.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from engine.backends.chat_answers import Piece, ServedModel, Usage
from engine.backends.chat_request import Dialect, Draft, choose_adapter
from engine.backends.chat_server import ChatServer, Patience, Refused, choose_model, unknown_model
from engine.backends.gate import Gate
from engine.backends.sightless import Sightless
from engine.config import EngineConfig
from engine.errors import EngineClosing, EngineError, RequestError, ServerError
from engine.generation.joining import Joining
from engine.generation.sequence import Sequence
from engine.generation.stops import StopStrings
from engine.tokens import CalibratedTokens
from engine.types import ContextSize, EngineLoad, FinishReason, GenerationRequest, ReplyChunk

logger = logging.getLogger(__name__)

CHAT_PATH = "chat/completions"
DEFAULT_MAX_RUNNING = 8
CLOSE_TIMEOUT_S = 5.0
USAGE_TIMEOUT_S = 2.0
# Far more than any text has on average, so that it bounds only a server that heeds no limit.
MAX_CHARACTERS_PER_TOKEN = 64
# What a picture costs: as a note that it cannot be seen, and where the model sees it, rather too much.
TOKENS_PER_NOTE, TOKENS_PER_PICTURE = 16, 1024


@dataclass(eq=False, slots=True)
class Reply:
    """One reply while it is made. `is_cut` says that it was ended on this side, and nothing more is wanted."""

    sequence: Sequence
    text: StopStrings
    joining: Joining
    began_at: float
    usage: Usage | None = None
    num_pieces: int = 0
    num_characters: int = 0
    reason: FinishReason | None = None
    is_cut: bool = False

    def take(self, piece: Piece) -> str:
        """What can be shown of the newest piece; sets `reason` where the reply has ended."""
        self.usage = piece.usage or self.usage
        text = self._show(piece.text) if piece.text and self.reason is None else ""
        self.reason = self.reason or _finish_reason(piece.finish)
        return text

    def last_chunk(self, reason: FinishReason) -> ReplyChunk:
        """The end, with what was held back and what it cost."""
        usage, sequence, now = self.usage or Usage(), self.sequence, time.monotonic()
        sequence.num_prompt_tokens = usage.num_prompt_tokens
        # As the server counts, or by the pieces: most servers send one for each token.
        sequence.num_new_tokens = usage.num_new_tokens or self.num_pieces
        queue_s = self.began_at - sequence.accepted_at
        stats = replace(sequence.stats(now), num_cached_tokens=usage.num_cached_tokens, queue_s=queue_s)
        return ReplyChunk(self.text.finish(), reason, stats)

    def _show(self, text: str) -> str:
        # A piece is a token at least, so that this bounds a server that heeds no limit.
        max_tokens = self.sequence.request.sampling.max_new_tokens
        if self.num_pieces == max_tokens:
            self.reason, self.is_cut = FinishReason.LENGTH, True
            return ""
        if len(text) > (room := max_tokens * MAX_CHARACTERS_PER_TOKEN - self.num_characters):
            text = text[:room]
            self.reason, self.is_cut = FinishReason.LENGTH, True
        self.num_pieces += 1
        self.num_characters += len(text)
        if self.sequence.first_token_at is None:
            self.sequence.first_token_at = time.monotonic()
        shown = self.text.add(self.joining.add(text))
        if self.text.is_stopped:
            self.reason, self.is_cut = FinishReason.STOP, True
        return shown


class OpenAIEngine(Sightless):
    """An `Engine` whose model runs elsewhere. `patience` is for tests, which have none."""

    def __init__(self, config: EngineConfig, *, patience: Patience | None = None) -> None:
        self._config = config
        self._patience = patience
        self._server: ChatServer | None = None
        self._served: tuple[ServedModel, ...] = ()
        self._model = ""
        self._adapters = config.adapters
        self._dialect = Dialect()
        self._tokens = CalibratedTokens()
        self._gate = Gate(
            max_running=config.max_running or DEFAULT_MAX_RUNNING,
            max_waiting=config.max_waiting,
            max_waiting_per_user=config.max_waiting_per_user,
            max_wait_s=config.max_wait_s,
        )
        self._replies: set[asyncio.Task[None]] = set()
        self._done = EngineLoad()
        self._is_closing = False

    async def start(self) -> None:
        """Find the server and its model. Raises `EngineError` with a remedy."""
        if self._server is not None:
            return
        server = open_server(self._config, patience=self._patience)
        try:
            self._served = await server.models()
            self._model = choose_model(self._config.model, self._served, label=server.label)
            await self._prepare(server)
        except BaseException:
            await server.aclose()
            raise
        self._server, self._is_closing = server, False
        self._done = replace(self._done, device=server.label)
        logger.info("replies come from %s, model %s", server.label, self._model)

    async def generate(self, request: GenerationRequest) -> AsyncIterator[ReplyChunk]:
        """Stream one reply; closing the iterator closes the stream from the server."""
        self._require(request)
        answers: asyncio.Queue[ReplyChunk | BaseException] = asyncio.Queue()
        sequence = Sequence(request, answers.put_nowait, time.monotonic())
        self._gate.add(sequence)
        task = asyncio.create_task(self._serve(sequence), name="reply")
        self._replies.add(task)
        task.add_done_callback(lambda task: self._end(sequence, task, answers.put_nowait))
        try:
            while True:
                answer = await answers.get()
                if isinstance(answer, BaseException):
                    raise answer
                yield answer
                if answer.finish_reason is not None:
                    return
        finally:
            task.cancel()
            await asyncio.wait([task], timeout=CLOSE_TIMEOUT_S)

    def context(self) -> ContextSize:
        """How much there is room for, where the server says."""
        per_picture = TOKENS_PER_NOTE if self._dialect.max_pictures == 0 else TOKENS_PER_PICTURE
        return replace(self._tokens.context(), max_tokens=self._max_context_tokens(), per_picture=per_picture)

    def count_tokens(self, text: str) -> int:
        """An estimate, which what the server says of its prompts makes better."""
        return self._tokens.count_tokens(text)

    def load(self) -> EngineLoad:
        """How busy it is, as far as this side knows."""
        return replace(self._done, num_running=self._gate.num_running, num_waiting=self._gate.num_waiting)

    async def aclose(self, *, drain_s: float = 0.0) -> None:
        """Take nothing new, let replies end for up to `drain_s` seconds, and end the rest."""
        self._is_closing = True
        if self._replies and drain_s > 0:
            await asyncio.wait(self._replies, timeout=drain_s)
        for task in self._replies:
            task.cancel()
        if self._replies:
            await asyncio.wait(self._replies, timeout=CLOSE_TIMEOUT_S)
        if self._server is not None:
            await self._server.aclose()

    # --- what a server of a certain kind does differently

    async def _prepare(self, server: ChatServer) -> None:
        """Do what else is needed before the first reply; `_served` and `_model` are known."""

    async def _answer(self, reply: Reply) -> None:
        """Have the server answer, and hand out what comes until `reply` has a reason to end."""
        draft = self._draft(reply.sequence.request)
        await self._send(reply, draft, CHAT_PATH, draft.body)
        self._learn(draft, reply.usage)

    def _learn(self, draft: Draft, usage: Usage | None) -> None:
        """What the prompt has cost, if it was words alone."""
        contents = [message["content"] for message in draft.messages()]
        if usage is not None and usage.num_prompt_tokens and all(isinstance(one, str) for one in contents):
            text = "".join([*contents, draft.request.reply_start])
            self._tokens.note(text, num_turns=len(contents), num_tokens=usage.num_prompt_tokens)

    def _max_context_tokens(self) -> int | None:
        """Of the model, or of the shortest where it is not among those that the server lists."""
        lengths = {model.name: model.max_context_tokens for model in self._served if model.max_context_tokens}
        return lengths.get(self._model) or min(lengths.values(), default=None)

    def _draft(self, request: GenerationRequest) -> Draft:
        return Draft(request, choose_adapter(request, self._adapters, model=self._model), self._dialect)

    # --- one reply

    def _require(self, request: GenerationRequest) -> None:
        if not request.turns:
            raise RequestError("there is no turn to answer: send at least one")
        if self._is_closing:
            raise EngineClosing("the engine is closing and takes nothing new: ask again once it has started anew")
        if self._server is None:
            raise EngineError("the engine is not running: start it first, or start commedia again")
        choose_adapter(request, self._adapters, model=self._model)

    async def _serve(self, sequence: Sequence) -> None:
        await self._gate.turn(sequence)
        await self._reply(sequence)

    def _end(
        self, sequence: Sequence, task: "asyncio.Task[None]", tell: Callable[[ReplyChunk | BaseException], None]
    ) -> None:
        """Make room for the next. Whatever has happened, whoever waits for the reply learns of its end."""
        self._replies.discard(task)
        self._gate.remove(sequence)
        if task.cancelled():
            sequence.finish(FinishReason.CANCELLED, "", now=time.monotonic())
        elif (error := task.exception()) is not None:
            self._done = replace(self._done, num_failures=self._done.num_failures + 1)
            tell(error)

    async def _reply(self, sequence: Sequence) -> None:
        start = sequence.request.reply_start
        text = StopStrings(sequence.request.sampling.stop, before=start)
        # Whatever a server makes of a reply that has begun, some say it again from its beginning.
        reply = Reply(sequence, text, Joining(start, may_repeat=True), time.monotonic())
        limits = (sequence.request.sampling.max_duration_s, self._config.max_reply_s)
        try:
            async with asyncio.timeout(min(limit for limit in limits if limit is not None)) as clock:
                await self._answer(reply)
        except TimeoutError:
            if not clock.expired():
                raise
            reply.reason = reply.reason or FinishReason.TIME
        self._count(reply)
        sequence.emit(reply.last_chunk(reply.reason or FinishReason.STOP))

    async def _send(self, reply: Reply, draft: Draft, path: str, body: Callable[[], dict[str, Any]]) -> None:
        """Ask until the server takes the request, with the draft mended after each refusal."""
        while True:
            reply.sequence.num_dropped_turns = draft.num_dropped_turns
            try:
                await self._follow(reply, path, body())
            except Refused as refusal:
                if reply.num_pieces:
                    raise ServerError(f"{refusal} (in the middle of a reply)") from None
                if refusal.status == 404:
                    raise await self._not_found(refusal, draft.model) from None
                draft.mend(refusal)
            else:
                return

    async def _follow(self, reply: Reply, path: str, body: dict[str, Any]) -> None:
        assert self._server is not None  # noqa: S101 - checked before the reply was accepted
        async with aclosing(self._server.stream(path, body)) as pieces:
            async for piece in pieces:
                if text := reply.take(piece):
                    reply.sequence.emit(ReplyChunk(text))
                if reply.is_cut:
                    return
                if reply.reason is not None:
                    break
            # All that was asked for has come; what it cost may follow, and is not worth an error.
            with contextlib.suppress(TimeoutError, EngineError):
                async with asyncio.timeout(USAGE_TIMEOUT_S):
                    async for piece in pieces:
                        reply.take(piece)

    async def _not_found(self, refusal: Refused, model: str) -> EngineError:
        """What an answer 404 means: the model, or the address."""
        assert self._server is not None  # noqa: S101 - checked before the reply was accepted
        names = [served.name for served in await self._server.models()]
        if names and model not in names:
            return ServerError(str(unknown_model(model, names, label=self._server.label)))
        return ServerError(
            f"{refusal}; check engine.model, and that engine.url is where the API is (often it ends in /v1)"
        )

    def _count(self, reply: Reply) -> None:
        done, usage = self._done, reply.usage or Usage()
        self._done = replace(
            done,
            num_replies=done.num_replies + 1,
            num_prompt_tokens=done.num_prompt_tokens + usage.num_prompt_tokens,
            num_cached_tokens=done.num_cached_tokens + usage.num_cached_tokens,
            num_new_tokens=done.num_new_tokens + (usage.num_new_tokens or reply.num_pieces),
        )


def open_server(config: EngineConfig, *, patience: Patience | None = None) -> ChatServer:
    """The server that the configuration names. Raises `ConfigurationError`."""
    return ChatServer(config.url, api_key=config.api_key, max_silence_s=config.max_step_s, patience=patience)


async def check(config: EngineConfig) -> str:
    """What answers at the configured address, in a sentence. Raises `EngineError` with a remedy."""
    server = open_server(config)
    try:
        served = await server.models()
        model = choose_model(config.model, served, label=server.label)
    finally:
        await server.aclose()
    if not served:
        return f"{server.label} answers, and keeps no list of models; {model} is asked for"
    return f"{server.label} answers; the model is {model}, one of {len(served)}"


def _finish_reason(told: str | None) -> FinishReason | None:
    if told is None:
        return None
    if told == "content_filter":
        raise ServerError("the server's content filter stopped the reply: put it another way, or choose another model")
    if told in ("abort", "error"):
        raise ServerError("the server gave this reply up: see its log, then ask again")
    return FinishReason.LENGTH if told == "length" else FinishReason.STOP
