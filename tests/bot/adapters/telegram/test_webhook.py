"""Webhook mode: who is let in, when a delivery counts as arrived, and that Telegram keeps delivering to us."""

import asyncio
import io
import logging
import socket
import time
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from bot.adapters.base import AdapterState, ReplyChannel
from bot.adapters.telegram import TelegramAdapter, Webhook
from bot.adapters.telegram.updates import DeliveryLedger
from bot.adapters.telegram.webhook import MAX_UPDATE_BYTES, SECRET_HEADER
from bot.commands import CommandTable
from bot.errors import PlatformFatal
from bot.types import IncomingMessage
from tests.bot.adapters.telegram.harness import (
    FAST,
    RecordingHandler,
    RecordingIncidents,
    eventually,
    in_background,
    serving,
    stay_silent,
)
from tests.fakes.telegram import FakeTelegram

SECRET = "the-secret"


@pytest.fixture
def webhook(unused_tcp_port: int) -> Webhook:
    return Webhook(f"http://127.0.0.1:{unused_tcp_port}/hook", port=unused_tcp_port, secret=SECRET)


async def post(webhook: Webhook, *, secret: str | None = SECRET, **body: Any) -> int:
    headers = {SECRET_HEADER: secret} if secret is not None else {}
    async with aiohttp.ClientSession() as session, session.post(webhook.url, headers=headers, **body) as response:
        return response.status


def a_message(update_id: int, text: str = "hi", *, user_id: int = 1001) -> dict[str, Any]:
    person = {"id": user_id, "is_bot": False, "first_name": "Ada"}
    chat = {"id": user_id, "type": "private", "first_name": "Ada"}
    message = {"message_id": update_id, "date": 1, "chat": chat, "from": person, "text": text}
    return {"update_id": update_id, "message": message}


async def test_updates_are_delivered_and_answered(fake: FakeTelegram, webhook: Webhook) -> None:
    ada = fake.add_user("Ada")
    chat = fake.private_chat(ada)
    fake.say(chat, ada, "before the start")
    handler = RecordingHandler()
    async with serving(fake, handler, webhook=webhook) as adapter:
        fake.say(chat, ada, "hello", photo=b"jpg")
        await fake.wait_for(lambda: len(fake.sent) == 2)
        await fake.wait_for(lambda: not fake.pending_update_ids)
        assert adapter.status.state is AdapterState.RUNNING
        assert adapter.status.detail.endswith("by webhook")
        assert fake.num_calls("getUpdates") == 0
        assert fake.webhook["secret_token"] == SECRET
        assert set(fake.webhook["allowed_updates"]) == {
            "message",
            "edited_message",
            "callback_query",
            "my_chat_member",
            "message_reaction",
        }
    assert fake.has_webhook, "Telegram keeps what comes until the next start"
    assert adapter.status.state is AdapterState.STOPPED


async def test_polling_again_takes_the_webhook_away(fake: FakeTelegram, webhook: Webhook) -> None:
    async with serving(fake, RecordingHandler(), webhook=webhook):
        assert fake.has_webhook
    async with serving(fake, RecordingHandler()):
        assert not fake.has_webhook


async def test_a_secret_is_made_where_none_is_given() -> None:
    first, second = Webhook("https://e.org"), Webhook("https://e.org")
    assert first.secret != second.secret
    assert len(first.secret) > 20
    assert first.secret not in repr(first)


