"""What people write arrives in the bot's words."""

import pytest

from bot.errors import MediaError
from bot.types import ChatKind, Room
from tests.bot.adapters.discord.conftest import Stage

PNG = b"\x89PNG not really a picture"


async def test_direct_message_with_picture(stage: Stage) -> None:
    ada = stage.discord.add_user("ada", display_name="Ada L.")
    dm = stage.discord.add_dm(ada)
    sent = stage.discord.say(dm, ada, "Look!", files=[("dog.png", "image/png", PNG)])
    [message] = await stage.wait_for_messages()
    assert message.room == Room("discord", dm.id)
    assert message.kind is ChatKind.DIRECT
    assert message.message_id == sent.id
    assert (message.author.user_id, message.author.display_name) == (ada.id, "Ada L.")
    assert message.text == "Look!"
    assert not message.mentions_bot
    [file] = message.files
    assert (file.name, file.mime, file.num_bytes) == ("dog.png", "image/png", len(PNG))
    assert await file.read(len(PNG)) == PNG


async def test_people_who_are_mentioned_are_told_of(stage: Stage) -> None:
    ada, channel = stage.discord.add_user("ada"), stage.discord.add_channel(stage.discord.add_guild("G"), "c")
    grub = stage.discord.add_user("someone", display_name="Grub")
    stage.discord.say(channel, ada, f"{stage.discord.bot.mention} ask {grub.mention}")
    [message] = await stage.wait_for_messages()
    assert message.text == "ask @Grub"
    assert message.mentioned_names == ("Grub",)


async def test_picture_of_the_replied_to_message(stage: Stage) -> None:
    ada, channel = stage.discord.add_user("ada"), stage.discord.add_channel(stage.discord.add_guild("G"), "c")
    bob = stage.discord.add_user("bob")
    first = stage.discord.say(channel, bob, "my dog", files=[("dog.png", "image/png", PNG)])
    stage.discord.say(channel, ada, f"{stage.discord.bot.mention} what is it?", reply_to=first)
    _, message = await stage.wait_for_messages(2)
    assert message.text == "what is it?"
    assert message.mentions_bot
    assert message.reply_to is not None
    assert (message.reply_to.message_id, message.reply_to.author.user_id) == (first.id, bob.id)
    assert not message.reply_to.is_from_bot
    assert await message.reply_to.files[0].read(1000) == PNG


async def test_replied_message_is_fetched_where_discord_leaves_it_out(stage: Stage) -> None:
    ada, channel = stage.discord.add_user("ada"), stage.discord.add_channel(stage.discord.add_guild("G"), "c")
    first = stage.discord.say(channel, ada, "one", files=[("dog.png", "image/png", PNG)])
    stage.discord.say(channel, ada, "two", reply_to=first, is_reply_resolved=False)
    stage.discord.say(channel, ada, "three")
    messages = await stage.wait_for_messages(3)
    assert [message.text for message in messages] == ["one", "two", "three"], "the fetch must not change the order"
    assert messages[1].reply_to is not None
    assert messages[1].reply_to.text == "one"
    assert await messages[1].reply_to.files[0].read(1000) == PNG


async def test_reply_to_a_deleted_message_asks_for_nothing(stage: Stage) -> None:
    ada = stage.discord.add_user("ada")
    dm = stage.discord.add_dm(ada)
    reference = {"type": 0, "message_id": "123", "channel_id": dm.id}
    stage.discord.say(dm, ada, "that one", extra={"message_reference": reference, "referenced_message": None})
    [message] = await stage.wait_for_messages()
    assert message.reply_to is None
    assert not [request for request in stage.discord.requests if request.path.endswith("/123")]


async def test_reply_to_the_bot_is_no_mention(stage: Stage) -> None:
    ada, channel = stage.discord.add_user("ada"), stage.discord.add_channel(stage.discord.add_guild("G"), "c")
    own = stage.discord.say(channel, stage.discord.bot, "I am here")
    stage.discord.say(channel, ada, "good", reply_to=own)
    [message] = await stage.wait_for_messages()
    assert message.reply_to is not None
    assert message.reply_to.is_from_bot
    assert not message.mentions_bot


async def test_thread_is_a_room_of_its_own(stage: Stage) -> None:
    ada, channel = stage.discord.add_user("ada"), stage.discord.add_channel(stage.discord.add_guild("G"), "c")
    known = stage.discord.add_thread(channel, "known")
    unknown = stage.discord.add_thread(channel, "unknown", is_announced=False)
    for place in (channel, known, unknown, unknown):
        stage.discord.say(place, ada, place.name)
    messages = await stage.wait_for_messages(4)
    rooms = {message.text: message.room for message in messages}
    assert rooms == {
        "c": Room("discord", channel.id),
        "known": Room("discord", channel.id, known.id),
        "unknown": Room("discord", channel.id, unknown.id),
    }
    assert all(message.kind is ChatKind.GROUP for message in messages)


