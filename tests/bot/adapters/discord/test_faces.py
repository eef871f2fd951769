"""Personas speak under their own names and pictures, and where they cannot, their name stands in the text."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.adapters.base import ReplyChannel
from bot.adapters.discord.faces import MAX_WEBHOOKS, clean_name
from bot.errors import ChannelClosed, DeliveryError, MessageGone
from bot.types import ChatKind, Control, Room, Speaker
from tests.bot.adapters.discord.conftest import Stage, online
from tests.fakes.discord import Channel, ChannelType, FakeDiscord, Message
from tests.fakes.discord.world import Webhook

PNG = b"\x89PNG\r\n\x1a\n a face"
JPEG = b"\xff\xd8\xff another face"
LIA = Speaker("lia", "Lia")
OTTO = Speaker("otto", "Otto")


@pytest.fixture
async def stage(discord: FakeDiscord) -> AsyncIterator[Stage]:
    async with online(discord) as stage:
        yield stage


def place(stage: Stage, *, denied: tuple[str, ...] = ()) -> Channel:
    return stage.discord.add_channel(stage.discord.add_guild("G"), "c", denied=denied)


async def opened(stage: Stage, where: Channel) -> ReplyChannel:
    """The channel of `where`, once the bot knows of it."""
    parent = where.parent if where.type is ChannelType.PUBLIC_THREAD else None
    room = Room("discord", parent.id, where.id) if parent is not None else Room("discord", where.id)
    kind = ChatKind.DIRECT if where.type is ChannelType.DM else ChatKind.GROUP
    channel = stage.adapter.channel(room, kind)
    assert channel is not None
    num = len(stage.handler.received)
    stage.discord.say(where, stage.discord.add_user("eve"), "knock")
    await stage.wait_for_messages(num + 1)
    return channel


def webhooks(stage: Stage) -> list[Webhook]:
    return list(stage.discord.webhooks.values())


def shown(stage: Stage, message_id: str) -> Message:
    return stage.discord.messages[message_id]


async def test_each_persona_has_a_name_and_a_picture_of_its_own(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "lia.png").write_bytes(PNG)
    channel = await opened(stage, place(stage))
    lia = await channel.speaking_as(Speaker("lia", "Lia", tmp_path / "lia.png")).send("I am Lia", reply_to="5")
    otto = await channel.speaking_as(OTTO).send("I am Otto @everyone <@1>")
    again = await channel.speaking_as(Speaker("lia", "Lia", tmp_path / "lia.png")).send("Still me")
    assert [shown(stage, id_).author.display_name for id_ in (lia, otto, again)] == ["Lia", "Otto", "Lia"]
    assert shown(stage, lia).content == "I am Lia"
    assert shown(stage, otto).request["allowed_mentions"]["parse"] == []
    [lias, ottos] = webhooks(stage)
    assert shown(stage, again).webhook is lias
    assert lias.avatars == [f"data:image/png;base64,{base64.b64encode(PNG).decode()}"]
    assert ottos.avatars == [None]
    assert stage.incidents.noted == []


async def test_what_a_face_said_is_changed_and_deleted_by_it(stage: Stage) -> None:
    channel = (await opened(stage, place(stage))).speaking_as(LIA)
    message_id = await channel.send("On", controls=(Control("⏩", ("continue",)),))
    await channel.edit(message_id, "Once", controls=())
    assert (shown(stage, message_id).versions, shown(stage, message_id).components) == (["On", "Once"], [])
    await channel.show_controls(message_id, (Control("↩️", ("undo",)),))
    assert [button["label"] for row in shown(stage, message_id).components for button in row["components"]] == ["↩️"]
    assert shown(stage, message_id).content == "Once"
    await channel.delete(message_id)
    assert message_id not in stage.discord.messages
    await channel.delete(message_id)
    with pytest.raises(DeliveryError, match="no longer exists"):
        await channel.edit(message_id, "too late")
    assert not [request for request in stage.discord.requests if request.status == 403], "nobody asks in vain"


async def test_after_a_restart_the_webhook_is_found_again(discord: FakeDiscord, tmp_path: Path) -> None:
    (tmp_path / "lia.png").write_bytes(PNG)
    speaker = Speaker("lia", "Lia", tmp_path / "lia.png")
    async with online(discord) as stage:
        where = place(stage, denied=("manage_messages",))
        said = await (await opened(stage, where)).speaking_as(speaker).send("one")
        deleted = await (await opened(stage, where)).speaking_as(speaker).send("gone")
    async with online(discord) as stage:
        channel = (await opened(stage, where)).speaking_as(speaker)
        await channel.edit(said, "two")
        await (await opened(stage, where)).delete(deleted)
        await channel.send("three")
    assert discord.messages[said].content == "two", "its own name stands above it, and not in it as well"
    assert deleted not in discord.messages
    assert len(discord.webhooks) == 1
    assert len(next(iter(discord.webhooks.values())).avatars) == 1, "the picture is known by its digits"


async def test_another_picture_is_uploaded(discord: FakeDiscord, tmp_path: Path) -> None:
    picture = tmp_path / "lia.png"
    picture.write_bytes(PNG)
    async with online(discord) as stage:
        channel = (await opened(stage, place(stage))).speaking_as(Speaker("lia", "Lia", picture))
        await channel.send("one")
        picture.write_bytes(JPEG)
        message_id = await channel.send("two")
    [webhook] = discord.webhooks.values()
    assert [avatar and avatar[:15] for avatar in webhook.avatars] == ["data:image/png;", "data:image/jpeg"]
    assert discord.messages[message_id].webhook is webhook


async def test_a_picture_that_discord_refuses_is_left_out(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "lia.png").write_bytes(PNG)
    channel = (await opened(stage, place(stage))).speaking_as(Speaker("lia", "Lia", tmp_path / "lia.png"))
    body = {"code": 50035, "message": "Invalid Form Body"}
    stage.discord.fail_next("POST", "/channels/*/webhooks", status=400, body=body)
    message_id = await channel.send("here")
    assert shown(stage, message_id).author.display_name == "Lia"
    [detail] = stage.incidents.of("webhook")
    assert "picture" in detail


@pytest.mark.parametrize("what", ["webhook", "token"])
async def test_a_webhook_that_somebody_deleted_is_made_anew(stage: Stage, what: str) -> None:
    channel = (await opened(stage, place(stage))).speaking_as(LIA)
    await channel.send("one")
    if what == "webhook":
        stage.discord.webhooks.clear()
    else:
        webhooks(stage)[0].token = "another"
    message_id = await channel.send("two")
    assert shown(stage, message_id).content == "two"
    assert shown(stage, message_id).author.display_name == "Lia"


async def test_what_a_deleted_webhook_said_is_deleted_all_the_same(stage: Stage) -> None:
    channel = (await opened(stage, place(stage))).speaking_as(LIA)
    message_id = await channel.send("one")
    stage.discord.webhooks.clear()
    await channel.delete(message_id)
    assert message_id not in stage.discord.messages


async def test_what_a_deleted_webhook_said_makes_room_for_new_words(stage: Stage) -> None:
    where = place(stage)
    channel = (await opened(stage, where)).speaking_as(LIA)
    message_id = await channel.send("one")
    stage.discord.webhooks.clear()
    with pytest.raises(DeliveryError):
        await channel.show_controls(message_id, ())
    assert message_id in stage.discord.messages, "for buttons' sake no words go"
    with pytest.raises(MessageGone):
        await channel.edit(message_id, "two")
    assert message_id not in stage.discord.messages


async def test_what_a_deleted_webhook_said_stays_where_the_bot_may_delete_nothing(stage: Stage) -> None:
    channel = (await opened(stage, place(stage, denied=("manage_messages",)))).speaking_as(LIA)
    message_id = await channel.send("one")
    stage.discord.webhooks.clear()
    with pytest.raises(DeliveryError, match="Unknown Webhook") as caught:
        await channel.edit(message_id, "two")
    assert not isinstance(caught.value, ChannelClosed), "another message can be sent"
    assert message_id in stage.discord.messages


async def test_a_deleted_channel_is_closed_for_faces_too(stage: Stage) -> None:
    where = place(stage)
    channel = (await opened(stage, where)).speaking_as(LIA)
    message_id = await channel.send("one")
    stage.discord.remove_channel(where)
    with pytest.raises(ChannelClosed):
        await channel.edit(message_id, "two")
    for _ in range(2):
        with pytest.raises(ChannelClosed):
            await channel.send("two")


@pytest.mark.parametrize("is_thread", [False, True])
async def test_a_webhook_that_somebody_moved_tells_nothing_elsewhere(stage: Stage, is_thread: bool) -> None:
    where = place(stage)
    elsewhere = stage.discord.add_channel(where.guild, "elsewhere")
    room = stage.discord.add_thread(where, "t") if is_thread else where
    channel = (await opened(stage, room)).speaking_as(LIA)
    await channel.send("one")
    [moved] = webhooks(stage)
    moved.channel = elsewhere
    message_id = await channel.send("between us")
    assert shown(stage, message_id).channel is room
    assert not stage.discord.bot_messages(elsewhere)
    assert [webhook.channel for webhook in webhooks(stage)] == [elsewhere, where]
    assert "moved" in stage.incidents.of("webhook")[0]


async def test_a_name_that_discord_refuses_stands_in_the_text(stage: Stage) -> None:
    channel = (await opened(stage, place(stage))).speaking_as(Speaker("lia", "D1scord"))
    said = {"username": {"_errors": [{"code": "USERNAME_INVALID", "message": "Username cannot be that"}]}}
    refusal = {"code": 50035, "message": "Invalid Form Body", "errors": said}
    stage.discord.fail_next("POST", "/webhooks/*", status=400, body=refusal, times=2)
    message_id = await channel.send("one")
    await channel.send("two")
    assert shown(stage, message_id).content == "**D1scord:** one"
    [told] = stage.incidents.of("webhook")
    assert "persona lia" in told


async def test_many_at_once_make_one_webhook(stage: Stage) -> None:
    channel = await opened(stage, place(stage))
    await asyncio.gather(*(channel.speaking_as(LIA).send(f"m{number}") for number in range(5)))
    assert len(webhooks(stage)) == 1


async def test_a_channel_keeps_places_for_others(stage: Stage) -> None:
    where = place(stage)
    for number in range(4):
        strange = Webhook(where, f"strange {number}", "123", [None])
        stage.discord.webhooks[strange.id] = strange
    channel = await opened(stage, where)
    for number in range(MAX_WEBHOOKS + 2):
        await channel.speaking_as(Speaker(f"p{number}", f"P {number}")).send("hello")
        await channel.speaking_as(LIA).send("I am used all the time")
    names = [webhook.name.rpartition(" ")[0] for webhook in webhooks(stage)]
    assert [name for name in names if name.startswith("strange")] == ["strange"] * 4
    assert names[4:] == ["lia", *(f"p{number}" for number in range(3, MAX_WEBHOOKS + 2))]
    assert stage.incidents.noted == []


async def test_a_full_channel_has_no_faces(stage: Stage) -> None:
    where = place(stage)
    for number in range(15):
        strange = Webhook(where, f"strange {number}", "123", [None])
        stage.discord.webhooks[strange.id] = strange
    channel = (await opened(stage, where)).speaking_as(LIA)
    messages = [await channel.send("hello") for _ in range(2)]
    assert [shown(stage, id_).content for id_ in messages] == ["**Lia:** hello"] * 2
    [detail] = stage.incidents.of("webhook")
    assert "Maximum number of webhooks" in detail


async def test_threads_and_posts_share_their_channels_webhook(stage: Stage) -> None:
    guild = stage.discord.add_guild("G")
    text, forum = stage.discord.add_channel(guild, "c"), stage.discord.add_channel(guild, "f", kind=ChannelType.FORUM)
    thread, post = stage.discord.add_thread(text, "t"), stage.discord.add_thread(forum, "p")
    unknown = stage.discord.add_thread(text, "u", is_announced=False)
    for where in (text, thread, post, unknown, unknown):
        channel = (await opened(stage, where)).speaking_as(LIA)
        message_id = await channel.send("in here")
        await channel.edit(message_id, "still here")
        assert (shown(stage, message_id).channel, shown(stage, message_id).content) == (where, "still here")
    assert [webhook.channel for webhook in webhooks(stage)] == [text, forum]
    assert [request.path for request in stage.discord.requests].count(f"/channels/{unknown.id}") == 2, "once a reader"


async def test_without_the_permission_the_name_stands_in_the_text(stage: Stage) -> None:
    where = place(stage, denied=("manage_webhooks",))
    channel = (await opened(stage, where)).speaking_as(Speaker("lia", "Lia*"))
    message_id = await channel.send("hello", reply_to=None)
    await channel.edit(message_id, "hello you")
    assert shown(stage, message_id).versions == ["**Lia\\*:** hello", "**Lia\\*:** hello you"]
    await channel.send("x" * channel.limits.max_text_length)
    assert channel.limits.max_text_length == 2000 - len("**Lia\\*:** ")
    [detail] = stage.incidents.of("webhook")
    assert "“Manage Webhooks”" in detail
    assert where.id in detail
    assert not [request for request in stage.discord.requests if "webhooks" in request.path], "nobody asks in vain"


async def test_in_a_direct_chat_the_name_stands_in_the_text(stage: Stage) -> None:
    channel = (await opened(stage, stage.discord.add_dm(stage.discord.add_user("ada")))).speaking_as(LIA)
    assert shown(stage, await channel.send("hello")).content == "**Lia:** hello"
    assert stage.incidents.noted == []


async def test_faces_can_be_switched_off(discord: FakeDiscord) -> None:
    async with online(discord) as stage:
        where = place(stage)
        earlier = await (await opened(stage, where)).speaking_as(LIA).send("with a face")
    async with online(discord, faces="never") as stage:
        channel = (await opened(stage, where)).speaking_as(LIA)
        assert shown(stage, await channel.send("hello")).content == "**Lia:** hello"
        await channel.edit(earlier, "still with a face")
    assert discord.messages[earlier].content == "still with a face"
    assert len(discord.webhooks) == 1


async def test_the_picture_suits_the_text(discord: FakeDiscord, tmp_path: Path) -> None:
    speaker = Speaker("lia", "Lia", None, lambda text: tmp_path / "lia smiling.png" if "happy" in text else None)
    async with online(discord, avatars_url="https://example.org/faces/") as stage:
        channel = (await opened(stage, place(stage))).speaking_as(speaker)
        happy, plain = await channel.send("I am happy"), await channel.send("I am here")
        assert shown(stage, happy).request["avatar_url"] == "https://example.org/faces/lia%20smiling.png"
        assert "avatar_url" not in shown(stage, plain).request
        body = {"code": 50035, "message": "Invalid Form Body"}
        discord.fail_next("POST", "/webhooks/*", status=400, body=body)
        refused = await channel.send("I am happy too")
        assert "avatar_url" not in shown(stage, refused).request
        assert "avatars_url" in stage.incidents.of("webhook")[0]


async def test_a_sticker_is_uploaded(stage: Stage, tmp_path: Path) -> None:
    sticker = tmp_path / "wave.png"
    sticker.write_bytes(PNG)
    channel = await opened(stage, place(stage))
    for speaks in (channel, channel.speaking_as(LIA)):
        message_id = await speaks.send_sticker(sticker)
        assert message_id is not None
        [attachment] = shown(stage, message_id).attachments
        assert (attachment.name, attachment.data) == ("wave.png", PNG)


async def test_a_webhook_that_cannot_be_found_says_what_to_do(discord: FakeDiscord) -> None:
    async with online(discord) as stage:
        where = place(stage)
        said = await (await opened(stage, where)).speaking_as(LIA).send("one")
    discord.webhooks.clear()
    async with online(discord) as stage:
        channel = (await opened(stage, where)).speaking_as(LIA)
        with pytest.raises(DeliveryError, match="“Manage Webhooks”"):
            await channel.edit(said, "two")


async def test_webhook_tokens_are_not_told(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    channel = (await opened(stage, place(stage))).speaking_as(LIA)
    await channel.send("one")
    [webhook] = webhooks(stage)
    stage.discord.fail_next("POST", "/webhooks/*", status=200, body="{no json")
    with pytest.raises(DeliveryError) as caught:
        await channel.send("two")
    stage.discord.fail_next("POST", "/webhooks/*", is_abort=True, times=9)
    with pytest.raises(DeliveryError) as aborted:
        await channel.send("three")
    told = [str(caught.value), str(aborted.value), *(detail for _, detail in stage.incidents.noted), caplog.text]
    assert not [text for text in told if webhook.token in text]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Lia", "Lia"),
        ("Clyde", "Cly·de"),
        ("The DISCORD oracle", "The DIS·CORD oracle"),
        ("  \n ", "Persona"),
        ("everyone", "·everyone"),
        ("x" * 100, "x" * 80),
    ],
)
def test_names_are_such_as_discord_takes(name: str, expected: str) -> None:
    assert clean_name(name) == expected