async def test_what_is_no_http_fills_no_log(
    fake: FakeTelegram, webhook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    bad_length = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n"
    async with serving(fake, RecordingHandler(), webhook=webhook):
        for sent in (b"\x16\x03\x01\x02\x00", bad_length):
            reader, writer = await asyncio.open_connection("127.0.0.1", webhook.port)
            writer.write(sent)
            assert b" 400 " in await asyncio.wait_for(reader.readline(), 5)
            writer.close()
            await writer.wait_closed()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_only_telegram_is_let_in(fake: FakeTelegram, webhook: Webhook) -> None:
    handler, incidents = RecordingHandler(stay_silent), RecordingIncidents()
    async with serving(fake, handler, webhook=webhook, incidents=incidents):
        assert await post(webhook, secret="wrong", json=a_message(1)) == 403
        assert await post(webhook, secret=None, json=a_message(1)) == 403
        assert await post(webhook, secret="wröng", json=a_message(1)) == 403
        assert await post(webhook, data=b"no JSON") == 400
        assert await post(webhook, data=b"\xff\xfe") == 400
        assert await post(webhook, data=b"[" * 100_000) == 400
        assert await post(webhook, json=["no", "object"]) == 400
        assert await post(webhook, json={"message": {}}) == 400
        assert await post(webhook, json={"update_id": "7"}) == 400
        assert await post(webhook, data=io.BytesIO(b"x" * (MAX_UPDATE_BYTES + 1))) == 413
        async with aiohttp.ClientSession() as session, session.get(webhook.url) as response:
            assert response.status == 405
        assert not handler.messages
        assert await post(webhook, json=a_message(1)) == 200
        assert len(handler.messages) == 1
        await eventually(lambda: incidents.noted)
    assert "without its secret" in incidents.noted[0][1]


async def test_what_comes_twice_is_handled_once(fake: FakeTelegram, webhook: Webhook) -> None:
    gate = asyncio.Event()

    async def wait(message: IncomingMessage, channel: ReplyChannel) -> None:
        await gate.wait()

    handler = RecordingHandler(wait)
    async with serving(fake, handler, webhook=webhook):
        both = [asyncio.create_task(post(webhook, json=a_message(5))) for _ in "ab"]
        await eventually(lambda: handler.messages)
        assert not any(task.done() for task in both)
        gate.set()
        assert await asyncio.gather(*both) == [200, 200]
        assert await post(webhook, json=a_message(5)) == 200
    assert len(handler.messages) == 1


async def test_a_slow_answer_does_not_keep_telegram_waiting(fake: FakeTelegram, webhook: Webhook) -> None:
    async def wait(message: IncomingMessage, channel: ReplyChannel) -> None:
        await asyncio.sleep(60)

    timing = replace(FAST, webhook_wait_s=0.05)
    async with serving(fake, RecordingHandler(wait), webhook=webhook, timing=timing):
        assert await asyncio.wait_for(post(webhook, json=a_message(5)), 10) == 200


async def test_what_nobody_kept_at_the_stop_is_refused(fake: FakeTelegram, webhook: Webhook) -> None:
    async def wait(message: IncomingMessage, channel: ReplyChannel) -> None:
        await asyncio.sleep(60)

    handler = RecordingHandler(wait)
    async with serving(fake, handler, webhook=webhook, timing=replace(FAST, webhook_wait_s=60)):
        delivery = asyncio.create_task(post(webhook, json=a_message(5)))
        await eventually(lambda: handler.messages)
        stops_at = time.monotonic()
    assert await delivery == 503
    assert time.monotonic() - stops_at < 10


async def test_a_poison_update_is_taken_and_told(fake: FakeTelegram, webhook: Webhook) -> None:
    handler, incidents = RecordingHandler(), RecordingIncidents()
    ada = fake.add_user("Ada")
    async with serving(fake, handler, webhook=webhook, incidents=incidents):
        fake.poison()
        fake.say(fake.private_chat(ada), ada, "still there?")
        await fake.wait_for(lambda: fake.sent and not fake.pending_update_ids)
    assert incidents.kinds() == ["poison_update"]


async def test_an_album_is_one_message(fake: FakeTelegram, webhook: Webhook) -> None:
    ada = fake.add_user("Ada")
    handler = RecordingHandler()
    async with serving(fake, handler, webhook=webhook):
        fake.say(fake.private_chat(ada), ada, "album", album=[b"1", b"2"])
        await fake.wait_for(lambda: fake.sent and not fake.pending_update_ids)
    assert [len(message.files) for message in handler.messages] == [2]


async def test_a_webhook_that_another_program_took_is_set_again(fake: FakeTelegram, webhook: Webhook) -> None:
    incidents = RecordingIncidents()
    async with serving(fake, RecordingHandler(), webhook=webhook, incidents=incidents):
        fake.webhook = {"url": "https://elsewhere.example"}
        await fake.wait_for(lambda: fake.webhook.get("url") == webhook.url)
        await eventually(lambda: incidents.noted)
    assert "another program" in incidents.noted[0][1]


async def test_what_telegram_says_of_the_webhook_is_told(fake: FakeTelegram, webhook: Webhook) -> None:
    incidents = RecordingIncidents()
    async with serving(fake, RecordingHandler(), webhook=webhook, incidents=incidents) as adapter:
        fake.webhook_error = {"last_error_date": 1, "last_error_message": "an old story"}
        num_checks = fake.num_calls("getWebhookInfo")
        await fake.wait_for(lambda: fake.num_calls("getWebhookInfo") > num_checks + 1)
        assert not incidents.noted
        now = int(time.time()) + 60
        fake.webhook_error = {"last_error_date": now, "last_error_message": "Connection refused"}
        await eventually(lambda: "Connection refused" in adapter.status.detail)
        await eventually(lambda: "Connection refused" not in adapter.status.detail)
    assert incidents.kinds() == ["webhook"]


async def test_trouble_with_telegrams_server_passes(fake: FakeTelegram, webhook: Webhook) -> None:
    fake.fail("setWebhook", status=502, body={"ok": False})
    fake.fail("setWebhook", status=400, body={"ok": False, "description": "Bad Request: bad webhook: no host"})
    async with serving(fake, RecordingHandler(), webhook=webhook) as adapter:
        fake.fail("getWebhookInfo", status=502, body={"ok": False}, times=2)
        await eventually(lambda: adapter.status.state is AdapterState.RECONNECTING)
        await eventually(lambda: adapter.status.state is AdapterState.RUNNING)


async def test_a_port_that_is_taken_shows_in_the_status(fake: FakeTelegram, webhook: Webhook) -> None:
    adapter = TelegramAdapter(
        fake.token,
        handler=RecordingHandler(),
        commands=CommandTable(()),
        api_url=fake.url,
        timing=FAST,
        webhook=webhook,
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", webhook.port))
        taken.listen()
        async with in_background(adapter):
            await eventually(lambda: adapter.status.state is AdapterState.RECONNECTING)
            assert "telegram.webhook_port" in adapter.status.detail
            taken.close()
            await eventually(lambda: adapter.status.state is AdapterState.RUNNING)


@pytest.mark.parametrize(
    ("webhook", "why"),
    [
        (Webhook("http://e.org/hook"), "must begin with https"),
        (Webhook("e.org"), "must begin with https"),
        (Webhook("https://e.org", secret="with space"), "webhook_secret may hold only"),
        (Webhook("https://e.org", secret=""), "webhook_secret may hold only"),
    ],
)
async def test_a_webhook_that_cannot_work_is_fatal(webhook: Webhook, why: str) -> None:
    adapter = TelegramAdapter("1:x", handler=RecordingHandler(), commands=CommandTable(()), webhook=webhook)
    with pytest.raises(PlatformFatal, match=why):
        await adapter.run()


async def test_the_secret_stays_out_of_the_log(
    fake: FakeTelegram, webhook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with serving(fake, RecordingHandler(), webhook=webhook):
        await post(webhook, secret="wrong", json=a_message(1))
    assert SECRET not in caplog.text


async def test_the_ledger_of_deliveries() -> None:
    ledger = DeliveryLedger()
    assert ledger.is_new(1)
    assert not ledger.is_new(1)
    assert ledger.num_waiting == 1
    assert not await ledger.wait(1, 0.0)
    waiting = asyncio.create_task(ledger.wait(1, 10))
    await asyncio.sleep(0)
    ledger.handed_over(1)
    assert await waiting
    assert await ledger.wait(1, 0.0)
    assert not ledger.is_new(1)
    ledger.handed_over(99)
    assert ledger.is_new(99)
