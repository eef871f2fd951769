"""The engine's vocabulary: what is asked of it and what it answers.

Owns plain values and the seams `ReplyEngine` and `SeeingEngine`. Knows no torch, no platform and no database, so that
everything else may import it cheaply.
"""

import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

from engine.errors import RequestError
from engine.persona import Persona


class Role(StrEnum):
    """Who speaks in a turn."""

    USER = "user"
    ASSISTANT = "assistant"


class FinishReason(StrEnum):
    """Why a reply ended."""

    STOP = "stop"
    LENGTH = "length"
    TIME = "time"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Image:
    """A picture that `bot.media` has already checked and normalised.

    `digest` is the SHA-256 of `data` in hex; `data` is a complete JPEG or PNG file.
    """

    digest: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Turn:
    """One speaker's contribution. It has no identity: ids belong to the store."""

    role: Role
    text: str
    images: tuple[Image, ...] = ()


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How the next token is chosen. `seed=None` draws a fresh seed; any other value makes the reply repeatable."""

    temperature: float = 0.8
    top_p: float = 0.95
    top_k: int = 50
    min_p: float = 0.0
    repetition_penalty: float = 1.15
    max_new_tokens: int = 256
    max_duration_s: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None

    def require_possible(self) -> None:
        """Raises `RequestError` where no token could be chosen so."""
        limits = (
            ("temperature", self.temperature, 0.0, 100.0),
            ("top_p", self.top_p, 0.0, 1.0),
            ("top_k", self.top_k, 0, math.inf),
            ("min_p", self.min_p, 0.0, 1.0),
            ("repetition_penalty", self.repetition_penalty, 0.01, 100.0),
            ("max_new_tokens", self.max_new_tokens, 1, math.inf),
            ("max_duration_s", 1.0 if self.max_duration_s is None else self.max_duration_s, 0.0, math.inf),
        )
        for name, value, least, most in limits:
            if not least <= value <= most:  # also for what is no number
                raise RequestError(
                    f"{name} is {value}, and has to be from {least} to {most}: change it in the persona's sampling"
                )


@dataclass(frozen=True, slots=True)
class Asker:
    """For whom a reply is made, so that everybody gets a fair share: `user` and `room` are keys that compare.

    `conversation` tells replies apart that go on from one another: where there are several engines, it comes back to
    the one that remembers it.
    """

    user: str
    room: str
    conversation: str = ""


@dataclass(frozen=True, slots=True)
class Insertion:
    """A text among the turns that nobody said: it stands before the last `depth` of them, 0 is after all.

    Of several in one place the earlier one stands first. It is never dropped. Where a model's template knows no such
    thing, the text joins its neighbour.
    """

    text: str
    depth: int = 0
    role: Literal["system", "user", "assistant"] = "system"


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One reply to be made.

    `turns` runs from the oldest to the one being answered, which is the user's. The engine drops whole turns from the
    front where the model's context is too short; it never drops `system_prompt` or the last turn. Requests without an
    `asker` share one place in the queue. `adapter` names a low-rank adapter that the engine was told of.

    With `reply_start` the reply has begun with these words. Chunks carry only what follows, so that both joined are the
    reply; where the model has nothing to add, they carry nothing. A stop string may begin in the one and end in the
    other. What `explain` is asked about is what followed, too.

    `speakers` are the names of whoever else speaks in the conversation: nobody is to speak for them.
    """

    persona: Persona
    system_prompt: str
    turns: tuple[Turn, ...]
    sampling: SamplingSettings = SamplingSettings()
    asker: Asker | None = None
    adapter: str | None = None
    reply_start: str = ""
    insertions: tuple[Insertion, ...] = ()
    speakers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReplyStats:
    """What a reply cost. Times in seconds from the moment the request was accepted.

    Of the prompt's tokens, `num_cached_tokens` had been computed before; `queue_s` is how long it waited to begin.
    """

    num_prompt_tokens: int
    num_new_tokens: int
    time_to_first_token_s: float
    duration_s: float
    num_dropped_turns: int = 0
    has_fused_prefix: bool = False
    num_cached_tokens: int = 0
    queue_s: float = 0.0


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """Where a request waits: `position` counts from 1. `wait_s` is an estimate, `None` where nothing is known yet."""

    position: int
    wait_s: float | None


@dataclass(frozen=True, slots=True)
class ReplyChunk:
    """A piece of a reply: `text` continues what came before. The last chunk carries `finish_reason` and `stats`.

    While a request waits, chunks without text may say so by their `queue`.
    """

    text: str
    finish_reason: FinishReason | None = None
    stats: ReplyStats | None = None
    queue: QueuePlace | None = None


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """How busy an engine is now, and what it has done since it started.

    Prompt tokens count when they are read or found; `num_cached_tokens` are those found, so that
    `num_cached_tokens / num_prompt_tokens` is the prefix cache's hit rate. `kv_used` is a share from 0 to 1, idle
    prefixes not counted. An engine elsewhere leaves at 0 what it cannot tell.
    """

    num_running: int = 0
    num_waiting: int = 0
    num_replies: int = 0
    num_failures: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_new_tokens: int = 0
    num_steps: int = 0
    kv_used: float = 0.0
    device: str = ""


