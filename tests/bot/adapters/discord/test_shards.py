"""More servers than one connection may serve."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from bot.adapters.base import AdapterState
from bot.adapters.discord.shards import IdentifyGate, ShardPlan
from bot.errors import PlatformFatal
from bot.types import ChatKind, Room, Speaker
from tests.bot.adapters.discord.conftest import MemorySeen, Stage, online, performing
from tests.fakes.discord import Channel, FakeDiscord


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.adapters.discord.shards.IDENTIFY_INTERVAL_S", 0.05)


@pytest.fixture
async def stage(discord: FakeDiscord) -> AsyncIterator[Stage]:
    """Two shards, both connected."""
    discord.gateway.num_recommended_shards = 2
    async with performing(discord) as stage:
        await stage.wait_for_state(AdapterState.RUNNING)
        yield stage


def places(discord: FakeDiscord) -> list[Channel]:
    """A channel on each of two shards, and a direct chat."""
    guilds = [discord.add_guild(f"G{shard}", shard=(shard, 2)) for shard in range(2)]
    channels = [discord.add_channel(guild, "c") for guild in guilds]
    return [*channels, discord.add_dm(discord.add_user("dm"))]


async def hear(stage: Stage, where: Channel, text: str) -> None:
    stage.discord.say(where, stage.discord.add_user("ada"), text)
    await stage.discord.wait_for(lambda: text in [message.text for message in stage.handler.received])
    assert [message.text for message in stage.handler.received].count(text) == 1


async def test_each_shard_hears_its_servers(stage: Stage) -> None:
    for where in places(stage.discord):
        await hear(stage, where, f"in {where.id}")
        channel = stage.adapter.channel(Room("discord", where.id), ChatKind.GROUP)
        assert channel is not None
        await channel.speaking_as(Speaker("lia", "Lia")).send(f"answer in {where.id}")
        assert [message.content.endswith(where.id) for message in stage.discord.bot_messages(where)] == [True]
    assert sorted(data["shard"] for data in stage.discord.gateway.identifies) == [[0, 2], [1, 2]]
    puts = [request for request in stage.discord.requests if request.method == "PUT"]
    assert len(puts) == 1, "the commands are told once"


async def test_servers_of_all_shards_are_counted(discord: FakeDiscord) -> None:
    discord.gateway.num_recommended_shards = 2
    places(discord)
    async with performing(discord) as stage:
        await stage.wait_for_state(AdapterState.RUNNING)
        assert stage.adapter.status.detail == f"online as {discord.bot.name}#0000; servers: 2; shards: 2"


async def test_missing_permission_is_named_on_every_shard(stage: Stage) -> None:
    for where in places(stage.discord)[:2]:
        where.denied = ("send_messages",)
        stage.discord.gateway.dispatch("CHANNEL_UPDATE", where.wire())
        await hear(stage, where, f"in {where.id}")
        channel = stage.adapter.channel(Room("discord", where.id), ChatKind.GROUP)
        assert channel is not None
        with pytest.raises(Exception, match="“Send Messages”"):
            await channel.send("x")


async def test_trouble_of_one_shard_costs_the_other_nothing(stage: Stage) -> None:
    one, two, _ = places(stage.discord)
    stage.discord.gateway.send_text("{this is no json", shard_id=1)
    await stage.wait_for_state(AdapterState.RECONNECTING)
    assert stage.adapter.status.detail.startswith("shard 2 of 2: ")
    await hear(stage, one, "meanwhile")
    await stage.wait_for_state(AdapterState.RUNNING)
    await hear(stage, two, "after")
    assert [data["shard"] for data in stage.discord.gateway.identifies].count([0, 2]) == 1


async def test_malformed_event_on_one_shard_costs_only_itself(stage: Stage) -> None:
    _, two, _ = places(stage.discord)
    assert two.guild is not None
    stage.discord.gateway.dispatch("MESSAGE_CREATE", {"id": "1", "guild_id": two.guild.id})
    await hear(stage, two, "after")
    assert len(stage.discord.gateway.identifies) == 2
    assert "MESSAGE_CREATE" in stage.incidents.of("bad event")[0]


@pytest.mark.parametrize("code", [4004, 4014])
async def test_fatal_close_of_one_shard_is_fatal(stage: Stage, code: int) -> None:
    stage.discord.gateway.close(code)
    with pytest.raises(PlatformFatal, match="Reset Token" if code == 4004 else "message_content = false"):
        await asyncio.wait_for(stage.running, 20)
    assert stage.adapter.status.state is AdapterState.FAILED


async def test_refused_first_connection_of_a_shard(discord: FakeDiscord) -> None:
    discord.gateway.num_recommended_shards = 2
    discord.gateway.refuse_next()
    async with performing(discord) as stage:
        [detail] = await discord.wait_for(lambda: stage.incidents.of("reconnect"))
        assert "cannot be reached" in detail
        await stage.wait_for_state(AdapterState.RUNNING)
        for where in places(discord):
            await hear(stage, where, f"in {where.id}")


async def test_grown_bot_gets_more_shards(discord: FakeDiscord) -> None:
    async with performing(discord) as stage:
        await stage.wait_for_state(AdapterState.RUNNING)
        discord.gateway.num_recommended_shards = 2
        discord.gateway.close(4011)
        await discord.wait_for(lambda: discord.gateway.num_connected == 2)
        await stage.wait_for_state(AdapterState.RUNNING)
        for where in places(discord):
            await hear(stage, where, f"in {where.id}")


async def test_exhausted_starts_are_waited_for_and_told(discord: FakeDiscord) -> None:
    discord.gateway.num_starts_left = 0
    discord.gateway.starts_reset_after_s = 0.4
    async with performing(discord) as stage:
        await stage.wait_for_state(AdapterState.RECONNECTING)
        assert "no more connections begin before" in stage.adapter.status.detail
        assert "UTC" in stage.adapter.status.detail
        assert discord.gateway.identifies == [], "nobody knocks in vain"
        discord.gateway.num_starts_left = 1
        await stage.wait_for_state(AdapterState.RUNNING)


async def test_server_that_knows_no_recommendation_gets_one_connection(discord: FakeDiscord) -> None:
    discord.fail_next("GET", "/gateway/bot", status=404, times=9)
    async with online(discord) as stage:
        await hear(stage, discord.add_dm(discord.add_user("dm")), "hello")
    assert "shard" not in discord.gateway.identifies[0]


async def test_recommendation_in_trouble_is_asked_for_again(discord: FakeDiscord) -> None:
    discord.fail_next("GET", "/gateway/bot", status=503)
    async with online(discord) as stage:
        await stage.wait_for_state(AdapterState.RUNNING)
    assert "503" in stage.incidents.of("reconnect")[0]


async def test_each_shard_catches_up_its_own(discord: FakeDiscord) -> None:
    discord.gateway.num_recommended_shards = 2
    seen, where = MemorySeen(), places(discord)
    async with performing(discord, seen=seen) as stage:
        await stage.wait_for_state(AdapterState.RUNNING)
        for place in where:
            await hear(stage, place, f"before in {place.id}")
    for place in where:
        discord.say(place, discord.add_user("ada"), f"missed in {place.id}")
    requests = len(discord.requests)
    async with performing(discord, seen=seen) as stage:
        await stage.wait_for_messages(3)
        await stage.wait_for_state(AdapterState.RUNNING)
        assert sorted(message.text for message in stage.handler.received) == sorted(
            f"missed in {place.id}" for place in where
        )
    asked = [request.path for request in discord.requests[requests:] if request.path.endswith("/messages")]
    assert len(asked) == len(where)


async def test_session_that_begins_anew_on_the_same_client_is_caught_up(
    discord: FakeDiscord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("discord.client.asyncio", Hasty())
    discord.gateway.num_recommended_shards = 2
    seen, where = MemorySeen(), places(discord)
    async with performing(discord, seen=seen) as stage:
        await stage.wait_for_state(AdapterState.RUNNING)
        for place in where:
            await hear(stage, place, f"before in {place.id}")
        discord.gateway.guilds_after_s = 0.02
        # They ask to resume, and are told to identify instead: what was said meanwhile is never told.
        discord.gateway.forget_sessions()
        for place in where:
            discord.say(place, discord.add_user("ada"), f"missed in {place.id}")
        await stage.wait_for_messages(6)
        assert len([request for request in discord.requests if request.path == "/users/@me"]) == 3, "the same clients"
    assert len({message.message_id for message in stage.handler.received}) == 6


class Hasty:
    """`asyncio`, with a hundredth of every wait."""

    def __getattr__(self, name: str) -> object:
        return getattr(asyncio, name)

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s / 100)


async def test_sessions_of_a_lane_begin_one_after_another() -> None:
    gate = IdentifyGate(ShardPlan(count=4, num_at_once=2))
    started = time.monotonic()
    await asyncio.gather(gate.enter(0), gate.enter(1))
    assert time.monotonic() - started < 0.04
    await asyncio.gather(gate.enter(2), gate.enter(3))
    assert 0.04 < time.monotonic() - started < 0.09
