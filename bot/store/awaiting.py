"""The replies that are owed: noted with the question, settled with the reply.

Owns the rows of `awaited_replies`. Every step runs in its caller's transaction. Knows not who answers, nor how.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from functools import cache

from sqlalchemy import Connection, Delete, bindparam, delete, literal_column, select, update
from sqlalchemy.dialects.sqlite import insert

from bot.store.queries import STORED_TURN, bound_turn_ids, names_of, read_turns, turn_ids_in
from bot.store.tables import awaited_replies, conversations, messages, rooms, turns
from bot.types import AwaitedReply, ChatKind, ConversationKey, Room

_OWE = insert(awaited_replies)


def await_replies(connection: Connection, turn_id: int, persona_ids: Sequence[str], kind: ChatKind | None) -> None:
    """Each of those personas owes a reply to that turn."""
    if not persona_ids:
        return
    if kind is None:
        raise ValueError("replies that are awaited need the kind of their chat")
    rows = [
        {"turn_id": turn_id, "persona_id": persona_id, "kind": kind.value, "message_ids": "[]"}
        for persona_id in dict.fromkeys(persona_ids)
    ]
    connection.execute(_OWE, rows)


def settle_replies(connection: Connection, room: Room, turn_ids: Sequence[int], persona_id: str) -> None:
    """That persona owes no reply any more to those turns of `room`."""
    if turn_ids:
        settled = names_of(room) | {"turn_ids": turn_ids, "owed_by": persona_id}
        connection.execute(_settling(room.thread_id is not None), settled)


def note_shown(connection: Connection, room: Room, turn_id: int, persona_id: str, message_ids: Sequence[str]) -> None:
    """Those messages show that persona's reply so far."""
    connection.execute(
        update(awaited_replies)
        .where(awaited_replies.c.turn_id.in_(turn_ids_in(room, [turn_id])))
        .where(awaited_replies.c.persona_id == persona_id)
        .values(message_ids=json.dumps(message_ids))
    )


def awaited_since(connection: Connection, platform: str, since: datetime) -> list[AwaitedReply]:
    """What is owed to that platform, the oldest first. Who asked before `since` waits no more: that is forgotten."""
    # From the few that are owed: looking through all turns of the platform takes long.
    too_old = (
        select(awaited_replies.c.turn_id)
        .select_from(awaited_replies.join(turns).join(conversations).join(rooms))
        .where(rooms.c.platform == platform)
        .where(turns.c.created_at < since)
    )
    connection.execute(delete(awaited_replies).where(awaited_replies.c.turn_id.in_(too_old)))
    first_message = (
        select(messages.c.message_id)
        .where(messages.c.turn_id == turns.c.id)
        .order_by(messages.c.position)
        .limit(1)
        .scalar_subquery()
    )
    query = (
        select(
            *STORED_TURN,
            rooms.c.chat_id,
            rooms.c.thread_id,
            conversations.c.persona_id.label("kept_by"),
            awaited_replies.c.persona_id.label("owed_by"),
            awaited_replies.c.kind,
            awaited_replies.c.message_ids,
            first_message.label("message_id"),
        )
        .select_from(awaited_replies.join(turns).join(conversations).join(rooms))
        .where(rooms.c.platform == platform)
        # Not by the turns' ids, which are the same: SQLite would go through all turns for it. Who was named first
        # answers first.
        .order_by(awaited_replies.c.turn_id, literal_column("awaited_replies.rowid"))
    )
    rows = connection.execute(query).all()
    found = read_turns(connection, rows)
    return [
        AwaitedReply(
            key=ConversationKey(Room(platform, row.chat_id, row.thread_id), row.kept_by),
            turn=turn,
            persona_id=row.owed_by,
            kind=ChatKind(row.kind),
            message_id=row.message_id or "",
            message_ids=tuple(json.loads(row.message_ids)),
        )
        for row, turn in zip(rows, found, strict=True)
    ]


@cache
def _settling(has_thread: bool) -> Delete:
    return (
        delete(awaited_replies)
        .where(awaited_replies.c.turn_id.in_(bound_turn_ids(has_thread=has_thread)))
        .where(awaited_replies.c.persona_id == bindparam("owed_by"))
    )
