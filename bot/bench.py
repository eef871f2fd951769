"""Loads an engine with several chats at once, and tells how it kept up: `commedia bench`.

Owns the conversations that are played, what is noted of each reply, and the table. Knows no engine but by the seam, so
that every backend is measured alike; and nothing of platforms and the store: nobody's conversations are touched.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from rich.table import Table

from bot.personas.prompt import build_request
from engine.errors import EngineError
from engine.persona import Persona
from engine.types import Asker, GenerationRequest, ReplyEngine, Role, SamplingSettings, Turn

LINES = (
    "Hello! Tell me a little about yourself.",
    "What have you been doing today?",
    "Is there something that you are looking forward to?",
    "And what would you never do?",
    "Tell me a secret, then.",
    "What do you make of me?",
    "Where would you go if you could leave right now?",
    "Give me a piece of advice.",
)
# The longest reply that warms up: whatever is compiled or allocated with the first words is not measured.
NUM_WARM_UP_TOKENS = 4


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """So many chats at once, each of `num_rounds` messages, one after the other, with replies of at most
    `num_new_tokens`."""

    num_chats: int = 8
    num_rounds: int = 3
    num_new_tokens: int = 64


@dataclass(frozen=True, slots=True)
class Reply:
    """What one reply took. `round` counts a chat's messages from 0. `first_text_s` is what the person waits until words
    come; `None` where the reply had none."""

    chat: int
    round: int
    persona: str
    first_text_s: float | None
    duration_s: float
    queue_s: float
    num_prompt_tokens: int
    num_cached_tokens: int
    num_new_tokens: int
    num_dropped_turns: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A reply that did not come; its chat ends there."""

    chat: int
    round: int
    reason: str


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of several values, and what 95 of 100 stay below."""

    median: float
    p95: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread | None":
        """`None` of none."""
        ordered = sorted(values)
        return cls(median(ordered), ordered[math.ceil(0.95 * len(ordered)) - 1]) if ordered else None


@dataclass(frozen=True, slots=True)
class BenchReport:
    """All that was seen. `wall_s` is from the first message to the last word."""

    options: BenchOptions
    device: str
    wall_s: float
    replies: tuple[Reply, ...]
    failures: tuple[Failure, ...]

    @property
    def tokens_per_s(self) -> float:
        """New tokens of all chats together."""
        return sum(reply.num_new_tokens for reply in self.replies) / max(self.wall_s, 1e-9)

    @property
    def cache_hits(self) -> float | None:
        """The share of prompt tokens that had been read before; `None` where the engine tells of no prompts."""
        num_read = sum(reply.num_prompt_tokens for reply in self.replies)
        return sum(reply.num_cached_tokens for reply in self.replies) / num_read if num_read else None

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        return {
            "options": asdict(self.options),
            "device": self.device,
            "wall_s": self.wall_s,
            "tokens_per_s": self.tokens_per_s,
            "cache_hits": self.cache_hits,
            "rounds": [asdict(figures) for figures in rounds(self.replies)],
            "replies": [asdict(reply) for reply in self.replies],
            "failures": [asdict(failure) for failure in self.failures],
        }


@dataclass(frozen=True, slots=True)
class RoundFigures:
    """The replies to everybody's nth message, or to all messages, together. `tokens_per_s` is what one chat gets."""

    name: str
    num_replies: int
    first_text_s: Spread | None
    queue_s: Spread | None
    tokens_per_s: Spread | None
    num_prompt_tokens: float
    cache_hits: float | None

    @classmethod
    def of(cls, name: str, replies: Sequence[Reply]) -> "RoundFigures":
        num_read = sum(reply.num_prompt_tokens for reply in replies)
        return cls(
            name,
            len(replies),
            Spread.of(reply.first_text_s for reply in replies if reply.first_text_s is not None),
            Spread.of(reply.queue_s for reply in replies),
            Spread.of(rate for reply in replies if (rate := _pace(reply)) is not None),
            num_read / len(replies),
            sum(reply.num_cached_tokens for reply in replies) / num_read if num_read else None,
        )


def rounds(replies: Sequence[Reply]) -> list[RoundFigures]:
    """First messages, then later ones, then all. What is said first finds no conversation in the cache."""
    numbers = sorted({reply.round for reply in replies})
    figures = [
        RoundFigures.of(f"message {number + 1}", [reply for reply in replies if reply.round == number])
        for number in numbers
    ]
    return [*figures, RoundFigures.of("all", replies)] if len(numbers) > 1 else figures


