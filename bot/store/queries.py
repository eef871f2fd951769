"""How rooms, conversations and turns are found and read: what all repositories share.

Owns the step from a `Room` or a `ConversationKey` to the rows of it, so that nobody reaches into another room. Knows
nothing of what is done with them.

What each message asks for is built once, with names where the values go (`bound_room_id`, `names_of`): SQLAlchemy takes
longer to build a statement than SQLite to run it.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import BindParameter, Connection, Row, ScalarSelect, Select, bindparam, exists, select
from sqlalchemy.dialects.sqlite import insert

from bot.store.tables import attachments, conversations, rooms, turn_attachments, turns
from bot.types import Attachment, Author, ConversationKey, Room, StoredTurn
from engine.types import Role

# What `read_turns` needs of each turn.
STORED_TURN = (turns, exists().where(turn_attachments.c.turn_id == turns.c.id).label("has_pictures"))

_PICTURES_OF_TURNS = (
    select(turn_attachments.c.turn_id, attachments)
    .select_from(turn_attachments.join(attachments))
    .where(turn_attachments.c.turn_id.in_(bindparam("turn_ids", expanding=True)))
    .order_by(turn_attachments.c.turn_id, turn_attachments.c.position)
)


def room_id(room: Room) -> ScalarSelect[int]:
    """The id of `room`, as a subquery."""
    return _room_id(room.platform, room.chat_id, room.thread_id)


def bound_room_id(*, has_thread: bool) -> ScalarSelect[int]:
    """The id of the room whose `names_of` the statement is run with, as a subquery.

    A room that is no thread is another statement: only so does SQLite know which index holds it.
    """
    return _room_id(bindparam("platform"), bindparam("chat_id"), bindparam("thread_id") if has_thread else None)


def conversation_id(key: ConversationKey) -> ScalarSelect[int]:
    """The id of that conversation, as a subquery."""
    return _conversation_id(room_id(key.room), key.persona_id)


def bound_conversation_id(*, has_thread: bool) -> ScalarSelect[int]:
    """The id of the conversation of the bound room with `persona_id`, as a subquery."""
    return _conversation_id(bound_room_id(has_thread=has_thread), bindparam("persona_id"))


def turn_ids_in(room: Room, turn_ids: Sequence[int]) -> Select[int]:
    """Those of `turn_ids` that are turns of `room`, in whosever conversation."""
    return _turn_ids_in(room_id(room), turn_ids)


def bound_turn_ids(*, has_thread: bool) -> Select[int]:
    """Those of `turn_ids` that are turns of the bound room, in whosever conversation."""
    return _turn_ids_in(bound_room_id(has_thread=has_thread), bindparam("turn_ids", expanding=True))


def names_of(room: Room) -> dict[str, str]:
    """What a statement with a bound room is run with."""
    names = {"platform": room.platform, "chat_id": room.chat_id}
    return names if room.thread_id is None else names | {"thread_id": room.thread_id}


def ensure_room(connection: Connection, room: Room) -> int:
    """The id of `room`, made where it is new."""
    values = {"platform": room.platform, "chat_id": room.chat_id, "thread_id": room.thread_id}
    connection.execute(insert(rooms).values(values).on_conflict_do_nothing())
    found: int = connection.execute(select(room_id(room))).scalar_one()
    return found


def ensure_conversation(connection: Connection, in_room: int, persona_id: str) -> int:
    """The id of the persona's conversation in that room, made where it is new."""
    values = {"room_id": in_room, "persona_id": persona_id}
    connection.execute(insert(conversations).values(values).on_conflict_do_nothing())
    query = (
        select(conversations.c.id)
        .where(conversations.c.room_id == in_room)
        .where(conversations.c.persona_id == persona_id)
    )
    found: int = connection.execute(query).scalar_one()
    return found


def read_turns(connection: Connection, rows: Sequence[Row[Any]]) -> list[StoredTurn]:
    """The turns in `rows`, which have all columns of `STORED_TURN`, with their pictures."""
    shown = attachments_of(connection, [row.id for row in rows if row.has_pictures])
    return [as_turn(row, tuple(shown[row.id])) for row in rows]


def attachments_of(connection: Connection, turn_ids: Sequence[int]) -> defaultdict[int, list[Attachment]]:
    """The pictures of each of those turns, in their order."""
    by_turn: defaultdict[int, list[Attachment]] = defaultdict(list)
    for row in connection.execute(_PICTURES_OF_TURNS, {"turn_ids": turn_ids}) if turn_ids else ():
        by_turn[row.turn_id].append(as_attachment(row))
    return by_turn


def as_turn(row: Row[Any], shown: tuple[Attachment, ...]) -> StoredTurn:
    """A row of `turns` as the bot knows it."""
    return StoredTurn(row.id, Role(row.role), row.text, row.created_at, as_author(row), shown)


def as_author(row: Row[Any]) -> Author | None:
    """Who wrote the turn of that row."""
    if row.author_user_id is None:
        return None
    return Author(row.author_platform, row.author_user_id, row.author_display_name, row.author_is_bot)


def as_attachment(row: Row[Any]) -> Attachment:
    """A row of `attachments` as the bot knows it."""
    return Attachment(row.digest, row.mime, row.num_bytes, row.width, row.height)


def well_formed(text: str) -> str:
    """`text` with lone halves of surrogate pairs replaced: platforms let them through, UTF-8 cannot hold them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _room_id(
    platform: str | BindParameter[str], chat_id: str | BindParameter[str], thread_id: str | BindParameter[str] | None
) -> ScalarSelect[int]:
    return (
        select(rooms.c.id)
        .where(rooms.c.platform == platform)
        .where(rooms.c.chat_id == chat_id)
        .where(rooms.c.thread_id.is_not_distinct_from(thread_id))
        .correlate(None)
        .scalar_subquery()
    )


def _conversation_id(in_room: ScalarSelect[int], persona_id: str | BindParameter[str]) -> ScalarSelect[int]:
    return (
        select(conversations.c.id)
        .where(conversations.c.room_id == in_room)
        .where(conversations.c.persona_id == persona_id)
        .correlate(None)
        .scalar_subquery()
    )


def _turn_ids_in(in_room: ScalarSelect[int], turn_ids: Sequence[int] | BindParameter[Any]) -> Select[int]:
    return (
        select(turns.c.id)
        .select_from(turns.join(conversations))
        .where(conversations.c.room_id == in_room)
        .where(turns.c.id.in_(turn_ids))
        .correlate(None)
    )
