"""Conversations and rooms: what is remembered, in which order, exactly once, and for whom alone."""

import asyncio
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.store.database import Database
from bot.store.repositories import Conversations, PictureEmbeddings, Rooms
from bot.types import Attachment, Author, ConversationKey, NewTurn, ReplyOrigin, Room, SpokenTurn, StoredTurn
from engine.types import Role

ROOM = Room("discord", "1")
KEY = ConversationKey(ROOM, "pierrot")
ANNA = Author("discord", "42", "Anna")
DOG = Attachment("d" * 64, "image/jpeg", 1200, 640, 480)
CAT = Attachment("c" * 64, "image/png", 900, 32, 16)


def said(text: str, *message_ids: str, author: Author = ANNA, pictures: tuple[Attachment, ...] = ()) -> NewTurn:
    return NewTurn(Role.USER, text, author, message_ids, pictures)


def replied(text: str, *message_ids: str) -> NewTurn:
    return NewTurn(Role.ASSISTANT, text, None, message_ids)


async def texts(conversations: Conversations, key: ConversationKey, max_turns: int = 1000) -> list[str]:
    return [turn.text for turn in await conversations.recent(key, max_turns=max_turns)]


# What comes back


async def test_a_turn_comes_back_as_it_was_stored(conversations: Conversations) -> None:
    before = datetime.now(UTC)
    stored = await conversations.append(KEY, said("look", "m1", pictures=(DOG, CAT, DOG)))
    assert stored is not None
    assert stored == StoredTurn(stored.id, Role.USER, "look", stored.created_at, ANNA, (DOG, CAT, DOG))
    assert before - timedelta(seconds=1) < stored.created_at <= datetime.now(UTC)
    (found,) = await conversations.recent(KEY, max_turns=1)
    assert found == stored
    assert found.created_at.utcoffset() == timedelta(0)


async def test_a_reply_has_no_author(conversations: Conversations) -> None:
    await conversations.append(KEY, replied("hello"))
    (found,) = await conversations.recent(KEY, max_turns=1)
    assert (found.role, found.author, found.attachments) == (Role.ASSISTANT, None, ())


async def test_a_name_stays_as_it_was(conversations: Conversations) -> None:
    await conversations.append(KEY, said("hi"))
    await conversations.append(KEY, said("hi", author=replace(ANNA, display_name="Anna II", is_bot=True)))
    authors = [turn.author for turn in await conversations.recent(KEY, max_turns=2)]
    assert authors == [ANNA, Author("discord", "42", "Anna II", is_bot=True)]


async def test_recent_gives_the_newest_oldest_first(conversations: Conversations) -> None:
    for number in range(5):
        await conversations.append(KEY, said(str(number), pictures=(DOG,)))
    assert await texts(conversations, KEY, 3) == ["2", "3", "4"]
    assert await texts(conversations, KEY, 0) == []
    assert await texts(conversations, KEY, -1) == []
    assert [turn.attachments for turn in await conversations.recent(KEY, max_turns=2)] == [(DOG,), (DOG,)]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(codec=None)))
async def test_any_text_can_be_stored(conversations: Conversations, text: str) -> None:
    stored = await conversations.append(KEY, said(text, author=replace(ANNA, display_name=text)))
    assert await conversations.recent(KEY, max_turns=1) == [stored]
    if text.isprintable():  # surrogates are not
        assert stored is not None
        assert stored.text == text


async def test_half_a_surrogate_pair_is_replaced(conversations: Conversations) -> None:
    stored = await conversations.append(KEY, said("a\ud83db \ud83d\ude00"))
    assert stored is not None
    assert stored.text == "a\ufffdb \U0001f600"


async def test_a_restart_changes_nothing(database: Database, conversations: Conversations, rooms: Rooms) -> None:
    stored = await conversations.append(KEY, said("remember me", "m1", pictures=(DOG,)))
    await rooms.choose(ROOM, "pierrot")
    await database.aclose()

    again = Database(database.path)
    await again.upgrade()
    assert await Conversations(again).recent(KEY, max_turns=5) == [stored]
    assert await Rooms(again).persona_id(ROOM) == "pierrot"
    await again.aclose()


