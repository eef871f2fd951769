"""“Reply in persona”: an answer that somebody asks for under a message."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.adapters.base import ReplyChannel
from bot.errors import DeliveryError
from bot.types import ChatKind, Control, IncomingMessage, Room, Speaker
from tests.bot.adapters.discord.conftest import Stage, online
from tests.fakes.discord import FakeDiscord, Interaction, Message

PNG = b"\x89PNG not really a picture"
ENTRY = "Reply in persona"


@pytest.fixture
async def stage(discord: FakeDiscord) -> AsyncIterator[Stage]:
    """Without the right to read messages."""
    discord.gateway.grants_message_content = False
    async with online(discord, message_content=False) as stage:
        await discord.wait_for(lambda: discord.commands)
        yield stage


def question(stage: Stage, *, denied: tuple[str, ...] = ()) -> Message:
    """What Bob said in a channel, which the bot may not read."""
    where = stage.discord.add_channel(stage.discord.add_guild("Museum"), "paintings", denied=denied)
    return stage.discord.say(where, stage.discord.add_user("bob"), "my dog", files=[("dog.png", "image/png", PNG)])


async def summoned(stage: Stage, message: Message) -> Interaction:
    interaction = stage.discord.use_on(message, stage.discord.add_user("ada"), ENTRY)
    await stage.discord.wait_for(lambda: stage.handler.received)
    return interaction


async def test_the_message_comes_with_its_words_and_pictures(stage: Stage) -> None:
    message = question(stage)
    interaction = await summoned(stage, message)
    [received] = stage.handler.received
    assert received.is_summons
    assert (received.message_id, received.text) == (f"interaction-{interaction.id}", "")
    assert (received.author.display_name, received.kind) == ("Ada", ChatKind.GROUP)
    assert (received.room, received.room_names) == (Room("discord", message.channel.id), ("paintings",))
    assert received.reply_to is not None
    assert (received.reply_to.message_id, received.reply_to.text) == (message.id, "my dog")
    assert received.reply_to.author.display_name == "Bob"
    assert await received.reply_to.files[0].read(1000) == PNG


async def test_it_is_answered_where_the_bot_may_not_write(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "wave.png").write_bytes(PNG)

    async def answer(message: IncomingMessage, channel: ReplyChannel) -> None:
        await channel.show_typing()
        first = await channel.send("A", reply_to=message.message_id)
        await channel.edit(first, "A fine", controls=(Control("⏩", ("continue",)),))
        await channel.show_controls(first, ())
        second = await channel.speaking_as(Speaker("lia", "Lia")).send("dog")
        await channel.speaking_as(Speaker("lia", "Lia")).edit(second, "dog!")
        await channel.send_sticker(tmp_path / "wave.png")
        await channel.delete(await channel.send("a slip"))

    stage.handler.answer = answer
    interaction = await summoned(stage, question(stage, denied=("view_channel", "send_messages")))
    await stage.discord.wait_for(lambda: any(request.method == "DELETE" for request in stage.discord.requests))
    assert interaction.callback_type == 5
    assert not interaction.is_ephemeral
    assert [message.versions for message in interaction.messages[:2]] == [
        ["A", "A fine"],
        ["**Lia:** dog", "**Lia:** dog!"],
    ]
    assert interaction.messages[0].components == []
    assert interaction.pictures == (PNG,)
    assert interaction.original is interaction.messages[0], "the first one takes the place of the sign"
    assert "a slip" not in [message.content for message in stage.discord.messages.values()]


async def test_nothing_said_leaves_no_sign(stage: Stage) -> None:
    interaction = await summoned(stage, question(stage))
    await stage.discord.wait_for(lambda: not interaction.is_deferred)
    assert interaction.messages == []


@pytest.mark.parametrize("first", ["edit", "send"])
async def test_when_the_right_to_answer_is_gone_it_goes_on_in_the_channel(stage: Stage, first: str) -> None:
    channels: list[ReplyChannel] = []

    async def answer(message: IncomingMessage, channel: ReplyChannel) -> None:
        channels.append(channel)
        await channel.send("early")

    stage.handler.answer = answer
    message = question(stage)
    interaction = await summoned(stage, message)
    [early] = await stage.discord.wait_for(lambda: interaction.messages)
    body = {"code": 50027, "message": "Invalid Webhook Token"}
    stage.discord.fail_next("*", "/webhooks/*", status=401, body=body, times=9)
    if first == "edit":
        await channels[0].edit(early.id, "late")
    late = await channels[0].send("later", reply_to=f"interaction-{interaction.id}")
    assert stage.discord.messages[late].channel is message.channel
    await channels[0].edit(early.id, "late")
    assert early.content == "late", "by the bot itself"
    assert len([request for request in stage.discord.requests if request.status == 401]) == 1, "known from then on"


async def test_after_a_quarter_of_an_hour_nobody_tries(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.adapters.discord.summons.VALID_S", 0.0)

    async def answer(message: IncomingMessage, channel: ReplyChannel) -> None:
        await channel.send("late")

    stage.handler.answer = answer
    message = question(stage)
    interaction = await summoned(stage, message)
    await stage.discord.wait_for(lambda: stage.discord.bot_messages(message.channel))
    assert interaction.messages == []


async def test_what_discord_refuses_is_told(stage: Stage) -> None:
    errors: list[DeliveryError] = []

    async def answer(message: IncomingMessage, channel: ReplyChannel) -> None:
        stage.discord.fail_next("POST", "/webhooks/*", status=400, body={"code": 50035, "message": "Invalid Form Body"})
        try:
            await channel.send("x")
        except DeliveryError as error:
            errors.append(error)

    stage.handler.answer = answer
    await summoned(stage, question(stage))
    await stage.discord.wait_for(lambda: errors)
    assert "Invalid Form Body" in str(errors[0])


async def test_at_most_five_entries_stand_under_a_message(stage: Stage) -> None:
    entries = [command["name"] for command in stage.discord.commands if command["type"] == 3]
    assert entries[0] == ENTRY
    assert len(entries) <= 5


async def test_without_the_intent_only_what_may_be_read_is_heard(stage: Stage) -> None:
    discord = stage.discord
    message = question(stage)
    ada = discord.add_user("ada")
    discord.say(message.channel, ada, "a secret")
    discord.say(message.channel, ada, f"{discord.bot.mention} hello")
    discord.say(discord.add_dm(ada), ada, "hi")
    await stage.wait_for_messages(2)
    assert [received.text for received in stage.handler.received] == ["hello", "hi"]
    assert not discord.gateway.identifies[0]["intents"] & (1 << 15)
