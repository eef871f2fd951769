"""What people write arrives as `IncomingMessage`."""

from datetime import UTC, datetime

import pytest

from bot.errors import MediaError
from bot.types import Author, ChatKind, Room
from tests.bot.adapters.telegram.harness import RecordingHandler, eventually, serving, stay_silent
from tests.fakes.telegram import FakeTelegram

PICTURE = b"\xff\xd8\xff a picture"


async def test_private_text(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    handler = RecordingHandler()
    async with serving(fake, handler):
        sent = fake.say(fake.private_chat(ada), ada, "Hello")
        reply = await fake.wait_for(lambda: fake.sent and fake.sent[0])
    (message,) = handler.messages
    assert message.room == Room("telegram", str(ada.id))
    assert message.kind is ChatKind.DIRECT
    assert message.author == Author("telegram", str(ada.id), "Ada")
    assert (message.message_id, message.text, message.files) == (str(sent["message_id"]), "Hello", ())
    assert (reply.text, reply.reply_to) == ("echo: Hello", sent["message_id"])


async def test_photo_with_caption_comes_in_its_largest_size(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    handler = RecordingHandler()
    async with serving(fake, handler):
        fake.say(fake.private_chat(ada), ada, "What is this?", photo=PICTURE)
        await fake.wait_for(lambda: fake.sent)
        (message,) = handler.messages
        (file,) = message.files
        assert await file.read(1000) == PICTURE
    assert message.text == "What is this?"
    assert (file.mime, file.num_bytes) == ("image/jpeg", len(PICTURE))


async def test_picture_of_the_replied_to_message(fake: FakeTelegram) -> None:
    ada, bob = fake.add_user("Ada"), fake.add_user("Bob")
    group = fake.add_group("Kitchen")
    handler = RecordingHandler()
    async with serving(fake, handler):
        picture = fake.say(group, bob, "my dog", photo=PICTURE)
        fake.say(group, ada, "@commedia_bot who is that?", reply_to=picture["message_id"])
        await fake.wait_for(lambda: len(fake.sent) == 2)
        replied = handler.messages[1].reply_to
        assert replied is not None
        assert await replied.files[0].read(1000) == PICTURE
    assert (replied.message_id, replied.text) == (str(picture["message_id"]), "my dog")
    assert replied.author.user_id == str(bob.id)
    assert not replied.is_from_bot


async def test_reply_to_the_bot_itself(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    group = fake.add_group("Kitchen")
    handler = RecordingHandler()
    async with serving(fake, handler):
        fake.say(group, ada, "one")
        reply = await fake.wait_for(lambda: fake.sent and fake.sent[0])
        fake.say(group, ada, "two", reply_to=reply.message_id)
        await fake.wait_for(lambda: len(fake.sent) == 2)
    replied = handler.messages[1].reply_to
    assert replied is not None
    assert replied.is_from_bot
    assert replied.text == "echo: one"


@pytest.mark.parametrize(
    ("text", "left", "is_mentioned"),
    [
        ("🐕🦴 @commedia_bot look 👀", "🐕🦴 look 👀", True),
        ("@Commedia_Bot hi", "hi", True),
        ("hi @commedia_bot, there", "hi, there", True),
        ("a @commedia_bot b @commedia_bot", "a b", True),
        ("@commedia_bot", "", True),
        ("@somebody_else hi", "@somebody_else hi", False),
        ("🎉 @commedia_bot2 hi", "🎉 @commedia_bot2 hi", False),
    ],
)
async def test_mentions_in_a_group(fake: FakeTelegram, text: str, left: str, is_mentioned: bool) -> None:
    ada = fake.add_user("Ada")
    handler = RecordingHandler(stay_silent)
    async with serving(fake, handler):
        fake.say(fake.add_group("Kitchen"), ada, text)
        (message,) = await eventually(lambda: handler.messages)
    assert (message.text, message.mentions_bot) == (left, is_mentioned)
    assert message.kind is ChatKind.GROUP


async def test_people_who_are_mentioned_are_told_of(fake: FakeTelegram) -> None:
    handler = RecordingHandler(stay_silent)
    luna = {"id": 5, "is_bot": False, "first_name": "Luna"}
    entities = [
        {"type": "mention", "offset": 0, "length": 5},
        {"type": "text_mention", "offset": 10, "length": 4, "user": luna},
    ]
    said = {"text": "@grub and Luna, hi", "entities": entities}
    async with serving(fake, handler):
        fake.say(fake.add_group("Kitchen"), fake.add_user("Ada"), extra=said)
        (message,) = await eventually(lambda: handler.messages)
    assert message.text == "@grub and @Luna, hi"
    assert message.mentioned_names == ("grub", "Luna")


async def test_mention_by_link(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    handler = RecordingHandler(stay_silent)
    entity = {"type": "text_mention", "offset": 3, "length": 8, "user": fake.bot.json()}
    async with serving(fake, handler):
        fake.say(fake.add_group("Kitchen"), ada, extra={"text": "🐕 Commedia hi", "entities": [entity]})
        (message,) = await eventually(lambda: handler.messages)
    assert (message.text, message.mentions_bot) == ("🐕 hi", True)


async def test_album_is_one_message(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    chat = fake.private_chat(ada)
    handler = RecordingHandler()
    pictures = [b"one", b"two", b"three"]
    async with serving(fake, handler):
        first = fake.say(chat, ada, "Which is best?", album=pictures)
        await fake.wait_for(lambda: fake.sent)
        fake.say(chat, ada, "Well?")
        await fake.wait_for(lambda: len(fake.sent) == 2)
        await fake.wait_for(lambda: not fake.pending_update_ids)
        album, after = handler.messages
        assert [await file.read(100) for file in album.files] == pictures
    assert (album.text, album.message_id) == ("Which is best?", str(first["message_id"]))
    assert after.text == "Well?"


async def test_what_follows_an_album_comes_after_it(fake: FakeTelegram) -> None:
    ada, bob = fake.add_user("Ada"), fake.add_user("Bob")
    group = fake.add_group("Kitchen")
    handler = RecordingHandler(stay_silent)
    async with serving(fake, handler):
        fake.say(group, ada, "album", album=[b"one", b"two"])
        fake.say(group, bob, "from Bob")
        fake.say(group, ada, "from Ada")
        await eventually(lambda: len(handler.messages) == 3)
    assert [message.text for message in handler.messages] == ["from Bob", "album", "from Ada"]
    assert len(handler.messages[1].files) == 2


async def test_two_albums_in_a_row_stay_apart(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    handler = RecordingHandler(stay_silent)
    async with serving(fake, handler):
        fake.say(fake.private_chat(ada), ada, "first", album=[b"1", b"2"])
        fake.say(fake.private_chat(ada), ada, "second", album=[b"3", b"4", b"5"])
        await eventually(lambda: len(handler.messages) == 2)
    assert [(message.text, len(message.files)) for message in handler.messages] == [("first", 2), ("second", 3)]


async def test_topics_are_rooms_of_their_own(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    forum = fake.add_group("Forum", is_forum=True)
    dogs = fake.add_topic(forum, "Dogs")
    handler = RecordingHandler()
    async with serving(fake, handler):
        fake.say(forum, ada, "in the topic", thread_id=dogs)
        fake.say(forum, ada, "in General")
        await fake.wait_for(lambda: len(fake.sent) == 2)
    by_text = {message.text: message for message in handler.messages}
    assert by_text["in the topic"].room.thread_id == str(dogs)
    assert by_text["in the topic"].reply_to is None, "a topic's creation is nothing that was replied to"
    assert by_text["in General"].room.thread_id == "1"
    assert {sent.text: sent.thread_id for sent in fake.sent} == {"echo: in the topic": dogs, "echo: in General": None}


async def test_topics_of_a_private_chat_are_rooms_of_their_own(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    chat, handler = fake.private_chat(ada), RecordingHandler()
    topic = fake.add_topic(chat, "Dogs")
    async with serving(fake, handler):
        fake.say(chat, ada, "in the topic", thread_id=topic)
        reply = await fake.wait_for(lambda: fake.sent and fake.sent[0])
    assert handler.messages[0].room == Room("telegram", str(ada.id), str(topic))
    assert reply.thread_id == topic


async def test_chain_of_replies_is_no_topic(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    handler = RecordingHandler(stay_silent)
    async with serving(fake, handler):
        fake.say(fake.add_group("Kitchen"), ada, "hi", extra={"message_thread_id": 77})
        (message,) = await eventually(lambda: handler.messages)
    assert message.room.thread_id is None


async def test_stickers_and_documents_are_files(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    chat = fake.private_chat(ada)
    handler = RecordingHandler()
    async with serving(fake, handler):
        fake.say(chat, ada, sticker=b"RIFF webp")
        fake.say(chat, ada, document=("dog.png", "image/png", b"png"))
        fake.say(chat, ada, "read it", document=("dog.pdf", "application/pdf", b"pdf"))
        moving = fake.world.sticker_fields(b"lottie", is_animated=True, thumbnail=b"RIFF thumbnail")
        fake.say(chat, ada, extra=moving)
        await fake.wait_for(lambda: len(fake.sent) == 4)
        files = [message.files[0] for message in handler.messages]
        contents = [await file.read(100) for file in files]
    assert [(file.name, file.mime) for file in files] == [
        ("sticker.webp", "image/webp"),
        ("dog.png", "image/png"),
        ("dog.pdf", "application/pdf"),
        ("sticker.webp", "image/webp"),
    ]
    assert contents == [b"RIFF webp", b"png", b"pdf", b"RIFF thumbnail"]


async def test_files_beyond_a_limit_are_refused(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    chat = fake.private_chat(ada)
    handler = RecordingHandler()
    async with serving(fake, handler):
        fake.say(chat, ada, document=("honest.png", "image/png", bytes(2_000_000)))
        fake.say(chat, ada, document=("lying.png", "image/png", bytes(2_000_000)), claimed_size=10)
        fake.say(chat, ada, document=("huge.png", "image/png", b"x"), claimed_size=30_000_000)
        await fake.wait_for(lambda: len(fake.sent) == 3)
        honest, lying, huge = (message.files[0] for message in handler.messages)
        with pytest.raises(MediaError, match=r"honest\.png is too large: at most 0\.954 MB"):
            await honest.read(1_000_000)
        assert fake.num_calls("file") == 0, "what is known to be too large is not fetched"
        with pytest.raises(MediaError, match=r"lying\.png is too large"):
            await lying.read(1_000_000)
        with pytest.raises(MediaError, match=r"huge\.png is too large: at most 20 MB"):
            await huge.read(100_000_000)


async def test_a_file_that_cannot_be_fetched(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    handler = RecordingHandler()
    async with serving(fake, handler):
        fake.say(fake.private_chat(ada), ada, photo=PICTURE)
        await fake.wait_for(lambda: fake.sent)
        file = handler.messages[0].files[0]
        for fault in ({"status": 502}, {"is_dropped": True}):
            fake.fail("file", **fault)
            with pytest.raises(MediaError, match=r"photo\.jpg cannot be fetched") as caught:
                await file.read(1000)
            assert fake.token not in str(caught.value)
        fake.fail("getFile", status=500, body="no JSON")
        with pytest.raises(MediaError, match=r"photo\.jpg cannot be fetched"):
            await file.read(1000)
        assert await file.read(1000) == PICTURE


async def test_what_nobody_said_to_the_bot_is_ignored(fake: FakeTelegram) -> None:
    ada, other_bot = fake.add_user("Ada"), fake.add_user("Robot", is_bot=True)
    group, channel = fake.add_group("Kitchen"), fake.add_group("News", type_="channel")
    handler = RecordingHandler()
    async with serving(fake, handler):
        fake.say(group, other_bot, "@commedia_bot I am a bot")
        fake.say(group, other_bot, "bots' pictures", album=[b"1", b"2"])
        fake.say(channel, None, "news")
        fake.say(group, None, "forwarded", extra={"is_automatic_forward": True, "sender_chat": channel.json()})
        fake.say(group, ada, extra={"new_chat_title": "Bathroom"})
        fake.say(group, ada, extra={"location": {"longitude": 1.0, "latitude": 2.0}})
        message = fake.say(group, ada, "real")
        fake.edit(group, message, "edited")
        fake.say(group, ada, "last")
        await fake.wait_for(lambda: len(fake.sent) == 2)
    assert [message.text for message in handler.messages] == ["real", "last"]


async def test_anonymous_admin_is_the_group(fake: FakeTelegram) -> None:
    anonymous = fake.add_user("Group", username="GroupAnonymousBot", is_bot=True)
    group = fake.add_group("Kitchen")
    handler = RecordingHandler(stay_silent)
    async with serving(fake, handler):
        fake.say(group, anonymous, "hi", extra={"sender_chat": group.json()})
        (message,) = await eventually(lambda: handler.messages)
    assert message.author == Author("telegram", str(group.id), "Kitchen")


async def test_topics_in_a_private_chat_leave_it_one_room(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    handler = RecordingHandler()
    async with serving(fake, handler):
        person = {"id": ada.id, "is_bot": False, "first_name": "Ada"}
        chat = {"id": ada.id, "type": "private", "first_name": "Ada", "is_forum": True}
        fake.inject({"message": {"message_id": 7, "date": 1, "chat": chat, "from": person, "text": "hi"}})
        await eventually(lambda: handler.messages)
    assert handler.messages[0].room == Room("telegram", str(ada.id))


# Where and when


async def test_a_room_has_names_and_a_message_has_a_time(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    group, handler = fake.add_group("Kitchen"), RecordingHandler(stay_silent)
    async with serving(fake, handler):
        fake.say(group, ada, "hi", extra={"chat": group.json() | {"username": "kitchen_talk"}})
        fake.say(fake.private_chat(ada), ada, "hi")
        await eventually(lambda: len(handler.messages) == 2)
    in_group, direct = handler.messages
    assert in_group.room_names == ("Kitchen", "kitchen_talk")
    assert direct.room_names == ()
    assert in_group.sent_at is not None
    assert abs((datetime.now(UTC) - in_group.sent_at).total_seconds()) < 60


async def test_a_topic_has_a_name_as_soon_as_it_was_heard(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    forum = fake.add_group("Forum", is_forum=True)
    dogs = fake.add_topic(forum, "Dogs")
    handler = RecordingHandler(stay_silent)
    service = {"message_thread_id": dogs, "is_topic_message": True}
    async with serving(fake, handler):
        said = fake.say(forum, ada, "one", thread_id=dogs)
        await eventually(lambda: handler.messages)
        fake.say(forum, ada, "two", reply_to=said["message_id"], extra=service)
        await eventually(lambda: len(handler.messages) == 2)
        fake.say(forum, ada, extra=service | {"forum_topic_edited": {"name": "Cats"}})
        fake.say(forum, ada, "three", reply_to=said["message_id"], extra=service)
        await eventually(lambda: len(handler.messages) == 3)
    assert [message.room_names for message in handler.messages] == [
        ("Forum", "Dogs"),
        ("Forum", "Dogs"),
        ("Forum", "Cats"),
    ]


# What is quoted, and what is forwarded


async def test_the_quoted_part_is_what_was_replied_to(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    chat, handler = fake.private_chat(ada), RecordingHandler(stay_silent)
    async with serving(fake, handler):
        said = fake.say(chat, ada, "one. two. three.")
        fake.say(chat, ada, "why two?", reply_to=said["message_id"], extra={"quote": {"text": "two.", "position": 5}})
        await eventually(lambda: len(handler.messages) == 2)
    replied = handler.messages[1].reply_to
    assert replied is not None
    assert (replied.message_id, replied.text) == (str(said["message_id"]), "two.")


@pytest.mark.parametrize(
    ("origin", "user_id"),
    [
        ({"type": "user", "sender_user": {"id": 77, "is_bot": False, "first_name": "Bob"}}, "77"),
        ({"type": "hidden_user", "sender_user_name": "Bob"}, "hidden"),
        ({"type": "chat", "sender_chat": {"id": -78, "type": "supergroup", "title": "Bob"}}, "-78"),
        ({"type": "channel", "chat": {"id": -79, "type": "channel", "title": "Bob"}, "message_id": 5}, "-79"),
    ],
)
async def test_a_message_quoted_from_another_chat_brings_its_picture(
    fake: FakeTelegram, origin: dict[str, object], user_id: str
) -> None:
    ada = fake.add_user("Ada")
    handler = RecordingHandler(stay_silent)
    external = {
        "origin": origin | {"date": 1},
        "chat": {"id": -55, "type": "supergroup", "title": "Elsewhere"},
        "message_id": 12,
    }
    async with serving(fake, handler):
        fields = {
            "external_reply": external | fake.world.photo_fields(PICTURE),
            "quote": {"text": "my dog", "position": 0},
        }
        fake.say(fake.private_chat(ada), ada, "who is that?", extra=fields)
        (message,) = await eventually(lambda: handler.messages)
        replied = message.reply_to
        assert replied is not None
        assert await replied.files[0].read(1000) == PICTURE
    assert (replied.text, replied.message_id) == ("my dog", "-55/12")
    assert (replied.author.user_id, replied.author.display_name) == (user_id, "Bob")


async def test_a_forwarded_picture_is_a_picture(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    handler = RecordingHandler(stay_silent)
    origin = {"type": "hidden_user", "sender_user_name": "Bob", "date": 1}
    async with serving(fake, handler):
        fake.say(fake.private_chat(ada), ada, "look", photo=PICTURE, extra={"forward_origin": origin})
        (message,) = await eventually(lambda: handler.messages)
        assert await message.files[0].read(1000) == PICTURE
    assert message.text == "look"


async def test_a_reply_to_an_albums_item_brings_that_item(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    chat, handler = fake.private_chat(ada), RecordingHandler(stay_silent)
    async with serving(fake, handler):
        first = fake.say(chat, ada, "two", album=[b"one", b"two"])
        fake.say(chat, ada, "this one?", reply_to=first["message_id"] + 1)
        await eventually(lambda: len(handler.messages) == 2)
        replied = handler.messages[1].reply_to
        assert replied is not None
        assert await replied.files[0].read(100) == b"two"


# Custom emoji


def emoji_text(*parts: str, ids: list[str]) -> dict[str, object]:
    """A text of `parts`, in which each 🙂 is a custom emoji."""
    text, entities = "".join(parts), []
    for at, sign in enumerate(text):
        if sign == "🙂":
            offset = len(text[:at].encode("utf-16-le")) // 2
            entity = {"type": "custom_emoji", "offset": offset, "length": 2, "custom_emoji_id": ids[len(entities)]}
            entities.append(entity)
    return {"text": text, "entities": entities}


async def test_custom_emoji_alone_are_pictures(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    chat, handler = fake.private_chat(ada), RecordingHandler(stay_silent)
    ids = [fake.add_custom_emoji(f"emoji {number}".encode()) for number in range(4)]
    async with serving(fake, handler):
        fake.say(chat, ada, extra=emoji_text("🙂 ", "🙂🙂", "🙂🙂", ids=[ids[0], ids[0], *ids[1:]]))
        fake.say(chat, ada, extra=emoji_text("hi 🙂", ids=ids))
        fake.say(chat, ada, extra=emoji_text("🙂", ids=["999"]))
        await eventually(lambda: len(handler.messages) == 3)
        alone, amid_words, unknown = handler.messages
        assert [await file.read(100) for file in alone.files] == [b"emoji 0", b"emoji 1", b"emoji 2"]
        assert alone.text == "🙂 🙂🙂🙂🙂"
        assert amid_words.files == ()
        with pytest.raises(MediaError, match="emoji cannot be fetched"):
            await unknown.files[0].read(100)