# Exactly once


async def test_a_message_is_stored_once(conversations: Conversations) -> None:
    assert await conversations.append(KEY, said("hello", "m1")) is not None
    assert await conversations.append(KEY, said("hello", "m1")) is None
    assert await conversations.append(KEY, replied("answer", "m2", "m3")) is not None
    assert await conversations.append(KEY, replied("answer", "m4", "m3")) is None
    assert await texts(conversations, KEY) == ["hello", "answer"]
    assert await conversations.speaker(ROOM, "m4") is None


async def test_a_message_delivered_twice_at_once_is_stored_once(conversations: Conversations) -> None:
    answers = await asyncio.gather(*(conversations.append(KEY, said("hello", "m1")) for _ in range(10)))
    assert len([answer for answer in answers if answer is not None]) == 1


async def test_a_message_is_seen_by_the_whole_room(conversations: Conversations) -> None:
    await conversations.append(KEY, said("hello", "m1"))
    assert await conversations.append(replace(KEY, persona_id="colombina"), said("hello", "m1")) is None


async def test_the_same_id_in_another_room_is_another_message(conversations: Conversations) -> None:
    await conversations.append(KEY, said("hello", "m1"))
    for room in (Room("discord", "2"), Room("telegram", "1"), Room("discord", "1", "7"), Room("discord", "1", "")):
        assert await conversations.append(ConversationKey(room, "pierrot"), said("hello", "m1")) is not None


async def test_turns_without_messages_are_never_the_same(conversations: Conversations) -> None:
    await conversations.append(KEY, said("hello"))
    await conversations.append(KEY, said("hello"))
    await conversations.append(KEY, said("twice the same id", "m1", "m1"))
    assert len(await texts(conversations, KEY)) == 3


# Forgetting


async def test_reset_forgets_one_conversation(conversations: Conversations) -> None:
    other = replace(KEY, persona_id="colombina")
    await conversations.append(KEY, said("one", "m1", pictures=(DOG,)))
    await conversations.append(KEY, replied("two", "m2"))
    await conversations.append(other, said("three", "m3", pictures=(CAT,)))
    assert await conversations.reset(KEY) == 2
    assert await conversations.reset(KEY) == 0
    assert await texts(conversations, KEY) == []
    assert await texts(conversations, other) == ["three"]
    assert not await conversations.has_attachment(ROOM, DOG.digest)
    assert await conversations.has_attachment(ROOM, CAT.digest)
    assert await conversations.attachments_of(ROOM, "m1") == ()


async def test_reset_of_what_never_was(conversations: Conversations) -> None:
    assert await conversations.reset(KEY) == 0


async def test_a_forgotten_message_does_not_come_back(conversations: Conversations) -> None:
    await conversations.append(KEY, said("secret", "m1"))
    await conversations.append(KEY, replied("hush", "m2"))
    await conversations.reset(KEY)
    assert await conversations.append(KEY, said("secret", "m1")) is None
    assert await conversations.speaker(ROOM, "m2") == "pierrot"


async def test_ids_of_forgotten_turns_are_not_used_again(conversations: Conversations) -> None:
    first = await conversations.append(KEY, said("one"))
    await conversations.reset(KEY)
    second = await conversations.append(KEY, said("two"))
    assert first is not None
    assert second is not None
    assert second.id > first.id


async def test_nothing_forgotten_can_be_read_from_the_disk(database: Database, conversations: Conversations) -> None:
    def on_disk() -> bytes:
        return b"".join(path.read_bytes() for path in database.path.parent.glob("commedia.db*"))

    for number in range(20):
        await conversations.append(KEY, said(f"{number} The treasure is under the oak. " * 40))
    assert b"under the oak" in on_disk()
    await conversations.reset(KEY)
    assert b"under the oak" not in on_disk()


# Messages and pictures


