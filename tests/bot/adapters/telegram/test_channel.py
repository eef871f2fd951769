"""`TelegramChannel`: what the bot says, and what it is told when that fails."""

import asyncio
import io
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from bot.adapters.pacing import Pacer, Rate
from bot.adapters.telegram.buttons import CommandButtons
from bot.adapters.telegram.channel import TelegramChannel, limits_of
from bot.adapters.telegram.chats import KnownChats
from bot.adapters.telegram.client import TelegramClient
from bot.adapters.telegram.connection import Connection
from bot.commands import Argument, Command, CommandCall, CommandReply, CommandTable
from bot.errors import ChannelClosed, DeliveryError, RateLimited
from bot.types import ChatKind, Control, Speaker
from tests.bot.adapters.telegram.harness import RecordingIncidents, eventually
from tests.fakes.telegram import Chat, FakeTelegram


async def do_nothing(call: CommandCall) -> CommandReply:
    return CommandReply("done")


TABLE = CommandTable(
    (
        Command(("swipe",), "Another one", do_nothing, (Argument("where", "Which"),)),
        Command(("undo",), "Take it back", do_nothing),
    )
)
SWIPE = (Control("◀", ("swipe",), "where", "back"), Control("▶", ("swipe",), "where", "on"), Control("↩", ("undo",)))


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
def incidents() -> RecordingIncidents:
    return RecordingIncidents()


@pytest.fixture
def connection(client: TelegramClient, incidents: RecordingIncidents) -> Connection:
    return Connection(client, KnownChats(client, incidents=incidents), CommandButtons(TABLE))


@pytest.fixture
def channel(connection: Connection, chat: Chat) -> TelegramChannel:
    return TelegramChannel(connection, chat_id=chat.id, thread_id=None, kind=ChatKind.DIRECT)


def test_limits_by_kind() -> None:
    assert limits_of(ChatKind.DIRECT).edit_interval_s == 1.2
    assert limits_of(ChatKind.GROUP).edit_interval_s == 3.5
    assert limits_of(ChatKind.GROUP).max_text_length == 4096
    assert limits_of(ChatKind.GROUP).measure("a🐕é") == 4
    assert limits_of(ChatKind.GROUP, has_drafts=True).draft_interval_s is None
    assert limits_of(ChatKind.DIRECT, has_drafts=True).draft_interval_s is not None


async def test_a_streamed_reply_is_one_message(fake: FakeTelegram, channel: TelegramChannel) -> None:
    versions = ["Once", "Once upon", "Once upon a *time <b>"]
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


async def test_general_topic(fake: FakeTelegram, connection: Connection) -> None:
    forum = fake.add_group("Forum", is_forum=True)
    general = TelegramChannel(connection, chat_id=forum.id, thread_id=1, kind=ChatKind.GROUP)
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


async def test_a_group_that_moved_is_followed(fake: FakeTelegram, connection: Connection) -> None:
    group = fake.add_group("Kitchen", type_="group")
    channel = TelegramChannel(connection, chat_id=group.id, thread_id=None, kind=ChatKind.GROUP)
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


# Formatting


async def test_markdown_is_shown_as_telegram_shows_it(fake: FakeTelegram, channel: TelegramChannel) -> None:
    message_id = await channel.send("*waves* Hello, **you**")
    await channel.edit(message_id, "*waves* Hello, **you**, and `me`")
    (sent,) = fake.sent
    assert [version.text for version in sent.versions] == ["waves Hello, you", "waves Hello, you, and me"]
    assert sent.special == [("italic", "waves"), ("bold", "you"), ("code", "me")]


