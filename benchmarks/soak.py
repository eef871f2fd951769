"""Many chats for minutes, who come, talk, change their minds and go: does memory grow, and does anybody starve?

    python -m benchmarks.soak --minutes 10 --chats 16 [--json OUT]

The engine is the one that the bot starts, with the personas that come with it. Every message has a history of its own
of random words, all about equally long, so that waiting for the first word compares. A part of the replies is given up
after a random time, before or after the first word. Exit status 1 where memory grew beyond the bound, where somebody
waited three times as long as the median, or where a reply failed.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from bot.personas.library import PersonaLibrary
from bot.personas.prompt import build_request
from engine.config import EngineConfig
from engine.errors import EngineError
from engine.persona import Persona
from engine.service import EngineService
from engine.types import Asker, GenerationRequest, Role, SamplingSettings, Turn

ROOT = Path(__file__).parent.parent
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
SHARE_CANCELLED = 0.25
MAX_PATIENCE_S = 4.0
MAX_PAUSE_S = 2.0
WORDS_OF_TURNS = (40, 40, 40, 40, 20)
NUM_NEW_TOKENS = (8, 64)
WARM_UP_SHARE = 0.1
MAX_WAIT_RATIO = 3.0
# What a process may gain by fragments and caches that fill up, between the middle and the last third of the time.
MAX_GROWTH_SHARE = 0.03
MAX_GROWTH_MB = 32.0


@dataclass(slots=True)
class Counts:
    """What happened. A wait is from asking to the first word; those who gave up before it are only counted."""

    waits: list[float] = field(default_factory=list)
    queues: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    num_served: int = 0
    num_given_up: int = 0
    failures: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The figures and what follows from them."""

    minutes: float
    chats: int
    num_served: int
    num_given_up: int
    num_failed: int
    failures: dict[str, int]
    median_wait_s: float
    longest_wait_s: float
    wait_ratio: float
    median_queue_s: float
    longest_queue_s: float
    memory_begin_mb: float
    memory_middle_mb: float
    memory_end_mb: float
    growth_mb: float
    is_leaking: bool
    is_starving: bool

    @property
    def is_well(self) -> bool:
        return not (self.is_leaking or self.is_starving or self.num_failed)


class Visitor:
    """One chat after another, on one chair. Each is somebody else, with a persona by chance."""

    def __init__(self, number: int, engine: EngineService, personas: tuple[Persona, ...], words: list[str]) -> None:
        self._number = number
        self._engine = engine
        self._personas = personas
        self._words = words
        self._random = random.Random(number)

    async def stay(self, counts: Counts, *, since: float, until: float) -> None:
        num_asked = 0
        while time.monotonic() < until:
            await asyncio.sleep(self._random.uniform(0, MAX_PAUSE_S))
            num_asked += 1
            await self._ask(counts, self._request(num_asked), since=since)

    async def _ask(self, counts: Counts, request: GenerationRequest, *, since: float) -> None:
        patience_s = None
        if self._random.random() < SHARE_CANCELLED:
            patience_s = self._random.uniform(0, MAX_PATIENCE_S)
        began = time.monotonic()
        has_begun = False
        try:
            async with asyncio.timeout(patience_s), aclosing(self._engine.generate(request)) as chunks:
                async for chunk in chunks:
                    if chunk.text and not has_begun:
                        has_begun = True
                        if began >= since:
                            counts.waits.append(time.monotonic() - began)
                    if chunk.stats is not None:
                        counts.num_served += 1
                        counts.queues.append(chunk.stats.queue_s)
        except TimeoutError:
            counts.num_given_up += 1
        except EngineError as error:
            counts.failures[str(error)] += 1

    def _request(self, number: int) -> GenerationRequest:
        turns = [
            Turn(Role.ASSISTANT if index % 2 else Role.USER, " ".join(self._random.choices(self._words, k=num_words)))
            for index, num_words in enumerate(WORDS_OF_TURNS)
        ]
        name = f"{self._number}.{number}"
        sampling = SamplingSettings(max_new_tokens=self._random.randint(*NUM_NEW_TOKENS))
        asker = Asker(user=name, room=f"room {self._number % 4}", conversation=name)
        return build_request(self._random.choice(self._personas), turns, sampling=sampling, asker=asker)


