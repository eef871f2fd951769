"""What the database and the store in memory promise alike: owed replies, versions of replies, ratings, rooms, marks."""

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from bot.adapters import base
from bot.rooms import RoomSettings, TriggerChanges
from bot.store.database import Database
from bot.store.ratings import Ratings
from bot.store.repositories import Conversations, Rooms
from bot.store.seen import SeenEvents
from bot.types import (
    Alternatives,
    Attachment,
    Author,
    AwaitedReply,
    ChatKind,
    ConversationKey,
    NewTurn,
    Rating,
    ReplyOrigin,
    Room,
    SpokenTurn,
    StoredTurn,
)
from engine.types import Role
from tests.fakes.store import MemoryConversations, MemoryRatings, MemoryRooms, MemorySeen

ROOM = Room("telegram", "1")
TOPIC = Room("telegram", "1", "7")
KEY = ConversationKey(ROOM, "pierrot")
OTHER = ConversationKey(ROOM, "colombina")
ELSEWHERE = ConversationKey(Room("telegram", "2"), "pierrot")
ANNA = Author("telegram", "42", "Anna")
BO = Author("telegram", "43", "Anna")
DOG = Attachment("d" * 64, "image/jpeg", 1200, 640, 480)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
NONE = Alternatives((), 0)


@dataclass
class Store:
    conversations: Conversations | MemoryConversations
    rooms: Rooms | MemoryRooms
    ratings: Ratings | MemoryRatings
    seen: base.SeenEvents

    async def ask(
        self, text: str = "why?", *message_ids: str, key: ConversationKey = KEY, awaited: tuple[str, ...] = ()
    ) -> StoredTurn:
        turn = NewTurn(Role.USER, text, ANNA, message_ids, (DOG,))
        stored = await self.conversations.append(key, turn, awaited=awaited, kind=ChatKind.GROUP)
        assert stored is not None
        return stored

    async def reply(
        self,
        text: str = "so",
        *message_ids: str,
        key: ConversationKey = KEY,
        asked: StoredTurn | None = None,
        settles: tuple[int, ...] = (),
    ) -> StoredTurn:
        origin = ReplyOrigin(asked.id, "abc") if asked is not None else None
        turn = NewTurn(Role.ASSISTANT, text, None, message_ids, origin=origin)
        stored = await self.conversations.append(key, turn, settles=settles)
        assert stored is not None
        return stored

    async def owed(self, platform: str = "telegram", *, since: datetime = LONG_AGO) -> list[tuple[int, str]]:
        return [(owed.turn.id, owed.persona_id) for owed in await self.conversations.awaited(platform, since=since)]

    async def texts(self, key: ConversationKey) -> list[str]:
        return [turn.text for turn in await self.conversations.recent(key, max_turns=1000)]


@pytest.fixture(params=["database", "memory"])
def store(request: pytest.FixtureRequest) -> Store:
    if request.param == "memory":
        kept = MemoryConversations()
        return Store(kept, MemoryRooms(conversations=kept), MemoryRatings(kept), MemorySeen())
    database: Database = request.getfixturevalue("database")
    return Store(Conversations(database), Rooms(database), Ratings(database), SeenEvents(database))


# Replies that are owed


async def test_a_reply_is_owed_until_it_is_kept(store: Store) -> None:
    asked = await store.ask("why?", "m9", "m1", awaited=("pierrot", "colombina", "pierrot"))
    later = await store.ask("and now?", "m2", key=OTHER, awaited=("pierrot",))
    first, *_ = await store.conversations.awaited("telegram", since=LONG_AGO)
    assert first == AwaitedReply(KEY, asked, "pierrot", ChatKind.GROUP, "m9")
    assert await store.owed() == [(asked.id, "pierrot"), (asked.id, "colombina"), (later.id, "pierrot")]
    assert await store.owed("discord") == []
    await store.reply(asked=asked)
    assert await store.owed() == [(asked.id, "colombina"), (later.id, "pierrot")]


async def test_a_question_in_another_personas_conversation_is_answered_too(store: Store) -> None:
    asked = await store.ask(key=OTHER, awaited=("pierrot",))
    await store.reply(asked=asked)
    assert await store.owed() == []
    assert await store.conversations.replies_to(ROOM, asked.id) == [(KEY, asked.id + 1)]


