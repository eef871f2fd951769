"""A text is chosen when the channel would take it, and not before."""

import asyncio

import pytest

from bot.adapters.discord.traffic import Traffic
from bot.types import ChatKind, Room
from tests.bot.adapters.discord.conftest import Stage

PLACE = 1


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_free_road_is_free_at_once() -> None:
    traffic = Traffic()
    await asyncio.wait_for(traffic.clear(PLACE), 1)
    with traffic.using(2):
        await asyncio.wait_for(traffic.clear(PLACE), 1)
    assert len(traffic) == 0


async def test_urgent_ones_first_then_in_order_of_arrival() -> None:
    traffic, passed = Traffic(), []

    async def pass_(name: str, *, is_urgent: bool = False) -> None:
        await traffic.clear(PLACE, is_urgent=is_urgent)
        passed.append(name)
        with traffic.using(PLACE):
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        with traffic.using(PLACE):
            for name in ("a", "b", "URGENT"):
                group.create_task(pass_(name, is_urgent=name.isupper()))
            await settle()
            assert passed == []
    assert passed == ["URGENT", "a", "b"]
    assert len(traffic) == 0


async def test_one_that_says_nothing_after_all_holds_up_nobody() -> None:
    traffic = Traffic()
    with traffic.using(PLACE):
        waiting = [asyncio.create_task(traffic.clear(PLACE)) for _ in range(3)]
        await settle()
        waiting[0].cancel()
    await asyncio.wait_for(asyncio.gather(*waiting[1:]), 5)
    await asyncio.sleep(0.05)
    assert len(traffic) == 0


async def test_newest_text_wins_while_a_call_is_slow(stage: Stage) -> None:
    ada = stage.discord.add_user("ada")
    dm = stage.discord.add_dm(ada)
    channel = stage.adapter.channel(Room("discord", dm.id), ChatKind.DIRECT)
    assert channel is not None
    message_id = await channel.send("0")
    stage.discord.fail_next("PATCH", "/channels/*", delay_s=0.2)
    slow = asyncio.create_task(channel.edit(message_id, "1"))
    await asyncio.sleep(0.05)
    waiting = asyncio.create_task(channel.ready())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await slow
    await asyncio.wait_for(waiting, 5)


async def test_trouble_in_one_channel_delays_no_other(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """25 s of 5xx, with a second as a hundredth."""
    real_sleep = asyncio.sleep

    class Quick:
        def __getattr__(self, name: str) -> object:
            return getattr(asyncio, name)

        async def sleep(self, delay_s: float) -> None:
            await real_sleep(delay_s / 100)

    monkeypatch.setattr("discord.http.asyncio", Quick())
    ada, bob = stage.discord.add_user("ada"), stage.discord.add_user("bob")
    bad, good = stage.discord.add_dm(ada), stage.discord.add_dm(bob)
    fault = stage.discord.fail_next("POST", f"/channels/{bad.id}/messages", status=500, times=4)
    channels = [stage.adapter.channel(Room("discord", dm.id), ChatKind.DIRECT) for dm in (bad, good)]
    assert channels[0] is not None
    assert channels[1] is not None
    troubled = asyncio.create_task(channels[0].send("at last"))
    await stage.discord.wait_for(lambda: fault.num_hits)
    for number in range(3):
        await channels[1].ready()
        await channels[1].send(str(number))
    assert not troubled.done(), "the others are done while the troubled one still waits"
    await troubled
    assert fault.num_hits == 4
    assert [message.content for message in stage.discord.bot_messages(bad)] == ["at last"]
