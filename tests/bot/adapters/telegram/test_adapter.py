"""The connection's life: what the server and the network do, and what the adapter makes of it."""

import asyncio
import logging
import traceback
from dataclasses import replace
from itertools import islice

import pytest

from bot.adapters.base import AdapterState, ReplyChannel, retry_delays
from bot.adapters.telegram import TelegramAdapter, Timing
from bot.commands import Command, CommandCall, CommandReply, CommandTable
from bot.errors import PlatformFatal
from bot.types import IncomingMessage
from tests.bot.adapters.telegram.harness import (
    FAST,
    RecordingHandler,
    echo,
    eventually,
    in_background,
    serving,
    stay_silent,
)
from tests.fakes.telegram import FakeTelegram


def adapter_for(fake: FakeTelegram, handler: RecordingHandler, *, token: str | None = None) -> TelegramAdapter:
    return TelegramAdapter(
        token or fake.token, handler=handler, commands=CommandTable(()), api_url=fake.url, timing=FAST
    )


async def test_status_tells_who_it_is_and_that_privacy_mode_is_on(fake: FakeTelegram) -> None:
    async with serving(fake, RecordingHandler()) as adapter:
        assert adapter.status.detail.startswith("as @commedia_bot; privacy mode is on")
    assert adapter.status.state is AdapterState.STOPPED


async def test_a_slow_chat_holds_up_no_other(fake: FakeTelegram) -> None:
    ada, bob = fake.add_user("Ada"), fake.add_user("Bob")
    may_go_on = asyncio.Event()

    async def answer(message: IncomingMessage, channel: ReplyChannel) -> None:
        if message.text == "slow":
            await may_go_on.wait()
        await echo(message, channel)

    async with serving(fake, RecordingHandler(answer)):
        fake.say(fake.private_chat(ada), ada, "slow")
        fake.say(fake.private_chat(bob), bob, "quick")
        await fake.wait_for(lambda: fake.sent)
        assert [sent.text for sent in fake.sent] == ["echo: quick"]
        may_go_on.set()
        await fake.wait_for(lambda: len(fake.sent) == 2)


async def test_messages_begin_in_the_order_of_arrival(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    handler = RecordingHandler(stay_silent)
    expected = [f"message {number}" for number in range(120)]
    for text in expected:
        fake.say(fake.private_chat(ada), ada, text)
    async with serving(fake, handler):
        await eventually(lambda: len(handler.messages) == len(expected))
    assert [message.text for message in handler.messages] == expected


@pytest.mark.parametrize(
    "poison",
    [
        {"callback_query": {"id": "1", "from": {"id": 1, "is_bot": False, "first_name": "A"}, "data": "x"}},
        {"message": {"message_id": 1}},
        {"message": "no object"},
        {"message": {"message_id": 1, "date": 10**18, "chat": {"id": 1, "type": "private"}, "text": "far future"}},
        {
            "message": {
                "message_id": 1,
                "date": 1,
                "chat": {"id": 1, "type": "private"},
                "from": {"id": 1, "is_bot": False, "first_name": "A"},
                "media_group_id": ["not", "hashable"],
            }
        },
        {
            "message": {
                "message_id": 1,
                "date": 1,
                "chat": {"id": 1, "type": "private"},
                "from": {"id": 1, "is_bot": False, "first_name": "A"},
                "text": 7,
            }
        },
        {},
    ],
)
async def test_a_poison_update_is_skipped(
    fake: FakeTelegram, caplog: pytest.LogCaptureFixture, poison: dict[str, object]
) -> None:
    ada = fake.add_user("Ada")
    handler = RecordingHandler()
    update_id = fake.inject(poison)
    fake.say(fake.private_chat(ada), ada, "still there?")
    async with serving(fake, handler):
        await fake.wait_for(lambda: fake.sent)
        fake.say(fake.private_chat(ada), ada, "and now?")
        await fake.wait_for(lambda: len(fake.sent) == 2)
        # A skipped update is acknowledged, not asked for again and again.
        await fake.wait_for(lambda: not fake.pending_update_ids)
    assert [message.text for message in handler.messages] == ["still there?", "and now?"]
    assert not poison or f"update {update_id}" in caplog.text


async def test_a_failing_handler_harms_no_other_message(fake: FakeTelegram, caplog: pytest.LogCaptureFixture) -> None:
    ada = fake.add_user("Ada")

    async def answer(message: IncomingMessage, channel: ReplyChannel) -> None:
        if message.text == "bad":
            raise RuntimeError("broken")
        await echo(message, channel)

    async with serving(fake, RecordingHandler(answer)):
        fake.say(fake.private_chat(ada), ada, "bad")
        fake.say(fake.private_chat(ada), ada, "good")
        reply = await fake.wait_for(lambda: fake.sent and fake.sent[0])
    assert reply.text == "echo: good"
    assert "RuntimeError: broken" in caplog.text


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 502, "body": {"ok": False, "description": "Bad Gateway"}},
        {"status": 200, "body": "<html>no JSON</html>"},
        {"status": 200, "body": {"ok": True, "result": {"id": 1}}},
        {"status": 200, "body": {"ok": True}},
        {"is_dropped": True},
    ],
)
async def test_a_failing_first_connection_is_tried_again(fake: FakeTelegram, fault: dict[str, object]) -> None:
    ada = fake.add_user("Ada")
    fake.fail("getMe", times=2, **fault)
    async with serving(fake, RecordingHandler()):
        fake.say(fake.private_chat(ada), ada, "hi")
        await fake.wait_for(lambda: fake.sent)
    assert fake.num_calls("getMe") == 3


