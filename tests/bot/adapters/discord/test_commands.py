"""The table of commands as slash commands, suggestions, buttons and menus."""

import asyncio
import logging

import pytest

from bot.adapters.base import AdapterState
from bot.adapters.discord.adapter import DiscordAdapter
from bot.adapters.discord.answers import MAX_TEXT_LENGTH
from bot.commands import Choice, Command, CommandCall, CommandReply, CommandTable, ReplyPicture
from bot.errors import PersonaError
from bot.types import ChatKind, Room
from tests.bot.adapters.discord.conftest import RecordingHandler, Stage
from tests.fakes.discord import Channel


async def wait_for_commands(stage: Stage) -> None:
    await stage.discord.wait_for(lambda: stage.discord.commands)


def place(stage: Stage) -> Channel:
    return stage.discord.add_channel(stage.discord.add_guild("G"), "c")


async def test_commands_are_registered_natively(stage: Stage) -> None:
    await wait_for_commands(stage)
    typed = [command for command in stage.discord.commands if command["type"] == 1]
    persona, reset = sorted(typed, key=lambda command: command["name"])
    assert [option["name"] for option in persona["options"]] == ["list", "use"]
    [name] = persona["options"][1]["options"]
    assert (name["name"], name["description"], name["required"]) == ("name", "Whom to talk to", True)
    assert name["autocomplete"]
    assert reset["description"] == "Start over"
    for command in (persona, reset):
        assert command["contexts"] == [0, 1], "in servers and in direct chats with the bot"


async def test_command_in_a_thread(stage: Stage) -> None:
    await wait_for_commands(stage)
    channel, ada = place(stage), stage.discord.add_user("ada", display_name="Ada L.")
    thread = stage.discord.add_thread(channel, "t")
    used = stage.discord.use_command(thread, ada, "persona", "use", name="lia")
    await stage.discord.wait_for(lambda: used.messages)
    assert used.text == "You talk to lia."
    assert not used.is_ephemeral
    assert used.callback_type == 4, "a quick answer needs no “thinking…”"
    [call] = stage.commands.calls
    assert call.room == Room("discord", channel.id, thread.id)
    assert call.kind is ChatKind.GROUP
    assert (call.author.user_id, call.author.display_name) == (ada.id, "Ada L.")
    assert dict(call.arguments) == {"name": "lia"}


async def test_private_answer_in_a_direct_chat(stage: Stage) -> None:
    await wait_for_commands(stage)
    ada = stage.discord.add_user("ada")
    dm = stage.discord.add_dm(ada)
    used = stage.discord.use_command(dm, ada, "reset")
    await stage.discord.wait_for(lambda: used.messages)
    assert used.text == "Forgotten."
    assert used.messages[0].is_ephemeral
    assert (stage.commands.calls[0].room, stage.commands.calls[0].kind) == (Room("discord", dm.id), ChatKind.DIRECT)


@pytest.mark.parametrize("is_private", [True, False])
async def test_slow_command_shows_a_sign_in_time(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, is_private: bool
) -> None:
    monkeypatch.setattr("bot.adapters.discord.answers.PROMPT_ANSWER_S", 0.05)
    release = asyncio.Event()

    async def slowly() -> CommandReply:
        await release.wait()
        return CommandReply("At last.", is_private=is_private)

    stage.commands.run_reset = slowly
    await wait_for_commands(stage)
    used = stage.discord.use_command(place(stage), stage.discord.add_user("ada"), "reset")
    await stage.discord.wait_for(lambda: used.is_deferred)
    release.set()
    await stage.discord.wait_for(lambda: used.messages)
    assert [message.content for message in used.messages] == ["At last."]
    assert used.messages[0].is_ephemeral == is_private