async def soak(engine: EngineService, personas: tuple[Persona, ...], *, minutes: float, num_chats: int) -> Verdict:
    """Let `num_chats` visitors come and go."""
    counts = Counts()
    began = time.monotonic()
    since, until = began + WARM_UP_SHARE * minutes * 60, began + minutes * 60
    words = _words()
    watching = asyncio.create_task(_watch_memory(counts))
    visitors = [Visitor(number, engine, personas, words) for number in range(num_chats)]
    try:
        async with asyncio.TaskGroup() as group:
            for visitor in visitors:
                group.create_task(visitor.stay(counts, since=since, until=until))
    finally:
        watching.cancel()
    return _judge(counts, minutes=minutes, num_chats=num_chats)


async def _watch_memory(counts: Counts) -> None:
    while True:
        counts.memory_mb.append(_memory_mb())
        await asyncio.sleep(0.5)


def _judge(counts: Counts, *, minutes: float, num_chats: int) -> Verdict:
    third = max(1, len(counts.memory_mb) // 3)
    middle, end = median(counts.memory_mb[third : 2 * third] or [0.0]), median(counts.memory_mb[-third:] or [0.0])
    typical, longest = median(counts.waits or [0.0]), max(counts.waits, default=0.0)
    return Verdict(
        minutes=minutes,
        chats=num_chats,
        num_served=counts.num_served,
        num_given_up=counts.num_given_up,
        num_failed=counts.failures.total(),
        failures=dict(counts.failures),
        median_wait_s=typical,
        longest_wait_s=longest,
        wait_ratio=longest / typical if typical else 0.0,
        median_queue_s=median(counts.queues or [0.0]),
        longest_queue_s=max(counts.queues, default=0.0),
        memory_begin_mb=counts.memory_mb[0],
        memory_middle_mb=middle,
        memory_end_mb=end,
        growth_mb=end - middle,
        is_leaking=end - middle > max(MAX_GROWTH_MB, MAX_GROWTH_SHARE * middle),
        # Where nobody was served, nobody waited long.
        is_starving=not counts.waits or longest > MAX_WAIT_RATIO * typical,
    )


def _memory_mb() -> float:
    """What this process and all that it has started hold in memory."""
    numbers = [os.getpid()]
    for number in numbers:
        for task in Path(f"/proc/{number}/task").glob("*/children"):
            numbers += [int(child) for child in task.read_text(encoding="ascii").split()]
    pages = (int(Path(f"/proc/{number}/statm").read_text(encoding="ascii").split()[1]) for number in numbers)
    return sum(pages) * PAGE_BYTES / 1e6


def _words() -> list[str]:
    """Plain words, from the personas' own files."""
    texts = (path.read_text(encoding="utf-8") for path in sorted((ROOT / "personas").glob("*.yaml")))
    return sorted({word for text in texts for word in text.split() if word.isascii() and word.isalpha()})


async def run(arguments: argparse.Namespace) -> Verdict:
    library = PersonaLibrary([ROOT / "personas"])
    library.load()
    config = EngineConfig(cache_dir=arguments.cache, num_threads=arguments.threads, max_running=arguments.max_running)
    engine = EngineService(config)
    await engine.start()
    try:
        return await soak(engine, library.all(), minutes=arguments.minutes, num_chats=arguments.chats)
    finally:
        print(engine.load())
        await engine.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--chats", type=int, default=16)
    parser.add_argument(
        "--max-running", type=int, help="how many are answered at once; the engine's choice if left out"
    )
    parser.add_argument("--threads", type=int)
    parser.add_argument("--cache", type=Path, default=ROOT / "var" / "cache")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    arguments = parser.parse_args()
    verdict = asyncio.run(run(arguments))
    for name, value in asdict(verdict).items():
        print(f"{name:18} {value:.3f}" if isinstance(value, float) else f"{name:18} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(verdict), indent=2) + "\n", encoding="utf-8")
    sys.exit(0 if verdict.is_well else 1)


if __name__ == "__main__":
    main()
