"""What Ray Serve adds to a reply, with an engine that computes nothing.

    python -m benchmarks.ray_overhead --json OUT

Prints the seconds until Ray and one replica are up, and medians of interleaved rounds: milliseconds to the first words,
and per further chunk, of the rehearsal engine directly and through Ray. Needs `pip install "commedia[ray]"`.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from engine.backends.echo import EchoEngine
from engine.backends.ray_serve import RayEngine
from engine.config import EngineConfig
from engine.persona import Persona
from engine.types import Asker, Engine, GenerationRequest, ReplyEngine, Role, SamplingSettings, Turn

NUM_CHUNKS = 65
NELL = Persona(id="nell", name="Nell", summary="A pirate captain.", greetings=("Ahoy!",))


def build_instant(config: EngineConfig) -> Engine:  # noqa: ARG001 - as a replica calls it
    """A replica's engine that answers at once."""
    return cast(Engine, EchoEngine())


def asked(conversation: int) -> GenerationRequest:
    """A request whose echo has `NUM_CHUNKS` words."""
    words = " ".join("word" for _ in range(NUM_CHUNKS - 2))
    return GenerationRequest(
        NELL,
        "",
        (Turn(Role.USER, words),),
        SamplingSettings(max_new_tokens=NUM_CHUNKS),
        Asker("user", "room", f"conversation {conversation}"),
    )


async def measure(engine: ReplyEngine, request: GenerationRequest) -> tuple[float, float]:
    """Milliseconds to the first words, and per chunk after them."""
    started = time.perf_counter()
    times = [time.perf_counter() async for chunk in engine.generate(request) if chunk.text]
    assert len(times) == NUM_CHUNKS
    return (times[0] - started) * 1000, (times[-1] - times[0]) / (NUM_CHUNKS - 1) * 1000


async def compare(num_rounds: int, cache_dir: Path) -> dict[str, float]:
    """Both sides in turns, on one connection to Ray."""
    direct = EchoEngine()
    through = RayEngine(EngineConfig(cache_dir=cache_dir, backend="ray", num_threads=1), build=build_instant)
    started = time.perf_counter()
    try:
        await through.start()
        start_s = time.perf_counter() - started
        await measure(through, asked(0))
        rounds = [(await measure(direct, asked(n)), await measure(through, asked(n))) for n in range(num_rounds)]
    finally:
        await through.aclose()
    return {
        "num_rounds": num_rounds,
        "start_s": start_s,
        "first_ms_direct": _median([near[0] for near, _ in rounds]),
        "first_ms_through_ray": _median([far[0] for _, far in rounds]),
        "first_ms_through_ray_p95": statistics.quantiles([far[0] for _, far in rounds], n=20)[-1],
        "chunk_ms_direct": _median([near[1] for near, _ in rounds]),
        "chunk_ms_through_ray": _median([far[1] for _, far in rounds]),
    }


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    parser.add_argument("--cache-dir", type=Path, default=Path("var/cache"))
    options = parser.parse_args()
    figures = asyncio.run(compare(max(options.rounds, 2), options.cache_dir))
    for name, figure in figures.items():
        print(f"{name:>26} {figure:8.3f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