async def test_channel_that_discord_does_not_tell_of(stage: Stage) -> None:
    ada, channel = stage.discord.add_user("ada"), stage.discord.add_channel(stage.discord.add_guild("G"), "c")
    thread = stage.discord.add_thread(channel, "secret", is_announced=False)
    stage.discord.fail_next("GET", "/channels/*", status=403, body={"code": 50001, "message": "Missing Access"})
    stage.discord.say(thread, ada, "hello")
    [message] = await stage.wait_for_messages()
    assert message.room == Room("discord", thread.id), "better a room of its own than none"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<@BOT> hi", "hi"),
        ("<@!BOT> hi", "hi"),
        ("<@BOT>, hi", "hi"),
        ("hey <@BOT> :)", "hey :)"),
        ("hey <@BOT>.", "hey."),
        ("one\n<@BOT> two", "one\ntwo"),
        ("<@BOT>", ""),
        ("<@BOT> ask <@ADA> in <#CHANNEL> about <:wave:123>", "ask @Ada in #c about :wave:"),
        ("<@&ROLE> hi", "hi"),
        ("<@BOT> <@&OTHER> hi <@999>", "@painters hi <@999>"),
    ],
)
async def test_mentions(stage: Stage, text: str, expected: str) -> None:
    discord = stage.discord
    ada, guild = discord.add_user("ada"), discord.add_guild("G")
    channel, other = discord.add_channel(guild, "c"), discord.add_role(guild, "painters")
    names = {"BOT": discord.bot.id, "ADA": ada.id, "CHANNEL": channel.id, "ROLE": guild.bot_role_id, "OTHER": other}
    for name, value in names.items():
        text = text.replace(name, value)
    discord.say(channel, ada, text)
    [message] = await stage.wait_for_messages()
    assert message.text == expected
    assert message.mentions_bot


async def test_everyone_and_strange_roles_are_no_mention(stage: Stage) -> None:
    ada, guild = stage.discord.add_user("ada"), stage.discord.add_guild("G")
    channel, role = stage.discord.add_channel(guild, "c"), stage.discord.add_role(guild, "painters")
    stage.discord.say(channel, ada, "@everyone hi")
    stage.discord.say(channel, ada, f"<@&{role}> hi")
    messages = await stage.wait_for_messages(2)
    assert not any(message.mentions_bot for message in messages)


async def test_bots_webhooks_and_notices_are_not_heard(stage: Stage) -> None:
    discord = stage.discord
    ada, channel = discord.add_user("ada"), discord.add_channel(discord.add_guild("G"), "c")
    discord.say(channel, discord.bot, "myself")
    discord.say(channel, discord.add_user("other", is_bot=True), "a bot")
    discord.say(channel, discord.add_user("hook"), "a webhook", extra={"webhook_id": "77"})
    discord.say(channel, ada, "ada pinned a message", message_type=6)
    discord.say(channel, ada, "a person")
    await stage.wait_for_messages()
    assert [message.text for message in stage.handler.received] == ["a person"]


async def test_reply_to_own_webhook_is_a_reply_to_the_bot(stage: Stage) -> None:
    discord = stage.discord
    ada, channel = discord.add_user("ada"), discord.add_channel(discord.add_guild("G"), "c")
    hook = discord.add_user("Lia", is_bot=True)
    own = discord.say(channel, hook, "a", extra={"webhook_id": "77", "application_id": discord.application_id})
    strange = discord.say(channel, hook, "b", extra={"webhook_id": "78", "application_id": "79"})
    discord.say(channel, ada, "to own", reply_to=own)
    discord.say(channel, ada, "to strange", reply_to=strange)
    messages = await stage.wait_for_messages(2)
    assert [message.reply_to.is_from_bot for message in messages if message.reply_to] == [True, False]


async def test_forwarded_message_and_stickers(stage: Stage) -> None:
    discord = stage.discord
    ada = discord.add_user("ada")
    dm = discord.add_dm(ada)
    picture = discord.attach(dm, "dog.png", "image/png", PNG)
    times = {"timestamp": "2026-01-01T00:00:00+00:00", "edited_timestamp": None}
    forwarded = {"content": "see this", "type": 0, "attachments": [picture.wire()], "embeds": [], "flags": 0} | times
    stickers = [{"id": "5", "name": "Wave", "format_type": 1}, {"id": "6", "name": "Dance", "format_type": 3}]
    extra = {
        "message_snapshots": [{"message": forwarded}],
        "message_reference": {"type": 1, "message_id": "1", "channel_id": "2"},
        "sticker_items": stickers,
    }
    discord.say(dm, ada, "", extra=extra)
    [message] = await stage.wait_for_messages()
    assert message.text == "see this\n[sticker: Dance]"
    assert message.reply_to is None
    assert [(file.name, file.mime) for file in message.files] == [("dog.png", "image/png"), ("Wave", "image/png")]
    assert await message.files[0].read(1000) == PNG


