"""An engine whose replies stay in their part.

Owns what is held back, what is asked for again, and when that is given up. What a break is, `bot.guarding.signs` knows;
what is said in place of a reply, `bot.guarding.lines`. Knows no model and no platform.

A sentence is shown once it is complete and found good: until then it is held back, up to a bound. At a break the
generation is closed and the reply asked for again from the last good point.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from bot.guarding import tongues
from bot.guarding.lines import line_instead, reminder
from bot.guarding.signs import Break, BreakKind, Watch, last_border
from bot.words import UNSPACED
from engine.errors import EngineError
from engine.types import (
    ContextSize,
    EngineLoad,
    FinishReason,
    GenerationRequest,
    Insertion,
    ReplyChunk,
    ReplyEngine,
    ReplyStats,
    SamplingSettings,
    TokenMeasure,
)

logger = logging.getLogger(__name__)

# A sentence that goes on for longer is shown in parts. A sign of a script without spaces counts as three letters.
MAX_HELD_LETTERS = 200
# Of such a sentence this much is kept back: a sign of a break may have begun.
KEPT_LETTERS = 80
# Less is not worth another try.
MIN_NEW_TOKENS = 8
MIN_DURATION_S = 0.5
_WARMER = 0.1
_MAX_TEMPERATURE = 1.5
_NUM_SEEDS = 2**31
# Odd, so that all tries of all seeds differ.
_SEED_STEP = 0x9E3779B1
_MILD = frozenset({BreakKind.WRONG_LANGUAGE, BreakKind.ECHO})

RESAMPLED, SHORTENED, DEFLECTED = "resampled", "shortened", "deflected"


class MeasuredEngine(ReplyEngine, TokenMeasure, Protocol):
    """What can be guarded."""


class GuardedEngine:
    """A `ReplyEngine` that asks `engine`, up to `max_tries` times more where a reply breaks its part.

    `counting` is told the kind of every break and what was done: `resampled`, `shortened` or `deflected`.
    """

    def __init__(
        self,
        engine: MeasuredEngine,
        *,
        max_tries: int = 2,
        counting: Callable[[str, str], None] = lambda kind, outcome: None,  # noqa: ARG005 - a table of one row
    ) -> None:
        self._engine = engine
        self._max_tries = max_tries
        self._counting = counting

    async def start(self) -> None:
        """Start the engine, and get ready to tell languages apart."""
        await asyncio.gather(self._engine.start(), asyncio.to_thread(tongues.load))

    def load(self) -> EngineLoad:
        """The engine's."""
        return self._engine.load()

    async def aclose(self, *, drain_s: float = 0.0) -> None:
        """Close the engine."""
        await self._engine.aclose(drain_s=drain_s)

    def context(self) -> ContextSize:
        """The engine's."""
        return self._engine.context()

    def count_tokens(self, text: str) -> int:
        """The engine's."""
        return self._engine.count_tokens(text)

    async def generate(self, request: GenerationRequest) -> AsyncIterator[ReplyChunk]:
        """Stream one reply, of which only what was found good is shown."""
        if not request.persona.guard.is_on:
            async with _closing(self._engine.generate(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        reply = _GuardedReply(request, self._engine, max_tries=self._max_tries, counting=self._counting)
        async with _closing(reply.chunks()) as chunks:
            async for chunk in chunks:
                yield chunk


@dataclass(slots=True)
class _Try:
    """One generation: what it has said, how much of it was shown, and how it ended."""

    request: GenerationRequest
    text: str = ""
    num_shown: int = 0
    found: Break | None = None
    finish_reason: FinishReason | None = None
    stats: ReplyStats | None = None

    @property
    def held(self) -> str:
        return self.text[self.num_shown :]


@dataclass(slots=True)
class _Cost:
    """What all tries of a reply took together."""

    began_at: float = field(default_factory=time.monotonic)
    first_text_s: float | None = None
    tries: list[_Try] = field(default_factory=list)

    def so_far_s(self) -> float:
        return time.monotonic() - self.began_at

    def heard_text(self) -> None:
        if self.first_text_s is None:
            self.first_text_s = self.so_far_s()

    def total(self, engine: TokenMeasure) -> ReplyStats | None:
        """One try tells it itself. Of a try that was broken off, the prompt is as long as the others', and its words
        are counted."""
        known = [one.stats for one in self.tries if one.stats is not None]
        if len(self.tries) == 1 and known:
            return known[0]
        last = known[-1] if known else ReplyStats(0, 0, 0.0, 0.0)
        unknown = [one for one in self.tries if one.stats is None]
        return replace(
            last,
            num_prompt_tokens=sum(one.num_prompt_tokens for one in known) + len(unknown) * last.num_prompt_tokens,
            num_cached_tokens=sum(one.num_cached_tokens for one in known),
            num_new_tokens=sum(one.num_new_tokens for one in known)
            + sum(engine.count_tokens(one.text) for one in unknown),
            queue_s=sum(one.queue_s for one in known),
            time_to_first_token_s=self.first_text_s or 0.0,
            duration_s=self.so_far_s(),
        )


class _GuardedReply:
    """One reply in the making."""

    def __init__(
        self,
        request: GenerationRequest,
        engine: MeasuredEngine,
        *,
        max_tries: int,
        counting: Callable[[str, str], None],
    ) -> None:
        self._request = request
        self._engine = engine
        self._max_tries = max_tries
        self._counting = counting
        self._watch = Watch(request)
        self._cost = _Cost()
        self._good = request.reply_start
        self._found: Break | None = None
        self._least_bad = ""

    async def chunks(self) -> AsyncIterator[ReplyChunk]:
        for number in range(self._max_tries + 1):
            attempt = _Try(self._again(number))
            self._cost.tries.append(attempt)
            try:
                async with _closing(self._listen(attempt)) as chunks:
                    async for chunk in chunks:
                        yield chunk
            except EngineError as error:
                if number == 0:
                    raise
                logger.warning("a reply could not be made again, and ends where it was good: %s", error)
                break
            if self._is_done(attempt, number):
                if attempt.finish_reason is not None:
                    yield ReplyChunk("", attempt.finish_reason, self._cost.total(self._engine))
                return
            self._note(attempt)
            if not self._may_try_again(number):
                break
            if attempt.found is not None:
                self._count(RESAMPLED)
        yield self._ending()

    async def _listen(self, attempt: _Try) -> AsyncIterator[ReplyChunk]:
        """Follow `attempt` up to its end or to its first break, and give what is good of it."""
        async with _closing(self._engine.generate(attempt.request)) as chunks:
            async for chunk in chunks:
                if chunk.text:
                    self._cost.heard_text()
                elif chunk.queue is not None and not self._has_shown:
                    yield chunk
                attempt.text += chunk.text
                attempt.finish_reason, attempt.stats = chunk.finish_reason, chunk.stats or attempt.stats
                if text := self._released(attempt):
                    yield ReplyChunk(text)
                if attempt.found is not None:
                    return

    def _is_done(self, attempt: _Try, number: int) -> bool:
        """Whether that is the reply. Another try that has nothing to say is none."""
        return attempt.found is None and (number == 0 or bool(self._good.strip()))

    @property
    def _has_shown(self) -> bool:
        return len(self._good) > len(self._request.reply_start)

    # --- what may be shown

    def _released(self, attempt: _Try) -> str:
        """What of the held text is found good. Sets `attempt.found` at a break."""
        ready = self._num_ready(attempt)
        if not ready:
            return ""
        reply = self._good + attempt.held[:ready]
        attempt.found = self._watch.find(reply, since=len(self._good))
        if attempt.found is not None:
            ready = max(0, attempt.found.start - len(self._good))
            # What follows brings its own space.
            ready = len(attempt.held[:ready].rstrip())
        elif attempt.finish_reason is None and _num_letters(attempt.held[:ready]) > MAX_HELD_LETTERS:
            ready = _before_end(attempt.held[:ready])
        text = attempt.held[:ready]
        attempt.num_shown += ready
        self._good += text
        return text

    def _num_ready(self, attempt: _Try) -> int:
        """How much of the held text can be judged: whole sentences, or what is too long to be held back."""
        if not (self._good + attempt.held).strip():
            return 0
        if attempt.finish_reason is not None or _num_letters(attempt.held) > MAX_HELD_LETTERS:
            return len(attempt.held)
        # The space before the next sentence goes with it.
        return len(attempt.held[: last_border(attempt.held)].rstrip())

    # --- once more

    def _again(self, number: int) -> GenerationRequest:
        """The request of try `number`; 0 is the first."""
        if not number:
            return self._request
        request = self._request
        return replace(
            request,
            reply_start=self._good,
            sampling=self._varied(request.sampling, number),
            insertions=(*request.insertions, Insertion(reminder(request.persona))),
        )

    def _varied(self, sampling: SamplingSettings, number: int) -> SamplingSettings:
        """So that it does not say the same again, and a seeded reply stays repeatable."""
        seed = sampling.seed
        if seed is None and sampling.temperature == 0.0:
            seed = 0
        return replace(
            sampling,
            temperature=min(sampling.temperature + _WARMER * number, max(_MAX_TEMPERATURE, sampling.temperature)),
            seed=None if seed is None else (seed + number * _SEED_STEP) % _NUM_SEEDS,
            max_new_tokens=max(1, self._num_tokens_left()),
            max_duration_s=self._duration_left_s(),
        )

    def _num_tokens_left(self) -> int:
        shown = self._good[len(self._request.reply_start) :]
        return self._request.sampling.max_new_tokens - self._engine.count_tokens(shown)

    def _duration_left_s(self) -> float | None:
        limit_s = self._request.sampling.max_duration_s
        return None if limit_s is None else max(0.0, limit_s - self._cost.so_far_s())

    def _may_try_again(self, number: int) -> bool:
        left_s = self._duration_left_s()
        has_time = left_s is None or left_s >= MIN_DURATION_S
        return number < self._max_tries and has_time and self._num_tokens_left() >= MIN_NEW_TOKENS

    # --- the end of it

    def _note(self, attempt: _Try) -> None:
        """Remember what may be said if nothing better comes."""
        if attempt.found is None:
            return
        self._found = attempt.found
        logger.debug("%s left its part: %s", self._request.persona.id, attempt.found.why)
        if attempt.found.kind in _MILD:
            self._least_bad = attempt.held.strip()

    def _ending(self) -> ReplyChunk:
        """What ends a reply that found no way back."""
        if self._good.strip():
            self._count(SHORTENED)
            text = "" if _is_complete(self._good) else "…"
        else:
            self._count(DEFLECTED)
            text = line_instead(self._request, least_bad=self._least_bad)
        return ReplyChunk(text, FinishReason.STOP, self._cost.total(self._engine))

    def _count(self, outcome: str) -> None:
        if self._found is not None:
            self._counting(self._found.kind.value, outcome)


@contextlib.asynccontextmanager
async def _closing(chunks: AsyncIterator[ReplyChunk]) -> AsyncIterator[AsyncIterator[ReplyChunk]]:
    """Close `chunks` in the end, which stops what makes them."""
    try:
        yield chunks
    finally:
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await close()


def _num_letters(text: str) -> int:
    return len(text) + 2 * len(UNSPACED.findall(text))


def _before_end(text: str) -> int:
    """Where `text` can be cut so that its end stays back: at a word's beginning."""
    kept = KEPT_LETTERS if not UNSPACED.search(text[-KEPT_LETTERS:]) else KEPT_LETTERS // 3
    head = text[:-kept]
    space = len(head.rstrip()) if head[-1:].isspace() else head.rfind(" ")
    return space if space > 0 else len(head)


def _is_complete(text: str) -> bool:
    return text.rstrip().endswith((".", "!", "?", "…", "。", "！", "？", '"', "”", "」", "』", "*", ")", "）"))
