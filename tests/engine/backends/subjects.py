"""Every engine that has to keep the contract, set up so that it can be tested beside the others.

To add one: a function that makes a `Subject`, and its name in `SUBJECTS`.
"""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.backends.chat_server import Patience
from engine.backends.echo import EchoEngine
from engine.backends.openai import OpenAIEngine
from engine.backends.ray_serve import RayEngine, front
from engine.backends.vllm import VLLMEngine
from engine.config import EngineConfig
from engine.service import EngineService
from engine.types import Engine
from tests.engine.backends.ray_serve.applications import NearbyApplication
from tests.engine.tiny import save_tiny
from tests.fakes.openai_server import FakeOpenAIServer, Starts

# In replies of this many tokens there is time to do something in the middle.
LONG = 200
MAX_RUNNING = 2


@dataclass(frozen=True)
class Subject:
    """An engine that runs. `MAX_RUNNING` replies go side by side, and one waits.

    What is false does not concern it: `has_queue` where nobody ever waits, `heeds_stop` where stop strings mean
    nothing, `knows_adapters` and `has_context` where there is no model.
    """

    engine: Engine
    has_queue: bool = True
    heeds_stop: bool = True
    knows_adapters: bool = True
    has_context: bool = True
    long_text: str = "Go on!"
    """What it answers with `LONG` tokens."""


@contextlib.asynccontextmanager
async def echo(folder: Path) -> AsyncIterator[Subject]:
    yield Subject(
        EchoEngine(seconds_per_word=0.002),
        has_queue=False,
        heeds_stop=False,
        knows_adapters=False,
        has_context=False,
        long_text="and on " * LONG,
    )


@contextlib.asynccontextmanager
async def local(folder: Path) -> AsyncIterator[Subject]:
    yield Subject(EngineService(local_config(folder)))


@contextlib.asynccontextmanager
async def openai(folder: Path) -> AsyncIterator[Subject]:
    async with FakeOpenAIServer(delay_s=0.002, max_context_bytes=8000) as server:
        yield Subject(OpenAIEngine(remote_config(server, folder), patience=Patience(max_tries=1)))


@contextlib.asynccontextmanager
async def vllm(folder: Path) -> AsyncIterator[Subject]:
    async with FakeOpenAIServer(delay_s=0.002, max_context_bytes=8000, starts=Starts.WANTS_FLAGS) as server:
        yield Subject(VLLMEngine(remote_config(server, folder), patience=Patience(max_tries=1)))


@contextlib.asynccontextmanager
async def ray(folder: Path) -> AsyncIterator[Subject]:
    """The bot's side and a replica, with all that crosses pickled; `ray_serve/test_application.py` has Ray between."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(front, "LOAD_INTERVAL_S", 0.01)
        yield Subject(RayEngine(local_config(folder), build_application=NearbyApplication))


def local_config(folder: Path) -> EngineConfig:
    """A tiny model that is made in `folder`."""
    return EngineConfig(
        cache_dir=folder / "cache",
        decoder=str(save_tiny(folder / "tiny")),
        dtype="float32",
        fusion="none",
        runtime="torch",
        max_running=MAX_RUNNING,
        max_waiting=1,
    )


def remote_config(server: FakeOpenAIServer, folder: Path) -> EngineConfig:
    """What points at `server`."""
    return EngineConfig(cache_dir=folder, url=server.url, max_running=MAX_RUNNING, max_waiting=1)


SUBJECTS: dict[str, Callable[[Path], contextlib.AbstractAsyncContextManager[Subject]]] = {
    "echo": echo,
    "local": local,
    "openai": openai,
    "vllm": vllm,
    "ray": ray,
}
