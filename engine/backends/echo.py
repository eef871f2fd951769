"""The rehearsal backend: repeats the last turn word by word, for trying adapters and personas without weights.

A reply that has begun goes on where the echo would; behind words that are no echo, all of it follows.

Owns nothing but its pace. Knows no model and no torch; the same request always gets the same words.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace

from engine.backends.sightless import Sightless
from engine.errors import EngineClosing, EngineError, RequestError
from engine.tokens import EstimatedTokens
from engine.types import EngineLoad, FinishReason, GenerationRequest, ReplyChunk, ReplyStats

NO_MODEL = (
    "Only a rehearsal engine runs here: it repeats what it hears and sees nothing. Whoever runs me can set "
    'engine.backend = "local" in commedia.toml.'
)
_WORDS = re.compile(r"\s*\S+")


class EchoEngine(EstimatedTokens, Sightless):
    """An `Engine` that says what it heard: its persona, and how many pictures and earlier turns it got."""

    refusal = NO_MODEL

    def __init__(self, *, seconds_per_word: float = 0.0) -> None:
        self._seconds_per_word = seconds_per_word
        self._is_closed = False
        self._is_draining = False
        self._num_running = 0
        self._nobody_runs = asyncio.Event()
        self._nobody_runs.set()
        self._load = EngineLoad(device="none: it only repeats what it hears")

    async def start(self) -> None:
        """Nothing to load."""
        self._is_closed = self._is_draining = False

    async def generate(self, request: GenerationRequest) -> AsyncIterator[ReplyChunk]:
        """Stream the echo, one word a chunk, at most `max_new_tokens` words."""
        if not request.turns:
            raise RequestError("there is no turn to answer; send at least one")
        if self._is_draining:
            raise EngineClosing("the engine is closing and takes nothing new: ask again once it has started anew")
        self._num_running += 1
        self._nobody_runs.clear()
        try:
            async with contextlib.aclosing(self._say(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self._num_running -= 1
            if not self._num_running:
                self._nobody_runs.set()

    async def _say(self, request: GenerationRequest) -> AsyncGenerator[ReplyChunk]:
        started = time.perf_counter()
        words = _WORDS.findall(_rest_of(echo_of(request), request.reply_start))
        said = words[: request.sampling.max_new_tokens]
        first_at = started
        for index, word in enumerate(said):
            await asyncio.sleep(self._seconds_per_word)
            if self._is_closed:
                raise EngineError("the engine was closed while it answered; start it again")
            first_at = time.perf_counter() if index == 0 else first_at
            yield ReplyChunk(word)
        stats = ReplyStats(
            num_prompt_tokens=sum(len(turn.text.split()) for turn in request.turns),
            num_new_tokens=len(said),
            time_to_first_token_s=first_at - started,
            duration_s=time.perf_counter() - started,
        )
        reason = FinishReason.STOP if len(said) == len(words) else FinishReason.LENGTH
        self._count(stats)
        yield ReplyChunk("", reason, stats)

    def _count(self, stats: ReplyStats) -> None:
        load = self._load
        self._load = replace(
            load,
            num_replies=load.num_replies + 1,
            num_prompt_tokens=load.num_prompt_tokens + stats.num_prompt_tokens,
            num_new_tokens=load.num_new_tokens + stats.num_new_tokens,
        )

    def load(self) -> EngineLoad:
        """How many it talks to. It makes nobody wait, and counts words for tokens."""
        return replace(self._load, num_running=self._num_running)

    async def aclose(self, *, drain_s: float = 0.0) -> None:
        """Take nothing new, and end what still runs after `drain_s` seconds."""
        self._is_draining = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._nobody_runs.wait(), drain_s)
        self._is_closed = True


def echo_of(request: GenerationRequest) -> str:
    """What the echo of `request` says in full."""
    *earlier, turn = request.turns
    seen = ", ".join(filter(None, (_count(len(turn.images), "picture"), _count(len(earlier), "earlier turn"))))
    return f"{request.persona.name} heard{f' ({seen})' if seen else ''}: {turn.text}"


def _rest_of(echo: str, start: str) -> str:
    if not start or echo.startswith(start):
        return echo.removeprefix(start)
    return echo if start[-1].isspace() else f" {echo}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}" if number else ""