async def measure(
    engine: ReplyEngine,
    personas: Sequence[Persona],
    options: BenchOptions,
    *,
    sampling: SamplingSettings,
    on_reply: Callable[[], None] = lambda: None,
) -> BenchReport:
    """Play all chats at once on an engine that was started. `on_reply` is told of every reply that ends or fails."""
    await _warm_up(engine, personas[0], sampling)
    replies: list[Reply] = []
    failures: list[Failure] = []

    async def play(chat: int) -> None:
        persona = personas[chat % len(personas)]
        turns: list[Turn] = []
        for number in range(options.num_rounds):
            turns.append(Turn(Role.USER, LINES[(chat + number) % len(LINES)]))
            request = _request(persona, turns, options, chat=chat, sampling=sampling)
            try:
                reply, text = await _ask(engine, request, chat=chat, number=number)
            except EngineError as error:
                failures.append(Failure(chat, number, str(error)))
                return
            finally:
                on_reply()
            replies.append(reply)
            turns.append(Turn(Role.ASSISTANT, text))

    began = time.perf_counter()
    async with asyncio.TaskGroup() as chats:
        for chat in range(options.num_chats):
            chats.create_task(play(chat))
    wall_s = time.perf_counter() - began
    return BenchReport(options, engine.load().device, wall_s, tuple(replies), tuple(failures))


def show(report: BenchReport) -> Table:
    """The figures as a table: medians, and beside times the 95th percentile."""
    headings = ("replies", "first, s", "95 %", "queue, s", "95 %", "tokens/s", "prompt", "cached")
    number = report.options.num_chats
    title = "1 chat alone" if number == 1 else f"{number} chats at once"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for figures in rounds(report.replies):
        table.add_row(
            figures.name,
            str(figures.num_replies),
            *_written(figures.first_text_s),
            *_written(figures.queue_s),
            "-" if figures.tokens_per_s is None else f"{figures.tokens_per_s.median:.1f}",
            f"{figures.num_prompt_tokens:.0f}",
            "-" if figures.cache_hits is None else f"{figures.cache_hits:.0%}",
        )
    return table


def _written(spread: Spread | None) -> tuple[str, str]:
    return ("-", "-") if spread is None else (f"{spread.median:.2f}", f"{spread.p95:.2f}")


def _pace(reply: Reply) -> float | None:
    """Tokens a second after the first one."""
    if reply.first_text_s is None or reply.num_new_tokens < 2 or reply.duration_s <= reply.first_text_s:
        return None
    return (reply.num_new_tokens - 1) / (reply.duration_s - reply.first_text_s)


def _request(
    persona: Persona, turns: Sequence[Turn], options: BenchOptions, *, chat: int, sampling: SamplingSettings
) -> GenerationRequest:
    """As the chat service would ask, with replies of the wanted length: also where the persona wants another."""
    asker = Asker(user=f"bench {chat}", room=f"bench {chat}", conversation=f"bench {chat}")
    request = build_request(persona, turns, sampling=sampling, asker=asker)
    return replace(request, sampling=replace(request.sampling, max_new_tokens=options.num_new_tokens))


async def _ask(engine: ReplyEngine, request: GenerationRequest, *, chat: int, number: int) -> tuple[Reply, str]:
    """One reply and its text. Times are the asker's: an engine elsewhere has its way to travel."""
    began = time.perf_counter()
    first_text_s, text, stats = None, "", None
    async for chunk in engine.generate(request):
        if chunk.text and first_text_s is None:
            first_text_s = time.perf_counter() - began
        text += chunk.text
        stats = chunk.stats or stats
    duration_s = time.perf_counter() - began
    reply = Reply(
        chat=chat,
        round=number,
        persona=request.persona.id,
        first_text_s=first_text_s,
        duration_s=duration_s,
        queue_s=stats.queue_s if stats else 0.0,
        num_prompt_tokens=stats.num_prompt_tokens if stats else 0,
        num_cached_tokens=stats.num_cached_tokens if stats else 0,
        num_new_tokens=stats.num_new_tokens if stats else 0,
        num_dropped_turns=stats.num_dropped_turns if stats else 0,
    )
    return reply, text


async def _warm_up(engine: ReplyEngine, persona: Persona, sampling: SamplingSettings) -> None:
    """A few words without a persona's prompt, so that no prompt of the measurement is known. Raises `EngineError`
    where not even this can be answered."""
    short = replace(sampling, max_new_tokens=NUM_WARM_UP_TOKENS)
    async for _ in engine.generate(GenerationRequest(persona, "", (Turn(Role.USER, "Hello."),), short)):
        pass