@pytest.mark.parametrize("is_private", [True, False])
async def test_slow_command_brings_its_picture_to_whom_it_is_for(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, is_private: bool
) -> None:
    monkeypatch.setattr("bot.adapters.discord.answers.PROMPT_ANSWER_S", 0.05)
    release = asyncio.Event()

    async def slowly() -> CommandReply:
        await release.wait()
        return CommandReply("Look.", is_private=is_private, pictures=(ReplyPicture("why.png", b"a heat map", "warm"),))

    stage.commands.run_reset = slowly
    await wait_for_commands(stage)
    used = stage.discord.use_command(place(stage), stage.discord.add_user("ada"), "reset")
    await stage.discord.wait_for(lambda: used.is_deferred)
    release.set()
    await stage.discord.wait_for(lambda: used.pictures)
    [message] = used.messages
    assert (message.content, used.pictures, message.is_ephemeral) == ("Look.", (b"a heat map",), is_private)
    [attachment] = message.request["attachments"]
    assert (attachment["filename"], attachment["description"]) == ("why.png", "warm")


@pytest.mark.parametrize("is_slow", [True, False])
@pytest.mark.parametrize("is_private", [True, False])
async def test_refused_pictures_do_not_take_the_words_along(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, is_private: bool, is_slow: bool
) -> None:
    monkeypatch.setattr("bot.adapters.discord.answers.PROMPT_ANSWER_S", 0.05 if is_slow else 2.0)
    release = asyncio.Event()

    async def huge() -> CommandReply:
        await release.wait()
        return CommandReply("Look.", is_private=is_private, pictures=(ReplyPicture("why.png", b"x" * 101),))

    stage.commands.run_reset = huge
    stage.discord.max_upload_bytes = 100
    await wait_for_commands(stage)
    used = stage.discord.use_command(place(stage), stage.discord.add_user("ada"), "reset")
    if is_slow:
        await stage.discord.wait_for(lambda: used.is_deferred)
    release.set()
    await stage.discord.wait_for(lambda: used.messages)
    [message] = used.messages
    assert (message.content, used.pictures, message.is_ephemeral) == ("Look.", (), is_private)


async def test_suggestions(stage: Stage) -> None:
    await wait_for_commands(stage)
    channel, ada = place(stage), stage.discord.add_user("ada")
    typing = stage.discord.complete(channel, ada, "persona", "use", argument="name", typed="ot")
    await stage.discord.wait_for(lambda: typing.choices is not None)
    assert typing.choices == [{"name": "Otto", "value": "otto"}]
    assert stage.commands.calls[0].room == Room("discord", channel.id)


async def test_choice_by_button_works_after_a_restart(stage: Stage) -> None:
    await wait_for_commands(stage)
    channel, ada = place(stage), stage.discord.add_user("ada")
    asked = stage.discord.use_command(channel, ada, "persona", "list")
    await stage.discord.wait_for(lambda: asked.messages)
    # The next client shares nothing with the one that sent the buttons.
    stage.discord.gateway.send_text("{this is no json")
    await stage.discord.wait_for(lambda: len(stage.discord.gateway.identifies) == 2)
    await stage.discord.wait_until_connected()
    pressed = stage.discord.press(asked.messages[0], ada, "Otto")
    await stage.discord.wait_for(lambda: pressed.messages)
    assert pressed.text == "You talk to otto."
    assert dict(stage.commands.calls[-1].arguments) == {"name": "otto"}


async def test_many_choices_become_menus(stage: Stage) -> None:
    async def many() -> CommandReply:
        choices = tuple(Choice(f"Number {number}", "otto" if number == 29 else f"n{number}") for number in range(30))
        return CommandReply("Whom?", False, choices, ("persona", "use"), "name")

    stage.commands.run_reset = many
    await wait_for_commands(stage)
    channel, ada = place(stage), stage.discord.add_user("ada")
    asked = stage.discord.use_command(channel, ada, "reset")
    await stage.discord.wait_for(lambda: asked.messages)
    menus = [menu for row in asked.messages[0].components for menu in row["components"]]
    assert [len(menu["options"]) for menu in menus] == [25, 5]
    pressed = stage.discord.press(asked.messages[0], ada, "Number 29")
    await stage.discord.wait_for(lambda: pressed.messages)
    assert pressed.text == "You talk to otto."


