"""What is put together, and that no part takes another along when it ends."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bot import app
from bot.adapters.base import AdapterState, AdapterStatus, MessageHandler
from bot.commands import CommandCall, CommandReply, CommandTable
from bot.errors import BotError, PlatformFatal, SettingsError, StoreError
from bot.personas.library import PersonaLibrary
from bot.settings import Settings, read_settings
from bot.types import Author, ChatKind, IncomingMessage, Room
from engine.config import EngineConfig
from tests.fakes.adapter import FakeChannel
from tests.fakes.seeing import ColourEngine


class BriefAdapter:
    """An adapter that ends after a moment, in the way that it is told."""

    status = AdapterStatus(AdapterState.RUNNING)

    def __init__(self, name: str, error: BaseException | None = None, *, num_steps: int = 1) -> None:
        self.name = name
        self.has_ended = False
        self._error = error
        self._num_steps = num_steps

    async def run(self) -> None:
        for _ in range(self._num_steps):
            await asyncio.sleep(0)
        self.has_ended = True
        if self._error is not None:
            raise self._error


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return read_settings(environment={"COMMEDIA_HOME": str(tmp_path), "COMMEDIA_ENGINE__BACKEND": "echo"})


async def test_every_command_about_pictures_is_there(settings: Settings) -> None:
    async with app.open_application(settings) as application:
        for name in ("describe", "find", "translate", "why"):
            assert application.commands.find(name) is not None
            assert f"/{name}" in (await run(application.commands, "help")).text
        with pytest.raises(BotError, match="rehearsal engine"):
            await run(application.commands, "translate", language="German", text="A dog.")


async def run(commands: CommandTable, name: str, **arguments: str) -> CommandReply:
    command = commands.find(name)
    assert command is not None
    author = Author("fake", "ann", "Ann")
    return await command.run(CommandCall(Room("fake", "1"), ChatKind.DIRECT, author, arguments))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PlatformFatal("get another token"), "get another token"),
        (KeyError("a bug"), "bug in Commedia"),
        (asyncio.CancelledError(), "bug in Commedia"),
    ],
)
async def test_an_adapter_that_ends_takes_no_other_along(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
    told: str,
) -> None:
    other = BriefAdapter("other", num_steps=20)
    monkeypatch.setattr(app, "build_adapters", lambda _: [BriefAdapter("broken", error), other])
    async with asyncio.timeout(20):
        assert await app.serve(settings) == 1
    assert other.has_ended
    assert told in caplog.text


async def test_hot_reload_that_breaks_is_in_the_log(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_: PersonaLibrary) -> None:
        raise LookupError("a bug in watching")

    monkeypatch.setattr(PersonaLibrary, "watch", broken)
    monkeypatch.setattr(app, "build_adapters", lambda _: [BriefAdapter("web", num_steps=20)])
    async with asyncio.timeout(20):
        assert await app.serve(settings) == 0
    assert "a bug in watching" in caplog.text


async def test_a_start_that_fails_leaves_the_home_to_the_next(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "build_adapters", lambda _: [])
    for _ in range(2):
        with pytest.raises(SettingsError, match="Nothing to serve"):
            await app.serve(settings)


# --- the engine that is named


@pytest.mark.parametrize(
    ("backend", "kind"),
    [
        ("echo", "EchoEngine"),
        ("local", "EngineService"),
        ("openai", "OpenAIEngine"),
        ("vllm", "VLLMEngine"),
        ("ray", "RayEngine"),
    ],
)
def test_the_engine_is_the_one_that_is_named(tmp_path: Path, backend: str, kind: str) -> None:
    environment = {
        "COMMEDIA_HOME": str(tmp_path),
        "COMMEDIA_ENGINE__BACKEND": backend,
        "COMMEDIA_ENGINE__URL": "http://127.0.0.1:9/v1",
    }
    assert type(app.build_engine(read_settings(environment=environment))).__name__ == kind


def test_building_an_engine_brings_no_torch() -> None:
    code = (
        "import sys; from bot.app import build_engine; from bot.settings import read_settings\n"
        "for backend in ('local', 'openai', 'vllm', 'ray'):\n"
        "    build_engine(read_settings(environment={'COMMEDIA_ENGINE__BACKEND': backend,"
        " 'COMMEDIA_ENGINE__URL': 'http://127.0.0.1:9/v1'}))\n"
        "sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], timeout=60).returncode == 0


def test_the_engine_is_told_what_it_has_to_know() -> None:
    environment = {
        "COMMEDIA_ENGINE__BACKEND": "openai",
        "COMMEDIA_ENGINE__API_KEY": "s3cret",
        "COMMEDIA_ENGINE__ADAPTERS": "pirate, teacher",
        "COMMEDIA_ENGINE__NUM_REPLICAS": "1,4",
        "COMMEDIA_ENGINE__MAX_WAITING_PER_USER": "2",
        "COMMEDIA_ENGINE__DRAIN_S": "3",
    }
    config = app.engine_config(read_settings(environment=environment))
    assert (config.backend, config.api_key, config.max_waiting_per_user) == ("openai", "s3cret", 2)
    assert (config.adapters, config.num_replicas) == (("pirate", "teacher"), (1, 4))
    assert "s3cret" not in repr(config)
    assert app.engine_config(Settings()).api_key is None


def test_every_option_of_the_engine_can_be_set_and_has_its_default() -> None:
    config = app.engine_config(Settings())
    plain = EngineConfig(cache_dir=config.cache_dir, sampling=config.sampling)
    assert config == plain


# --- stopping


class OpenAdapter:
    """An adapter that hands over one message, and serves until it is cancelled."""

    name = "open"
    status = AdapterStatus(AdapterState.RUNNING)

    def __init__(self, handler: MessageHandler, channel: FakeChannel) -> None:
        self.channel = channel
        self._handler = handler

    async def run(self) -> None:
        message = IncomingMessage(Room("open", "1"), ChatKind.DIRECT, "m1", Author("open", "ann", "Ann"), "Hello")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._handler.handle(message, self.channel))
            tasks.create_task(asyncio.Event().wait())


async def serve_and_stop(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, engine: ColourEngine, *, then: Callable[[], None]
) -> list[str]:
    """What one message was answered where the signal to stop came right after it."""
    channel = FakeChannel()
    monkeypatch.setattr(app, "build_engine", lambda _: engine)
    monkeypatch.setattr(app, "build_adapters", lambda application: [OpenAdapter(application.chat, channel)])
    serving = asyncio.create_task(app.serve(settings))
    async with asyncio.timeout(20):
        while not engine.requests:
            await asyncio.sleep(0.01)
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0.05)
        then()
        assert await serving == 0
    return channel.texts


async def test_a_reply_that_runs_ends_before_the_process(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = asyncio.Event()
    engine = ColourEngine(script=lambda _: ("Once upon a time ", gate, "there was an end."))
    texts = await serve_and_stop(settings, monkeypatch, engine, then=gate.set)
    assert texts == ["Once upon a time there was an end."]
    assert engine.drained_s == 0.0, "the last thing is to release the device"


async def test_a_reply_that_does_not_end_in_time_is_broken_off(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings.model_copy(update={"engine": settings.engine.model_copy(update={"drain_s": 0.2})})
    engine = ColourEngine(script=lambda _: ("Once upon a time there was ", asyncio.Event()))
    texts = await serve_and_stop(settings, monkeypatch, engine, then=lambda: None)
    assert texts == ["Once upon a time there was"]
    assert engine.num_closed_early == 1
    assert "engine.drain_s" in caplog.text


async def test_a_signal_while_it_loads_ends_it(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    is_loading = asyncio.Event()

    class Slow(ColourEngine):
        async def start(self) -> None:
            is_loading.set()
            await asyncio.Event().wait()

    engine = Slow()
    monkeypatch.setattr(app, "build_engine", lambda _: engine)
    serving = asyncio.create_task(app.serve(settings))
    async with asyncio.timeout(20):
        await is_loading.wait()
        signal.raise_signal(signal.SIGTERM)
        assert await serving == 0
    assert engine.drained_s is not None, "it was closed"


def test_the_pages_secret_is_kept_private_and_never_a_part_of_one(tmp_path: Path) -> None:
    file = tmp_path / "page-secret"
    file.write_text("")  # what a power cut left behind
    secret = app._page_secret(tmp_path)
    assert len(secret) >= 32
    assert app._page_secret(tmp_path) == secret
    assert file.stat().st_mode & 0o077 == 0


def test_a_secret_that_cannot_be_kept_is_said(tmp_path: Path) -> None:
    (tmp_path / "page-secret").mkdir()
    with pytest.raises(StoreError, match="page-secret"):
        app._page_secret(tmp_path)
