"""What a persona's lexicon and length cost while tokens are chosen.

    python -m benchmarks.lexicon_overhead --json OUT

Two engines in one process answer the same requests in turn, one with and one without, another first each time. Prints
the median of the rounds' ratios of the time a token takes; and, which a busy machine disturbs less, the share of a
round's time that the processors themselves took.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Sequence as SequenceOf
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from bot.personas.library import PersonaLibrary
from bot.personas.prompt import build_request
from engine.backends.local import build
from engine.config import EngineConfig
from engine.errors import EngineError
from engine.generation.loop import GenerationLoop
from engine.generation.processors import LogitsProcessor, MakeProcessors
from engine.generation.sequence import Sequence
from engine.types import GenerationRequest, ReplyChunk, Role, SamplingSettings, Turn

ROOT = Path(__file__).parent.parent
# Shorter replies say little about the pace.
MIN_TELLING_TOKENS = 8
QUESTIONS = ("What do you sell?", "Tell me a long story.", "Who are you?", "What did you do today?")


class Stopwatch:
    """Counts the time that processors take."""

    def __init__(self, make: MakeProcessors) -> None:
        self.total_s = 0.0
        self._make = make

    def make(self, request: GenerationRequest) -> SequenceOf[LogitsProcessor]:
        began_at = time.perf_counter()
        processors = [self._timed(one) for one in self._make(request)]
        self.total_s += time.perf_counter() - began_at
        return processors

    def _timed(self, process: LogitsProcessor) -> LogitsProcessor:
        def timed(logits: Tensor, new_tokens: SequenceOf[int]) -> Tensor:
            began_at = time.perf_counter()
            changed = process(logits, new_tokens)
            self.total_s += time.perf_counter() - began_at
            return changed

        return timed


def s_per_token(loop: GenerationLoop, requests: SequenceOf[GenerationRequest]) -> tuple[float, float]:
    """Seconds from one token of a reply to the next, the median of all replies, and seconds in all."""
    answers: list[ReplyChunk | EngineError] = []
    for request in requests:
        loop.add(Sequence(request, answers.append, accepted_at=time.monotonic()))
    began_at = time.perf_counter()
    while loop.has_work:
        loop.step()
    duration_s = time.perf_counter() - began_at
    if errors := [answer for answer in answers if isinstance(answer, EngineError)]:
        raise errors[0]
    ends = [answer.stats for answer in answers if isinstance(answer, ReplyChunk) and answer.stats is not None]
    paces = [
        (stats.duration_s - stats.time_to_first_token_s) / (stats.num_new_tokens - 1)
        for stats in ends
        if stats.num_new_tokens > MIN_TELLING_TOKENS
    ]
    return statistics.median(paces) if paces else math.nan, duration_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--cache", type=Path, default=ROOT / "var" / "cache")
    parser.add_argument("--persona", default="grub")
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    library = PersonaLibrary([ROOT / "personas"])
    library.load()
    persona = library.get(arguments.persona)
    config = EngineConfig(cache_dir=arguments.cache, fusion="none")
    with_it, without = build(config), build(replace(config, lexicon=False))
    watch = Stopwatch(with_it._make_processors)
    with_it._make_processors = watch.make
    figures: dict[str, float] = {}
    for num_chats in (1, 8):
        ratios, shares = [], []
        for number in range(arguments.rounds + 1):
            requests = [
                build_request(
                    persona,
                    [Turn(Role.USER, f"{QUESTIONS[(number + chat) % len(QUESTIONS)]} ({number}.{chat})")],
                    sampling=SamplingSettings(max_new_tokens=48),
                )
                for chat in range(num_chats)
            ]
            times: dict[bool, tuple[float, float]] = {}
            for is_on in (True, False) if number % 2 else (False, True):
                watch.total_s = 0.0 if is_on else watch.total_s
                times[is_on] = s_per_token(with_it if is_on else without, requests)
            if number:  # the first one warms up
                ratio = times[True][0] / times[False][0]
                ratios += [] if math.isnan(ratio) else [ratio]
                shares.append(watch.total_s / times[True][1])
        figures[f"{num_chats} chats: time a token, with / without"] = statistics.median(ratios)
        figures[f"{num_chats} chats: share of the time in processors"] = statistics.median(shares)
    for name, value in figures.items():
        print(f"{name:48} {value:8.4f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
