"""The real thing: a Ray of its own on this machine, replicas in processes of their own."""

import asyncio
import contextlib
import gc
import importlib.util
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from engine.backends.ray_serve import RayEngine
from engine.backends.ray_serve.replica import BuildEngine, build_local
from engine.config import EngineConfig
from engine.errors import EngineError, NotAvailable, PromptTooLong, ServerError, WeightsError
from engine.types import Asker, FinishReason, GenerationRequest, Image, ReplyChunk
from tests.engine.backends.ray_serve.engines import build_obedient, build_unstartable
from tests.engine.generation.requests import request
from tests.engine.tiny import save_tiny

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='needs Ray: pip install "commedia[ray]"'),
    pytest.mark.timeout(240),
    # Ray's own code warns of what is to change in pydantic, and leaves its processes to the kernel.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROOT = Path(__file__).parents[4]
SECRET = "sk-that-nobody-shall-read"
NAMES = [f"c{number}" for number in range(24)]


def engine_of(folder: Path, *, build: BuildEngine = build_obedient, **settings: object) -> RayEngine:
    config = EngineConfig(cache_dir=folder, backend="ray", num_threads=1, api_key=SECRET, **settings)  # type: ignore[arg-type]
    return RayEngine(config, build=build)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RayEngine]:
    """Two replicas, on a Ray of their own that believes in more cores than there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("RAY_OVERRIDE_RESOURCES", '{"CPU": 8}')
        patch.setenv("PYTHONPATH", str(ROOT))
        async with running(engine_of(tmp_path_factory.mktemp("ray"), num_replicas=(2, 2))) as both:
            yield both
    with warnings.catch_warnings():
        # What is left of Ray's processes is collected here, not in somebody else's test.
        warnings.simplefilter("ignore")
        gc.collect()


@contextlib.asynccontextmanager
async def running(engine: RayEngine) -> AsyncIterator[RayEngine]:
    try:
        await engine.start()
        yield engine
    finally:
        await engine.aclose()


def ask(text: str, conversation: str = "c", **sampling: object) -> GenerationRequest:
    asked = request(text, **{"max_new_tokens": 99, **sampling})
    return replace(asked, asker=Asker("u", "r", conversation))


async def collect(engine: RayEngine, asked: GenerationRequest) -> list[ReplyChunk]:
    return [chunk async for chunk in engine.generate(asked)]


async def say(engine: RayEngine, text: str, conversation: str = "c") -> str:
    return "".join(chunk.text for chunk in await collect(engine, ask(text, conversation)))


async def until_load(engine: RayEngine, *, timeout_s: float = 90, **figures: object) -> None:
    """Wait until all replicas together say so."""
    async with asyncio.timeout(timeout_s):
        while any(getattr(engine.load(), name) != figure for name, figure in figures.items()):
            await asyncio.sleep(0.05)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_reply_streams_and_ends_with_its_stats(engine: RayEngine) -> None:
    *chunks, last = await collect(engine, ask("Hello there"))
    assert "".join(chunk.text for chunk in chunks) == "Nell heard: Hello there"
    assert last.finish_reason is FinishReason.STOP
    assert last.stats is not None


@pytest.mark.asyncio(loop_scope="module")
async def test_a_conversation_comes_back_to_its_replica(engine: RayEngine) -> None:
    await until_load(engine, device="2 x cpu")
    seen = {name: {await say(engine, "who", name) for _ in range(3)} for name in NAMES}
    assert all(len(processes) == 1 for processes in seen.values())
    assert len(set.union(*seen.values())) == 2
    assert str(os.getpid()) not in set.union(*seen.values())


@pytest.mark.asyncio(loop_scope="module")
async def test_errors_cross_as_they_are(engine: RayEngine) -> None:
    with pytest.raises(PromptTooLong, match=r"^too long by 7 tokens: shorten it$"):
        await say(engine, "refuse")
    with pytest.raises(EngineError, match=r"failed on this \(KeyError\)"):
        await say(engine, "break")
    with pytest.raises(NotAvailable, match="rehearsal"):
        await engine.describe(Image("ab", b"a picture"))


@pytest.mark.asyncio(loop_scope="module")
async def test_closing_the_iterator_stops_the_replica(engine: RayEngine) -> None:
    await until_load(engine, num_running=0)
    chunks = engine.generate(ask("count"))
    async for chunk in chunks:
        if chunk.text == "3 ":
            break
    await until_load(engine, num_running=1)
    await chunks.aclose()  # type: ignore[attr-defined]
    await until_load(engine, num_running=0)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_replica_that_dies_is_one_chats_error_and_replaced(engine: RayEngine) -> None:
    await until_load(engine, device="2 x cpu")
    homes = {name: await say(engine, "who", name) for name in NAMES}
    victim = NAMES[0]
    other = next(name for name in NAMES if homes[name] != homes[victim])
    going_on = asyncio.create_task(collect(engine, ask("count", other)))
    with pytest.raises(ServerError, match="send the message again"):
        await say(engine, "die", victim)
    assert await say(engine, "who", victim) == homes[other]
    assert not going_on.done()
    going_on.cancel()
    async with asyncio.timeout(90):
        while {await say(engine, "who", name) for name in NAMES} <= set(homes.values()):
            await asyncio.sleep(0.5)
    await until_load(engine, device="2 x cpu")


@pytest.mark.asyncio(loop_scope="module")
async def test_more_replicas_come_with_more_chats(engine: RayEngine, tmp_path: Path) -> None:
    async with running(engine_of(tmp_path, num_replicas=(1, 2), max_running=2)) as growing:
        await until_load(growing, device="cpu")
        tasks = [asyncio.create_task(collect(growing, ask("count", name))) for name in NAMES[:4]]
        await until_load(growing, device="2 x cpu", timeout_s=120)
    assert all([(await task)[-1].finish_reason is FinishReason.CANCELLED for task in tasks])


@pytest.mark.asyncio(loop_scope="module")
async def test_a_start_that_is_refused_says_why(engine: RayEngine, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r'^the weights are gone: fetch them with "commedia models fetch"\n'):
        async with running(engine_of(tmp_path, build=build_unstartable)):
            pass


@pytest.mark.asyncio(loop_scope="module")
async def test_a_real_model_answers_alike_from_every_replica(engine: RayEngine, tmp_path: Path) -> None:
    settings = {"decoder": str(save_tiny(tmp_path / "tiny")), "fusion": "none", "decoder_adapter": "none"}
    settings |= {"device": "cpu", "dtype": "float32", "runtime": "torch", "max_context_tokens": 512}
    async with running(engine_of(tmp_path, build=build_local, num_replicas=(2, 2), **settings)) as both:
        replies = [await collect(both, ask("Hi", name, max_new_tokens=6)) for name in NAMES[:6]]
    texts = {"".join(chunk.text for chunk in reply) for reply in replies}
    assert len(texts) == 1
    assert all(reply[-1].stats is not None and reply[-1].stats.num_new_tokens <= 6 for reply in replies)


def test_a_signal_to_end_leaves_time_for_replies(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["PYTHONPATH"] = str(ROOT)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.engine.backends.ray_serve.ending", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60)[0] == "replied until the end\n"
        assert process.returncode == 0
    finally:
        process.kill()


@pytest.mark.asyncio(loop_scope="module")
async def test_no_secret_is_in_rays_logs(engine: RayEngine) -> None:
    await say(engine, "Hello, my password is hunter2-hunter2")
    import ray

    logs = [path for path in Path(ray.worker._global_node.get_session_dir_path()).rglob("*") if path.is_file()]
    assert logs
    for path in logs:
        text = path.read_bytes()
        assert SECRET.encode() not in text
        assert b"hunter2-hunter2" not in text
