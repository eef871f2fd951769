"""What people can arrange in a room, and what they are told."""

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from bot.access import effective_triggers
from bot.commands import Command, CommandCall, CommandReply, CommandTable
from bot.errors import CommandError, PersonaError
from bot.room_commands import MAX_CAST, room_commands
from bot.rooms import EVERYONE, RoomSettings, TriggerChanges
from bot.types import ChatKind, PersonaCard, Room
from engine.persona import Persona, Triggers
from tests.fakes.adapter import ANN
from tests.fakes.personas import MemoryLibrary, a_persona
from tests.fakes.store import MemoryRooms

GUIDE = (Path(__file__).parents[2] / "docs" / "rooms.md").read_text(encoding="utf-8")

ROOM = Room("fake", "1")
THREAD = Room("fake", "1", "7")
OTHER = Room("fake", "2")


class Hall:
    """The commands over rooms in memory. Luna was chosen everywhere."""

    def __init__(self) -> None:
        luna = a_persona("Luna", triggers=Triggers(words=("lamp",)))
        self.library = MemoryLibrary([luna, a_persona("Sol"), a_persona("Mira"), a_persona("Old Maren", id="maren")])
        self.rooms = MemoryRooms()
        self.table = CommandTable(room_commands(self, self.rooms))

    def personas(self) -> tuple[PersonaCard, ...]:
        return tuple(map(self.library.card, self.library.all()))

    def find_persona(self, text: str) -> Persona:
        named = (persona for persona in self.library.all() if persona.name.casefold() == text.casefold())
        found = self.library.find(text) or next(named, None)
        if found is None:
            raise PersonaError(f"I do not know who “{text}” is. You can talk to: Luna, Mira, Old Maren, Sol.")
        return found

    async def chosen(self, room: Room) -> str:
        return "luna"

    def command(self, *path: str) -> Command:
        command = self.table.find(*path)
        assert command is not None
        return command

    async def use(
        self, *path: str, room: Room = ROOM, kind: ChatKind = ChatKind.GROUP, **arguments: str
    ) -> CommandReply:
        return await self.command(*path).run(CommandCall(room, kind, ANN, arguments, is_moderator=True))

    async def type(self, text: str, room: Room = ROOM) -> str:
        matched = self.table.match(text)
        assert matched is not None
        command, arguments = matched
        return (await command.run(CommandCall(room, ChatKind.GROUP, ANN, arguments))).text

    async def suggested(self, *path: str, argument: int = 0, typed: str = "", **arguments: str) -> list[str]:
        suggest = self.command(*path).arguments[argument].suggest
        assert suggest is not None
        return [choice.value for choice in await suggest(CommandCall(ROOM, ChatKind.GROUP, ANN, arguments), typed)]

    def triggers(self, persona_id: str, room: Room = ROOM) -> Triggers:
        settings = self.rooms.changed.get(room, RoomSettings())
        return effective_triggers(self.library.get(persona_id), settings)

    def set_in(self, room: Room = ROOM) -> Mapping[str, object]:
        return self.rooms.changed[room].model_dump(exclude_unset=True)


@pytest.fixture
def hall() -> Hall:
    return Hall()


def test_names_suit_every_platform(hall: Hall) -> None:
    for command in hall.table:
        for word in (*command.path, *(argument.name for argument in command.arguments)):
            assert re.fullmatch("[a-z][a-z0-9_]{0,31}", word)
        assert len("_".join(command.path)) <= 32
        assert all(0 < len(text) <= 100 for text in (command.description, *(a.description for a in command.arguments)))
        required = [argument.is_required for argument in command.arguments]
        assert required == sorted(required, reverse=True)


def test_whoever_only_looks_needs_no_rights_and_whoever_changes_does(hall: Hall) -> None:
    assert all(command.for_moderators is not command.only_looks for command in hall.table)


# --- who is here