async def test_nothing_of_another_room_is_settled_or_answered(store: Store) -> None:
    asked = await store.ask(key=ELSEWHERE, awaited=("pierrot",))
    reply = await store.reply(asked=asked, settles=(asked.id,))
    await store.conversations.settle(KEY, asked.id, "pierrot")
    await store.conversations.note_shown(KEY, asked.id, "pierrot", ["m9"])
    (owed,) = await store.conversations.awaited("telegram", since=LONG_AGO)
    assert owed == AwaitedReply(ELSEWHERE, asked, "pierrot", ChatKind.GROUP, "")
    assert await store.conversations.origin_of(KEY, reply.id) == ReplyOrigin(None, "abc")
    assert await store.conversations.replies_to(ROOM, asked.id) == []
    assert await store.conversations.replies_to(ELSEWHERE.room, asked.id) == []


async def test_a_reply_settles_what_was_merged_into_it(store: Store) -> None:
    first, second, third = [await store.ask(awaited=("pierrot", "colombina")) for _ in range(3)]
    await store.reply(asked=second, settles=(first.id,))
    assert await store.owed() == [
        (first.id, "colombina"),
        (second.id, "colombina"),
        (third.id, "pierrot"),
        (third.id, "colombina"),
    ]


async def test_what_shows_a_reply_so_far_is_kept(store: Store) -> None:
    asked = await store.ask(awaited=("pierrot",))
    await store.conversations.note_shown(KEY, asked.id, "pierrot", ["m1", "m2"])
    await store.conversations.note_shown(KEY, asked.id, "colombina", ["m3"])
    (owed,) = await store.conversations.awaited("telegram", since=LONG_AGO)
    assert owed.message_ids == ("m1", "m2")
    await store.reply("so", "m1", "m2", asked=asked)
    assert await store.owed() == []


async def test_a_debt_ends_by_hand_by_age_and_with_its_turn(store: Store) -> None:
    asked = [await store.ask(awaited=("pierrot",)) for _ in range(3)]
    await store.conversations.settle(OTHER, asked[0].id, "pierrot")
    await store.conversations.remove(KEY, [asked[1].id])
    assert await store.owed() == [(asked[2].id, "pierrot")]
    assert await store.owed("discord", since=datetime.now(UTC) + timedelta(seconds=9)) == []
    assert await store.owed() == [(asked[2].id, "pierrot")]
    assert await store.owed(since=datetime.now(UTC) + timedelta(seconds=9)) == []
    assert await store.owed() == []


async def test_a_message_that_comes_twice_is_owed_one_reply(store: Store) -> None:
    asked = await store.ask("why?", "m1", awaited=("pierrot",))
    again = NewTurn(Role.USER, "why?", ANNA, ("m1",))
    assert await store.conversations.append(KEY, again, awaited=("colombina",), kind=ChatKind.GROUP) is None
    assert await store.owed() == [(asked.id, "pierrot")]


async def test_who_awaits_says_in_what_kind_of_chat(store: Store) -> None:
    with pytest.raises(ValueError, match="kind"):
        await store.conversations.append(KEY, NewTurn(Role.USER, "why?", ANNA), awaited=("pierrot",))
    assert await store.texts(KEY) == []


# Turns


async def test_a_turn_is_found_in_its_conversation_alone(store: Store) -> None:
    asked = await store.ask()
    assert await store.conversations.turn(KEY, asked.id) == asked
    assert await store.conversations.turn(OTHER, asked.id) is None
    assert await store.conversations.turn(ELSEWHERE, asked.id) is None


async def test_the_turns_of_a_room_come_in_the_order_of_speaking(store: Store) -> None:
    asked = await store.ask()
    reply = await store.reply(key=OTHER)
    answer = await store.reply("no", key=KEY)
    await store.reply(key=ELSEWHERE)
    await store.reply(key=replace(KEY, persona_id="arlecchino"))
    everyone = ["pierrot", "colombina"]
    assert await store.conversations.room_turns(ROOM, everyone, max_turns=10) == [
        SpokenTurn("pierrot", asked),
        SpokenTurn("colombina", reply),
        SpokenTurn("pierrot", answer),
    ]
    newest = await store.conversations.room_turns(ROOM, everyone, max_turns=2)
    assert [spoken.turn for spoken in newest] == [reply, answer]
    assert await store.conversations.room_turns(ROOM, everyone, max_turns=0) == []
    assert await store.conversations.room_turns(ROOM, [], max_turns=5) == []


