"""The adapter stays on Discord, whatever Discord does, and says clearly when it cannot."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from bot.adapters.base import AdapterState, ReplyChannel
from bot.adapters.discord.adapter import Backoff
from bot.errors import PlatformFatal
from bot.types import IncomingMessage
from tests.bot.adapters.discord.conftest import Stage, performing
from tests.fakes.discord import FakeDiscord
from tests.fakes.discord.gateway import Gateway


async def say_and_hear(stage: Stage, text: str) -> None:
    """Somebody says `text`, and it arrives exactly once."""
    ada = stage.discord.add_user("ada")
    stage.discord.say(stage.discord.add_dm(ada), ada, text)
    await stage.discord.wait_for(lambda: text in [message.text for message in stage.handler.received])
    assert [message.text for message in stage.handler.received].count(text) == 1


async def test_becomes_ready_and_stops_cleanly(stage: Stage) -> None:
    await stage.wait_for_state(AdapterState.RUNNING)
    stage.running.cancel()
    await asyncio.wait({stage.running})
    assert stage.running.cancelled()
    assert stage.adapter.status.state is AdapterState.STOPPED


async def test_one_slow_chat_holds_up_no_other(stage: Stage) -> None:
    release = asyncio.Event()

    async def answer(message: IncomingMessage, channel: ReplyChannel) -> None:
        if message.text == "slow":
            await release.wait()
        await channel.send(f"answer to {message.text}")

    stage.handler.answer = answer
    ada, bob = stage.discord.add_user("ada"), stage.discord.add_user("bob")
    slow, quick = stage.discord.add_dm(ada), stage.discord.add_dm(bob)
    stage.discord.say(slow, ada, "slow")
    stage.discord.say(quick, bob, "quick")
    await stage.discord.wait_for(lambda: stage.discord.bot_messages(quick))
    assert not stage.discord.bot_messages(slow)
    release.set()
    await stage.discord.wait_for(lambda: stage.discord.bot_messages(slow))


@pytest.mark.parametrize(
    "interrupt",
    [
        pytest.param(lambda gateway: gateway.ask_to_reconnect(), id="op7"),
        pytest.param(lambda gateway: gateway.invalidate_session(can_resume=True), id="op9"),
        pytest.param(lambda gateway: gateway.close(4000), id="close4000"),
        pytest.param(lambda gateway: gateway.close(1000), id="close1000"),
        pytest.param(lambda gateway: gateway.drop(), id="drop"),
    ],
)
async def test_resume_delivers_what_was_said_meanwhile_once(stage: Stage, interrupt: Callable[[Gateway], None]) -> None:
    await stage.wait_for_state(AdapterState.RUNNING)
    interrupt(stage.discord.gateway)
    await say_and_hear(stage, "while you were away")
    await stage.discord.wait_until_connected()
    await say_and_hear(stage, "and now")
    assert len(stage.discord.gateway.resumes) == 1
    assert len(stage.discord.gateway.identifies) == 1
    await stage.wait_for_state(AdapterState.RUNNING)


async def test_handler_outlives_the_client(stage: Stage) -> None:
    release = asyncio.Event()

    async def answer(message: IncomingMessage, channel: ReplyChannel) -> None:
        await release.wait()
        await channel.send("still here")

    stage.handler.answer = answer
    ada = stage.discord.add_user("ada")
    dm = stage.discord.add_dm(ada)
    stage.discord.say(dm, ada, "hello")
    await stage.wait_for_messages()
    stage.discord.gateway.send_text("{this is no json")
    await stage.wait_for_state(AdapterState.RECONNECTING)
    release.set()
    await stage.discord.wait_for(lambda: stage.discord.bot_messages(dm))


async def test_malformed_event_costs_only_itself(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    await say_and_hear(stage, "before")
    for event in ("MESSAGE_CREATE", "MESSAGE_UPDATE", "INTERACTION_CREATE", "MESSAGE_REACTION_ADD"):
        stage.discord.gateway.dispatch(event, {"id": "1", "content": "a secret", "guild_id": None})
    await say_and_hear(stage, "after")
    assert len(stage.discord.gateway.identifies) == 1
    told = stage.incidents.of("bad event")
    assert len(told) == 4
    assert "a malformed MESSAGE_CREATE (KeyError), left out" in told[0]
    assert "a secret" not in caplog.text + str(told)


@pytest.mark.parametrize("poison", ["json", "zlib"])
async def test_malformed_frame_costs_only_the_client(
    stage: Stage, poison: str, caplog: pytest.LogCaptureFixture
) -> None:
    await say_and_hear(stage, "before")
    if poison == "json":
        stage.discord.gateway.send_text("{this is no json")
    else:
        stage.discord.gateway.send_bytes(b"\xff\xff\xff\xff\x00\x00\xff\xff")
    await stage.discord.wait_for(lambda: len(stage.discord.gateway.identifies) == 2)
    await stage.discord.wait_until_connected()
    await say_and_hear(stage, "after")
    assert "something unexpected" in caplog.text
    assert stage.discord.token not in caplog.text


async def test_heartbeats_keep_coming(discord: FakeDiscord) -> None:
    discord.gateway.heartbeat_interval_s = 0.05
    async with performing(discord):
        await discord.wait_for(lambda: discord.gateway.num_heartbeats >= 4)
    assert len(discord.gateway.identifies) == 1


@pytest.mark.parametrize("pause_s", [0.0, 0.005, 0.01, 0.02, 0.04, 0.08])
async def test_cancelled_at_any_moment(discord: FakeDiscord, pause_s: float) -> None:
    """However far it has come with connecting, it ends, and says so."""
    async with performing(discord) as stage:
        await asyncio.sleep(pause_s)
        stage.running.cancel()
        await asyncio.wait({stage.running}, timeout=5)
        assert stage.running.cancelled()
        assert stage.adapter.status.state is AdapterState.STOPPED


async def test_stopping_ends_what_is_being_answered(stage: Stage) -> None:
    ended: list[str] = []

    async def answer(message: IncomingMessage, channel: ReplyChannel) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await channel.send("I must go")
            ended.append(message.text)

    stage.handler.answer = answer
    await say_and_hear(stage, "hello")
    stage.running.cancel()
    await asyncio.wait({stage.running}, timeout=20)
    assert ended == ["hello"]
    assert [message.content for message in stage.discord.bot_messages()] == ["I must go"]


async def test_messages_begin_in_order_even_if_one_takes_longer(stage: Stage) -> None:
    ada = stage.discord.add_user("ada")
    channel = stage.discord.add_channel(stage.discord.add_guild("G"), "c")
    first = stage.discord.say(channel, ada, "0")
    stage.discord.fail_next("GET", "/channels/*/messages/*", delay_s=0.2)
    stage.discord.say(channel, ada, "1", reply_to=first, is_reply_resolved=False)
    for number in range(2, 6):
        stage.discord.say(channel, ada, str(number))
    await say_and_hear(stage, "elsewhere")
    assert "1" not in [message.text for message in stage.handler.received], "another channel does not wait"
    messages = await stage.wait_for_messages(7)
    assert [message.text for message in messages if message.text != "elsewhere"] == list("012345")


async def test_unknown_event_is_nothing_special(stage: Stage) -> None:
    stage.discord.gateway.dispatch("SOMETHING_NEW", {"x": 1})
    await say_and_hear(stage, "hello")
    assert len(stage.discord.gateway.identifies) == 1


async def test_refused_first_connection(discord: FakeDiscord, caplog: pytest.LogCaptureFixture) -> None:
    discord.gateway.refuse_next()
    async with performing(discord) as stage:
        await discord.wait_until_connected()
        await say_and_hear(stage, "hello")
        [told] = stage.incidents.of("reconnect")
    assert "cannot be reached" in told, "the refusal is named, not what discord.py stumbled over"
    assert "NoneType" not in told + "".join(record.getMessage() for record in caplog.records)


async def test_unreachable_api_is_tried_again(discord: FakeDiscord) -> None:
    fault = discord.fail_next("GET", "/users/@me", is_abort=True, times=3)
    async with performing(discord) as stage:
        await stage.wait_for_state(AdapterState.RECONNECTING)
        assert "cannot be reached" in stage.adapter.status.detail
        await discord.wait_until_connected()
        await say_and_hear(stage, "hello")
    assert fault.num_hits == 3


async def test_silent_api_is_given_up_and_tried_again(discord: FakeDiscord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.adapters.discord.adapter.LOGIN_TIMEOUT_S", 0.2)
    discord.fail_next("GET", "/users/@me", delay_s=0.6)
    async with performing(discord) as stage:
        await stage.wait_for_state(AdapterState.RECONNECTING)
        assert "did not answer in time" in stage.adapter.status.detail
        await discord.wait_until_connected()


@pytest.mark.parametrize("where", ["api", "gateway"])
async def test_wrong_token_is_fatal_and_not_told(
    discord: FakeDiscord, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    caplog.set_level(logging.DEBUG)
    token = "a-secret-that-is-wrong"
    if where == "gateway":
        discord.token = token
    async with performing(discord, token=token) as stage:
        with pytest.raises(PlatformFatal, match="Reset Token") as caught:
            await asyncio.wait_for(stage.running, 20)
        assert stage.adapter.status.state is AdapterState.FAILED
        assert stage.adapter.status.detail == str(caught.value)
    assert "DISCORD_TOKEN" in str(caught.value)
    assert token not in str(caught.value) + caplog.text


async def test_missing_intent_is_fatal_and_names_both_remedies(discord: FakeDiscord) -> None:
    discord.gateway.grants_message_content = False
    async with performing(discord) as stage:
        with pytest.raises(PlatformFatal, match=r"“Message Content Intent”.*discord\.message_content = false"):
            await asyncio.wait_for(stage.running, 20)
        assert stage.adapter.status.state is AdapterState.FAILED


async def test_token_reset_while_running_is_fatal(stage: Stage) -> None:
    await say_and_hear(stage, "hello")
    stage.discord.gateway.close(4004)
    with pytest.raises(PlatformFatal, match="Reset Token"):
        await asyncio.wait_for(stage.running, 20)


async def test_handler_that_breaks_its_promise_is_logged(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    async def answer(message: IncomingMessage, channel: ReplyChannel) -> None:
        if message.text == "break":
            raise ZeroDivisionError("a fault of ours")

    stage.handler.answer = answer
    await say_and_hear(stage, "break")
    await say_and_hear(stage, "go on")
    assert "a fault of ours" in caplog.text


def test_backoff_grows_to_its_limit() -> None:
    delays = Backoff(first_s=1.0, max_s=8.0).delays()
    for ceiling in (1, 2, 4, 8, 8, 8):
        assert ceiling / 2 <= next(delays) <= ceiling
