"""How a crowd writes, and what comes of it: at a steady pace, as fast as answers come, and all at once.

Owns the shapes of load and the figures. Knows neither platforms nor bots but by their seam.
"""

import asyncio
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.platforms.crowds import Crowd, Written

ANSWER_TIMEOUT_S = 60.0
# What a process may gain by caches that fill up and by fragments, between the middle and the last third.
MAX_GROWTH_SHARE = 0.03
MAX_GROWTH_MB = 16.0


@dataclass(frozen=True, slots=True)
class Latency:
    """From writing to reading the answer, in milliseconds. `num_lost` have none, `num_doubled` more than one."""

    num_messages: int
    p50_ms: float
    p95_ms: float
    max_ms: float
    num_lost: int
    num_doubled: int


@dataclass(frozen=True, slots=True)
class Throughput:
    """Messages answered in a second, each chat writing again as soon as it is answered.

    `cpu_ms` is what the bot's process computes for one: it depends less than all else on what the machine does besides.
    """

    num_messages: int
    per_s: float
    num_lost: int
    cpu_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Memory:
    """What the bot's process holds, in slices of as many messages each."""

    slices_mb: tuple[float, ...]
    num_messages: int
    growth_mb: float
    is_growing: bool
    per_s: float


async def steady(crowd: Crowd, *, rate: float, seconds: float, num_chats: int) -> Latency:
    """Somebody writes `rate` times a second, whatever the bot does."""
    written: list[Written] = []
    began = time.perf_counter()
    for number in range(max(1, int(rate * seconds))):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        written.append(crowd.write(number % num_chats))
    return await _latency(crowd, written)


async def all_at_once(crowd: Crowd, *, num_chats: int) -> Latency:
    """Everybody writes in one moment."""
    return await _latency(crowd, [crowd.write(chat) for chat in range(num_chats)])


async def flat_out(
    crowd: Crowd, *, num_messages: int, num_chats: int, cpu_s: Callable[[], float] = lambda: 0.0
) -> Throughput:
    """Every chat writes again as soon as it is answered."""
    numbers, num_lost = itertools.count(), 0

    async def talk(chat: int) -> None:
        nonlocal num_lost
        while next(numbers) < num_messages:
            num_lost += not await crowd.ledger.answer_to(crowd.write(chat), timeout_s=ANSWER_TIMEOUT_S)

    began, computed_s = time.perf_counter(), cpu_s()
    async with asyncio.TaskGroup() as chats:
        for chat in range(num_chats):
            chats.create_task(talk(chat))
    seconds, computed_s = time.perf_counter() - began, cpu_s() - computed_s
    return Throughput(num_messages, num_messages / seconds, num_lost, 1000 * computed_s / num_messages)


async def memory(
    crowd: Crowd, rss_mb: Callable[[], float], *, num_messages: int, num_chats: int, num_slices: int = 15
) -> Memory:
    """Let the crowd write so many messages, and look at the bot's memory in between."""
    began, slices = time.perf_counter(), []
    for _ in range(num_slices):
        await flat_out(crowd, num_messages=max(1, num_messages // num_slices), num_chats=num_chats)
        crowd.forget()
        slices.append(rss_mb())
    return judged(slices, num_messages=num_messages, seconds=time.perf_counter() - began)


def judged(slices: list[float], *, num_messages: int, seconds: float) -> Memory:
    """Whether memory grows: the last third of the slices against the middle one."""
    third = max(1, len(slices) // 3)
    middle, last = statistics.median(slices[-2 * third : -third] or slices), statistics.median(slices[-third:])
    is_growing = last - middle > max(MAX_GROWTH_MB, MAX_GROWTH_SHARE * middle)
    return Memory(tuple(slices), num_messages, last - middle, is_growing, num_messages / seconds)


async def _latency(crowd: Crowd, written: list[Written]) -> Latency:
    ledger = crowd.ledger
    deadline = time.perf_counter() + ANSWER_TIMEOUT_S
    for message in written:
        await ledger.answer_to(message, timeout_s=max(0.0, deadline - time.perf_counter()))
    taken = sorted(1000 * ledger.latencies[message.mark] for message in written if message.mark in ledger.latencies)
    num_answers = [len(ledger.answers.get(message.mark, ())) for message in written]
    return Latency(
        len(written),
        quantile(taken, 0.5),
        quantile(taken, 0.95),
        max(taken, default=0.0),
        num_lost=num_answers.count(0),
        num_doubled=sum(num > 1 for num in num_answers),
    )


def quantile(ordered: list[float], share: float) -> float:
    """The value that `share` of them do not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
