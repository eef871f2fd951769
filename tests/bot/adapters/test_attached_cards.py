"""A character card comes in on every platform as people would attach it there."""

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from rich.console import Console

from bot.adapters.console import ConsoleAdapter
from bot.adapters.discord.adapter import DiscordAdapter
from bot.adapters.web.session import Session, Upload
from bot.admins import Admins
from bot.commands import CommandTable
from bot.persona_commands import AS_A_FILE, HOW_TO_ADD, persona_commands
from bot.personas.library import PersonaLibrary
from tests.bot.adapters.discord.harness import QUICK, library_put_back
from tests.bot.adapters.telegram.harness import RecordingHandler, in_background, serving
from tests.bot.adapters.web.rehearsal import RehearsalChat
from tests.bot.personas.cards.making import V3, charx_of, picture, png_of
from tests.fakes.discord import FakeDiscord
from tests.fakes.telegram import FakeTelegram

CARD = png_of(V3, "ccv3")


class Desk:
    """The commands over an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.library = PersonaLibrary([folder], cache=folder / "cache")
        self.folder = folder

    def table(self, *admins: str) -> CommandTable:
        trusted = frozenset(name for name in admins if ":" not in name)
        return CommandTable(persona_commands(self.library, self.folder, Admins(admins, trusted)))

    def cards(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.glob("*.*") if path.is_file()}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    (tmp_path / "personas").mkdir()
    return Desk(tmp_path / "personas")


@pytest.fixture
async def telegram() -> AsyncIterator[FakeTelegram]:
    async with FakeTelegram() as server:
        yield server


async def test_on_telegram_as_a_file_with_the_command_as_its_caption(telegram: FakeTelegram, desk: Desk) -> None:
    ada, eve, handler = telegram.add_user("Ada"), telegram.add_user("Eve"), RecordingHandler()
    chat, other = telegram.private_chat(ada), telegram.private_chat(eve)
    async with serving(telegram, handler, commands=desk.table(f"telegram:{ada.id}")):
        telegram.say(other, eve, "/persona add", document=("wren.png", "image/png", CARD))
        await telegram.wait_for(lambda: telegram.sent_to(other))
        assert "for my admins" in telegram.sent_to(other)[0].text
        telegram.say(chat, ada, "/persona add", photo=picture(form="JPEG"))
        await telegram.wait_for(lambda: telegram.sent_to(chat))
        assert AS_A_FILE in telegram.sent_to(chat)[0].text
        assert desk.cards() == {}
        telegram.say(chat, ada, "/persona add tower-wren", document=("wren.png", "image/png", CARD))
        await telegram.wait_for(lambda: len(telegram.sent_to(chat)) == 2)
    answer = telegram.sent_to(chat)[1]
    assert answer.text.startswith("Wren is here")
    assert answer.picture is not None
    assert desk.cards() == {"tower-wren.png": CARD}
    assert handler.messages == []


async def test_on_discord_as_the_commands_option(desk: Desk) -> None:
    with library_put_back():
        async with FakeDiscord() as discord:
            ada, eve = discord.add_user("ada"), discord.add_user("eve")
            adapter = DiscordAdapter(
                discord.token,
                handler=RecordingHandler(),
                commands=desk.table(f"discord:{ada.id}"),
                api_url=discord.api_url,
                gateway_url=discord.gateway_url,
                backoff=QUICK,
            )
            channel = discord.add_channel(discord.add_guild("G"), "c")
            async with in_background(adapter):  # type: ignore[arg-type]
                await discord.wait_for(lambda: discord.commands)
                (group,) = (found for found in discord.commands if found["name"] == "persona")
                add = next(found for found in group["options"] if found["name"] == "add")
                assert [(option["name"], option["type"]) for option in add["options"]] == [("name", 3), ("file", 11)]
                refused = discord.use_command(channel, eve, "persona", "add", file=CARD)
                await discord.wait_for(lambda: refused.messages)
                assert "for my admins" in refused.text
                assert refused.is_ephemeral
                used = discord.use_command(channel, ada, "persona", "add", file=CARD)
                await discord.wait_for(lambda: used.messages)
    assert used.text.startswith("Wren is here")
    assert len(used.pictures) == 1
    assert desk.cards() == {"wren.png": CARD}


@pytest.mark.parametrize(
    ("name", "data"),
    [("wren.png", CARD), ("wren.json", json.dumps(V3).encode()), ("wren.charx", charx_of(V3))],
)
async def test_on_the_page_as_an_upload(name: str, data: bytes, desk: Desk) -> None:
    chat = RehearsalChat()
    session = Session("someone", chat, browser=chat, commands=desk.table("web"))
    await session.open()
    assert await session.say("/persona add", (session.add_upload(Upload(name, None, data)),)) is None
    answer = list(session.transcript)[-1]
    assert answer.text.startswith("Wren is here")
    assert len(answer.pictures) == (name == "wren.png")
    assert desk.cards() == {name: data}
    assert chat.received == []


async def test_on_the_page_strangers_may_not(desk: Desk) -> None:
    chat = RehearsalChat()
    session = Session("someone", chat, browser=chat, commands=desk.table())
    await session.open()
    await session.say("/persona add", (session.add_upload(Upload("wren.png", None, CARD)),))
    assert "for my admins" in list(session.transcript)[-1].text
    assert desk.cards() == {}


def test_the_page_offers_such_files_to_choose() -> None:
    composer = Path(__file__).parents[3] / "bot" / "adapters" / "web" / "static" / "composer.js"
    assert 'accept="image/*,.json,.charx"' in composer.read_text(encoding="utf-8")


async def test_in_the_terminal_by_its_path(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "my wren.charx").write_bytes(charx_of(V3))
    typed = iter([f"/persona add tower '{tmp_path / 'my wren.charx'}'", "/persona add"])
    screen, chat = io.StringIO(), RehearsalChat()

    async def read_line() -> str | None:
        return next(typed, None)

    console = Console(file=screen, width=200)
    adapter = ConsoleAdapter(
        handler=chat, browser=chat, commands=desk.table("console"), console=console, read_line=read_line
    )
    await adapter.run()
    assert "Wren is here" in screen.getvalue()
    assert HOW_TO_ADD in screen.getvalue()
    assert desk.cards() == {"tower.charx": charx_of(V3)}