async def test_formatting_that_is_refused_costs_no_word(
    fake: FakeTelegram, channel: TelegramChannel, incidents: RecordingIncidents
) -> None:
    refusal = {"ok": False, "error_code": 400, "description": "Bad Request: can't parse entities: ENTITY_BOUNDS"}
    fake.fail("sendMessage", status=400, body=refusal)
    message_id = await channel.send("*waves* Hello")
    fake.fail("editMessageText", status=400, body=refusal)
    await channel.edit(message_id, "*waves* Hello again")
    assert (fake.sent[0].text, fake.sent[0].special) == ("waves Hello again", [])
    assert incidents.kinds() == ["formatting"], "once an hour is enough"
    assert "waves" not in str(incidents.noted)


async def test_without_its_formatting_code_rings_nobody(fake: FakeTelegram, channel: TelegramChannel) -> None:
    refusal = {"ok": False, "error_code": 400, "description": "Bad Request: can't parse entities: ENTITY_BOUNDS"}
    fake.fail("sendMessage", status=400, body=refusal)
    await channel.send("`@ada` and @bob")
    assert fake.sent[0].text == "@\u2060ada and @\u2060bob"


async def test_a_refusal_of_something_else_is_told(fake: FakeTelegram, channel: TelegramChannel) -> None:
    fake.fail("sendMessage", status=400, body={"ok": False, "description": "Bad Request: chat not found"})
    with pytest.raises(DeliveryError, match="Chat not found"):
        await channel.send("*waves*")
    assert fake.num_calls("sendMessage") == 1


@pytest.mark.parametrize("text", ["@a" * 2000, "| a " * 1000, "**x** " * 700])
async def test_a_text_that_fits_by_its_measure_is_taken(
    fake: FakeTelegram, channel: TelegramChannel, text: str
) -> None:
    while channel.limits.measure(text) > channel.limits.max_text_length:
        text = text[:-50]
    await channel.send(text)
    assert len(fake.sent) == 1


# Faces


async def test_a_speaker_is_named_above_its_words(fake: FakeTelegram, channel: TelegramChannel) -> None:
    luna = channel.speaking_as(Speaker("luna", "Luna\nMoth 🌙"))
    message_id = await luna.send("*smiles* Hi")
    await luna.edit(message_id, "*smiles* Hi there")
    await channel.send("nobody")
    named, unnamed = fake.sent
    assert named.text == "Luna Moth 🌙\nsmiles Hi there"
    assert named.special == [("bold", "Luna Moth 🌙"), ("italic", "smiles")]
    assert unnamed.text == "nobody"
    assert luna.limits.max_text_length == 4096 - 13


async def test_a_name_rings_nobody(fake: FakeTelegram, channel: TelegramChannel) -> None:
    named = channel.speaking_as(Speaker("ada", "@ada"))
    await named.send("x" * named.limits.max_text_length)
    assert fake.sent[0].text.startswith("@\u2060ada\nx")
    assert len(fake.sent[0].text) == 4096


async def test_a_named_text_of_the_full_length(fake: FakeTelegram, channel: TelegramChannel) -> None:
    luna = channel.speaking_as(Speaker("luna", "Luna"))
    await luna.send("x" * luna.limits.max_text_length)
    assert len(fake.sent[0].text) == 4096


# Drafts


async def test_a_draft_becomes_a_message(fake: FakeTelegram, channel: TelegramChannel) -> None:
    await channel.show_draft("Once")
    await channel.show_draft("Once *upon* a time")
    await channel.send("Once *upon* a time.")
    await channel.show_draft("Next")
    first, second, third = fake.drafts
    assert (first.text, second.text) == ("Once", "Once upon a time")
    assert first.draft_id == second.draft_id != third.draft_id
    assert first.draft_id
    assert len(fake.sent) == 1


