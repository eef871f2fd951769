"""One chat on the default model, beside plain `transformers.generate` on the same weights and the same prompt.

    python -m benchmarks.first_reply --json OUT

Prints medians of interleaved rounds: seconds to the first token (persona seen before, as after the first message of a
day) and tokens per second, and their ratios. Each side runs on one thread of its own, one after the other.
"""

import argparse
import asyncio
import json
import resource
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bot.personas.library import PersonaLibrary
from bot.personas.prompt import build_request
from engine.config import EngineConfig
from engine.models.store import ModelStore
from engine.service import EngineService
from engine.types import GenerationRequest, Role, SamplingSettings, Turn

ROOT = Path(__file__).parent.parent
NUM_NEW_TOKENS = 64
QUESTIONS = (
    "What do you sell?",
    "Is it raining?",
    "Tell me about yourself.",
    "What did you eat?",
    "Any advice?",
    "Hm?",
)


async def measure_engine(engine: EngineService, request: GenerationRequest) -> tuple[float, float]:
    """Seconds to the first token, and tokens per second after it."""
    stats = [chunk.stats async for chunk in engine.generate(request)][-1]
    assert stats is not None
    decoding_s = stats.duration_s - stats.time_to_first_token_s
    return stats.time_to_first_token_s, (stats.num_new_tokens - 1) / decoding_s


class Peer:
    """`transformers.generate` with a streamer, in float32, as its documentation shows it."""

    def __init__(self, folder: Path, threads: ThreadPoolExecutor) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._threads = threads
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = threads.submit(AutoModelForCausalLM.from_pretrained, folder, dtype="float32").result()

    def measure(self, request: GenerationRequest) -> tuple[float, float]:
        from transformers import TextIteratorStreamer

        messages = [{"role": "system", "content": request.system_prompt}]
        messages += [{"role": str(turn.role), "content": turn.text} for turn in request.turns]
        prompt = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        streamer = TextIteratorStreamer(self._tokenizer, skip_prompt=True)
        arrivals: list[float] = []
        reader = threading.Thread(target=lambda: arrivals.extend(_times(streamer)))
        started = time.perf_counter()
        reader.start()
        options = {"max_new_tokens": NUM_NEW_TOKENS, "min_new_tokens": NUM_NEW_TOKENS, "do_sample": False}
        self._threads.submit(self._model.generate, **prompt, **options, streamer=streamer).result()
        ended = time.perf_counter()
        reader.join()
        # The streamer hands over an empty text for each token inside a word, so its first item is the first token.
        return arrivals[0] - started, (NUM_NEW_TOKENS - 1) / (ended - arrivals[0])


def _times(streamer: Iterator[str]) -> Iterator[float]:
    for _ in streamer:
        yield time.perf_counter()


async def measure(cache_dir: Path, num_rounds: int) -> dict[str, float]:
    models = ModelStore(cache_dir)
    folder = models.ensure("smollm2-135m-instruct")
    started = time.perf_counter()
    engine = EngineService(EngineConfig(cache_dir=cache_dir))
    await engine.start()
    start_s = time.perf_counter() - started
    memory_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    library = PersonaLibrary([ROOT / "personas"])
    library.load()
    grub = library.get("grub").model_copy(update={"sampling": type(library.get("grub").sampling)()})
    sampling = SamplingSettings(temperature=0.0, repetition_penalty=1.0, max_new_tokens=NUM_NEW_TOKENS)
    requests = [
        build_request(grub, [Turn(Role.USER, QUESTIONS[number % len(QUESTIONS)])], sampling=sampling)
        for number in range(num_rounds + 1)
    ]
    with ThreadPoolExecutor(max_workers=1) as threads:
        peer = Peer(folder, threads)
        ours, theirs = [], []
        for request in requests:
            ours.append(await measure_engine(engine, request))
            theirs.append(await asyncio.to_thread(peer.measure, request))
    await engine.aclose()
    cold_s = ours[0][0]
    ours, theirs = ours[1:], theirs[1:]

    def medians(rounds: list[tuple[float, float]]) -> tuple[float, float]:
        first, rate = zip(*rounds, strict=True)
        return statistics.median(first), statistics.median(rate)

    (our_first_s, our_rate), (their_first_s, their_rate) = medians(ours), medians(theirs)
    return {
        "start_s": start_s,
        "memory_after_start_gb": memory_gb,
        "first_token_cold_s": cold_s,
        "first_token_s": our_first_s,
        "tokens_per_s": our_rate,
        "peer_first_token_s": their_first_s,
        "peer_tokens_per_s": their_rate,
        "first_token_ratio": our_first_s / their_first_s,
        "tokens_per_s_ratio": our_rate / their_rate,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--cache", type=Path, default=ROOT / "var" / "cache")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    figures = asyncio.run(measure(arguments.cache, arguments.rounds))
    for name, value in figures.items():
        print(f"{name:24} {value:8.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