async def test_trouble_with_polling_passes(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    handler = RecordingHandler()
    async with serving(fake, handler) as adapter:
        fake.fail("getUpdates", status=502, times=2)
        fake.fail("getUpdates", is_dropped=True)
        fake.fail("getUpdates", status=200, body={"ok": True, "result": "no list"})
        fake.fail("getUpdates", status=200, body="garbage")
        await eventually(lambda: adapter.status.state is AdapterState.RECONNECTING)
        fake.say(fake.private_chat(ada), ada, "hi")
        await fake.wait_for(lambda: fake.sent)
        assert adapter.status.state is AdapterState.RUNNING
    assert len(handler.messages) == 1


async def test_a_gateways_error_page_is_one_line(fake: FakeTelegram, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(fake, RecordingHandler()) as adapter:
        fake.fail("getUpdates", status=502, body="<html>" + "x" * 5000)
        await eventually(lambda: adapter.status.state is AdapterState.RECONNECTING)
        assert adapter.status.detail == "Telegram cannot be reached: Bad Gateway (502)"
    assert "Traceback" not in caplog.text
    assert "<html>" not in caplog.text


async def test_a_flood_limit_on_polling_is_obeyed(fake: FakeTelegram) -> None:
    async with serving(fake, RecordingHandler()) as adapter:
        fake.flood("getUpdates", retry_after=30)
        await eventually(lambda: adapter.status.state is AdapterState.RECONNECTING)
        assert "asks for patience, 30 s" in adapter.status.detail
        num_polls = fake.num_calls("getUpdates")
        await asyncio.sleep(0.2)  # twice the longest wait without a flood limit
        assert fake.num_calls("getUpdates") == num_polls


async def test_another_poller_shows_in_the_status(fake: FakeTelegram) -> None:
    conflict = {"ok": False, "error_code": 409, "description": "Conflict: terminated by other getUpdates request"}
    async with serving(fake, RecordingHandler()) as adapter:
        fake.fail("getUpdates", status=409, body=conflict, times=3)
        await eventually(lambda: adapter.status.state is AdapterState.RECONNECTING)
        assert "another process polls this token" in adapter.status.detail
        await eventually(lambda: adapter.status.state is AdapterState.RUNNING)


async def test_two_processes_with_one_token(fake: FakeTelegram) -> None:
    other = adapter_for(fake, RecordingHandler())
    async with serving(fake, RecordingHandler()) as adapter, in_background(other):
        await eventually(
            lambda: any("another process polls this token" in each.status.detail for each in (adapter, other))
        )


async def test_a_webhook_left_behind_is_removed(fake: FakeTelegram) -> None:
    fake.webhook = {"url": "https://elsewhere.example/hook"}
    async with serving(fake, RecordingHandler()):
        assert not fake.has_webhook


async def test_a_webhook_that_another_program_sets_is_removed(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    async with serving(fake, RecordingHandler(), timing=replace(FAST, long_poll_s=0)):
        fake.webhook = {"url": "http://127.0.0.1:9/hook"}
        await fake.wait_for(lambda: not fake.has_webhook)
        fake.say(fake.private_chat(ada), ada, "hi")
        await fake.wait_for(lambda: fake.sent)


def test_retries_wait_longer_and_longer_up_to_a_limit() -> None:
    delays = list(islice(retry_delays(first_s=1, max_s=8), 6))
    assert all(most / 2 <= delay <= most for delay, most in zip(delays, (1, 2, 4, 8, 8, 8), strict=True))


async def test_a_server_that_is_not_there_shows_in_the_status(fake: FakeTelegram, unused_tcp_port: int) -> None:
    adapter = TelegramAdapter(
        fake.token,
        handler=RecordingHandler(),
        commands=CommandTable(()),
        api_url=f"http://127.0.0.1:{unused_tcp_port}",
        timing=FAST,
    )
    async with in_background(adapter):
        await eventually(lambda: adapter.status.state is AdapterState.RECONNECTING)
        assert "cannot be reached" in adapter.status.detail


@pytest.mark.parametrize("token", ["123456:WRONG-token_that-nobody-knows-000000", "999:secret-part"])
async def test_a_wrong_token_is_fatal_and_never_shown(
    fake: FakeTelegram, caplog: pytest.LogCaptureFixture, token: str
) -> None:
    caplog.set_level(logging.DEBUG)
    adapter = adapter_for(fake, RecordingHandler(), token=token)
    with pytest.raises(PlatformFatal, match="@BotFather") as caught:
        await asyncio.wait_for(adapter.run(), 20)
    assert adapter.status.state is AdapterState.FAILED
    assert "telegram.api_url" in adapter.status.detail
    assert caught.value.__context__ is None
    for text in (str(caught.value), "".join(traceback.format_exception(caught.value)), caplog.text):
        assert token not in text
    assert "[token]" in caplog.text, "the libraries did log the token, so its absence means something"


async def test_a_refusal_with_404_is_fatal_too(fake: FakeTelegram) -> None:
    fake.fail("getMe", status=404, body={"ok": False, "error_code": 404, "description": "Not Found"}, times=5)
    with pytest.raises(PlatformFatal, match="@BotFather"):
        await asyncio.wait_for(adapter_for(fake, RecordingHandler()).run(), 20)


@pytest.mark.parametrize("token", ["", "no token", "123456:with/slash", "äöü"])
async def test_what_is_no_token_is_refused_without_asking(fake: FakeTelegram, token: str) -> None:
    adapter = TelegramAdapter(token, handler=RecordingHandler(), commands=CommandTable(()), api_url=fake.url)
    with pytest.raises(PlatformFatal, match="no Telegram token") as caught:
        await adapter.run()
    assert not fake.calls
    assert not token or token not in str(caught.value)


async def test_a_server_without_a_scheme_is_refused(fake: FakeTelegram) -> None:
    adapter = TelegramAdapter(
        fake.token, handler=RecordingHandler(), commands=CommandTable(()), api_url="localhost:8081"
    )
    with pytest.raises(PlatformFatal, match=r"telegram\.api_url must begin with http"):
        await adapter.run()
    assert adapter.status.state is AdapterState.FAILED


async def test_a_token_revoked_while_running_is_fatal(fake: FakeTelegram) -> None:
    adapter = adapter_for(fake, RecordingHandler())
    async with in_background(adapter) as task:
        await eventually(lambda: adapter.status.state is AdapterState.RUNNING)
        fake.revoke_token()
        with pytest.raises(PlatformFatal):
            await asyncio.wait_for(task, 20)


async def test_a_stray_404_while_running_is_not(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    async with serving(fake, RecordingHandler()):
        fake.fail("getUpdates", status=404, body={"ok": False, "description": "Not Found"})
        fake.say(fake.private_chat(ada), ada, "hi")
        await fake.wait_for(lambda: fake.sent)


async def test_the_token_stays_out_of_the_debug_log(fake: FakeTelegram, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ada = fake.add_user("Ada")
    async with serving(fake, RecordingHandler()) as adapter:
        fake.say(fake.private_chat(ada), ada, "hi", photo=b"jpg")
        await fake.wait_for(lambda: fake.sent)
        fake.fail("getUpdates", is_dropped=True)
        await eventually(lambda: adapter.status.state is AdapterState.RECONNECTING)
        assert fake.token not in adapter.status.detail
    assert fake.token not in caplog.text
    assert "[token]" in caplog.text


async def test_a_restart_does_not_answer_twice(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    chat = fake.private_chat(ada)
    async with serving(fake, RecordingHandler()):
        fake.say(chat, ada, "before")
        await fake.wait_for(lambda: fake.sent and not fake.pending_update_ids)
    assert fake.pending_update_ids == []
    fake.say(chat, ada, "meanwhile")
    handler = RecordingHandler()
    async with serving(fake, handler):
        await fake.wait_for(lambda: len(fake.sent) == 2)
    assert [message.text for message in handler.messages] == ["meanwhile"]


async def test_a_message_that_is_being_answered_at_the_stop_does_not_come_again(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    has_begun, was_cancelled = asyncio.Event(), asyncio.Event()

    async def answer(message: IncomingMessage, channel: ReplyChannel) -> None:
        await channel.send("Once upon a time")
        has_begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            was_cancelled.set()
            raise

    async with serving(fake, RecordingHandler(answer)):
        fake.say(fake.private_chat(ada), ada, "long story")
        await asyncio.wait_for(has_begun.wait(), 20)
    assert was_cancelled.is_set()
    assert fake.pending_update_ids == []


async def test_a_message_that_was_not_kept_at_the_stop_comes_again(fake: FakeTelegram) -> None:
    ada, bob = fake.add_user("Ada"), fake.add_user("Bob")

    async def fetch_for_ever(message: IncomingMessage, channel: ReplyChannel) -> None:
        await channel.show_typing()
        if message.text == "see this":
            await asyncio.sleep(60)

    first = RecordingHandler(fetch_for_ever)
    async with serving(fake, first):
        fake.say(fake.private_chat(ada), ada, "see this", photo=b"jpg")
        fake.say(fake.private_chat(bob), bob, "and me?")
        await eventually(lambda: len(first.messages) == 2)
        num_polls = fake.num_calls("getUpdates")
        await fake.wait_for(lambda: fake.num_calls("getUpdates") > num_polls + 2)
        assert len(fake.pending_update_ids) == 2, "forgotten by the server before anybody has kept it"
        assert len(first.messages) == 2, "begun twice"
    second = RecordingHandler()
    async with serving(fake, second):
        await eventually(lambda: second.messages)
        assert second.messages[0].text == "see this"
        await fake.wait_for(lambda: not fake.pending_update_ids)


async def test_a_command_is_never_run_again(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    began = asyncio.Event()

    async def reset(call: CommandCall) -> CommandReply:
        began.set()
        await asyncio.sleep(60)
        return CommandReply("done")

    table = CommandTable((Command(("reset",), "Forget", reset),))
    async with serving(fake, RecordingHandler(), commands=table):
        fake.say(fake.private_chat(ada), ada, "/reset")
        await asyncio.wait_for(began.wait(), 20)
    assert fake.pending_update_ids == []


async def test_a_message_without_end_hides_no_later_one(fake: FakeTelegram) -> None:
    ada, bob = fake.add_user("Ada"), fake.add_user("Bob")

    async def answer(message: IncomingMessage, channel: ReplyChannel) -> None:
        if message.text == "stuck":
            await asyncio.sleep(60)

    handler = RecordingHandler(answer)
    async with serving(fake, handler):
        fake.say(fake.private_chat(ada), ada, "stuck")
        for number in range(130):
            fake.say(fake.private_chat(bob), bob, f"message {number}")
        await eventually(lambda: len(handler.messages) == 131)


async def test_an_album_that_was_not_handed_over_comes_again(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    chat = fake.private_chat(ada)
    first = RecordingHandler()
    patient = Timing(album_wait_s=30, repeated_poll_s=0.02, first_retry_s=0.02)
    async with serving(fake, first, timing=patient):
        fake.say(chat, ada, "album", album=[b"one", b"two"])
        num_polls = fake.num_calls("getUpdates")
        await fake.wait_for(lambda: fake.num_calls("getUpdates") > num_polls + 2)
        bob = fake.add_user("Bob")
        fake.say(fake.private_chat(bob), bob, "meanwhile")
        await fake.wait_for(lambda: fake.sent)
    assert [message.text for message in first.messages] == ["meanwhile"]
    second = RecordingHandler()
    async with serving(fake, second):
        await fake.wait_for(lambda: not fake.pending_update_ids)
    assert len(next(message for message in second.messages if message.text == "album").files) == 2


async def test_stopping_while_the_server_is_silent_is_quick(
    fake: FakeTelegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.adapters.telegram.adapter._CONFIRM_TIMEOUT_S", 0.1)
    ada = fake.add_user("Ada")
    loop = asyncio.get_running_loop()
    async with serving(fake, RecordingHandler()):
        fake.say(fake.private_chat(ada), ada, "hi")
        await fake.wait_for(lambda: fake.sent and not fake.pending_update_ids)
        fake.fail("getUpdates", delay_s=20, times=2)
        stopped_at = loop.time()
    assert loop.time() - stopped_at < 15
