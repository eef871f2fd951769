"""What becomes of messages, of chats and of the bot in them: edits, reactions, removals, moves."""

import pytest

from bot.adapters.telegram import TelegramAdapter
from bot.adapters.telegram.chats import Recent
from bot.commands import CommandTable
from bot.errors import DeliveryError
from bot.types import ChatKind, IncomingReaction, Room
from tests.bot.adapters.telegram.harness import (
    RecordingHandler,
    RecordingIncidents,
    eventually,
    serving,
    stay_silent,
)
from tests.fakes.telegram import FakeTelegram

# Edits


async def test_an_edit_is_handed_on_as_it_reads_now(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    chat = fake.private_chat(ada)
    handler = RecordingHandler(stay_silent)
    async with serving(fake, handler):
        said = fake.say(chat, ada, "helo")
        pictured = fake.say(chat, ada, "my dg", photo=b"jpg")
        fake.edit(chat, said, "hello")
        fake.edit(chat, pictured, "my dog")
        await eventually(lambda: len(handler.edits) == 2)
        await fake.wait_for(lambda: not fake.pending_update_ids)
    first, second = handler.edits
    assert (first.message_id, first.text) == (str(said["message_id"]), "hello")
    assert (second.text, len(second.files)) == ("my dog", 1)
    assert len(handler.messages) == 2


async def test_an_albums_caption_that_changes_changes_the_album(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    chat = fake.private_chat(ada)
    handler = RecordingHandler(stay_silent)
    async with serving(fake, handler):
        first = fake.say(chat, ada, "two dgs", album=[b"1", b"2"])
        await eventually(lambda: handler.messages)
        second = fake.world.messages[chat.id, first["message_id"] + 1]
        fake.edit(chat, second, "and the second")
        await eventually(lambda: handler.edits)
        fake.edit(chat, first, "two dogs")
        await eventually(lambda: len(handler.edits) == 2)
    assert [edit.text for edit in handler.edits] == ["two dgs\nand the second", "two dogs\nand the second"]
    assert {edit.message_id for edit in handler.edits} == {str(first["message_id"])}
    assert [len(edit.files) for edit in handler.edits] == [2, 2]


async def test_an_edit_of_an_album_that_is_still_coming_is_part_of_it(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    chat = fake.private_chat(ada)
    handler = RecordingHandler(stay_silent)
    async with serving(fake, handler):
        first = fake.say(chat, ada, "two dgs", album=[b"1", b"2"])
        fake.edit(chat, first, "two dogs")
        await eventually(lambda: handler.messages)
        await fake.wait_for(lambda: not fake.pending_update_ids)
    assert handler.messages[0].text == "two dogs"
    assert not handler.edits


async def test_edits_that_say_nothing_are_left_alone(fake: FakeTelegram) -> None:
    ada, robot = fake.add_user("Ada"), fake.add_user("Robot", is_bot=True)
    group = fake.add_group("G")
    handler = RecordingHandler(stay_silent)
    async with serving(fake, handler):
        fake.edit(group, fake.say(group, robot, "one"), "two")
        fake.edit(group, fake.say(group, ada, "/help"), "/start")
        fake.inject(
            {"edited_message": fake.world.new_message(group, ada, {"location": {"longitude": 1, "latitude": 2}})}
        )
        fake.edit(group, fake.say(group, ada, "three"), "four")
        await eventually(lambda: handler.edits)
        await fake.wait_for(lambda: not fake.pending_update_ids)
    assert [edit.text for edit in handler.edits] == ["four"]


# Reactions


async def test_reactions_that_were_put_and_taken(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    group = fake.add_group("G")
    fake.make_admin(group, ada)
    handler = RecordingHandler(stay_silent)
    async with serving(fake, handler):
        fake.put_reaction(group, ada, 12, "👍", "🔥", before=["🔥", "👎"])
        fake.put_reaction(group, ada, 12, "5400001", before=["👍"])
        await eventually(lambda: len(handler.reactions) == 4)
        await fake.wait_for(lambda: not fake.pending_update_ids)
    assert [(each.emoji, each.is_added) for each in handler.reactions] == [
        ("👎", False),
        ("👍", True),
        ("👍", False),
        ("5400001", True),
    ]
    first = handler.reactions[0]
    assert isinstance(first, IncomingReaction)
    assert (first.room, first.kind, first.message_id) == (Room("telegram", str(group.id)), ChatKind.GROUP, "12")
    assert first.author.user_id == str(ada.id)
    assert first.is_moderator


async def test_reactions_of_nobody_are_ignored(fake: FakeTelegram) -> None:
    ada, robot = fake.add_user("Ada"), fake.add_user("Robot", is_bot=True)
    group = fake.add_group("G")
    handler = RecordingHandler(stay_silent)
    async with serving(fake, handler):
        fake.put_reaction(group, None, 12, "👍", actor_chat=group.json())
        fake.put_reaction(group, robot, 12, "👍")
        fake.put_reaction(group, ada, 12, "👎")
        await eventually(lambda: handler.reactions)
        await fake.wait_for(lambda: not fake.pending_update_ids)
    assert [each.emoji for each in handler.reactions] == ["👎"]
    assert not handler.reactions[0].is_moderator


async def test_a_reaction_in_a_topic_finds_its_room(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    forum = fake.add_group("Forum", is_forum=True)
    topic = fake.add_topic(forum, "Dogs")
    handler = RecordingHandler()
    async with serving(fake, handler):
        fake.say(forum, ada, "hi", thread_id=topic)
        reply = await fake.wait_for(lambda: fake.sent and fake.sent[0])
        fake.put_reaction(forum, ada, reply.message_id, "👍")
        await eventually(lambda: handler.reactions)
    assert handler.reactions[0].room == Room("telegram", str(forum.id), str(topic))


# The bot in its chats


async def test_nothing_is_sent_to_a_group_that_the_bot_was_removed_from(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    group = fake.add_group("G")
    handler, incidents = RecordingHandler(), RecordingIncidents()
    async with serving(fake, handler, incidents=incidents):
        fake.say(group, ada, "hi")
        await fake.wait_for(lambda: fake.sent)
        fake.set_membership(group, ada, "kicked")
        await eventually(lambda: incidents.noted)
        num_calls = len(fake.calls)
        with pytest.raises(DeliveryError, match="removed from the group"):
            await handler.channels[0].send("still there?")
        await handler.channels[0].ready()
        assert fake.num_calls("sendMessage") == 1
        assert len(fake.calls) - num_calls <= 2, "polls alone"
        fake.set_membership(group, ada, "member")
        await fake.wait_for(lambda: not fake.pending_update_ids)
        await handler.channels[0].send("back again")
    assert incidents.kinds() == ["forbidden"]
    assert str(group.id) in incidents.noted[0][1]
    assert "Add it again" in incidents.noted[0][1]


async def test_a_person_who_blocked_the_bot_and_writes_again_is_answered(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    chat = fake.private_chat(ada)
    incidents = RecordingIncidents()
    async with serving(fake, RecordingHandler(), incidents=incidents):
        fake.set_membership(chat, ada, "kicked")
        await eventually(lambda: incidents.noted)
        fake.say(chat, ada, "sorry")
        await fake.wait_for(lambda: fake.sent)
    assert "blocked" in incidents.noted[0][1]


async def test_a_muted_bot_is_silent_until_it_may_write(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    group = fake.add_group("G")
    incidents, handler = RecordingIncidents(), RecordingHandler()
    async with serving(fake, handler, incidents=incidents):
        fake.set_membership(group, ada, "restricted", is_member=True, can_send_messages=False)
        await eventually(lambda: incidents.noted)
        fake.say(group, ada, "hi")
        await eventually(lambda: handler.messages)
        await fake.wait_for(lambda: not fake.pending_update_ids)
        assert not fake.sent
        fake.set_membership(group, ada, "restricted", is_member=True, can_send_messages=True)
        fake.say(group, ada, "and now?")
        await fake.wait_for(lambda: fake.sent)
    assert incidents.kinds() == ["rights"]


async def test_a_group_that_moves_is_told_once(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    group = fake.add_group("Kitchen", type_="group")
    handler = RecordingHandler()
    async with serving(fake, handler):
        fake.say(group, ada, "before")
        await fake.wait_for(lambda: fake.sent)
        moved = fake.move(group)
        fake.announce_move(group, moved)
        await eventually(lambda: handler.moves)
        await handler.channels[0].send("after")
        assert fake.sent_to(moved)[0].text == "after"
        await fake.wait_for(lambda: not fake.pending_update_ids)
    assert handler.moves == [("telegram", str(group.id), str(moved.id))]


async def test_a_poison_update_is_told_without_what_it_says(fake: FakeTelegram) -> None:
    incidents = RecordingIncidents()
    async with serving(fake, RecordingHandler(), incidents=incidents):
        update_id = fake.inject({"message": {"message_id": "no number", "text": "a secret"}})
        await eventually(lambda: incidents.noted)
    assert incidents.kinds() == ["poison_update"]
    assert str(update_id) in incidents.noted[0][1]
    assert "secret" not in incidents.noted[0][1]


# Channels without a message


async def test_a_room_can_be_written_to_without_a_message(fake: FakeTelegram) -> None:
    forum = fake.add_group("Forum", is_forum=True)
    topic = fake.add_topic(forum, "Dogs")
    ada = fake.add_user("Ada")
    chat = fake.private_chat(ada)
    async with serving(fake, RecordingHandler()) as adapter:
        direct = adapter.channel(Room("telegram", str(chat.id)), ChatKind.DIRECT)
        in_topic = adapter.channel(Room("telegram", str(forum.id), str(topic)), ChatKind.GROUP)
        assert direct is not None
        assert in_topic is not None
        await direct.send("to you")
        await in_topic.send("to all")
        assert adapter.channel(Room("discord", "1"), ChatKind.DIRECT) is None
        assert adapter.channel(Room("telegram", "odd"), ChatKind.DIRECT) is None
    assert [(sent.chat.id, sent.thread_id) for sent in fake.sent] == [(chat.id, None), (forum.id, topic)]
    assert adapter.channel(Room("telegram", "1"), ChatKind.DIRECT) is None, "it is not connected any more"


async def test_without_a_connection_there_is_no_channel() -> None:
    adapter = TelegramAdapter("1:x", handler=RecordingHandler(), commands=CommandTable(()))
    assert adapter.channel(Room("telegram", "1"), ChatKind.DIRECT) is None


def test_what_is_known_is_bounded() -> None:
    recent: Recent[int, str] = Recent(3)
    for number in range(5):
        recent[number] = str(number)
    recent[2] = "again"
    recent[5] = "5"
    assert [recent.get(number) for number in range(6)] == [None, None, "again", None, "4", "5"]
    assert recent.pop(2) == "again"
    assert recent.pop(2) is None
