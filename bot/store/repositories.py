"""What is remembered: turns by conversation, the persona that a room chose, and what pictures look like.

Owns every query. Knows neither platforms nor prompts, nor where an attachment's bytes are.
"""

import sys
from array import array
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, ScalarSelect, delete, exists, func, literal, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.store.database import Database
from bot.store.tables import (
    attachments,
    conversations,
    messages,
    picture_embeddings,
    reply_origins,
    rooms,
    turn_attachments,
    turns,
)
from bot.types import (
    Attachment,
    Author,
    ConversationKey,
    NewTurn,
    PictureShown,
    ReplyOrigin,
    Room,
    StoredTurn,
)
from engine.types import Role


class Conversations:
    """The turns of every conversation. Nothing is reachable from outside its own room. Raises `StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, key: ConversationKey, turn: NewTurn) -> StoredTurn | None:
        """Remember `turn`, committed before this returns; `None` where one of its messages was seen in that room.

        A message stays seen after a reset. A cancelled caller does not stop it.
        """
        return await self._database.write(lambda connection: _append(connection, key, turn))

    async def recent(self, key: ConversationKey, *, max_turns: int) -> list[StoredTurn]:
        """The newest turns since the last reset, oldest first."""
        return await self._database.read(lambda connection: _recent(connection, key, max_turns))

    async def reset(self, key: ConversationKey) -> int:
        """Delete the conversation's turns and say how many there were."""
        num_turns = await self._database.write(lambda connection: _reset(connection, key))
        if num_turns:
            await self._database.empty_log()
        return num_turns

    async def speaker(self, room: Room, message_id: str) -> str | None:
        """The id of the persona that sent that message in `room`, also where its turn is forgotten."""
        query = (
            select(messages.c.persona_id)
            .where(messages.c.room_id == _room_id(room))
            .where(messages.c.message_id == message_id)
        )
        return await self._database.read(lambda connection: connection.scalar(query))

    async def turn_of(self, room: Room, message_id: str) -> tuple[ConversationKey, int] | None:
        """The turn that came in that message of `room`, and its conversation."""
        query = (
            select(conversations.c.persona_id, turns.c.id)
            .select_from(messages.join(turns, messages.c.turn_id == turns.c.id).join(conversations))
            .where(messages.c.room_id == _room_id(room))
            .where(messages.c.message_id == message_id)
        )
        row = (await self._database.read(lambda connection: connection.execute(query))).first()
        return None if row is None else (ConversationKey(room, row.persona_id), row.id)

    async def origin_of(self, key: ConversationKey, turn_id: int) -> ReplyOrigin | None:
        """What that reply was made from, where that was noted."""
        query = (
            select(reply_origins)
            .select_from(reply_origins.join(turns, reply_origins.c.turn_id == turns.c.id))
            .where(turns.c.conversation_id == _conversation_id(key))
            .where(turns.c.id == turn_id)
        )
        row = (await self._database.read(lambda connection: connection.execute(query))).first()
        return None if row is None else ReplyOrigin(row.asked_turn_id, row.persona_digest)

    async def pictures_of(self, key: ConversationKey, *, max_pictures: int) -> list[PictureShown]:
        """The pictures of the conversation, each once, those shown last first."""
        return await self._database.read(lambda connection: _pictures_of(connection, key, max_pictures))

    async def has_attachment(self, room: Room, digest: str) -> bool:
        """Whether a turn in `room` shows that picture."""
        query = (
            select(turn_attachments.c.digest)
            .select_from(turn_attachments.join(turns).join(conversations))
            .where(conversations.c.room_id == _room_id(room))
            .where(turn_attachments.c.digest == digest)
            .limit(1)
        )
        return await self._database.read(lambda connection: connection.scalar(query)) is not None

    async def attachments_of(self, room: Room, message_id: str) -> tuple[Attachment, ...]:
        """The pictures of the turn that came with that message in `room`."""
        query = (
            select(attachments)
            .select_from(
                attachments.join(turn_attachments).join(messages, messages.c.turn_id == turn_attachments.c.turn_id)
            )
            .where(messages.c.room_id == _room_id(room))
            .where(messages.c.message_id == message_id)
            .order_by(turn_attachments.c.position)
        )
        rows = await self._database.read(lambda connection: connection.execute(query))
        return tuple(_attachment(row) for row in rows)


class PictureEmbeddings:
    """What stored pictures look like to the engine. Knows no room: whoever asks knows whose pictures it asks for.

    Raises `StoreError`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, digests: Sequence[str], *, space: str) -> dict[str, tuple[float, ...]]:
        """The embeddings that are known in `space`, by the pictures' digests."""
        query = (
            select(picture_embeddings.c.digest, picture_embeddings.c.vector)
            .where(picture_embeddings.c.space == space)
            .where(picture_embeddings.c.digest.in_(digests))
        )
        rows = await self._database.read(lambda connection: connection.execute(query))
        return {row.digest: _unpacked(row.vector) for row in rows}

    async def put(self, vectors: Mapping[str, Sequence[float]], *, space: str) -> None:
        """Keep embeddings, in place of older ones. Those of pictures that are gone meanwhile are dropped."""
        await self._database.write(lambda connection: _put_embeddings(connection, vectors, space))


