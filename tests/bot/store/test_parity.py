"""Whatever is done in whatever order, the database and the store in memory end up with the same."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bot.store.database import Database
from bot.store.ratings import Ratings
from bot.store.repositories import Conversations, Rooms
from bot.types import Author, ChatKind, ConversationKey, NewTurn, Rating, ReplyOrigin, Room
from engine.types import Role
from tests.fakes.store import MemoryConversations, MemoryRatings, MemoryRooms

ANNA = Author("telegram", "42", "Anna")
PERSONAS = ("pierrot", "colombina")
ROOMS = (Room("telegram", "1"), Room("telegram", "1", "7"), Room("telegram", "2"), Room("discord", "1"))
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)

keys = st.builds(ConversationKey, st.sampled_from(ROOMS), st.sampled_from(PERSONAS))
turns = st.integers(0, 7)
message_ids = st.lists(st.sampled_from([f"m{number}" for number in range(6)]), max_size=3).map(tuple)
texts = st.sampled_from(["one", "two", "three"])
steps = st.one_of(
    st.tuples(st.just("ask"), keys, message_ids, st.lists(st.sampled_from(PERSONAS), max_size=2, unique=True)),
    st.tuples(st.just("reply"), keys, message_ids, turns, st.lists(turns, max_size=2)),
    st.tuples(st.just("settle"), keys, turns, st.sampled_from(PERSONAS)),
    st.tuples(st.just("note_shown"), keys, turns, st.sampled_from(PERSONAS), message_ids),
    st.tuples(st.just("rewrite"), keys, turns, texts),
    st.tuples(st.just("add_alternative"), keys, turns, texts),
    st.tuples(st.just("choose_alternative"), keys, turns, st.integers(-1, 3)),
    st.tuples(st.just("replace_messages"), keys, turns, message_ids),
    st.tuples(st.just("remove"), keys, st.lists(turns, max_size=2)),
    st.tuples(st.just("reset"), keys),
    st.tuples(st.just("rate"), keys, turns, st.sampled_from([*Rating, None])),
    st.tuples(st.just("move"), st.sampled_from(["1", "2", "3"]), st.sampled_from(["1", "2", "3"])),
)


@dataclass
class Store:
    """A store, and the turns that it gave ids to: a step names turns by their number, for ids differ."""

    conversations: Conversations | MemoryConversations
    rooms: Rooms | MemoryRooms
    ratings: Ratings | MemoryRatings
    ids: list[int] = field(default_factory=list)

    async def do(self, step: tuple[Any, ...]) -> object:
        match step:
            case "ask", key, message_ids, awaited:
                turn = NewTurn(Role.USER, "why?", ANNA, message_ids)
                return await self._append(key, turn, awaited=awaited, kind=ChatKind.GROUP)
            case "reply", key, message_ids, asked, settles:
                turn = NewTurn(Role.ASSISTANT, "so", None, message_ids, origin=ReplyOrigin(self._id(asked), "abc"))
                return await self._append(key, turn, settles=[self._id(number) for number in settles])
            case "remove", key, numbers:
                return await self.conversations.remove(key, [self._id(number) for number in numbers])
            case "reset", key:
                return await self.conversations.reset(key)
            case "rate", key, number, rating:
                return await self.ratings.rate(key, self._id(number), ANNA, rating)
            case "move", old_chat_id, new_chat_id:
                return await self.rooms.move("telegram", old_chat_id, new_chat_id)
            case name, key, number, *others:
                return await getattr(self.conversations, name)(key, self._id(number), *others)

    async def told(self) -> list[object]:
        """Everything that can be asked about those rooms."""
        rooms = [*ROOMS, Room("telegram", "3"), Room("telegram", "3", "7")]
        found: list[object] = []
        for room in rooms:
            spoken = await self.conversations.room_turns(room, PERSONAS, max_turns=99)
            for one in spoken:
                key, turn_id = ConversationKey(room, one.persona_id), one.turn.id
                found += [
                    (room, one.persona_id, self.ids.index(turn_id), one.turn.role, one.turn.text),
                    await self.conversations.message_ids(key, turn_id),
                    await self.conversations.alternatives(key, turn_id),
                    await self.ratings.of(key, turn_id),
                    [self.ids.index(reply) for _, reply in await self.conversations.replies_to(room, turn_id)],
                ]
            found += [await self.conversations.speaker(room, f"m{number}") for number in range(6)]
        for platform in ("telegram", "discord"):
            owed = await self.conversations.awaited(platform, since=LONG_AGO)
            found += [(one.key, self.ids.index(one.turn.id), one.persona_id, one.message_ids) for one in owed]
        return found

    async def _append(self, key: ConversationKey, turn: NewTurn, **options: Any) -> bool:
        stored = await self.conversations.append(key, turn, **options)
        if stored is not None:
            self.ids.append(stored.id)
        return stored is not None

    def _id(self, number: int) -> int:
        return self.ids[number] if number < len(self.ids) else 0


@settings(
    max_examples=25,
    deadline=None,
    # To make a failing history shorter takes longer than a test may.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(history=st.lists(steps, min_size=4, max_size=16))
async def test_both_stores_end_up_with_the_same(database: Database, history: list[tuple[Any, ...]]) -> None:
    await database.write(lambda connection: connection.exec_driver_sql("DELETE FROM rooms"))
    kept = MemoryConversations()
    both = (
        Store(Conversations(database), Rooms(database), Ratings(database)),
        Store(kept, MemoryRooms(conversations=kept), MemoryRatings(kept)),
    )
    for store in both:
        await store.ratings.give_consent(ANNA, True)
    for step in history:
        done = [await store.do(step) for store in both]
        assert done[0] == done[1], step
    assert await both[0].told() == await both[1].told()
