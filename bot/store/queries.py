"""How rooms, conversations and turns are found and read: what all repositories share.

Owns the step from a `Room` or a `ConversationKey` to the rows of it, so that nobody reaches into another room. Knows
nothing of what is done with them.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, ScalarSelect, Select, select
from sqlalchemy.dialects.sqlite import insert

from bot.store.tables import attachments, conversations, rooms, turn_attachments, turns
from bot.types import Attachment, Author, ConversationKey, Room, StoredTurn
from engine.types import Role


def room_id(room: Room) -> ScalarSelect[int]:
    """The id of `room`, as a subquery."""
    return (
        select(rooms.c.id)
        .where(rooms.c.platform == room.platform)
        .where(rooms.c.chat_id == room.chat_id)
        .where(rooms.c.thread_id.is_not_distinct_from(room.thread_id))
        .correlate(None)
        .scalar_subquery()
    )


def conversation_id(key: ConversationKey) -> ScalarSelect[int]:
    """The id of that conversation, as a subquery."""
    return (
        select(conversations.c.id)
        .where(conversations.c.room_id == room_id(key.room))
        .where(conversations.c.persona_id == key.persona_id)
        .correlate(None)
        .scalar_subquery()
    )


def turn_ids_in(room: Room, turn_ids: Sequence[int]) -> Select[tuple[int]]:
    """Those of `turn_ids` that are turns of `room`, in whosever conversation."""
    return (
        select(turns.c.id)
        .select_from(turns.join(conversations))
        .where(conversations.c.room_id == room_id(room))
        .where(turns.c.id.in_(turn_ids))
        .correlate(None)
    )


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
    """The turns in `rows`, which have all columns of `turns`, with their pictures."""
    shown = attachments_of(connection, [row.id for row in rows])
    return [as_turn(row, tuple(shown[row.id])) for row in rows]


def attachments_of(connection: Connection, turn_ids: Sequence[int]) -> defaultdict[int, list[Attachment]]:
    """The pictures of each of those turns, in their order."""
    by_turn: defaultdict[int, list[Attachment]] = defaultdict(list)
    query = (
        select(turn_attachments.c.turn_id, attachments)
        .select_from(turn_attachments.join(attachments))
        .where(turn_attachments.c.turn_id.in_(turn_ids))
        .order_by(turn_attachments.c.turn_id, turn_attachments.c.position)
    )
    for row in connection.execute(query) if turn_ids else ():
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
