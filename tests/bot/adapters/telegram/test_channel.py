"""`TelegramChannel`: what the bot says, and what it is told when that fails."""

from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from bot.adapters.telegram.channel import TelegramChannel, limits_of
from bot.adapters.telegram.client import TelegramClient
from bot.errors import DeliveryError, RateLimited
from bot.types import ChatKind
from tests.fakes.telegram import Chat, FakeTelegram


@pytest.fixture
async def client(fake: FakeTelegram) -> AsyncIterator[TelegramClient]:
    connected = TelegramClient(fake.token, api_url=fake.url)
    await connected.initialize()
    yield connected
    await connected.shutdown()


@pytest.fixture
def chat(fake: FakeTelegram) -> Chat:
    return fake.private_chat(fake.add_user("Ada"))


@pytest.fixture
def channel(client: TelegramClient, chat: Chat) -> TelegramChannel:
    return TelegramChannel(client, chat_id=chat.id, thread_id=None, kind=ChatKind.DIRECT)


def test_limits_by_kind() -> None:
    assert limits_of(ChatKind.DIRECT).edit_interval_s == 1.2
    assert limits_of(ChatKind.GROUP).edit_interval_s == 3.5
    assert limits_of(ChatKind.GROUP).max_text_length == 4096
    assert limits_of(ChatKind.GROUP).measure("a🐕é") == 4


async def test_a_streamed_reply_is_one_message(fake: FakeTelegram, channel: TelegramChannel) -> None:
    versions = ["Once", "Once upon", "Once upon a *time* <b>"]
    message_id = await channel.send(versions[0])
    for text in versions[1:]:
        await channel.edit(message_id, text)
    (sent,) = fake.sent
    assert [version.text for version in sent.versions] == versions
    assert all(earlier.at <= later.at for earlier, later in pairwise(sent.versions))
    assert "parse_mode" not in sent.parameters
    assert sent.parameters["link_preview_options"] == {"is_disabled": True}


async def test_an_edit_that_changes_nothing_is_success(fake: FakeTelegram, channel: TelegramChannel) -> None:
    message_id = await channel.send("same")
    await channel.edit(message_id, "same")
    assert len(fake.sent[0].versions) == 1


async def test_a_text_of_the_full_length_in_utf16(fake: FakeTelegram, channel: TelegramChannel) -> None:
    await channel.send("🐕" * 2048)
    with pytest.raises(DeliveryError, match="Message is too long"):
        await channel.send("🐕" * 2048 + ".")


async def test_a_reply_to_a_message_that_is_gone_is_sent_all_the_same(
    fake: FakeTelegram, channel: TelegramChannel
) -> None:
    await channel.send("hello", reply_to="4711")
    assert fake.sent[0].reply_to is None


async def test_general_topic(fake: FakeTelegram, client: TelegramClient) -> None:
    forum = fake.add_group("Forum", is_forum=True)
    general = TelegramChannel(client, chat_id=forum.id, thread_id=1, kind=ChatKind.GROUP)
    await general.show_typing()
    await general.send("hello")
    assert fake.chat_actions[0].thread_id == 1
    assert fake.chat_actions[0].action == "typing"
    assert fake.sent[0].thread_id is None


async def test_flood_limit(fake: FakeTelegram, channel: TelegramChannel) -> None:
    fake.flood("sendMessage", retry_after=7)
    with pytest.raises(RateLimited) as caught:
        await channel.send("hello")
    assert caught.value.retry_after_s == 7
    message_id = await channel.send("hello")
    fake.flood("editMessageText", retry_after=3)
    with pytest.raises(RateLimited):
        await channel.edit(message_id, "hello!")


async def test_a_group_that_moved_is_followed(fake: FakeTelegram, client: TelegramClient) -> None:
    group = fake.add_group("Kitchen", type_="group")
    channel = TelegramChannel(client, chat_id=group.id, thread_id=None, kind=ChatKind.GROUP)
    moved = fake.move(group)
    message_id = await channel.send("hello")
    await channel.edit(message_id, "hello!")
    assert fake.sent_to(moved)[0].text == "hello!"


async def test_blocked_by_the_user(fake: FakeTelegram, channel: TelegramChannel, chat: Chat) -> None:
    chat.is_blocked = True
    with pytest.raises(DeliveryError, match="forbids it: bot was blocked by the user"):
        await channel.send("hello")


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 502, "body": {"ok": False, "description": "Bad Gateway"}},
        {"status": 502, "body": "<html>"},
        {"status": 404, "body": {"ok": False, "description": "Not Found"}},
        {"is_dropped": True},
        {"status": 200, "body": {"ok": True, "result": {"text": "no id"}}},
        {"status": 200, "body": {"ok": True, "result": None}},
        {"status": 200, "body": {"ok": True}},
        {"status": 200, "body": "garbage"},
        {"status": 200, "body": "[]"},
    ],
)
async def test_whatever_the_server_answers_is_a_delivery_error(
    fake: FakeTelegram, channel: TelegramChannel, fault: dict[str, object]
) -> None:
    fake.fail("sendMessage", **fault)
    with pytest.raises(DeliveryError) as caught:
        await channel.send("hello")
    assert type(caught.value) is DeliveryError
    assert fake.token not in str(caught.value)


async def test_a_message_id_of_elsewhere(channel: TelegramChannel) -> None:
    with pytest.raises(DeliveryError, match="no message id"):
        await channel.edit("abc", "hello")
