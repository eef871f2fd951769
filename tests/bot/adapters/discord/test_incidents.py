"""What goes wrong is told to whoever runs the bot, and nothing loops."""

import asyncio

import pytest

from bot.adapters.base import AdapterState, ReplyChannel
from bot.errors import DeliveryError
from bot.types import ChatKind, Room
from tests.bot.adapters.discord.conftest import Stage, performing
from tests.fakes.discord import Channel, FakeDiscord


def place(stage: Stage, *, denied: tuple[str, ...] = ()) -> Channel:
    return stage.discord.add_channel(stage.discord.add_guild("G"), "c", denied=denied)


async def opened(stage: Stage, where: Channel) -> ReplyChannel:
    """The channel of `where`, once the bot knows of it."""
    num = len(stage.handler.received)
    stage.discord.say(where, stage.discord.add_user("eve"), "knock")
    await stage.wait_for_messages(num + 1)
    channel = stage.adapter.channel(Room("discord", where.id), ChatKind.GROUP)
    assert channel is not None
    return channel


async def test_forbidden_names_channel_and_permission(stage: Stage) -> None:
    where = place(stage, denied=("send_messages",))
    with pytest.raises(DeliveryError):
        await (await opened(stage, where)).send("x")
    [detail] = stage.incidents.of("forbidden")
    assert where.id in detail
    assert "“Send Messages”" in detail


async def test_forbidden_reaction_shuts_nobody_out(stage: Stage) -> None:
    where = place(stage, denied=("add_reactions",))
    channel = await opened(stage, where)
    message_id = await channel.send("a reply")
    with pytest.raises(DeliveryError, match="“Add Reactions”"):
        await channel.react(message_id, "👍")
    await channel.edit(message_id, "a longer reply")
    await channel.send("and more")


async def test_reaction_is_put_under_a_message(stage: Stage) -> None:
    where = place(stage)
    said = stage.discord.say(where, stage.discord.add_user("ada"), "hello")
    await (await opened(stage, where)).react(said.id, "👍")
    assert [(reaction.emoji, reaction.user) for reaction in said.reactions] == [("👍", stage.discord.bot)]


@pytest.mark.parametrize("what", ["channel", "thread", "guild"])
async def test_places_that_are_gone_are_asked_once(stage: Stage, what: str) -> None:
    where = place(stage)
    where = stage.discord.add_thread(where, "t") if what == "thread" else where
    channel = await opened(stage, where)
    message_id = await channel.send("a reply")
    if what == "guild":
        assert where.guild is not None
        stage.discord.remove_guild(where.guild)
    else:
        stage.discord.remove_channel(where)
    for _ in range(3):
        with pytest.raises(DeliveryError, match="no longer exists"):
            await channel.send("x")
        with pytest.raises(DeliveryError, match="no longer exists"):
            await channel.edit(message_id, "x")
    assert [request.status for request in stage.discord.requests].count(404) == 1
    assert where.id in stage.incidents.of("gone")[0]


async def test_undelivered_text_is_told_without_its_words(stage: Stage) -> None:
    channel = await opened(stage, place(stage))
    stage.discord.fail_next("POST", "/channels/*/messages", status=503)
    with pytest.raises(DeliveryError):
        await channel.send("a secret")
    [detail] = stage.incidents.of("undelivered")
    assert "503" in detail
    assert "a secret" not in detail


async def test_rate_limit_is_no_incident(stage: Stage) -> None:
    channel = await opened(stage, place(stage))
    stage.discord.fail_next("POST", "/channels/*/messages", status=429, headers={"Retry-After": "1"}, body={})
    with pytest.raises(DeliveryError):
        await channel.send("x")
    assert stage.incidents.noted == []


async def test_lost_connections_are_told_without_the_token(discord: FakeDiscord) -> None:
    discord.fail_next("GET", "/users/@me", is_abort=True, times=2)
    async with performing(discord) as stage:
        await stage.wait_for_state(AdapterState.RUNNING)
        [detail] = stage.incidents.of("reconnect")
    assert "cannot be reached" in detail
    assert discord.token not in detail


async def test_message_that_is_gone_is_deleted_already(stage: Stage) -> None:
    channel = await opened(stage, place(stage))
    message_id = await channel.send("a reply")
    await channel.delete(message_id)
    assert message_id not in stage.discord.messages
    await channel.delete(message_id)


async def test_other_peoples_messages_are_not_deleted(stage: Stage) -> None:
    where = place(stage, denied=("manage_messages",))
    said = stage.discord.say(where, stage.discord.add_user("ada"), "mine")
    with pytest.raises(DeliveryError, match="“Manage Messages”"):
        await (await opened(stage, where)).delete(said.id)
    assert said.id in stage.discord.messages


async def test_rooms_of_other_platforms_have_no_channel(stage: Stage) -> None:
    assert stage.adapter.channel(Room("discord", "no number"), ChatKind.GROUP) is None
    thread = stage.discord.add_thread(place(stage), "t")
    channel = stage.adapter.channel(Room("discord", "1", thread.id), ChatKind.GROUP)
    assert channel is not None
    await asyncio.wait_for(channel.send("in the thread"), 20)
    assert [message.channel for message in stage.discord.bot_messages()] == [thread]
