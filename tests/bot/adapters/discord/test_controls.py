"""Buttons under replies, the fields that they open, and who may use them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from bot.adapters.discord.controls import Pressed, pressed_in, view_of_controls
from bot.commands import Argument, Command, CommandCall, CommandReply, CommandTable
from bot.errors import CommandError
from bot.types import ChatKind, Control, Room, Speaker
from tests.bot.adapters.discord.conftest import Stage, online
from tests.fakes.discord import Channel, FakeDiscord, Interaction, Message

AGAIN = Control("▶", ("swipe",), "direction", "next")
EDIT = Control("✏️", ("edit",))
CONTROLS = (
    AGAIN,
    Control("⏩", ("continue",)),
    EDIT,
    Control("↩️", ("undo",)),
    Control("🗑️", ("delete",)),
    Control("👍", ("rate",), "rating", "good"),
)

SILENT = CommandReply("Done already.", is_silent=True)


@dataclass
class Steering:
    """Commands that steer a reply, and the calls that reached them."""

    calls: list[CommandCall] = field(default_factory=list)
    reply: CommandReply = SILENT
    gate: asyncio.Event | None = None
    num_done: int = 0
    prefill_error: Exception | None = None
    prefilled: str = ""

    def table(self) -> CommandTable:
        prose = Argument("text", "How it should read", is_prose=True, prefill=self.prefill)
        direction = Argument("direction", "Which way", is_required=False)
        return CommandTable(
            (
                Command(("swipe",), "Another version", self.run, (direction,)),
                Command(("edit",), "Change the last reply", self.run, (prose,)),
                Command(("delete",), "Delete the last reply", self.run, for_moderators=True),
                Command(("cast", "add"), "Let somebody in", self.run, for_moderators=True),
                Command(("cast", "drop"), "Send somebody away", self.run, for_moderators=True),
                Command(("room", "show"), "How it is here", self.run),
                Command(("room", "set"), "Change it", self.run, for_moderators=True),
            )
        )

    async def run(self, call: CommandCall) -> CommandReply:
        self.calls.append(call)
        if self.gate is not None:
            await self.gate.wait()
        self.num_done += 1
        return self.reply

    async def prefill(self, call: CommandCall) -> str:
        if self.prefill_error is not None:
            raise self.prefill_error
        return self.prefilled or f"what stands in {call.message_id}"


@pytest.fixture
def steering() -> Steering:
    return Steering()


@pytest.fixture
async def stage(discord: FakeDiscord, steering: Steering) -> AsyncIterator[Stage]:
    async with online(discord, table=steering.table()) as stage:
        await discord.wait_for(lambda: discord.commands)
        yield stage


def place(stage: Stage) -> Channel:
    return stage.discord.add_channel(stage.discord.add_guild("G"), "c")


async def said(stage: Stage, where: Channel, *controls: Control, speaker: Speaker | None = None) -> Message:
    """A reply in `where` with `controls` under it."""
    num = len(stage.handler.received)
    stage.discord.say(where, stage.discord.add_user("eve"), "knock")
    await stage.wait_for_messages(num + 1)
    channel = stage.adapter.channel(Room("discord", where.id), ChatKind.GROUP)
    assert channel is not None
    channel = channel if speaker is None else channel.speaking_as(speaker)
    return stage.discord.messages[await channel.send("a reply", controls=controls)]


async def pressed(stage: Stage, message: Message, label: str) -> Interaction:
    interaction = stage.discord.press(message, stage.discord.add_user("ada"), label)
    await stage.discord.wait_for(lambda: interaction.callback_type is not None)
    return interaction


def labels(message: Message) -> list[list[str]]:
    return [[button["label"] for button in row["components"]] for row in message.components]


async def test_controls_are_rows_of_buttons(stage: Stage) -> None:
    message = await said(stage, place(stage), *CONTROLS)
    assert labels(message) == [["▶", "⏩", "✏️", "↩️", "🗑️"], ["👍"]]
    channel = stage.adapter.channel(Room("discord", message.channel.id), ChatKind.GROUP)
    assert channel is not None
    await channel.edit(message.id, "a longer reply", controls=(AGAIN,))
    assert (labels(message), message.content) == ([["▶"]], "a longer reply")
    await channel.show_controls(message.id, (EDIT,))
    assert (labels(message), message.content) == ([["✏️"]], "a longer reply")
    await channel.edit(message.id, "the end")
    assert labels(message) == []


@pytest.mark.parametrize("speaker", [None, Speaker("lia", "Lia")])
async def test_pressing_runs_the_command_on_the_message(stage: Stage, steering: Steering, speaker: Speaker) -> None:
    message = await said(stage, place(stage), *CONTROLS, speaker=speaker)
    interaction = await pressed(stage, message, "▶")
    [call] = steering.calls
    assert (dict(call.arguments), call.message_id) == ({"direction": "next"}, message.id)
    assert (call.room, call.kind) == (Room("discord", message.channel.id), ChatKind.GROUP)
    assert not call.is_moderator
    assert call.channel is not None
    await call.channel.send("written by the command")
    assert [one.content for one in stage.discord.bot_messages(message.channel)][-1] == "written by the command"
    assert (interaction.callback_type, interaction.messages) == (6, []), "acknowledged, and nothing said"


async def test_slow_silent_command_is_acknowledged_in_time(
    stage: Stage, steering: Steering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.adapters.discord.answers.PROMPT_ANSWER_S", 0.05)
    steering.gate = asyncio.Event()
    message = await said(stage, place(stage), *CONTROLS)
    interaction = await pressed(stage, message, "▶")
    assert interaction.callback_type == 6
    steering.reply = CommandReply("It failed.", is_private=True)
    steering.gate.set()
    await stage.discord.wait_for(lambda: interaction.messages)
    assert interaction.text == "It failed."
    assert interaction.messages[0].is_ephemeral


async def test_work_ends_though_discord_heard_of_it_too_late(
    stage: Stage, steering: Steering, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("bot.adapters.discord.answers.PROMPT_ANSWER_S", 0.01)
    steering.gate = asyncio.Event()
    message = await said(stage, place(stage), *CONTROLS)
    body = {"code": 10062, "message": "Unknown interaction"}
    late = stage.discord.fail_next("POST", "/interactions/*", status=404, body=body, times=2)

    stage.discord.press(message, stage.discord.add_user("ada"), "▶")
    await stage.discord.wait_for(lambda: late.num_hits)
    steering.gate.set()
    await stage.discord.wait_for(lambda: steering.num_done)
    assert "Unknown interaction" in caplog.text


async def test_typed_silent_command_is_answered_to_its_user_alone(stage: Stage) -> None:
    used = stage.discord.use_command(place(stage), stage.discord.add_user("ada"), "swipe", direction="next")
    await stage.discord.wait_for(lambda: used.messages)
    assert used.text == "Done already."
    assert used.messages[0].is_ephemeral


async def test_field_is_opened_with_what_stands_there(stage: Stage, steering: Steering) -> None:
    message = await said(stage, place(stage), EDIT)
    asked = await pressed(stage, message, "✏️")
    assert asked.callback_type == 9
    assert asked.modal is not None
    [label] = asked.modal["components"]
    assert label["component"]["value"] == f"what stands in {message.id}"
    assert steering.calls == []
    filled = stage.discord.submit(asked, stage.discord.add_user("ada"), "a new text: with a colon")
    await stage.discord.wait_for(lambda: filled.callback_type is not None)
    [call] = steering.calls
    assert (dict(call.arguments), call.message_id) == ({"text": "a new text: with a colon"}, message.id)
    assert (filled.callback_type, filled.messages) == (6, [])


async def test_field_works_after_a_restart(discord: FakeDiscord, steering: Steering) -> None:
    async with online(discord, table=steering.table()) as stage:
        message = await said(stage, place(stage), EDIT, AGAIN)
        asked = await pressed(stage, message, "✏️")
    async with online(discord, table=steering.table()) as stage:
        filled = discord.submit(asked, discord.add_user("ada"), "new")
        await discord.wait_for(lambda: filled.callback_type is not None)
        await pressed(stage, message, "▶")
    assert [dict(call.arguments) for call in steering.calls] == [{"text": "new"}, {"direction": "next"}]


async def test_typed_command_opens_the_field_too(stage: Stage, steering: Steering) -> None:
    where, ada = place(stage), stage.discord.add_user("ada")
    asked = stage.discord.use_command(where, ada, "edit")
    await stage.discord.wait_for(lambda: asked.modal)
    filled = stage.discord.submit(asked, ada, "new")
    await stage.discord.wait_for(lambda: filled.messages)
    typed = stage.discord.use_command(where, ada, "edit", text="at once")
    await stage.discord.wait_for(lambda: typed.messages)
    assert [dict(call.arguments) for call in steering.calls] == [{"text": "new"}, {"text": "at once"}]


async def test_field_that_is_not_for_somebody_says_so(stage: Stage, steering: Steering) -> None:
    steering.prefill_error = CommandError("Only whoever asked may change that.")
    asked = await pressed(stage, await said(stage, place(stage), EDIT), "✏️")
    assert asked.text == "Only whoever asked may change that."
    assert asked.messages[0].is_ephemeral


async def test_slow_prefill_leaves_the_field_empty(
    stage: Stage, steering: Steering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.adapters.discord.commands.PREFILL_TIMEOUT_S", 0.01)
    steering.prefill_error = TimeoutError()
    asked = await pressed(stage, await said(stage, place(stage), EDIT), "✏️")
    assert asked.modal is not None
    assert "value" not in asked.modal["components"][0]["component"]


@pytest.mark.parametrize(("length", "is_there"), [(4000, True), (4001, False)])
async def test_no_half_of_a_text_stands_in_the_field(
    stage: Stage, steering: Steering, length: int, is_there: bool
) -> None:
    steering.prefilled = "x" * length
    asked = await pressed(stage, await said(stage, place(stage), EDIT), "✏️")
    assert asked.modal is not None
    assert asked.modal["components"][0]["component"].get("value") == (steering.prefilled if is_there else None)


async def test_moderators_are_known_by_their_permissions(stage: Stage, steering: Steering) -> None:
    message = await said(stage, place(stage), *CONTROLS)
    ada, mod = stage.discord.add_user("ada"), stage.discord.add_user("mod")
    stage.discord.moderators.add(mod.id)
    refused = stage.discord.press(message, ada, "🗑️")
    await stage.discord.wait_for(lambda: refused.messages)
    assert "moderators" in refused.text
    assert refused.messages[0].is_ephemeral
    assert steering.calls == []
    allowed = stage.discord.press(message, mod, "🗑️")
    await stage.discord.wait_for(lambda: allowed.callback_type is not None)
    assert steering.calls[0].is_moderator


async def test_in_a_direct_chat_everybody_may(stage: Stage, steering: Steering) -> None:
    ada = stage.discord.add_user("ada")
    used = stage.discord.use_command(stage.discord.add_dm(ada), ada, "delete")
    await stage.discord.wait_for(lambda: used.messages)
    assert [(call.is_moderator, call.kind) for call in steering.calls] == [(False, ChatKind.DIRECT)]


async def test_commands_for_moderators_are_hidden_from_others(stage: Stage) -> None:
    shown_to = {command["name"]: command["default_member_permissions"] for command in stage.discord.commands}
    manage_messages = 1 << 13
    assert shown_to["delete"] == manage_messages
    assert shown_to["cast"] == manage_messages
    assert shown_to["room"] is None, "a group is hidden as a whole or not at all"
    assert shown_to["swipe"] is None


async def test_button_that_discord_would_refuse_does_not_take_the_text_along(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    long = Control("too long", ("swipe",), "direction", "x" * 100)
    message = await said(
        stage, place(stage), long, AGAIN, AGAIN, Control("twice", *(AGAIN.path, AGAIN.argument), "next")
    )
    assert labels(message) == [["▶"]]
    assert "/swipe" in caplog.text


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"custom_id": "button:persona.use:name:otto"}, Pressed(("persona", "use"), {"name": "otto"})),
        ({"custom_id": "button:a:b:c:d"}, Pressed(("a",), {"b": "c:d"})),
        ({"custom_id": "button:undo::"}, Pressed(("undo",), {})),
        ({"custom_id": "menu:persona.use:name:25", "values": ["lia"]}, Pressed(("persona", "use"), {"name": "lia"})),
        ({"custom_id": "menu:persona.use:name:25", "values": []}, None),
        ({"custom_id": "button:too:few"}, None),
        ({"custom_id": "somebody else's"}, None),
        ({}, None),
    ],
)
def test_ids_of_this_and_of_earlier_processes(data: dict[str, object], expected: Pressed | None) -> None:
    assert pressed_in(data) == expected


def test_no_controls_are_no_view() -> None:
    assert view_of_controls(()) is None