async def test_speaker_is_the_persona_that_sent_it(conversations: Conversations) -> None:
    await conversations.append(KEY, said("hello", "m1"))
    await conversations.append(KEY, replied("a long answer", "m2", "m3"))
    await conversations.append(replace(KEY, persona_id="colombina"), replied("me too", "m4"))
    speakers = [await conversations.speaker(ROOM, f"m{number}") for number in range(1, 6)]
    assert speakers == [None, "pierrot", "pierrot", "colombina", None]


async def test_pictures_of_a_message(conversations: Conversations) -> None:
    await conversations.append(KEY, said("look", "m1", pictures=(CAT, DOG)))
    await conversations.append(KEY, said("and", "m2", pictures=(DOG,)))
    await conversations.append(KEY, said("nothing", "m3"))
    found = [await conversations.attachments_of(ROOM, f"m{number}") for number in range(1, 5)]
    assert found == [(CAT, DOG), (DOG,), (), ()]


async def test_nothing_of_a_room_is_reached_from_another(conversations: Conversations) -> None:
    await conversations.append(KEY, said("private", "m1", pictures=(DOG,)))
    await conversations.append(KEY, replied("so it is", "m2"))
    for room in (Room("discord", "2"), Room("telegram", "1"), Room("discord", "1", "7"), Room("discord", "1", "")):
        assert await conversations.attachments_of(room, "m1") == ()
        assert not await conversations.has_attachment(room, DOG.digest)
        assert await conversations.speaker(room, "m2") is None
        assert await texts(conversations, ConversationKey(room, "pierrot")) == []


# What replies were made from, and pictures by their content


async def test_a_message_leads_to_its_turn_and_a_reply_to_what_it_was_made_from(conversations: Conversations) -> None:
    asked = await conversations.append(KEY, said("why?", "m1"))
    assert asked is not None
    reply = await conversations.append(KEY, replace(replied("so", "m2", "m3"), origin=ReplyOrigin(asked.id, "abc")))
    assert reply is not None
    assert await conversations.turn_of(ROOM, "m1") == (KEY, asked.id)
    assert await conversations.turn_of(ROOM, "m3") == (KEY, reply.id)
    assert await conversations.origin_of(KEY, reply.id) == ReplyOrigin(asked.id, "abc")
    assert await conversations.origin_of(KEY, asked.id) is None
    assert await conversations.turn_of(Room("discord", "2"), "m1") is None
    assert await conversations.origin_of(replace(KEY, persona_id="colombina"), reply.id) is None


async def test_a_question_that_was_forgotten_meanwhile_is_no_obstacle(conversations: Conversations) -> None:
    asked = await conversations.append(KEY, said("why?"))
    assert asked is not None
    await conversations.reset(KEY)
    reply = await conversations.append(KEY, replace(replied("so"), origin=ReplyOrigin(asked.id, "abc")))
    assert reply is not None
    assert await conversations.origin_of(KEY, reply.id) == ReplyOrigin(None, "abc")


async def test_pictures_come_newest_first_and_each_once(conversations: Conversations) -> None:
    other = Author("discord", "43", "Bo")
    await conversations.append(KEY, said("a dog", pictures=(DOG,)))
    await conversations.append(KEY, said("a cat", pictures=(CAT,)))
    again = await conversations.append(KEY, said("the dog again", author=other, pictures=(DOG,)))
    assert again is not None
    found = await conversations.pictures_of(KEY, max_pictures=10)
    assert [shown.attachment for shown in found] == [DOG, CAT]
    assert (found[0].shown_at, found[0].author) == (again.created_at, other)
    assert await conversations.pictures_of(KEY, max_pictures=1) == found[:1]
    await conversations.reset(KEY)
    assert await conversations.pictures_of(KEY, max_pictures=10) == []