async def test_button_of_a_command_that_is_gone(stage: Stage) -> None:
    async def old() -> CommandReply:
        return CommandReply("Old", False, (Choice("Old", "x"),), ("gone",), "name")

    stage.commands.run_reset = old
    await wait_for_commands(stage)
    ada = stage.discord.add_user("ada")
    asked = stage.discord.use_command(place(stage), ada, "reset")
    await stage.discord.wait_for(lambda: asked.messages)
    pressed = stage.discord.press(asked.messages[0], ada, "Old")
    await stage.discord.wait_for(lambda: pressed.messages)
    assert "/help" in pressed.text
    assert pressed.is_ephemeral


async def test_refusal_is_shown_to_the_user_alone(stage: Stage) -> None:
    await wait_for_commands(stage)
    used = stage.discord.use_command(place(stage), stage.discord.add_user("ada"), "persona", "use", name="nobody")
    await stage.discord.wait_for(lambda: used.messages)
    assert used.text == "There is no nobody."
    assert used.is_ephemeral


async def test_broken_command_apologises_and_is_logged(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> CommandReply:
        raise ZeroDivisionError("a fault of ours")

    stage.commands.run_reset = broken
    await wait_for_commands(stage)
    used = stage.discord.use_command(place(stage), stage.discord.add_user("ada"), "reset")
    await stage.discord.wait_for(lambda: used.messages)
    assert "went wrong" in used.text
    assert "a fault of ours" not in used.text
    assert "a fault of ours" in caplog.text


async def test_failing_suggestions_are_empty(stage: Stage) -> None:
    stage.commands.suggestion_error = PersonaError("the folder is gone")
    await wait_for_commands(stage)
    channel, ada = place(stage), stage.discord.add_user("ada")
    typing = stage.discord.complete(channel, ada, "persona", "use", argument="name", typed="")
    await stage.discord.wait_for(lambda: typing.choices is not None)
    assert typing.choices == []


async def test_long_answer_is_split_and_nothing_is_lost(stage: Stage) -> None:
    lines = [f"line {number} " + "x" * 80 for number in range(60)]

    async def long() -> CommandReply:
        return CommandReply("\n".join(lines), is_private=True)

    stage.commands.run_reset = long
    await wait_for_commands(stage)
    used = stage.discord.use_command(place(stage), stage.discord.add_user("ada"), "reset")
    await stage.discord.wait_for(lambda: len(used.messages) == 3)
    assert used.text.split("\n") == lines
    assert all(message.is_ephemeral and len(message.content) <= MAX_TEXT_LENGTH for message in used.messages)


async def test_commands_are_synced_once_a_process(stage: Stage) -> None:
    await wait_for_commands(stage)
    stage.discord.gateway.send_text("{this is no json")
    await stage.discord.wait_for(lambda: len(stage.discord.gateway.identifies) == 2)
    await stage.wait_for_state(AdapterState.RUNNING)
    ada = stage.discord.add_user("ada")
    used = stage.discord.use_command(stage.discord.add_dm(ada), ada, "reset")
    await stage.discord.wait_for(lambda: used.messages)
    puts = [request for request in stage.discord.requests if request.method == "PUT"]
    assert len(puts) == 1


async def test_refused_registration_leaves_the_chat_alive(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.discord.fail_next("PUT", "/applications/*", status=400, body={"code": 50035, "message": "Invalid"})
    await stage.discord.wait_for(lambda: "did not take the commands" in caplog.text)
    ada = stage.discord.add_user("ada")
    stage.discord.say(stage.discord.add_dm(ada), ada, "hello")
    [message] = await stage.wait_for_messages()
    assert message.text == "hello"
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]


async def test_impossible_command_name_stops_the_start() -> None:
    async def run(call: CommandCall) -> CommandReply:
        raise AssertionError(call)

    table = CommandTable((Command(("no spaces!",), "x", run),))
    with pytest.raises(ValueError, match="no spaces!"):
        DiscordAdapter("x", handler=RecordingHandler(), commands=table)