async def test_a_server_without_drafts_switches_them_off(
    fake: FakeTelegram, connection: Connection, chat: Chat
) -> None:
    fake.unknown_methods.add("sendMessageDraft")
    channel = TelegramChannel(connection, chat_id=chat.id, thread_id=None, kind=ChatKind.DIRECT)
    assert channel.limits.draft_interval_s is not None
    with pytest.raises(DeliveryError, match="no drafts here"):
        await channel.show_draft("Once")
    assert channel.limits.draft_interval_s is None
    another = TelegramChannel(connection, chat_id=chat.id, thread_id=None, kind=ChatKind.DIRECT)
    assert another.limits.draft_interval_s is None
    with pytest.raises(DeliveryError):
        await another.show_draft("Once")
    assert fake.num_calls("sendMessageDraft") == 1


async def test_drafts_that_must_wait_are_not_switched_off(
    fake: FakeTelegram, channel: TelegramChannel, connection: Connection
) -> None:
    fake.flood("sendMessageDraft", retry_after=5)
    with pytest.raises(RateLimited):
        await channel.show_draft("Once")
    await channel.show_draft("Once upon")
    assert connection.has_drafts
    assert [draft.text for draft in fake.drafts] == ["Once upon"]


async def test_drafts_in_a_topic_of_a_private_chat(fake: FakeTelegram, connection: Connection, chat: Chat) -> None:
    chat.topics[77] = "Dogs"
    channel = TelegramChannel(connection, chat_id=chat.id, thread_id=77, kind=ChatKind.DIRECT)
    await channel.show_draft("Once")
    await channel.send("Once upon")
    assert (fake.drafts[0].thread_id, fake.sent[0].thread_id) == (77, 77)


async def test_formatting_that_a_draft_may_not_have_ends_no_drafts(
    fake: FakeTelegram, channel: TelegramChannel, connection: Connection
) -> None:
    refusal = {"ok": False, "error_code": 400, "description": "Bad Request: can't parse entities: no"}
    fake.fail("sendMessageDraft", status=400, body=refusal)
    await channel.show_draft("*Once*")
    assert [draft.text for draft in fake.drafts] == ["Once"]
    assert connection.has_drafts


async def test_there_are_no_drafts_in_groups(fake: FakeTelegram, connection: Connection) -> None:
    group = TelegramChannel(connection, chat_id=fake.add_group("G").id, thread_id=None, kind=ChatKind.GROUP)
    with pytest.raises(DeliveryError):
        await group.show_draft("Once")
    assert not fake.num_calls("sendMessageDraft")
    assert connection.has_drafts


# Controls


async def test_controls_are_shown_replaced_and_taken_away(fake: FakeTelegram, channel: TelegramChannel) -> None:
    message_id = await channel.send("Hello", controls=SWIPE)
    (sent,) = fake.sent
    assert [button.text for button in sent.buttons] == ["◀", "▶", "↩"]
    await channel.edit(message_id, "Hello", controls=SWIPE[:1])
    assert [button.text for button in sent.buttons] == ["◀"]
    await channel.show_controls(message_id, SWIPE[1:])
    assert [button.text for button in sent.buttons] == ["▶", "↩"]
    await channel.show_controls(message_id, SWIPE[1:])
    await channel.show_controls(message_id, ())
    assert sent.buttons == []
    await channel.show_controls(message_id, ())


async def test_buttons_of_a_message_that_is_gone_are_no_trouble(channel: TelegramChannel) -> None:
    await channel.show_controls("4711", SWIPE)


@pytest.mark.parametrize(("num", "widths"), [(1, [1]), (6, [6]), (7, [4, 3]), (8, [4, 4])])
def test_controls_are_laid_out_evenly(num: int, widths: list[int]) -> None:
    markup = CommandButtons(TABLE).controls((Control("↩", ("undo",)),) * num)
    assert markup is not None
    assert [len(row) for row in markup.inline_keyboard] == widths


async def test_a_control_without_a_command_is_left_out(fake: FakeTelegram, channel: TelegramChannel) -> None:
    await channel.send("Hello", controls=(Control("?", ("nothing",)),))
    assert fake.sent[0].buttons == []