async def test_the_last_reply_is_the_newest_of_those_personas(store: Store) -> None:
    everyone = ["pierrot", "colombina"]
    assert await store.conversations.last_reply(ROOM, everyone) is None
    first, second = await store.reply("one"), await store.reply("two", key=OTHER)
    await store.ask()
    await store.reply(key=ELSEWHERE)
    assert await store.conversations.last_reply(ROOM, everyone) == (OTHER, second)
    assert await store.conversations.last_reply(ROOM, ["pierrot"]) == (KEY, first)


async def test_replies_lead_back_to_their_question(store: Store) -> None:
    asked = await store.ask()
    mine, hers = await store.reply(asked=asked), await store.reply(key=OTHER, asked=asked)
    assert await store.conversations.replies_to(ROOM, asked.id) == [(KEY, mine.id), (OTHER, hers.id)]
    await store.conversations.remove(KEY, [asked.id])
    assert await store.conversations.replies_to(ROOM, asked.id) == []
    assert await store.conversations.origin_of(KEY, mine.id) == ReplyOrigin(None, "abc")


async def test_removed_turns_leave_their_messages_seen(store: Store) -> None:
    asked, reply = await store.ask("why?", "m1"), await store.reply("so", "m2")
    assert await store.conversations.remove(OTHER, [asked.id, reply.id]) == 0
    assert await store.conversations.remove(KEY, [asked.id, reply.id, 999]) == 2
    assert await store.texts(KEY) == []
    assert await store.conversations.speaker(ROOM, "m2") == "pierrot"
    assert await store.conversations.turn_of(ROOM, "m2") is None
    assert await store.conversations.append(KEY, NewTurn(Role.USER, "why?", ANNA, ("m1",))) is None


# Messages


async def test_messages_come_in_the_order_in_which_they_were_shown(store: Store) -> None:
    reply = await store.reply("so", "m9", "m1", "m10", "m9")
    assert await store.conversations.message_ids(KEY, reply.id) == ("m9", "m1", "m10")
    assert await store.conversations.message_ids(OTHER, reply.id) == ()


async def test_replaced_messages_stay_seen_but_lead_nowhere(store: Store) -> None:
    reply = await store.reply("so", "m1", "m2")
    await store.conversations.replace_messages(KEY, reply.id, ["m3", "m2"])
    assert await store.conversations.message_ids(KEY, reply.id) == ("m3", "m2")
    assert await store.conversations.turn_of(ROOM, "m1") is None
    assert await store.conversations.speaker(ROOM, "m1") == "pierrot"
    assert await store.conversations.turn_of(ROOM, "m3") == (KEY, reply.id)
    assert await store.conversations.speaker(ROOM, "m3") == "pierrot"
    await store.conversations.replace_messages(KEY, reply.id, ["m1"])
    assert await store.conversations.turn_of(ROOM, "m1") == (KEY, reply.id)
    assert await store.conversations.append(KEY, NewTurn(Role.USER, "?", ANNA, ("m3",))) is None


async def test_what_is_owed_leads_to_the_first_message(store: Store) -> None:
    asked = await store.ask("why?", "m9", "m1", awaited=("pierrot",))
    await store.conversations.replace_messages(KEY, asked.id, ["m1", "m9"])
    (owed,) = await store.conversations.awaited("telegram", since=LONG_AGO)
    assert owed.message_id == "m1"


async def test_no_turn_takes_another_ones_messages(store: Store) -> None:
    asked, reply = await store.ask("why?", "m1"), await store.reply("so", "m2")
    await store.conversations.replace_messages(KEY, reply.id, ["m1", "m2"])
    await store.conversations.replace_messages(OTHER, asked.id, ["m3"])
    assert await store.conversations.turn_of(ROOM, "m1") == (KEY, asked.id)
    assert await store.conversations.message_ids(KEY, reply.id) == ("m2",)
    assert await store.conversations.turn_of(ROOM, "m3") is None


# Versions of a reply