@dataclass(frozen=True, slots=True)
class ContextSize:
    """How many tokens an engine reads at most, prompt and reply together, `None` where that is not known.

    `per_turn` is what a turn costs beside its words, such as its template's marks and its fused prefix; `per_picture`
    what each of its pictures costs on top.
    """

    max_tokens: int | None = None
    per_turn: int = 5
    per_picture: int = 0


class TokenMeasure(Protocol):
    """Says what texts cost, so that what fits can be chosen. Both are quick, and may be asked from the event loop."""

    def context(self) -> ContextSize:
        """How much there is room for."""

    def count_tokens(self, text: str) -> int:
        """How many tokens `text` takes; of an engine that is elsewhere an estimate, rather too high."""


class ReplyEngine(Protocol):
    """What the bot needs of an engine: local, remote or fake."""

    async def start(self) -> None:
        """Load what is needed. Raises `EngineError` with a remedy where that is impossible."""

    def generate(self, request: GenerationRequest) -> AsyncIterator[ReplyChunk]:
        """Stream one reply. Closing the iterator, or cancelling its task, stops the generation within one step.

        Raises `EngineError` for a request that cannot be served; other requests go on.
        """

    def load(self) -> EngineLoad:
        """How busy it is."""

    async def aclose(self, *, drain_s: float = 0.0) -> None:
        """Take nothing new, let what runs end for up to `drain_s` seconds, end the rest and release the device. Safe
        to call twice."""


@dataclass(frozen=True, slots=True)
class TokenShare:
    """How much one word had to do with a reply."""

    text: str
    share: float


@dataclass(frozen=True, slots=True)
class FacetShare:
    """How much one statement of the persona had to do with a reply; `kind` is the field that it comes from."""

    kind: str
    text: str
    share: float


@dataclass(frozen=True, slots=True)
class RegionShares:
    """How much each part of a picture had to do with a reply.

    `image` counts the turn's pictures from 0; `shares` runs row by row from the upper left.
    """

    image: int
    rows: int
    columns: int
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class StreamShares:
    """How much picture, words and persona had to do with a reply; together 1, or 0 where nothing had."""

    image: float
    text: float
    persona: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a reply was made of, as far as the fused prefix goes.

    The shares of each of `regions` (all pictures together), `concepts`, `words` and `facets` sum to 1, or to 0 where
    none of them mattered. `method` says in a sentence how they were found. A reply that was made without a fused prefix
    has `has_prefix=False` and no shares, and `method` says why.
    """

    regions: tuple[RegionShares, ...]
    concepts: tuple[TokenShare, ...]
    words: tuple[TokenShare, ...]
    facets: tuple[FacetShare, ...]
    stream_shares: StreamShares
    method: str
    has_prefix: bool


@dataclass(frozen=True, slots=True)
class Sight:
    """What the engine makes of a picture, in a sentence. `confidence` runs from 0 to 1; an unsure `text` says so."""

    text: str
    confidence: float
    is_unsure: bool


@dataclass(frozen=True, slots=True)
class Embedding:
    """A picture or a text as a direction: the closer two are, the more they have in common.

    Only embeddings of one `space` compare: it changes with the weights, so that kept ones are found out to be stale.
    """

    space: str
    values: tuple[float, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Translation:
    """A text in another language. `is_unsure` where the model was not made for one of the two."""

    text: str
    is_unsure: bool


class SeeingEngine(Protocol):
    """What can be asked of an engine beside replies. All of it raises `EngineError`: `NotAvailable` where these weights
    cannot do it. Cancelling the task stops the work within a step; running replies go on beside it. Only
    `explain` is a single step, for which replies wait."""

    async def describe(self, image: Image, *, question: str | None = None, language: str | None = None) -> Sight:
        """What `image` shows, or the answer to `question` about it. `language` is a language's English name."""

    async def space(self) -> str:
        """The space in which embeddings are made now."""

    async def embed_images(self, images: Sequence[Image]) -> tuple[Embedding, ...]:
        """Each picture's embedding."""

    async def embed_text(self, text: str) -> Embedding:
        """The embedding of a description."""

    async def match(self, text: str, images: Sequence[Image]) -> tuple[float, ...]:
        """How well the description fits each picture, from 0 to 1; above a half it fits better than not."""

    async def translate(self, text: str, *, language: str, images: tuple[Image, ...] = ()) -> Translation:
        """`text` in `language`, a language's English name. `images` came with it, and say what it is about."""

    async def explain(self, request: GenerationRequest, reply: str) -> Explanation:
        """What `reply`, the answer to `request`, was made of."""


class Engine(ReplyEngine, SeeingEngine, TokenMeasure, Protocol):
    """All that the bot can ask for."""
