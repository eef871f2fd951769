"""A chat that lives on under another id: its rooms, conversations and settings move there.

Owns the order of the steps and what happens where both ids have been written to. Runs in its caller's transaction.
"""

from sqlalchemy import Connection, Row, Select, delete, select, update

from bot.store.tables import conversations, messages, room_settings, rooms, seen_marks, turns


def move_chat(connection: Connection, platform: str, old_chat_id: str, new_chat_id: str) -> None:
    """Everything of the chat, topics included, belongs to the new id; what that has already stays.

    The messages' ids are forgotten: the new chat counts its messages from 1 again, and one of them must not pass for a
    message that was answered long ago.
    """
    if old_chat_id == new_chat_id:
        return
    of_chat = (rooms.c.platform == platform) & (rooms.c.chat_id == old_chat_id)
    for room in connection.execute(select(rooms).where(of_chat)).all():
        connection.execute(delete(messages).where(messages.c.room_id == room.id))
        _move_room(connection, room, new_chat_id)
    of_old_mark = (seen_marks.c.platform == platform) & (seen_marks.c.chat_id == old_chat_id)
    connection.execute(delete(seen_marks).where(of_old_mark))


def _move_room(connection: Connection, room: Row[tuple[object, ...]], new_chat_id: str) -> None:
    there = (
        select(rooms.c.id, rooms.c.persona_id)
        .where(rooms.c.platform == room.platform)
        .where(rooms.c.chat_id == new_chat_id)
        .where(rooms.c.thread_id.is_not_distinct_from(room.thread_id))
    )
    target = connection.execute(there).first()
    if target is None:
        connection.execute(update(rooms).where(rooms.c.id == room.id).values(chat_id=new_chat_id))
        return
    _merge_conversations(connection, room.id, target.id)
    if target.persona_id is None:
        connection.execute(update(rooms).where(rooms.c.id == target.id).values(persona_id=room.persona_id))
    if connection.scalar(_settings_of(target.id)) is None:
        of_room = room_settings.c.room_id == room.id
        connection.execute(update(room_settings).where(of_room).values(room_id=target.id))
    connection.execute(delete(rooms).where(rooms.c.id == room.id))


def _merge_conversations(connection: Connection, room_id: int, target_id: int) -> None:
    kept = select(conversations.c.persona_id, conversations.c.id).where(conversations.c.room_id == target_id)
    by_persona = {row.persona_id: row.id for row in connection.execute(kept)}
    coming = select(conversations).where(conversations.c.room_id == room_id)
    for row in connection.execute(coming).all():
        into = by_persona.get(row.persona_id)
        if into is None:
            moved = update(conversations).where(conversations.c.id == row.id).values(room_id=target_id)
        else:
            moved = update(turns).where(turns.c.conversation_id == row.id).values(conversation_id=into)
        connection.execute(moved)


def _settings_of(room_id: int) -> Select[tuple[str]]:
    return select(room_settings.c.settings).where(room_settings.c.room_id == room_id)