async def test_somebody_joins_and_leaves(hall: Hall) -> None:
    assert "Nobody else" in (await hall.use("cast", "list")).text
    assert (await hall.use("cast", "add", name="sol")).text.startswith("Sol has joined")
    assert await hall.type("/cast add Old Maren")
    assert hall.rooms.changed[ROOM].cast == ("sol", "maren")
    listed = (await hall.use("cast", "list")).text.splitlines()
    assert listed == ["▶ Luna, who answers where nobody is named", "• Sol", "• Old Maren"]
    assert await hall.type("/cast remove old maren") == "Old Maren has left."
    assert hall.rooms.changed[ROOM].cast == ("sol",)
    assert set(hall.rooms.changed) == {ROOM}


async def test_who_cannot_join_or_leave(hall: Hall) -> None:
    await hall.use("cast", "add", name="sol")
    assert "already" in (await hall.use("cast", "add", name="sol")).text
    assert "already" in (await hall.use("cast", "add", name="luna")).text
    with pytest.raises(PersonaError, match=r"“Zoe”.*Luna, Mira"):
        await hall.use("cast", "add", name="Zoe")
    with pytest.raises(CommandError, match=r"Here are: Sol\."):
        await hall.use("cast", "remove", name="mira")
    with pytest.raises(CommandError, match="/persona use"):
        await hall.use("cast", "remove", name="Luna")
    assert hall.rooms.changed[ROOM].cast == ("sol",)


async def test_nobody_can_leave_where_nobody_is(hall: Hall) -> None:
    with pytest.raises(CommandError, match="Nobody else is here"):
        await hall.use("cast", "remove", name="mira")


async def test_whose_file_is_gone_can_still_leave(hall: Hall) -> None:
    hall.rooms.changed[ROOM] = RoomSettings(cast=("gone", "sol"))
    assert "“gone”, whose file is gone" in (await hall.use("cast", "list")).text
    await hall.use("cast", "remove", name="gone")
    assert hall.rooms.changed[ROOM].cast == ("sol",)


async def test_a_room_has_an_end(hall: Hall) -> None:
    hall.rooms.changed[ROOM] = RoomSettings(cast=tuple(f"p{number}" for number in range(MAX_CAST)))
    with pytest.raises(CommandError, match="/cast remove"):
        await hall.use("cast", "add", name="sol")


async def test_without_a_name_there_are_choices(hall: Hall) -> None:
    await hall.use("cast", "add", name="sol")
    for command, expected in (("add", ["mira", "maren"]), ("remove", ["sol"])):
        reply = await hall.use("cast", command)
        assert [choice.value for choice in reply.choices] == expected
        assert (reply.choice_path, reply.choice_argument) == (("cast", command), "name")
        assert await hall.suggested("cast", command) == expected
    assert await hall.suggested("cast", "add", typed="old") == ["maren"]
    assert await hall.suggested("triggers", "set", argument=2) == ["luna", "sol"]
    assert (await hall.use("cast", "remove", room=OTHER)).choices == ()


async def test_two_changes_at_once_lose_neither(hall: Hall) -> None:
    hall.rooms.changed[ROOM] = RoomSettings()
    slow = hall.rooms.settings

    async def settings(room: Room) -> RoomSettings:
        found = await slow(room)
        await asyncio.sleep(0)
        return found

    hall.rooms.settings = settings  # type: ignore[method-assign]
    await asyncio.gather(*(hall.use("cast", "add", name=name) for name in ("sol", "mira", "maren")))
    assert sorted(hall.rooms.changed[ROOM].cast) == ["maren", "mira", "sol"]


# --- when they answer


