"""What is put together, and that no part takes another along when it ends."""

import asyncio
from pathlib import Path

import pytest

from bot import app
from bot.adapters.base import AdapterState, AdapterStatus
from bot.commands import CommandCall, CommandReply, CommandTable
from bot.errors import BotError, PlatformFatal, SettingsError, StoreError
from bot.personas.library import PersonaLibrary
from bot.settings import Settings, read_settings
from bot.types import Author, ChatKind, Room


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