async def test_embeddings_are_kept_with_their_picture_and_replaced(
    database: Database, conversations: Conversations
) -> None:
    embeddings = PictureEmbeddings(database)
    await conversations.append(KEY, said("pets", pictures=(DOG, CAT)))
    await embeddings.put({DOG.digest: (0.5, -1.0), "0" * 64: (9.0, 9.0)}, space="old")
    assert await embeddings.of([DOG.digest, CAT.digest, "0" * 64], space="old") == {DOG.digest: (0.5, -1.0)}
    await embeddings.put({DOG.digest: (0.25, 2.0)}, space="new")
    assert await embeddings.of([DOG.digest], space="old") == {}
    assert await embeddings.of([DOG.digest], space="new") == {DOG.digest: (0.25, 2.0)}


# Rooms


async def test_a_room_chooses_its_persona(rooms: Rooms) -> None:
    thread = Room("discord", "1", "7")
    assert await rooms.persona_id(ROOM) is None
    await rooms.choose(ROOM, "pierrot")
    await rooms.choose(thread, "colombina")
    await rooms.choose(ROOM, "arlecchino")
    assert await rooms.persona_id(ROOM) == "arlecchino"
    assert await rooms.persona_id(thread) == "colombina"
    assert await rooms.persona_id(Room("discord", "2")) is None


async def test_a_choice_does_not_touch_the_conversation(conversations: Conversations, rooms: Rooms) -> None:
    await conversations.append(KEY, said("hello"))
    await rooms.choose(ROOM, "colombina")
    assert await texts(conversations, KEY) == ["hello"]


# Leaks: whatever happens in whatever order, every conversation holds its own turns and no other's

ids = st.sampled_from(["", "1", "2", "12", "1/2", "%", "_", "'", "None", "NULL", "\x00", "1\x00"]) | st.text(max_size=3)
places = st.builds(Room, st.sampled_from(["discord", "telegram", "web"]), ids, st.none() | ids)
keys = st.builds(
    ConversationKey, places, st.sampled_from(["pierrot", "pierrot2", "Pierrot", "%"]) | st.text(max_size=3)
)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[ConversationKey, bool]]:
    """Conversations, mostly in places much alike, and for each step which one is used, and whether it is reset."""
    used = draw(st.lists(keys, min_size=2, max_size=4, unique=True))
    used += [replace(used[0], room=replace(used[0].room, thread_id=thread)) for thread in (None, "")]
    return draw(st.lists(st.tuples(st.sampled_from(used), st.sampled_from([False] * 5 + [True])), max_size=10))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories())
async def test_no_turn_leaks(database: Database, conversations: Conversations, history) -> None:
    await database.write(lambda connection: connection.exec_driver_sql("DELETE FROM rooms"))
    expected: dict[ConversationKey, list[StoredTurn]] = defaultdict(list)
    for number, (key, is_reset) in enumerate(history):
        if is_reset:
            assert await conversations.reset(key) == len(expected.pop(key, []))
        else:
            picture = replace(DOG, digest=f"{number:064x}")
            stored = await conversations.append(key, said(f"for {key}", f"m{number}", pictures=(picture,)))
            assert stored is not None
            expected[key].append(stored)
    for key in {key for key, _ in history}:
        assert await conversations.recent(key, max_turns=1000) == expected[key]
        found = await conversations.pictures_of(key, max_pictures=1000)
        assert [shown.attachment for shown in found] == [turn.attachments[0] for turn in reversed(expected[key])]
    everyone = {key.persona_id for key, _ in history}
    for room in {key.room for key, _ in history}:
        kept = [
            SpokenTurn(key.persona_id, turn) for key, turns in expected.items() if key.room == room for turn in turns
        ]
        kept.sort(key=lambda spoken: spoken.turn.id)
        assert await conversations.room_turns(room, sorted(everyone), max_turns=1000) == kept
        shown = {turn.attachments[0] for key, turns in expected.items() if key.room == room for turn in turns}
        for number in range(len(history)):
            picture = replace(DOG, digest=f"{number:064x}")
            assert await conversations.has_attachment(room, picture.digest) == (picture in shown)
            assert await conversations.attachments_of(room, f"m{number}") == ((picture,) if picture in shown else ())