@pytest.mark.parametrize(
    ("typed", "field", "expected"),
    [
        ("mention off", "mention", False),
        ("reply NO", "reply", False),
        ("name on", "name", True),
        ("words storm, sea shanty，潮水", "words", ("storm", "sea shanty", "潮水")),
        ("words none", "words", ()),
        (r"patterns ships?\b, a{1,3} b", "patterns", (r"ships?\b, a{1,3} b",)),
        ("patterns none", "patterns", ()),
        ("chance 0.25", "chance", 0.25),
        ("chance 5%", "chance", 0.05),
        ("chance 0,5", "chance", 0.5),
        ("chance off", "chance", 0.0),
        ("channels #harbour, <#123456>, Tea room", "channels", ("harbour", "123456", "Tea room")),
        ("channels everywhere", "channels", ()),
        ("quiet-hours 23:00-07:30", "quiet_hours", ("23:00-07:30",)),
        (
            "QUIET_HOURS 23:00-07:30 Europe/Berlin, 12:00-13:00",
            "quiet_hours",
            ("23:00-07:30 Europe/Berlin", "12:00-13:00"),
        ),
        ("quiet-hours none", "quiet_hours", ()),
    ],
)
async def test_what_can_be_set(hall: Hall, typed: str, field: str, expected: object) -> None:
    assert (await hall.type(f"/triggers set {typed}")).startswith("Everybody here: ")
    assert getattr(hall.triggers("luna"), field) == expected
    assert getattr(hall.triggers("sol"), field) == expected
    assert set(hall.rooms.changed) == {ROOM}


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("mention perhaps", "must be on or off. For example: /triggers set mention off"),
        ("chance often", "must be a number from 0 to 1. For example: /triggers set chance 0.05"),
        ("chance 7", "must be from 0 to 1"),
        ("chance nan", "must be from 0 to 1"),
        ("patterns (", "is no regular expression: missing )"),
        ("patterns (a{1000}){1000}", "repeats too much"),
        ("quiet-hours at night", "must be hours such as `23:00-07:30`"),
        (f"words {'x' * 501}", "should have at most 500 characters"),
        (f"words {','.join(map(str, range(31)))}", "may have at most 30 items"),
        ("volume 11", "I can set: mention, reply, name, words, patterns, chance, channels, quiet-hours"),
        ("words", "What shall it be?"),
    ],
)
async def test_what_cannot_be_set_says_what_can(hall: Hall, typed: str, expected: str) -> None:
    with pytest.raises(CommandError, match=re.escape(expected)):
        await hall.type(f"/triggers set {typed}")
    assert not hall.rooms.changed


@pytest.mark.parametrize(
    ("typed", "whom", "words"),
    [
        ("words sea Mira", "mira", ("sea",)),
        ("words storm, sea shanty Old Maren", "maren", ("storm", "sea shanty")),
        ("words sea, Mira", EVERYONE, ("sea", "Mira")),
        ("words Mira", EVERYONE, ("Mira",)),
        ("words storm, sea", EVERYONE, ("storm", "sea")),
        ("words none maren", "maren", ()),
    ],
)
async def test_where_a_long_value_ends_and_a_name_begins(
    hall: Hall, typed: str, whom: str, words: tuple[str, ...]
) -> None:
    await hall.type(f"/triggers set {typed}")
    assert hall.rooms.changed[ROOM].triggers == {whom: TriggerChanges(words=words)}


async def test_what_is_set_for_one_persona_holds_for_it_alone(hall: Hall) -> None:
    assert await hall.type("/triggers set mention off Old Maren") == "Old Maren: mention is now off."
    assert not hall.triggers("maren").mention
    assert hall.triggers("luna").mention
    with pytest.raises(PersonaError, match="“Zoe”"):
        await hall.type("/triggers set mention off Zoe")


async def test_what_was_set_by_name_stays_when_all_is_set_and_goes_when_all_is_reset(hall: Hall) -> None:
    await hall.type("/triggers set chance 0.5 Sol")
    assert "Sol keeps what was set by name" in await hall.type("/triggers set chance 0.1")
    assert (hall.triggers("sol").chance, hall.triggers("luna").chance) == (0.5, 0.1)
    await hall.type("/triggers set chance reset Sol")
    assert hall.triggers("sol").chance == 0.1
    await hall.type("/triggers set chance 0.9 Sol")
    assert await hall.type("/triggers set chance reset") == "Everybody here: chance is now as the author wrote it."
    assert hall.triggers("sol") == Triggers()
    assert hall.rooms.changed[ROOM].triggers == {}