async def test_download_stops_at_the_limit(stage: Stage) -> None:
    ada = stage.discord.add_user("ada")
    sent = stage.discord.say(
        stage.discord.add_dm(ada),
        ada,
        "",
        files=[("big.png", "image/png", b"x" * 5000), ("long.png", "image/png", b"x")],
    )
    sent.attachments[1].is_endless = True
    [message] = await stage.wait_for_messages()
    assert len(await message.files[0].read(5000)) == 5000
    for file in message.files:
        with pytest.raises(MediaError, match=r"“(big|long)\.png” is too large: at most 4\.9 KiB"):
            await file.read(4999)


async def test_file_that_is_gone_or_unreachable(stage: Stage) -> None:
    ada = stage.discord.add_user("ada")
    stage.discord.say(stage.discord.add_dm(ada), ada, "", files=[("dog.png", "image/png", PNG)])
    [message] = await stage.wait_for_messages()
    stage.discord.fail_next("GET", "/cdn/*", status=404)
    with pytest.raises(MediaError, match=r"no longer offers “dog\.png”"):
        await message.files[0].read(1000)
    stage.discord.fail_next("GET", "/cdn/*", status=302, headers={"Location": "http://127.0.0.1:1/elsewhere"})
    with pytest.raises(MediaError, match=r"no longer offers “dog\.png”"):
        await message.files[0].read(1000)
    stage.discord.fail_next("GET", "/cdn/*", is_abort=True, times=5)
    with pytest.raises(MediaError, match=r"“dog\.png” could not be downloaded"):
        await message.files[0].read(1000)


@pytest.fixture
def cdn(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake's CDN, in place of Discord's."""
    monkeypatch.setattr("bot.adapters.discord.files.ATTACHMENTS", (f"{stage.discord.cdn_url}/attachments/",))
    monkeypatch.setattr("discord.asset.Asset.BASE", stage.discord.cdn_url)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<:wave:1>", {"wave": "1.png"}),
        ("<@BOT> <a:dance:2> \n<:wave:1><:wave:1>", {"dance": "2.png", "wave": "1.png"}),
        ("<:a:1><:b:2><:c:3><:d:4>", {"a": "1.png", "b": "2.png", "c": "3.png"}),
        ("look <:wave:1>", {}),
        ("👋", {}),
    ],
)
@pytest.mark.usefixtures("cdn")
async def test_emoji_of_a_server_are_pictures_where_they_are_all(
    stage: Stage, text: str, expected: dict[str, str]
) -> None:
    ada = stage.discord.add_user("ada")
    stage.discord.say(stage.discord.add_dm(ada), ada, text.replace("BOT", stage.discord.bot.id))
    [message] = await stage.wait_for_messages()
    assert [(file.name, file.mime) for file in message.files] == [(name, "image/png") for name in expected]
    for file in message.files:
        stage.discord.assets[f"emojis/{expected[file.name]}"] = PNG + file.name.encode()
        assert await file.read(1000) == PNG + file.name.encode()


@pytest.mark.usefixtures("cdn")
async def test_linked_pictures_count_where_discord_has_them(stage: Stage) -> None:
    ada = stage.discord.add_user("ada")
    dm = stage.discord.add_dm(ada)
    own = stage.discord.attach(dm, "dog.png", "image/png", PNG)
    strange = "http://127.0.0.1:1/cdn/attachments/1/2/cat.png"
    embeds = [{"type": "image", "thumbnail": {"url": url}} for url in (f"{own.url}?ex=1", strange)]
    stage.discord.say(dm, ada, f"see {own.url}", extra={"embeds": embeds})
    [message] = await stage.wait_for_messages()
    [file] = message.files
    assert file.name == "dog.png"
    assert await file.read(1000) == PNG


async def test_what_has_neither_words_nor_pictures_is_not_heard(stage: Stage) -> None:
    ada, channel = stage.discord.add_user("ada"), stage.discord.add_channel(stage.discord.add_guild("G"), "c")
    answers = [{"answer_id": 1, "poll_media": {"text": "yes"}}]
    poll = {"question": {"text": "tea?"}, "answers": answers, "expiry": None, "allow_multiselect": False}
    stage.discord.say(channel, ada, "", extra={"poll": poll | {"layout_type": 1}})
    stage.discord.say(channel, ada, "")
    stage.discord.say(channel, ada, "a person")
    await stage.wait_for_messages()
    assert [message.text for message in stage.handler.received] == ["a person"]


async def test_stickers_of_a_forwarded_message(stage: Stage) -> None:
    ada = stage.discord.add_user("ada")
    times = {"timestamp": "2026-01-01T00:00:00+00:00", "edited_timestamp": None}
    stickers = [{"id": "5", "name": "Wave", "format_type": 1}, {"id": "6", "name": "Dance", "format_type": 3}]
    forwarded = {
        "content": "",
        "type": 0,
        "attachments": [],
        "embeds": [],
        "flags": 0,
        "sticker_items": stickers,
    } | times
    extra = {"message_snapshots": [{"message": forwarded}], "message_reference": {"type": 1, "channel_id": "2"}}
    stage.discord.say(stage.discord.add_dm(ada), ada, "", extra=extra)
    [message] = await stage.wait_for_messages()
    assert message.text == "[sticker: Dance]"
    assert [file.name for file in message.files] == ["Wave"]