async def test_a_message_is_deleted_once(fake: FakeTelegram, channel: TelegramChannel) -> None:
    message_id = await channel.send("Hello")
    await channel.delete(message_id)
    await channel.delete(message_id)
    assert fake.sent[0].is_deleted


# Reactions and stickers


@pytest.mark.parametrize(
    ("emoji", "shown"), [("👍", ["👍"]), ("❤️", ["❤"]), ("👍🏽", ["👍"]), ("😂", ["🤣"]), ("🦖", None), ("text", None)]
)
async def test_reactions(fake: FakeTelegram, channel: TelegramChannel, chat: Chat, emoji: str, shown: object) -> None:
    await channel.react("12", emoji)
    assert fake.reactions.get((chat.id, 12)) == shown


async def test_a_chat_without_reactions_is_no_trouble(fake: FakeTelegram, channel: TelegramChannel, chat: Chat) -> None:
    chat.takes_reactions = False
    await channel.react("12", "👍")


def a_picture(path: Path, size: tuple[int, int], *, num_frames: int = 1) -> Path:
    frames = [Image.new("RGB", size, (number * 40, 0, 0)) for number in range(num_frames)]
    frames[0].save(path, save_all=num_frames > 1, append_images=frames[1:])
    return path


async def test_a_sticker_is_uploaded_once(fake: FakeTelegram, channel: TelegramChannel, tmp_path: Path) -> None:
    sticker = a_picture(tmp_path / "smile.png", (128, 128))
    first, second = await channel.send_sticker(sticker), await channel.send_sticker(sticker)
    assert [str(sent.message_id) for sent in fake.sent] == [first, second]
    assert [sent.kind for sent in fake.sent] == ["sticker", "sticker"]
    assert fake.sent[0].picture is not None
    assert Image.open(io.BytesIO(fake.sent[0].picture)).format == "WEBP"
    assert isinstance(fake.sent[1].parameters["sticker"], str)
    fake.world.files.clear()
    await channel.send_sticker(sticker)
    assert len(fake.sent) == 3, "a file that Telegram forgot is uploaded again"


async def test_what_is_no_sticker_is_shown_otherwise(
    fake: FakeTelegram, channel: TelegramChannel, tmp_path: Path
) -> None:
    await channel.send_sticker(a_picture(tmp_path / "large.png", (900, 300)))
    await channel.send_sticker(a_picture(tmp_path / "moves.gif", (64, 64), num_frames=3))
    assert [sent.kind for sent in fake.sent] == ["photo", "animation"]
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DeliveryError, match=r"broken\.png is no picture"):
        await channel.send_sticker(tmp_path / "broken.png")
    with pytest.raises(DeliveryError, match=r"missing\.png"):
        await channel.send_sticker(tmp_path / "missing.png")


# Where nothing may be sent


async def test_a_person_who_blocked_the_bot_is_left_alone(
    fake: FakeTelegram, channel: TelegramChannel, chat: Chat, incidents: RecordingIncidents
) -> None:
    chat.is_blocked = True
    for _ in range(3):
        with pytest.raises(DeliveryError, match="blocked by the user"):
            await channel.send("hello")
    assert fake.num_calls("sendMessage") == 1
    assert incidents.kinds() == ["forbidden"]
    assert str(chat.id) in incidents.noted[0][1]


async def test_nobody_waits_for_a_chat_that_is_closed(connection: Connection, channel: TelegramChannel) -> None:
    connection.pacer.hold(channel.chat_id, 30)
    connection.chats.close(channel.chat_id, "gone", remedy="None.")
    await asyncio.wait_for(channel.ready(), 2)


async def test_missing_rights_are_told_once(
    fake: FakeTelegram, channel: TelegramChannel, incidents: RecordingIncidents
) -> None:
    refusal = {"ok": False, "description": "Bad Request: not enough rights to send text messages to the chat"}
    fake.fail("sendMessage", status=400, body=refusal, times=2)
    for _ in range(2):
        with pytest.raises(DeliveryError, match="Not enough rights"):
            await channel.send("hello")
    assert incidents.kinds() == ["rights"]


