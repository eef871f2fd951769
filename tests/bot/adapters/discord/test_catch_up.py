"""Each message is heard once, whatever gaps there are."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from bot.adapters.base import AdapterState, ReplyChannel
from bot.errors import StoreError
from bot.types import IncomingMessage
from tests.bot.adapters.discord.conftest import MemorySeen, Stage, online
from tests.fakes.discord import Channel, FakeDiscord, User


@pytest.fixture
def seen() -> MemorySeen:
    return MemorySeen()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.adapters.discord.catch_up.FIRST_RETRY_S", 0.01)
    monkeypatch.setattr("bot.adapters.discord.catch_up.MAX_RETRY_S", 0.05)


@pytest.fixture
async def stage(discord: FakeDiscord, seen: MemorySeen) -> AsyncIterator[Stage]:
    async with online(discord, seen=seen) as stage:
        yield stage


def heard(stage: Stage) -> list[str]:
    return [message.text for message in stage.handler.received]


async def say(stage: Stage, where: Channel, author: User, text: str) -> None:
    stage.discord.say(where, author, text)
    await stage.discord.wait_for(lambda: text in heard(stage))


def places(discord: FakeDiscord) -> tuple[User, list[Channel]]:
    """A channel, a thread, a thread that the gateway does not tell of, and a direct chat."""
    ada, channel = discord.add_user("ada"), discord.add_channel(discord.add_guild("G"), "c")
    hidden = discord.add_thread(channel, "hidden", is_announced=False)
    return ada, [channel, discord.add_thread(channel, "t"), hidden, discord.add_dm(ada)]


async def test_what_was_said_between_two_processes_is_heard(discord: FakeDiscord, seen: MemorySeen) -> None:
    ada, where = places(discord)
    async with online(discord, seen=seen) as stage:
        for place in where:
            await say(stage, place, ada, f"before in {place.id}")
    requests = len(discord.requests)
    for place in where:
        for number in range(3):
            discord.say(place, ada, f"{number} in {place.id}")
        discord.say(place, discord.bot, "mine")
    async with online(discord, seen=seen) as stage:
        await stage.wait_for_messages(12)
        await stage.wait_for_state(AdapterState.RUNNING)
        await say(stage, where[0], ada, "after")
    assert [message for message in heard(stage) if message.endswith(where[0].id)] == [
        f"{number} in {where[0].id}" for number in range(3)
    ]
    assert len(heard(stage)) == 13
    assert seen.newest[where[0].id] == next(id_ for id_, one in discord.messages.items() if one.content == "after")
    asked = [request.path for request in discord.requests[requests:] if request.path.endswith("/messages")]
    assert len(asked) == len(where)


async def test_nothing_new_is_not_asked_for(discord: FakeDiscord, seen: MemorySeen) -> None:
    ada, (channel, *_) = places(discord)
    async with online(discord, seen=seen) as stage:
        await say(stage, channel, ada, "before")
    requests = len(discord.requests)
    async with online(discord, seen=seen) as stage:
        await stage.wait_for_state(AdapterState.RUNNING)
        await say(stage, channel, ada, "after")
    assert heard(stage) == ["after"]
    assert not [request for request in discord.requests[requests:] if request.path.endswith("/messages")]


async def test_lost_session_is_caught_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    ada, (channel, *_) = places(stage.discord)
    await say(stage, channel, ada, "before")
    stage.discord.gateway.send_text("{this is no json")
    await stage.discord.wait_for(lambda: not stage.discord.gateway.is_connected)
    stage.discord.gateway.forget_sessions()
    stage.discord.say(channel, ada, "nobody tells of it")
    await stage.discord.wait_until_connected()
    await say(stage, channel, ada, "after")
    await stage.discord.wait_for(lambda: len(heard(stage)) == 3)
    assert sorted(heard(stage)) == ["after", "before", "nobody tells of it"]


async def test_what_is_heard_meanwhile_does_not_close_the_gap(discord: FakeDiscord, seen: MemorySeen) -> None:
    ada, (channel, *_) = places(discord)
    async with online(discord, seen=seen) as stage:
        await say(stage, channel, ada, "before")
    missed = discord.say(channel, ada, "missed")
    slow = discord.fail_next("GET", f"/channels/{channel.id}/messages", delay_s=0.3)
    async with online(discord, seen=seen) as stage:
        await discord.wait_for(lambda: slow.num_hits)
        await say(stage, channel, ada, "meanwhile")
        assert int(seen.newest[channel.id]) < int(missed.id), "should it end now, the gap is still known"
        await stage.wait_for_messages(2)
        newest = max(discord.messages, key=int)
        await discord.wait_for(lambda: seen.newest[channel.id] == newest)
        assert sorted(heard(stage)) == ["meanwhile", "missed"]


async def test_what_was_not_answered_yet_is_heard_again(discord: FakeDiscord, seen: MemorySeen) -> None:
    ada, (channel, *_) = places(discord)
    async with online(discord, seen=seen) as stage:
        stage.handler.answer = lambda message, _: asyncio.sleep(60 if message.text == "slow" else 0)
        slow = discord.say(channel, ada, "slow")
        await say(stage, channel, ada, "quick")
        await asyncio.sleep(0.05)
        assert int(seen.newest[channel.id]) == int(slow.id) - 1, "what is being answered stands behind the mark"
    async with online(discord, seen=seen) as stage:
        await stage.wait_for_messages(2)
        newest = max(discord.messages, key=int)
        await discord.wait_for(lambda: seen.newest[channel.id] == newest)
    assert heard(stage) == ["slow", "quick"], "the store knows which of them was answered"


async def test_failed_handler_leaves_no_mark_behind(stage: Stage, seen: MemorySeen) -> None:
    async def fail(message: IncomingMessage, channel: ReplyChannel) -> None:
        raise ZeroDivisionError("a fault of ours")

    stage.handler.answer = fail
    ada, (channel, *_) = places(stage.discord)
    await say(stage, channel, ada, "hello")
    newest = max(stage.discord.messages, key=int)
    await stage.discord.wait_for(lambda: seen.newest[channel.id] == newest)


async def test_what_is_too_old_is_left_alone(discord: FakeDiscord, seen: MemorySeen) -> None:
    ada, (channel, *_) = places(discord)
    async with online(discord, seen=seen) as stage:
        await say(stage, channel, ada, "before")
    old = discord.say(channel, ada, "an hour ago")
    del discord.messages[old.id]
    old.id = str(int(old.id) - (3_600_000 << 22))
    discord.messages[old.id] = old
    seen.newest[channel.id] = str(int(old.id) - 1)
    discord.say(channel, ada, "now")
    async with online(discord, seen=seen) as stage:
        await stage.wait_for_messages(2)
    assert sorted(heard(stage)) == ["before", "now"], "what stands after the mark, if it is fresh"


async def test_it_can_be_switched_off(discord: FakeDiscord, seen: MemorySeen) -> None:
    ada, (channel, *_) = places(discord)
    async with online(discord, seen=seen) as stage:
        await say(stage, channel, ada, "before")
    discord.say(channel, ada, "missed")
    async with online(discord, seen=seen, catch_up_s=0) as stage:
        await stage.wait_for_state(AdapterState.RUNNING)
        await say(stage, channel, ada, "after")
    assert heard(stage) == ["after"]


@pytest.mark.parametrize("denied", [("view_channel",), ("read_message_history",)])
async def test_closed_and_deleted_channels_are_skipped(
    discord: FakeDiscord, seen: MemorySeen, denied: tuple[str, ...]
) -> None:
    ada, (channel, thread, hidden, dm) = places(discord)
    async with online(discord, seen=seen) as stage:
        for place in (channel, thread, hidden, dm):
            await say(stage, place, ada, f"before in {place.id}")
    channel.denied = denied
    discord.remove_channel(thread)
    del discord.channels[hidden.id]
    discord.say(channel, ada, "unreadable")
    discord.say(dm, ada, "missed")
    async with online(discord, seen=seen) as stage:
        await stage.wait_for_messages(1)
        await say(stage, dm, ada, "after")
        assert stage.incidents.noted == []
    assert heard(stage) == ["missed", "after"]


async def test_trouble_is_tried_again_and_then_told(discord: FakeDiscord, seen: MemorySeen) -> None:
    ada, (one, two, *_) = places(discord)
    async with online(discord, seen=seen) as stage:
        await say(stage, one, ada, "a")
        await say(stage, two, ada, "b")
    discord.say(one, ada, "missed")
    discord.say(two, ada, "missed too")
    discord.fail_next("GET", f"/channels/{one.id}/messages", status=503, times=2)
    discord.fail_next("GET", f"/channels/{two.id}/messages", status=503, times=6)
    async with online(discord, seen=seen) as stage:
        await stage.wait_for_messages(2)
    assert heard(stage) == ["missed", "missed too"]
    [detail] = stage.incidents.of("catch-up")
    assert two.id in detail


async def test_gap_that_was_not_closed_is_left_to_the_next(discord: FakeDiscord, seen: MemorySeen) -> None:
    ada, (channel, *_) = places(discord)
    async with online(discord, seen=seen) as stage:
        await say(stage, channel, ada, "before")
    missed = discord.say(channel, ada, "missed")
    trouble = discord.fail_next("GET", f"/channels/{channel.id}/messages", status=503, times=10_000)
    async with online(discord, seen=seen) as stage:
        await discord.wait_for(lambda: trouble.num_hits)
        await say(stage, channel, ada, "heard")
        discord.gateway.send_text("{this is no json")
        await discord.wait_for(lambda: len(discord.gateway.identifies) == 3)
        await say(stage, channel, ada, "heard too")
        assert int(seen.newest[channel.id]) < int(missed.id)
        trouble.times = 0
        await stage.wait_for_messages(3)
        newest = max(discord.messages, key=int)
        await discord.wait_for(lambda: seen.newest[channel.id] == newest)
    assert sorted(heard(stage)) == ["heard", "heard too", "missed"]


async def test_more_than_is_looked_up_is_told(
    discord: FakeDiscord, seen: MemorySeen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.adapters.discord.catch_up.MAX_MESSAGES", 2)
    ada, (channel, *_) = places(discord)
    async with online(discord, seen=seen) as stage:
        await say(stage, channel, ada, "before")
    for number in range(3):
        discord.say(channel, ada, str(number))
    async with online(discord, seen=seen) as stage:
        await stage.wait_for_messages(2)
        [detail] = await discord.wait_for(lambda: stage.incidents.of("catch-up"))
    assert heard(stage) == ["0", "1"], "the oldest first"
    assert channel.id in detail


async def test_store_in_trouble_costs_the_gap_alone(discord: FakeDiscord, seen: MemorySeen) -> None:
    seen.error = StoreError("the disk is full; make room")
    ada, (channel, *_) = places(discord)
    async with online(discord, seen=seen) as stage:
        await say(stage, channel, ada, "hello")
        assert "the disk is full" in stage.incidents.of("catch-up")[0]
        await discord.wait_for(lambda: channel.id in seen.newest)