async def test_triggers_are_shown_with_what_the_room_changed(hall: Hall) -> None:
    await hall.type("/cast add Sol")
    await hall.type("/triggers set name off Sol")
    shown = await hall.type("/triggers show")
    luna, sol, note = shown.split("\n\n")
    assert luna.startswith("Luna\n• mention: on\n• reply: on\n• name: on\n• words: lamp\n")
    assert "• name: off *" in sol
    assert "• channels: everywhere\n• quiet-hours: none" in sol
    assert "*" in note
    assert (await hall.type("/triggers show mira")).startswith("Mira\n")
    with pytest.raises(PersonaError):
        await hall.type("/triggers show Zoe")
    assert "everything is answered" in (await hall.use("triggers", "show", kind=ChatKind.DIRECT)).text


async def test_values_are_suggested_by_setting(hall: Hall) -> None:
    assert await hall.suggested("triggers", "set", typed="m") == ["mention"]
    assert await hall.suggested("triggers", "set", argument=1, setting="reply") == ["on", "off", "reset"]
    assert await hall.suggested("triggers", "set", argument=1, typed="0", setting="chance") == ["0", "0.05", "0.2"]
    assert await hall.suggested("triggers", "set", argument=1, setting="volume") == []


# --- what is shown, and how long they talk


@pytest.mark.parametrize(("typed", "expected"), [("on", True), ("OFF", False)])
async def test_buttons(hall: Hall, typed: str, expected: bool) -> None:
    assert "as configured" in await hall.type("/buttons")
    assert f"are {typed.lower()}." in await hall.type(f"/buttons {typed}")
    assert f"are {typed.lower()}." in await hall.type("/buttons")
    assert hall.rooms.changed[ROOM].has_controls is expected
    await hall.type("/buttons reset")
    assert hall.set_in() == {}
    with pytest.raises(CommandError, match="/buttons on, /buttons off"):
        await hall.type("/buttons maybe")


async def test_exchange(hall: Hall) -> None:
    assert "as configured" in await hall.type("/exchange")
    assert "3 replies" in await hall.type("/exchange 3")
    assert "3 replies" in await hall.type("/exchange")
    assert "1 reply" in await hall.type("/exchange 1")
    assert "people alone" in await hall.type("/exchange 0")
    assert hall.rooms.changed[ROOM].max_exchange == 0
    await hall.type("/exchange reset")
    assert hall.set_in() == {}
    for wrong in ("11", "-1", "two", "٣", "1" * 5000):
        with pytest.raises(CommandError, match="from 0 to 10"):
            await hall.type(f"/exchange {wrong}")


async def test_what_the_guide_says_works(hall: Hall) -> None:
    hall.library.personas += [a_persona("Grub")]
    blocks = re.findall(r"```\n(/.+?)```", GUIDE, re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines() if line.startswith("/")]
    assert len(commands) >= 20
    for line in commands:
        await hall.type(line)
    written = yaml.safe_load(re.findall(r"```yaml\n(.+?)```", GUIDE, re.DOTALL)[0])
    assert Triggers.model_validate(written["triggers"]).patterns == (r"ships?\b",)


def test_the_guide_knows_every_trigger() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", GUIDE, re.MULTILINE)
    assert listed == list(Triggers.model_fields)


async def test_a_thread_takes_over_and_then_goes_its_own_way(hall: Hall) -> None:
    await hall.type("/cast add Sol")
    await hall.type("/triggers set mention off")
    await hall.type("/exchange 4")
    await hall.type("/cast add Mira", THREAD)
    await hall.type("/triggers set reply off", THREAD)
    assert hall.set_in(THREAD).keys() == {"cast", "triggers"}
    in_thread = await hall.rooms.settings(THREAD)
    assert (in_thread.cast, in_thread.max_exchange) == (("sol", "mira"), 4)
    assert in_thread.triggers[EVERYONE] == TriggerChanges(mention=False, reply=False)
    assert hall.rooms.changed[ROOM].cast == ("sol",)
    assert hall.triggers("luna").reply
    await hall.type("/triggers set mention reset", THREAD)
    assert effective_triggers(hall.library.get("luna"), await hall.rooms.settings(THREAD)).mention
    assert not hall.triggers("luna").mention