async def test_a_reply_has_one_version_until_it_gets_another(store: Store) -> None:
    reply = await store.reply("one")
    assert await store.conversations.alternatives(KEY, reply.id) == Alternatives(("one",), 0)
    assert await store.conversations.add_alternative(KEY, reply.id, "two") == Alternatives(("one", "two"), 1)
    assert await store.texts(KEY) == ["two"]
    assert await store.conversations.choose_alternative(KEY, reply.id, 0) == Alternatives(("one", "two"), 0)
    assert await store.texts(KEY) == ["one"]
    assert await store.conversations.add_alternative(KEY, reply.id, "three") == Alternatives(("one", "two", "three"), 2)
    assert await store.conversations.alternatives(KEY, reply.id) == Alternatives(("one", "two", "three"), 2)


@pytest.mark.parametrize("index", [-1, 2, 10**30])
async def test_an_index_that_there_is_not_changes_nothing(store: Store, index: int) -> None:
    reply = await store.reply("one")
    assert await store.conversations.choose_alternative(KEY, reply.id, index) == Alternatives(("one",), 0)
    await store.conversations.add_alternative(KEY, reply.id, "two")
    assert await store.conversations.choose_alternative(KEY, reply.id, index) == Alternatives(("one", "two"), 1)


async def test_a_rewritten_reply_keeps_its_other_versions(store: Store) -> None:
    asked, reply = await store.ask(), await store.reply("one")
    await store.conversations.add_alternative(KEY, reply.id, "two")
    assert await store.conversations.rewrite(KEY, reply.id, "second")
    assert await store.conversations.rewrite(KEY, asked.id, "really?")
    assert not await store.conversations.rewrite(OTHER, reply.id, "mine")
    assert await store.conversations.alternatives(KEY, reply.id) == Alternatives(("one", "second"), 1)
    assert await store.texts(KEY) == ["really?", "second"]


async def test_only_replies_have_versions_and_only_in_their_conversation(store: Store) -> None:
    asked, reply = await store.ask(), await store.reply("one")
    for key, turn_id in ((KEY, asked.id), (OTHER, reply.id), (ELSEWHERE, reply.id), (KEY, 999)):
        assert await store.conversations.alternatives(key, turn_id) == NONE
        assert await store.conversations.add_alternative(key, turn_id, "two") == NONE
        assert await store.conversations.choose_alternative(key, turn_id, 0) == NONE
    assert await store.texts(KEY) == ["why?", "one"]


async def test_versions_that_come_at_once_are_all_kept(store: Store) -> None:
    reply = await store.reply("0")
    texts = [str(number) for number in range(1, 11)]
    await asyncio.gather(*(store.conversations.add_alternative(KEY, reply.id, text) for text in texts))
    found = await store.conversations.alternatives(KEY, reply.id)
    assert sorted(found.texts, key=int) == ["0", *texts]
    assert await store.texts(KEY) == [found.texts[found.chosen]]


async def test_of_too_many_versions_the_oldest_goes(store: Store) -> None:
    reply = await store.reply("0")
    for number in range(1, 52):
        found = await store.conversations.add_alternative(KEY, reply.id, str(number))
    assert found == Alternatives(tuple(str(number) for number in range(2, 52)), 49)


# Ratings


async def test_nothing_is_rated_without_consent(store: Store) -> None:
    reply = await store.reply()
    assert await store.ratings.consent(ANNA) is None
    assert not await store.ratings.rate(KEY, reply.id, ANNA, Rating.GOOD)
    await store.ratings.give_consent(ANNA, False)
    assert await store.ratings.consent(ANNA) is False
    assert not await store.ratings.rate(KEY, reply.id, ANNA, Rating.GOOD)
    assert await store.ratings.of(KEY, reply.id) == {}


async def test_each_person_rates_each_version_once(store: Store) -> None:
    reply = await store.reply()
    for author in (ANNA, BO):
        await store.ratings.give_consent(author, True)
    assert await store.ratings.rate(KEY, reply.id, ANNA, Rating.GOOD)
    await store.ratings.rate(KEY, reply.id, replace(ANNA, display_name="Ann"), Rating.BAD)
    await store.ratings.rate(KEY, reply.id, BO, Rating.GOOD)
    await store.conversations.add_alternative(KEY, reply.id, "two")
    await store.conversations.add_alternative(KEY, reply.id, "three")
    await store.ratings.rate(KEY, reply.id, ANNA, Rating.GOOD)
    assert await store.ratings.of(KEY, reply.id) == {0: {Rating.BAD: 1, Rating.GOOD: 1}, 2: {Rating.GOOD: 1}}
    await store.ratings.rate(KEY, reply.id, ANNA, None)
    await store.ratings.rate(KEY, reply.id, ANNA, None)
    assert await store.ratings.of(KEY, reply.id) == {0: {Rating.BAD: 1, Rating.GOOD: 1}}
    assert await store.ratings.of(OTHER, reply.id) == {}


