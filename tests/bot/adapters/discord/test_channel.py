"""What the bot says arrives on Discord, and what goes wrong is told in the bot's own errors."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from bot.adapters.base import ReplyChannel
from bot.errors import DeliveryError, RateLimited
from bot.types import IncomingMessage
from tests.bot.adapters.discord.conftest import Stage
from tests.fakes.discord import Channel

MESSAGES = "/channels/*/messages"


async def open_channel(stage: Stage, place: Channel) -> ReplyChannel:
    """The reply channel that comes with a message in `place`."""
    opened: asyncio.Queue[ReplyChannel] = asyncio.Queue()

    async def keep(_message: IncomingMessage, channel: ReplyChannel) -> None:
        opened.put_nowait(channel)

    stage.handler.answer = keep
    stage.discord.say(place, stage.discord.add_user("ada"), "hello")
    return await asyncio.wait_for(opened.get(), 20)


async def open_dm(stage: Stage) -> ReplyChannel:
    return await open_channel(stage, stage.discord.add_dm(stage.discord.add_user("eve")))


async def test_streamed_reply(stage: Stage) -> None:
    ada = stage.discord.add_user("ada")
    dm = stage.discord.add_dm(ada)

    async def answer(message: IncomingMessage, channel: ReplyChannel) -> None:
        await channel.show_typing()
        reply = await channel.send("On", reply_to=message.message_id)
        await channel.edit(reply, "Once upon")
        await channel.edit(reply, "Once upon a time")

    stage.handler.answer = answer
    question = stage.discord.say(dm, ada, "A story, please")
    await stage.discord.wait_for(lambda: dm in [reply.channel for reply in stage.discord.bot_messages() if reply.edits])
    [reply] = await stage.discord.wait_for(
        lambda: [reply for reply in stage.discord.bot_messages(dm) if len(reply.edits) == 2]
    )
    assert reply.versions == ["On", "Once upon", "Once upon a time"]
    assert reply.reply_to is question
    assert [typing.channel for typing in stage.discord.typing] == [dm]
    assert len(stage.handler.received) == 1, "the bot must not hear its own reply"


async def test_what_is_sent_pings_nobody_but_the_asker(stage: Stage) -> None:
    channel = await open_dm(stage)
    message_id = await channel.send("@everyone <@1> hello")
    await channel.edit(message_id, "@everyone again")
    request = stage.discord.messages[message_id].request
    assert request["allowed_mentions"] == {"parse": [], "replied_user": True}
    assert "message_reference" not in request


async def test_a_try_that_may_have_arrived_is_not_shown_twice(stage: Stage) -> None:
    channel = await open_dm(stage)
    first = await channel.send_once("turn.0", "Half of")
    assert await channel.send_once("turn.0", "Half of it, and the rest") == first
    assert await channel.send_once("turn.1", "More") != first
    assert [message.content for message in stage.discord.bot_messages()] == ["Half of it, and the rest", "More"]


async def test_reply_to_a_deleted_message_is_sent_all_the_same(stage: Stage) -> None:
    channel = await open_dm(stage)
    message_id = await channel.send("hello", reply_to="123456789")
    assert stage.discord.messages[message_id].content == "hello"


async def test_thread_gets_its_reply(stage: Stage) -> None:
    thread = stage.discord.add_thread(stage.discord.add_channel(stage.discord.add_guild("G"), "c"), "t")
    channel = await open_channel(stage, thread)
    await channel.send("in here")
    assert [message.content for message in stage.discord.bot_messages(thread)] == ["in here"]


@pytest.mark.parametrize(
    "action",
    [
        lambda channel: channel.send("x"),
        lambda channel: channel.edit("1", "x"),
        lambda channel: channel.show_typing(),
    ],
)
async def test_rate_limit(stage: Stage, action: Callable[[ReplyChannel], Awaitable[object]]) -> None:
    channel = await open_dm(stage)
    stage.discord.fail_next("*", "/channels/*", status=429, headers={"Retry-After": "7.5"}, body={"retry_after": 7.5})
    with pytest.raises(RateLimited) as caught:
        await action(channel)
    assert caught.value.retry_after_s == 7.5


async def test_long_rate_limit_is_told_instead_of_slept_through(stage: Stage) -> None:
    channel = await open_dm(stage)
    body = {"retry_after": 300.0, "global": False}
    stage.discord.fail_next("POST", MESSAGES, status=429, headers={"Via": "1.1 google"}, body=body)
    with pytest.raises(RateLimited) as caught:
        await channel.send("x")
    assert caught.value.retry_after_s == 300.0


async def test_rate_limit_of_a_proxy_without_json(stage: Stage) -> None:
    channel = await open_dm(stage)
    stage.discord.fail_next("POST", MESSAGES, status=429, body="<html>slow</html>", content_type="text/html")
    with pytest.raises(RateLimited) as caught:
        await channel.send("x")
    assert caught.value.retry_after_s > 0


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"status": 503, "body": {}}, r"having trouble \(503\)"),
        ({"status": 200, "body": "{not json"}, "something unexpected"),
        ({"status": 200, "body": {}}, "something unexpected"),
        ({"is_abort": True, "times": 9}, "cannot be reached"),
        ({"status": 404, "body": {"code": 10003, "message": "Unknown Channel"}}, "the channel no longer exists"),
        ({"status": 403, "body": {"code": 50007, "message": "No"}}, "accepts no direct messages"),
        ({"status": 400, "body": {"code": 50035, "message": "Invalid Form Body"}}, r"\(400\): Invalid Form Body"),
    ],
)
async def test_failed_request(stage: Stage, fault: dict[str, object], expected: str) -> None:
    channel = await open_dm(stage)
    stage.discord.fail_next("POST", MESSAGES, **fault)
    with pytest.raises(DeliveryError, match=expected) as caught:
        await channel.send("x")
    assert not isinstance(caught.value, RateLimited)
    assert stage.discord.token not in str(caught.value)


@pytest.mark.parametrize(
    ("denied", "expected"),
    [
        (("send_messages",), "“Send Messages”"),
        (("view_channel",), "“View Channel” and “Send Messages” and “Read Message History”"),
    ],
)
async def test_missing_permission_is_named(stage: Stage, denied: tuple[str, ...], expected: str) -> None:
    place = stage.discord.add_channel(stage.discord.add_guild("G"), "c", denied=denied)
    channel = await open_channel(stage, place)
    with pytest.raises(DeliveryError, match=f"lacks the permission {expected} here"):
        await channel.send("x")


async def test_shut_out_asks_once_a_message(stage: Stage) -> None:
    place = stage.discord.add_channel(stage.discord.add_guild("G"), "c", denied=("send_messages",))
    channel = await open_channel(stage, place)
    for _ in range(3):
        with pytest.raises(DeliveryError, match="lacks the permission"):
            await channel.send("x")
    with pytest.raises(DeliveryError, match="lacks the permission"):
        await channel.show_typing()
    assert [request.status for request in stage.discord.requests].count(403) == 1


async def test_silent_server_ends_in_an_error(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.adapters.discord.channel.REQUEST_TIMEOUT_S", 0.1)
    channel = await open_dm(stage)
    stage.discord.fail_next("POST", MESSAGES, delay_s=0.5)
    with pytest.raises(DeliveryError, match="did not answer in time"):
        await channel.send("x")
