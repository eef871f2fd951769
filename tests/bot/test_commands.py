"""What the commands answer."""

import pytest

from bot.chat import ChatOptions, ChatService
from bot.commands import NOT_DONE, Command, CommandCall, CommandReply, CommandTable, build_commands, describe
from bot.errors import BotError, CommandError, PersonaError, StoreError
from bot.types import ChatKind, ConversationKey, Room
from engine.persona import Identity
from tests.fakes.adapter import ANN
from tests.fakes.engine import ScriptedEngine
from tests.fakes.personas import MemoryLibrary, a_persona
from tests.fakes.store import MemoryAttachments, MemoryConversations, MemoryRooms

ROOM = Room("fake", "1")


class Desk:
    """The commands over a chat service in memory."""

    def __init__(self) -> None:
        self.library = MemoryLibrary([a_persona("Luna"), a_persona("Max"), a_persona("Maxine")])
        self.conversations = MemoryConversations()
        self.chat = ChatService(
            ScriptedEngine(),
            self.library,
            self.conversations,
            MemoryRooms(),
            MemoryAttachments(),
            options=ChatOptions(default_persona="luna"),
        )
        self.table = build_commands(self.chat)

    def command(self, *path: str) -> Command:
        command = self.table.find(*path)
        assert command is not None
        return command

    async def use(
        self, *path: str, kind: ChatKind = ChatKind.DIRECT, is_moderator: bool = False, **arguments: str
    ) -> CommandReply:
        return await self.command(*path).run(CommandCall(ROOM, kind, ANN, arguments, is_moderator=is_moderator))

    def said(self, persona_id: str) -> list[str]:
        return self.conversations.said(ConversationKey(ROOM, persona_id))


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_the_list_offers_every_persona_as_a_choice(desk: Desk) -> None:
    reply = await desk.use("persona", "list")
    assert reply.text.splitlines()[0] == "▶ Luna: Luna is a test."
    assert [choice.value for choice in reply.choices] == ["luna", "max", "maxine"]
    assert desk.command(*reply.choice_path).arguments[0].name == reply.choice_argument


async def test_choosing_a_persona_answers_with_its_greeting_once(desk: Desk) -> None:
    assert (await desk.use("persona", "use", name="max")).text.startswith("I am Max")
    assert await desk.chat.chosen(ROOM) == "max"
    assert desk.said("max") == ["I am Max, Ann."]
    assert "goes on" in (await desk.use("persona", "use", name="max")).text
    assert desk.said("max") == ["I am Max, Ann."]


async def test_a_greeting_in_a_group_is_for_everybody(desk: Desk) -> None:
    assert "Ann" not in (await desk.use("persona", "use", kind=ChatKind.GROUP, is_moderator=True, name="max")).text


@pytest.mark.parametrize("path", [("reset",), ("persona", "use")])
async def test_in_a_group_only_moderators_change_what_is_everybodys(desk: Desk, path: tuple[str, ...]) -> None:
    with pytest.raises(CommandError, match="Only moderators"):
        await desk.use(*path, kind=ChatKind.GROUP, name="max")


async def test_an_unknown_persona_is_answered_with_the_known_ones(desk: Desk) -> None:
    with pytest.raises(PersonaError, match=r"“Zoe”.*Luna, Max, Maxine"):
        await desk.use("persona", "use", name="Zoe")
    assert await desk.chat.chosen(ROOM) == "luna"


async def test_choosing_nobody_shows_the_list(desk: Desk) -> None:
    assert (await desk.use("persona", "use", name=" ")).choices


async def test_suggestions_complete_what_was_typed(desk: Desk) -> None:
    suggest = desk.command("persona", "use").arguments[0].suggest
    assert suggest is not None
    call = CommandCall(ROOM, ChatKind.DIRECT, ANN)
    assert [choice.value for choice in await suggest(call, " MA")] == ["max", "maxine"]
    assert [choice.value for choice in await suggest(call, "n")] == ["luna", "maxine"]
    assert [choice.value for choice in await suggest(call, "")] == ["luna", "max", "maxine"]
    desk.library.personas = [a_persona(f"P{number}") for number in range(40)]
    assert len(await suggest(call, "p")) == 25


async def test_showing_a_persona_tells_who_it_is(desk: Desk) -> None:
    assert (await desk.use("persona", "show")).text.startswith("Luna: Luna is a test.")
    assert (await desk.use("persona", "show", name="maxi")).text.startswith("Maxine")


def test_a_description_has_the_facts_and_no_macros() -> None:
    persona = a_persona(
        "Luna",
        identity=Identity(home="the attic"),
        traits=("curious",),
        creator="Ann",
        licence="CC0-1.0",
        look=("{{char}} glows",),
    )
    assert describe(persona).splitlines() == [
        "Luna: Luna is a test.",
        "",
        "Home: the attic",
        "Look: Luna glows",
        "Traits: curious",
        "Language: en",
        "by Ann, CC0-1.0",
    ]


async def test_starting_over_forgets_and_greets(desk: Desk) -> None:
    await desk.chat.greet_once(ROOM)
    reply = await desk.use("reset")
    assert "forgotten" in reply.text
    assert "I am Luna, Ann." in reply.text
    assert desk.said("luna") == ["I am Luna, Ann."]


async def test_start_greets_newcomers_and_knows_friends(desk: Desk) -> None:
    assert (await desk.use("start")).text == "I am Luna, Ann."
    assert "remembers you" in (await desk.use("start")).text


async def test_help_names_every_command(desk: Desk) -> None:
    text = (await desk.use("help")).text
    assert all(f"/{' '.join(command.path)} – {command.description}" in text for command in desk.table)


def test_commands_fit_every_platform(desk: Desk) -> None:
    for command in desk.table:
        assert len(command.path) <= 2
        assert all(part.isascii() and part.islower() and len(part) <= 32 for part in command.path)
        assert 3 <= len(command.description) <= 100
        assert all(1 <= len(argument.description) <= 100 for argument in command.arguments)


def test_two_commands_of_one_path_are_refused(desk: Desk) -> None:
    with pytest.raises(ValueError, match="same path"):
        CommandTable((desk.command("help"), desk.command("help")))


async def test_what_is_wrong_with_the_store_is_for_the_log(desk: Desk, monkeypatch, caplog) -> None:
    async def full(_key: ConversationKey) -> int:
        raise StoreError("the disk that holds /home/admin/var is full")

    monkeypatch.setattr(desk.conversations, "reset", full)
    with pytest.raises(BotError) as caught:
        await desk.use("reset")
    assert str(caught.value) == NOT_DONE
    assert "/home/admin/var is full" in caplog.text