async def test_taking_consent_back_deletes_what_was_rated(store: Store) -> None:
    reply = await store.reply()
    for author in (ANNA, BO):
        await store.ratings.give_consent(author, True)
        await store.ratings.rate(KEY, reply.id, author, Rating.GOOD)
    await store.ratings.give_consent(ANNA, False)
    assert await store.ratings.of(KEY, reply.id) == {0: {Rating.GOOD: 1}}
    await store.ratings.give_consent(ANNA, True)
    assert await store.ratings.of(KEY, reply.id) == {0: {Rating.GOOD: 1}}


async def test_other_words_are_not_what_was_rated(store: Store) -> None:
    reply = await store.reply("one")
    await store.ratings.give_consent(ANNA, True)
    await store.ratings.rate(KEY, reply.id, ANNA, Rating.GOOD)
    await store.conversations.rewrite(KEY, reply.id, "one")
    assert await store.ratings.of(KEY, reply.id) == {0: {Rating.GOOD: 1}}
    await store.conversations.rewrite(KEY, reply.id, "two")
    assert await store.ratings.of(KEY, reply.id) == {}


async def test_only_replies_are_rated_and_only_in_their_conversation(store: Store) -> None:
    asked, reply = await store.ask(), await store.reply()
    await store.ratings.give_consent(ANNA, True)
    for key, turn_id in ((KEY, asked.id), (OTHER, reply.id), (ELSEWHERE, reply.id), (KEY, 999)):
        assert not await store.ratings.rate(key, turn_id, ANNA, Rating.GOOD)
        assert await store.ratings.of(key, turn_id) == {}


# Rooms


async def test_a_thread_takes_over_what_it_has_not_set(store: Store) -> None:
    everywhere = RoomSettings(cast=("colombina",), max_exchange=2, triggers={"*": TriggerChanges(chance=0.5)})
    here = RoomSettings(max_exchange=None, has_controls=False)
    assert await store.rooms.settings(TOPIC) == RoomSettings()
    await store.rooms.change(ROOM, everywhere)
    assert await store.rooms.settings(TOPIC) == everywhere
    await store.rooms.change(TOPIC, RoomSettings(cast=()))
    await store.rooms.change(TOPIC, here)
    assert await store.rooms.own_settings(TOPIC) == here
    assert await store.rooms.settings(ROOM) == everywhere
    found = await store.rooms.settings(TOPIC)
    assert (found.cast, found.max_exchange, found.has_controls) == (("colombina",), None, False)
    assert found.triggers == everywhere.triggers
    assert await store.rooms.settings(ELSEWHERE.room) == RoomSettings()


async def test_a_thread_without_a_choice_has_that_of_the_chat_around_it(store: Store) -> None:
    assert await store.rooms.persona_id(TOPIC) is None
    await store.rooms.choose(ROOM, "pierrot")
    assert await store.rooms.persona_id(TOPIC) == "pierrot"
    await store.rooms.choose(TOPIC, "colombina")
    assert await store.rooms.persona_id(TOPIC) == "colombina"
    assert await store.rooms.persona_id(ROOM) == "pierrot"
    assert await store.rooms.persona_id(Room("discord", "1", "7")) is None


async def test_persona_and_settings_are_what_they_are_one_by_one(store: Store) -> None:
    assert await store.rooms.persona_and_settings(ROOM) == (None, RoomSettings())
    assert await store.rooms.persona_and_settings(TOPIC) == (None, RoomSettings())
    await store.rooms.choose(ROOM, "pierrot")
    await store.rooms.change(ROOM, RoomSettings(max_exchange=1, cast=("colombina",)))
    await store.rooms.change(TOPIC, RoomSettings(max_exchange=2))
    assert await store.rooms.persona_and_settings(TOPIC) == (
        "pierrot",
        RoomSettings(max_exchange=2, cast=("colombina",)),
    )
    await store.rooms.choose(TOPIC, "colombina")
    for room in (ROOM, TOPIC):
        apart = await store.rooms.persona_id(room), await store.rooms.settings(room)
        assert await store.rooms.persona_and_settings(room) == apart
    assert (await store.rooms.persona_and_settings(ROOM))[0] == "pierrot"


