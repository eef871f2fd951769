"""A bot's process in small: it serves on a Ray of its own until SIGTERM, and then lets replies go on for a while."""

import asyncio
import signal
import sys
from pathlib import Path

from engine.backends.ray_serve import RayEngine
from engine.config import EngineConfig
from engine.types import FinishReason
from tests.engine.backends.ray_serve.engines import build_obedient
from tests.engine.generation.requests import request

# Ray's own handler would have the process abort after three.
DRAIN_S = 4.0


async def main(folder: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    engine = RayEngine(EngineConfig(cache_dir=folder, backend="ray", num_threads=1), build=build_obedient)
    try:
        await engine.start()
        task = asyncio.create_task(last_of(engine))
        print("running", flush=True)  # noqa: T201 - who watches reads it
        await stop.wait()
    finally:
        await engine.aclose(drain_s=DRAIN_S)
    if await task is FinishReason.CANCELLED:
        print("replied until the end", flush=True)  # noqa: T201


async def last_of(engine: RayEngine) -> FinishReason | None:
    """How a reply without an end ends."""
    return [chunk async for chunk in engine.generate(request("count"))][-1].finish_reason


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