async def test_a_topic_that_is_gone_is_told_once(
    fake: FakeTelegram, connection: Connection, incidents: RecordingIncidents
) -> None:
    forum = fake.add_group("Forum", is_forum=True)
    channel = TelegramChannel(connection, chat_id=forum.id, thread_id=4711, kind=ChatKind.GROUP)
    for _ in range(2):
        with pytest.raises(DeliveryError, match="thread not found"):
            await channel.send("hello")
    assert incidents.kinds() == ["gone"]


# Pace


async def test_a_chat_that_must_wait_holds_up_no_other(
    fake: FakeTelegram, client: TelegramClient, connection: Connection, chat: Chat
) -> None:
    connection.pacer = Pacer(per_chat=Rate(1, 0.05))
    slow = TelegramChannel(connection, chat_id=chat.id, thread_id=None, kind=ChatKind.DIRECT)
    other_chat = fake.private_chat(fake.add_user("Bob"))
    other = TelegramChannel(connection, chat_id=other_chat.id, thread_id=None, kind=ChatKind.DIRECT)
    fake.flood("sendMessage", retry_after=30)
    with pytest.raises(RateLimited):
        await slow.send("hello")
    waiting = asyncio.create_task(slow.ready(is_urgent=True))
    await asyncio.wait_for(other.ready(), 5)
    await asyncio.wait_for(other.ready(), 5)
    assert not waiting.done()
    waiting.cancel()


@pytest.mark.parametrize("shut", ["close", "mute"])
async def test_a_closed_chat_asks_for_no_patience(
    fake: FakeTelegram, connection: Connection, channel: TelegramChannel, shut: str
) -> None:
    getattr(connection.chats, shut)(channel.chat_id, "the bot was removed", remedy="")
    with pytest.raises(ChannelClosed, match="the bot was removed"):
        await channel.send("hello")
    assert not fake.num_calls("sendMessage")


async def test_nobody_waits_for_hours(fake: FakeTelegram, channel: TelegramChannel) -> None:
    fake.flood("sendMessage", retry_after=86_400)
    with pytest.raises(RateLimited):
        await channel.send("one")
    async with asyncio.timeout(5.0):
        with pytest.raises(RateLimited) as caught:
            await channel.ready()
    assert caught.value.retry_after_s > 86_000


async def test_typing_that_must_wait_holds_up_no_text(
    fake: FakeTelegram, connection: Connection, channel: TelegramChannel
) -> None:
    fake.flood("sendChatAction", retry_after=30)
    with pytest.raises(RateLimited):
        await channel.show_typing()
    await channel.show_typing()
    assert fake.num_calls("sendChatAction") == 1
    await asyncio.wait_for(channel.ready(), 5)


# Moves


async def test_a_move_is_told_once(fake: FakeTelegram, client: TelegramClient) -> None:
    moves: list[tuple[str, str, str]] = []

    async def on_move(*move: str) -> None:
        moves.append(move)  # type: ignore[arg-type]

    connection = Connection(client, KnownChats(client, on_move=on_move), CommandButtons(TABLE))
    group = fake.add_group("Kitchen", type_="group")
    channels = [TelegramChannel(connection, chat_id=group.id, thread_id=None, kind=ChatKind.GROUP) for _ in "ab"]
    moved = fake.move(group)
    await asyncio.gather(*(channel.send("hello") for channel in channels))
    await eventually(lambda: moves)
    later = TelegramChannel(connection, chat_id=group.id, thread_id=None, kind=ChatKind.GROUP)
    num_calls = fake.num_calls("sendMessage")
    await later.send("again")
    assert fake.num_calls("sendMessage") == num_calls + 1, "the new id is known"
    assert len(fake.sent_to(moved)) == 3
    assert moves == [("telegram", str(group.id), str(moved.id))]
