"""Our engine, asked over a pipe like the others.

    python -m benchmarks.many_chats.ours --cache FOLDER [--threads 2] [--no-prefix-cache]

What is measured is `EngineService` as the bot uses it, from messages to streamed words; without adapter and fusion, so
that everybody computes with the same weights. Two things are set that no user can set: no token ends a reply, since the
others can be told so, too; and the prefix cache can be switched off.
"""

import argparse
import asyncio
import logging
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.many_chats.workload import as_turns
from benchmarks.peers.protocol import Job, Run, Timing, serve
from engine.backends.local import build
from engine.config import EngineConfig
from engine.generation.blocks import BlockPool
from engine.generation.loop import GenerationLoop
from engine.models.fetch import Report
from engine.persona import Persona
from engine.service import EngineService
from engine.types import Asker, GenerationRequest, SamplingSettings

PERSONA = Persona(id="nobody", name="Nobody", summary="Nobody in particular.", greetings=("Hello.",))


def build_endless(config: EngineConfig, report: Report | None, *, remembers: bool) -> GenerationLoop:
    """A loop whose replies are as long as was asked for."""
    loop = build(config, report)
    loop.language_model.end_token_ids = frozenset()
    if not remembers:
        runtime = loop.runtime
        loop._pool = BlockPool(num_blocks=runtime.num_blocks, block_size=runtime.block_size, remembers=False)
    return loop


async def ask(engine: EngineService, prompt: dict[str, Any], number: int, job: Job) -> Timing:
    """One reply. Its tokens are counted by the engine, for some of them have no text of their own."""
    request = GenerationRequest(
        PERSONA,
        prompt["system"],
        as_turns(tuple(prompt["turns"])),
        SamplingSettings(temperature=0.0, repetition_penalty=1.0, max_new_tokens=job.num_new),
        asker=Asker(user=f"user {number}", room=f"room {number}"),
    )
    stats = [chunk.stats async for chunk in engine.generate(request)][-1]
    if stats is None or stats.num_prompt_tokens != len(prompt["ids"]):
        raise RuntimeError(f"the prompt became {stats and stats.num_prompt_tokens} tokens, not {len(prompt['ids'])}")
    return Timing(stats.time_to_first_token_s, stats.duration_s, stats.num_new_tokens)


async def ask_all(engine: EngineService, job: Job) -> list[Timing]:
    """All at once. Times count from here: what an asker waits before the engine looks at them is theirs as well."""
    since = time.monotonic()

    async def timed(prompt: dict[str, Any], number: int) -> Timing:
        before = time.monotonic() - since
        timing = await ask(engine, prompt, number, job)
        return Timing((timing.first_s or 0.0) + before, (timing.ended_s or 0.0) + before, timing.num_new)

    return await asyncio.gather(*(timed(prompt, number) for number, prompt in enumerate(job.prompts)))


async def say_something(engine: EngineService) -> None:
    sampling = SamplingSettings(max_new_tokens=1)
    async for _ in engine.generate(GenerationRequest(PERSONA, "", as_turns(("Hello.",)), sampling)):
        pass


def load(arguments: argparse.Namespace) -> tuple[Run, dict[str, Any]]:
    logging.basicConfig(level=logging.WARNING)
    config = EngineConfig(
        cache_dir=arguments.cache,
        decoder=arguments.decoder,
        decoder_adapter="none",
        fusion="none",
        num_threads=arguments.threads,
        runtime=arguments.runtime,
        weights=arguments.weights,
        dtype=arguments.dtype,
        device=arguments.device,
    )
    engine = EngineService(config, build_loop=partial(build_endless, remembers=not arguments.no_prefix_cache))
    runner = asyncio.Runner()
    runner.run(engine.start())
    runner.run(say_something(engine))  # an engine knows its device after its first step
    return lambda job: runner.run(ask_all(engine, job)), {"device": engine.load().device}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--decoder", default="smollm2-135m-instruct")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--weights", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-prefix-cache", action="store_true")
    serve(partial(load, parser.parse_args()))


if __name__ == "__main__":
    main()