NEW = Room("telegram", "-100")
NEW_TOPIC = replace(TOPIC, chat_id="-100")


async def test_a_chat_moves_with_its_topics(store: Store) -> None:
    await store.ask("here", "5", awaited=("pierrot",))
    await store.ask("in the topic", "6", key=replace(KEY, room=TOPIC))
    await store.rooms.choose(ROOM, "pierrot")
    await store.rooms.change(TOPIC, RoomSettings(max_exchange=1))
    await store.ask("elsewhere", key=ELSEWHERE)
    await store.ask("elsewhere", key=replace(KEY, room=Room("discord", "1")))
    await store.rooms.move("telegram", "1", "-100")
    assert await store.texts(replace(KEY, room=NEW)) == ["here"]
    assert await store.texts(replace(KEY, room=NEW_TOPIC)) == ["in the topic"]
    assert await store.texts(KEY) == []
    assert await store.texts(replace(KEY, room=Room("discord", "1"))) == ["elsewhere"]
    assert await store.rooms.persona_id(NEW) == "pierrot"
    assert await store.rooms.own_settings(NEW_TOPIC) == RoomSettings(max_exchange=1)
    (owed,) = await store.conversations.awaited("telegram", since=LONG_AGO)
    assert (owed.key.room, owed.message_id) == (NEW, "")


async def test_messages_of_the_new_chat_do_not_pass_for_those_of_the_old_one(store: Store) -> None:
    await store.ask("here", "5")
    await store.reply("so", "6")
    await store.rooms.move("telegram", "1", "-100")
    assert await store.conversations.speaker(NEW, "6") is None
    await store.ask("the fifth message of the new chat", "5", key=replace(KEY, room=NEW))
    assert await store.texts(replace(KEY, room=NEW)) == ["here", "so", "the fifth message of the new chat"]


async def test_two_chats_that_become_one_lose_nothing(store: Store) -> None:
    old, new = [
        await store.ask(str(number), "5", key=replace(KEY, room=room)) for number, room in enumerate((ROOM, NEW))
    ]
    await store.reply("2", key=OTHER)
    await store.rooms.choose(ROOM, "pierrot")
    await store.rooms.choose(NEW, "colombina")
    await store.rooms.change(ROOM, RoomSettings(max_exchange=1))
    for _ in range(2):
        await store.rooms.move("telegram", "1", "-100")
        await store.rooms.move("telegram", "-100", "-100")
    assert await store.conversations.recent(replace(KEY, room=NEW), max_turns=9) == [old, new]
    assert await store.texts(replace(OTHER, room=NEW)) == ["2"]
    assert await store.conversations.turn_of(NEW, "5") == (replace(KEY, room=NEW), new.id)
    assert await store.rooms.persona_id(NEW) == "colombina"
    assert await store.rooms.persona_id(ROOM) is None
    assert await store.rooms.own_settings(NEW) == RoomSettings(max_exchange=1)


# What has arrived


async def test_an_event_is_claimed_once(store: Store) -> None:
    assert await store.seen.claim("telegram", "update/1")
    assert not await store.seen.claim("telegram", "update/1")
    assert await store.seen.claim("discord", "update/1")
    assert sum(await asyncio.gather(*(store.seen.claim("telegram", "update/2") for _ in range(10)))) == 1


async def test_the_newest_message_of_each_chat_is_marked(store: Store) -> None:
    began = datetime.now(UTC)
    for message_id in ("99", "100", "98"):
        store.seen.note("discord", "1", message_id)
    store.seen.note("discord", "2", "7")
    store.seen.note("telegram", "1", "1")
    assert await store.seen.marks("discord", since=began) == {"1": "100", "2": "7"}
    store.seen.note("discord", "2", "8")
    store.seen.note("discord", "1", "20")
    assert await store.seen.marks("discord", since=began) == {"1": "100", "2": "8"}
    assert await store.seen.marks("discord", since=datetime.now(UTC) + timedelta(seconds=9)) == {}
