"""Admins bring personas in and take them away, in chat."""

import json
from pathlib import Path
from typing import Any

import pytest

from bot.admins import Admins
from bot.commands import CommandCall, CommandReply, CommandTable
from bot.errors import CommandError, MediaError
from bot.persona_commands import AS_A_FILE, HOW_TO_ADD, MAX_CARD_BYTES, MAX_CARDS, PersonaCommands, persona_commands
from bot.personas.library import PersonaLibrary
from bot.types import Author, ChatKind, IncomingFile, RepliedMessage, Room
from tests.bot.personas.cards.making import V2, V3, picture, png_of
from tests.bot.personas.conftest import MIRA

ROOM = Room("fake", "1")
ANN, EVE = Author("fake", "ann", "Ann"), Author("fake", "eve", "Ann")
CARD = png_of(V2)


def file_of(
    data: bytes, name: str = "card.png", mime: str | None = "image/png", claimed: int | None = None
) -> IncomingFile:
    async def read(max_bytes: int) -> bytes:
        if len(data) > max_bytes:
            raise MediaError(f"{name} is too large")
        return data

    return IncomingFile(name, mime, len(data) if claimed is None else claimed, read)


class Desk:
    """The commands over a real folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_s = 0.0
        self.library = PersonaLibrary([folder.parent / "shipped", folder], cache=folder.parent / "cache")
        self.commands = PersonaCommands(self.library, folder, Admins(("fake:ann",)), clock=lambda: self.now_s)

    async def add(self, *files: IncomingFile, by: Author = ANN, name: str = "", **call: Any) -> CommandReply:
        arguments = {"name": name} if name else {}
        return await self.commands.add(CommandCall(ROOM, ChatKind.GROUP, by, arguments, files, **call))

    async def remove(self, name: str, by: Author = ANN) -> CommandReply:
        return await self.commands.remove(CommandCall(ROOM, ChatKind.GROUP, by, {"name": name}))

    def names(self) -> list[str]:
        return [persona.name for persona in self.library.all()]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped" / "mira.yaml").write_text(MIRA)
    desk = Desk(tmp_path / "personas")
    desk.library.load()
    return desk


async def test_a_card_is_live_at_once_with_its_avatar(desk: Desk) -> None:
    reply = await desk.add(file_of(CARD))
    assert desk.names() == ["Mira", "Wren"]
    assert (desk.folder / "wren.png").read_bytes() == CARD
    assert reply.text == (
        "Wren is here: Wren mends clocks in a tower.\n\nI found 3 greetings, 1 example, 1 lore entry."
    )
    (shown,) = reply.pictures
    assert shown.data.startswith(b"\x89PNG")
    assert b"chara" not in shown.data
    assert [(choice.value, reply.choice_path) for choice in reply.choices] == [("wren", ("persona", "use"))]
    assert desk.library.avatar(desk.library.get("wren")) is not None


async def test_a_folder_that_nobody_looks_into_waits_for_the_next_start(desk: Desk, tmp_path: Path) -> None:
    desk.commands = PersonaCommands(desk.library, tmp_path / "elsewhere", Admins(("fake:ann",)))
    reply = await desk.add(file_of(CARD))
    assert "live when I have been started again" in reply.text
    assert (tmp_path / "elsewhere" / "wren.png").is_file()


async def test_json_and_names(desk: Desk) -> None:
    await desk.add(file_of(json.dumps(V3).encode(), "x.json", "application/json"), name="My-Wren")
    assert (desk.folder / "my-wren.json").is_file()
    with pytest.raises(CommandError, match="cannot be called"):
        await desk.add(file_of(CARD), name="../x")


async def test_the_card_may_be_in_the_message_that_is_replied_to(desk: Desk) -> None:
    await desk.add(reply_to=RepliedMessage("1", EVE, "look", (file_of(CARD),)))
    assert "Wren" in desk.names()


async def test_others_may_not(desk: Desk) -> None:
    with pytest.raises(CommandError, match="for my admins"):
        await desk.add(file_of(CARD), by=EVE)
    with pytest.raises(CommandError, match="for my admins"):
        await desk.remove("mira", by=EVE)
    assert not desk.folder.exists()


async def test_without_a_file_it_says_how(desk: Desk) -> None:
    with pytest.raises(CommandError) as caught:
        await desk.add()
    assert str(caught.value) == HOW_TO_ADD
    with pytest.raises(CommandError, match="One card at a time"):
        await desk.add(file_of(CARD), file_of(CARD))


async def test_a_photo_is_asked_for_as_a_file(desk: Desk) -> None:
    for data, mime in ((picture(form="JPEG"), "image/jpeg"), (picture(), "image/png")):
        with pytest.raises(CommandError, match=AS_A_FILE):
            await desk.add(file_of(data, "photo.jpg", mime))


async def test_what_is_wrong_is_told_without_a_path(desk: Desk, tmp_path: Path) -> None:
    await desk.add(file_of(CARD))
    for data, expected in (
        (CARD, "`wren` already"),
        (b'{"spec": "chara_card_v2", "data":', "no valid JSON"),
        (b"x", HOW_TO_ADD),
    ):
        with pytest.raises(CommandError, match=expected) as caught:
            await desk.add(file_of(data, "a.json", None))
        assert str(tmp_path) not in str(caught.value)
    assert desk.names() == ["Mira", "Wren"]


async def test_large_files_are_not_fetched(desk: Desk) -> None:
    with pytest.raises(CommandError, match="at most 20 MB"):
        await desk.add(file_of(CARD, claimed=MAX_CARD_BYTES + 1))
    with pytest.raises(MediaError):
        await desk.add(file_of(bytes(MAX_CARD_BYTES + 1), claimed=5))


async def test_a_flood_of_cards_is_stopped_for_a_while(desk: Desk) -> None:
    for number in range(MAX_CARDS):
        await desk.add(file_of(CARD), name=f"wren-{number}")
    with pytest.raises(CommandError, match="wait a little"):
        await desk.add(file_of(CARD), name="one-more")
    desk.now_s += 601
    await desk.add(file_of(CARD), name="one-more")


async def test_a_persona_is_removed_and_its_file_kept(desk: Desk) -> None:
    await desk.add(file_of(CARD))
    reply = await desk.remove("wre")
    assert "Wren is gone" in reply.text
    assert desk.names() == ["Mira"]
    (kept,) = (desk.folder / ".removed").iterdir()
    assert kept.read_bytes() == CARD


async def test_only_the_admins_own_folder_is_changed(desk: Desk) -> None:
    with pytest.raises(CommandError, match="a folder that I do not change"):
        await desk.remove("mira")
    for name in ("nobody", "../shipped/mira", "", "."):
        with pytest.raises(CommandError, match="I know no persona"):
            await desk.remove(name)
    assert desk.names() == ["Mira"]


async def test_only_admins_are_shown_who_can_go(desk: Desk) -> None:
    await desk.add(file_of(CARD))
    for author, typed, shown in ((ANN, "", ["wren"]), (ANN, "W", ["wren"]), (ANN, "m", []), (EVE, "", [])):
        call = CommandCall(ROOM, ChatKind.GROUP, author)
        assert [choice.value for choice in await desk.commands.suggest(call, typed)] == shown


async def test_the_log_says_who_and_nothing_of_the_card(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="bot")
    await desk.add(file_of(CARD))
    await desk.remove("wren")
    assert "persona wren was added by fake:ann" in caplog.text
    assert "persona wren was removed by fake:ann" in caplog.text
    assert "clocks" not in caplog.text


def test_the_table_says_what_comes_with_them(desk: Desk) -> None:
    table = CommandTable(persona_commands(desk.library, desk.folder, Admins()))
    add, remove = table.find("persona", "add"), table.find("persona", "remove")
    assert add is not None
    assert remove is not None
    assert (add.takes_file, add.arguments[0].is_required) == (True, False)
    assert (remove.takes_file, remove.arguments[0].is_required) == (False, True)