class Rooms:
    """What a room has chosen. Raises `StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def persona_id(self, room: Room) -> str | None:
        """The persona that was chosen in `room`, if any was."""
        query = select(rooms.c.persona_id).where(rooms.c.id == _room_id(room))
        return await self._database.read(lambda connection: connection.scalar(query))

    async def choose(self, room: Room, persona_id: str) -> None:
        """Let that persona answer in `room`."""
        await self._database.write(lambda connection: _choose(connection, room, persona_id))


async def _append(connection: AsyncConnection, key: ConversationKey, turn: NewTurn) -> StoredTurn | None:
    room_id = await _ensure_room(connection, key.room)
    message_ids = tuple(dict.fromkeys(turn.message_ids))
    if await _was_seen(connection, room_id, message_ids):
        return None
    stored = await _insert_turn(connection, await _ensure_conversation(connection, room_id, key.persona_id), turn)
    if message_ids:
        speaker = key.persona_id if turn.role is Role.ASSISTANT else None
        await connection.execute(
            insert(messages),
            [
                {"room_id": room_id, "message_id": message_id, "turn_id": stored.id, "persona_id": speaker}
                for message_id in message_ids
            ],
        )
    if turn.attachments:
        await _link_attachments(connection, stored.id, turn.attachments)
    if turn.origin is not None:
        await _note_origin(connection, stored.id, turn.origin)
    return stored


async def _insert_turn(connection: AsyncConnection, conversation_id: int, turn: NewTurn) -> StoredTurn:
    author = turn.author
    if author is not None:
        author = Author(author.platform, author.user_id, _well_formed(author.display_name), author.is_bot)
    text = _well_formed(turn.text)
    created_at = datetime.now(UTC)
    values: dict[str, object] = {
        "conversation_id": conversation_id,
        "role": turn.role.value,
        "text": text,
        "created_at": created_at,
    }
    if author is not None:
        values |= {
            "author_platform": author.platform,
            "author_user_id": author.user_id,
            "author_display_name": author.display_name,
            "author_is_bot": author.is_bot,
        }
    turn_id = (await connection.execute(insert(turns).values(values).returning(turns.c.id))).scalar_one()
    return StoredTurn(turn_id, turn.role, text, created_at, author, turn.attachments)


async def _link_attachments(connection: AsyncConnection, turn_id: int, shown: Sequence[Attachment]) -> None:
    await connection.execute(
        insert(attachments).on_conflict_do_nothing(),
        [
            {
                "digest": attachment.digest,
                "mime": attachment.mime,
                "num_bytes": attachment.num_bytes,
                "width": attachment.width,
                "height": attachment.height,
            }
            for attachment in shown
        ],
    )
    await connection.execute(
        insert(turn_attachments),
        [
            {"turn_id": turn_id, "position": position, "digest": attachment.digest}
            for position, attachment in enumerate(shown)
        ],
    )


async def _note_origin(connection: AsyncConnection, turn_id: int, origin: ReplyOrigin) -> None:
    # A reset may have come in between: then the question is gone.
    asked = select(turns.c.id).where(turns.c.id == origin.asked_turn_id).scalar_subquery()
    values = {"turn_id": turn_id, "asked_turn_id": asked, "persona_digest": origin.persona_digest}
    await connection.execute(insert(reply_origins).values(values))


async def _pictures_of(connection: AsyncConnection, key: ConversationKey, max_pictures: int) -> list[PictureShown]:
    last_shown = (
        select(turn_attachments.c.digest, func.max(turns.c.id).label("turn_id"))
        .select_from(turn_attachments.join(turns))
        .where(turns.c.conversation_id == _conversation_id(key))
        .group_by(turn_attachments.c.digest)
        .subquery()
    )
    query = (
        select(turns, attachments)
        .select_from(
            last_shown.join(turns, last_shown.c.turn_id == turns.c.id).join(
                attachments, last_shown.c.digest == attachments.c.digest
            )
        )
        .order_by(turns.c.id.desc(), attachments.c.digest)
        .limit(max(max_pictures, 0))
    )
    rows = await connection.execute(query)
    return [PictureShown(_attachment(row), row.created_at, _author(row)) for row in rows]


async def _put_embeddings(connection: AsyncConnection, vectors: Mapping[str, Sequence[float]], space: str) -> None:
    for digest, vector in vectors.items():
        still_there = select(
            attachments.c.digest, literal(space).label("space"), literal(_packed(vector)).label("vector")
        ).where(attachments.c.digest == digest)
        statement = insert(picture_embeddings).from_select(["digest", "space", "vector"], still_there)
        new = {"space": statement.excluded.space, "vector": statement.excluded.vector}
        await connection.execute(statement.on_conflict_do_update(index_elements=["digest"], set_=new))


def _packed(vector: Sequence[float]) -> bytes:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _unpacked(data: bytes) -> tuple[float, ...]:
    numbers = array("f", data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return tuple(numbers)


async def _recent(connection: AsyncConnection, key: ConversationKey, max_turns: int) -> list[StoredTurn]:
    query = (
        select(turns)
        .where(turns.c.conversation_id == _conversation_id(key))
        .order_by(turns.c.id.desc())
        # A negative limit means "no limit" to SQLite.
        .limit(max(max_turns, 0))
    )
    rows = (await connection.execute(query)).all()[::-1]
    if not rows:
        return []
    shown = await _attachments_since(connection, key, rows[0].id)
    return [_turn(row, tuple(shown[row.id])) for row in rows]


async def _attachments_since(
    connection: AsyncConnection, key: ConversationKey, turn_id: int
) -> defaultdict[int, list[Attachment]]:
    query = (
        select(turn_attachments.c.turn_id, attachments)
        .select_from(turn_attachments.join(attachments).join(turns))
        .where(turns.c.conversation_id == _conversation_id(key))
        .where(turns.c.id >= turn_id)
        .order_by(turn_attachments.c.turn_id, turn_attachments.c.position)
    )
    by_turn: defaultdict[int, list[Attachment]] = defaultdict(list)
    for row in await connection.execute(query):
        by_turn[row.turn_id].append(_attachment(row))
    return by_turn


async def _reset(connection: AsyncConnection, key: ConversationKey) -> int:
    of_conversation = turns.c.conversation_id == _conversation_id(key)
    num_turns = await connection.scalar(select(func.count()).select_from(turns).where(of_conversation))
    await connection.execute(delete(turns).where(of_conversation))
    return num_turns or 0


async def _choose(connection: AsyncConnection, room: Room, persona_id: str) -> None:
    room_id = await _ensure_room(connection, room)
    await connection.execute(rooms.update().where(rooms.c.id == room_id).values(persona_id=persona_id))


async def _was_seen(connection: AsyncConnection, room_id: int, message_ids: Sequence[str]) -> bool:
    seen = exists().where(messages.c.room_id == room_id).where(messages.c.message_id.in_(message_ids))
    return bool(message_ids) and bool(await connection.scalar(select(seen)))


async def _ensure_room(connection: AsyncConnection, room: Room) -> int:
    values = {"platform": room.platform, "chat_id": room.chat_id, "thread_id": room.thread_id}
    await connection.execute(insert(rooms).values(values).on_conflict_do_nothing())
    room_id: int = (await connection.execute(select(_room_id(room)))).scalar_one()
    return room_id


async def _ensure_conversation(connection: AsyncConnection, room_id: int, persona_id: str) -> int:
    values = {"room_id": room_id, "persona_id": persona_id}
    await connection.execute(insert(conversations).values(values).on_conflict_do_nothing())
    query = (
        select(conversations.c.id)
        .where(conversations.c.room_id == room_id)
        .where(conversations.c.persona_id == persona_id)
    )
    conversation_id: int = (await connection.execute(query)).scalar_one()
    return conversation_id


def _room_id(room: Room) -> ScalarSelect[int]:
    return (
        select(rooms.c.id)
        .where(rooms.c.platform == room.platform)
        .where(rooms.c.chat_id == room.chat_id)
        .where(rooms.c.thread_id.is_not_distinct_from(room.thread_id))
        .correlate(None)
        .scalar_subquery()
    )


def _conversation_id(key: ConversationKey) -> ScalarSelect[int]:
    return (
        select(conversations.c.id)
        .where(conversations.c.room_id == _room_id(key.room))
        .where(conversations.c.persona_id == key.persona_id)
        .correlate(None)
        .scalar_subquery()
    )


def _turn(row: Row[Any], shown: tuple[Attachment, ...]) -> StoredTurn:
    return StoredTurn(row.id, Role(row.role), row.text, row.created_at, _author(row), shown)


def _author(row: Row[Any]) -> Author | None:
    if row.author_user_id is None:
        return None
    return Author(row.author_platform, row.author_user_id, row.author_display_name, row.author_is_bot)


def _attachment(row: Row[Any]) -> Attachment:
    return Attachment(row.digest, row.mime, row.num_bytes, row.width, row.height)


def _well_formed(text: str) -> str:
    """`text` with lone halves of surrogate pairs replaced: platforms let them through, UTF-8 cannot hold them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
