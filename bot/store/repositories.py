"""What is remembered: turns by conversation, what a room has chosen, and what pictures look like.

Owns who may reach what: everything here is asked for by conversation or room. Knows neither platforms nor prompts, nor
where an attachment's bytes are.
"""

import logging
import sys
from array import array
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple

from pydantic import ValidationError
from sqlalchemy import (
    Connection,
    Executable,
    Integer,
    Select,
    bindparam,
    delete,
    exists,
    false,
    func,
    literal,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects.sqlite import Insert, insert

from bot.rooms import RoomSettings
from bot.store import alternatives, awaiting
from bot.store.database import Database
from bot.store.moving import move_chat
from bot.store.queries import (
    STORED_TURN,
    as_attachment,
    as_author,
    bound_conversation_id,
    bound_room_id,
    bound_turn_ids,
    conversation_id,
    ensure_conversation,
    ensure_room,
    names_of,
    read_turns,
    room_id,
    turn_ids_in,
    well_formed,
)
from bot.store.tables import (
    attachments,
    conversations,
    messages,
    picture_embeddings,
    reply_origins,
    room_settings,
    rooms,
    turn_attachments,
    turns,
)
from bot.types import (
    Alternatives,
    Attachment,
    Author,
    AwaitedReply,
    ChatKind,
    ConversationKey,
    NewTurn,
    PictureShown,
    ReplyOrigin,
    Room,
    SpokenTurn,
    StoredTurn,
)
from engine.types import Role

logger = logging.getLogger(__name__)

_INSERT_TURN = insert(turns).returning(turns.c.id)


class Conversations:
    """The turns of every conversation. Nothing is reachable from outside its own room. Raises `StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(
        self,
        key: ConversationKey,
        turn: NewTurn,
        *,
        awaited: Sequence[str] = (),
        kind: ChatKind | None = None,
        settles: Sequence[int] = (),
    ) -> StoredTurn | None:
        """Remember `turn`, committed before this returns; `None` where one of its messages was seen in that room.

        A message stays seen after a reset. A cancelled caller does not stop it. The personas `awaited` owe a reply to
        the turn from now on, in a chat of that `kind`. A reply settles what its persona owed to the turn that it
        answers, and to the turns `settles`, in whosever conversation of the room they are.
        """

        def work(connection: Connection) -> StoredTurn | None:
            stored = _append(connection, key, turn)
            if stored is None:
                return None
            awaiting.await_replies(connection, stored.id, awaited, kind)
            if turn.role is Role.ASSISTANT:
                asked = turn.origin.asked_turn_id if turn.origin is not None else None
                answered = [*settles, *([] if asked is None else [asked])]
                awaiting.settle_replies(connection, key.room, answered, key.persona_id)
            return stored

        return await self._database.write(work)

    async def recent(self, key: ConversationKey, *, max_turns: int) -> list[StoredTurn]:
        """The newest turns since the last reset, oldest first."""
        return await self._database.read(lambda connection: _recent(connection, key, max_turns))

    async def reset(self, key: ConversationKey) -> int:
        """Delete the conversation's turns and say how many there were."""
        num_turns = await self._database.write(lambda connection: _reset(connection, key))
        if num_turns:
            await self._database.empty_log()
        return num_turns

    async def turn(self, key: ConversationKey, turn_id: int) -> StoredTurn | None:
        """That turn of the conversation, if it is there."""

        def work(connection: Connection) -> list[StoredTurn]:
            query = _turn_query(key, turn_id)
            return read_turns(connection, connection.execute(query).all())

        return next(iter(await self._database.read(work)), None)

    async def room_turns(self, room: Room, persona_ids: Sequence[str], *, max_turns: int) -> list[SpokenTurn]:
        """The newest turns of those personas' conversations in `room`, oldest first."""
        return await self._database.read(lambda connection: _room_turns(connection, room, persona_ids, max_turns))

    async def num_turns_before(self, room: Room, persona_ids: Sequence[str], turn_id: int) -> int:
        """How many turns of those personas' conversations in `room` are older than that one."""
        of_them = turns.c.conversation_id.in_(
            [conversation_id(ConversationKey(room, persona_id)) for persona_id in dict.fromkeys(persona_ids)]
        )
        query = select(func.count()).select_from(turns).where(of_them).where(turns.c.id < turn_id)
        return await self._database.read(lambda connection: connection.scalar(query) or 0)

    async def last_reply(self, room: Room, persona_ids: Sequence[str]) -> tuple[ConversationKey, StoredTurn] | None:
        """The newest reply that one of those personas gave in `room`."""
        query = _newest_turns(room, persona_ids, 1, role=Role.ASSISTANT)
        found = await self._database.read(lambda connection: _spoken(connection, query))
        return (ConversationKey(room, found[0].persona_id), found[0].turn) if found else None

    async def remove(self, key: ConversationKey, turn_ids: Sequence[int]) -> int:
        """Delete those turns of the conversation, and say how many there were. Their messages stay seen."""
        query = delete(turns).where(turns.c.conversation_id == conversation_id(key)).where(turns.c.id.in_(turn_ids))
        num_removed = await self._database.write(lambda connection: connection.execute(query).rowcount)
        if num_removed:
            await self._database.empty_log()
        return num_removed

    # --- replies that are owed

    async def settle(self, key: ConversationKey, turn_id: int, persona_id: str) -> None:
        """That persona owes no reply any more to that turn of the conversation's room."""
        await self._database.write(
            lambda connection: awaiting.settle_replies(connection, key.room, [turn_id], persona_id)
        )

    async def note_shown(self, key: ConversationKey, turn_id: int, persona_id: str, message_ids: Sequence[str]) -> None:
        """Those messages show the reply so far that the persona owes to that turn. Nothing where it owes none."""
        await self._database.write(
            lambda connection: awaiting.note_shown(connection, key.room, turn_id, persona_id, message_ids)
        )

    async def awaited(self, platform: str, *, since: datetime) -> list[AwaitedReply]:
        """The replies that are owed on that platform, oldest first; those to turns before `since` are given up."""
        return await self._database.write(lambda connection: awaiting.awaited_since(connection, platform, since))

    # --- changing what was said

    async def rewrite(self, key: ConversationKey, turn_id: int, text: str) -> bool:
        """Replace a turn's text, and say whether the turn is there.

        Of a reply it is the chosen alternative's text too; ratings of the old words are gone.
        """
        is_there = await self._database.write(lambda connection: alternatives.rewrite(connection, key, turn_id, text))
        if is_there:
            await self._database.empty_log()
        return is_there

    async def alternatives(self, key: ConversationKey, turn_id: int) -> Alternatives:
        """The versions of a reply, at least its own text; none at all where there is no such reply."""
        return await self._database.read(lambda connection: alternatives.alternatives_of(connection, key, turn_id))

    async def add_alternative(self, key: ConversationKey, turn_id: int, text: str) -> Alternatives:
        """Keep another version of a reply, which is chosen; of too many, the oldest that is not chosen goes.

        Nothing is kept, and none given back, where there is no such reply.
        """
        return await self._database.write(lambda connection: alternatives.add(connection, key, turn_id, text))

    async def choose_alternative(self, key: ConversationKey, turn_id: int, index: int) -> Alternatives:
        """Let another version of a reply be its text. An index that there is not leaves the choice as it is."""
        return await self._database.write(lambda connection: alternatives.choose(connection, key, turn_id, index))

    # --- messages

    async def message_ids(self, key: ConversationKey, turn_id: int) -> tuple[str, ...]:
        """The messages that show that turn, in the order in which they were shown."""
        query = (
            select(messages.c.message_id)
            .select_from(messages.join(turns, messages.c.turn_id == turns.c.id))
            .where(turns.c.conversation_id == conversation_id(key))
            .where(turns.c.id == turn_id)
            .order_by(messages.c.position)
        )
        return tuple(await self._database.read(lambda connection: connection.scalars(query).all()))

    async def replace_messages(self, key: ConversationKey, turn_id: int, message_ids: Sequence[str]) -> None:
        """Those messages show the turn from now on. Others stay seen, but lead to no turn."""
        await self._database.write(lambda connection: _replace_messages(connection, key, turn_id, message_ids))

    async def speaker(self, room: Room, message_id: str) -> str | None:
        """The id of the persona that sent that message in `room`, also where its turn is forgotten."""
        query = (
            select(messages.c.persona_id)
            .where(messages.c.room_id == room_id(room))
            .where(messages.c.message_id == message_id)
        )
        return await self._database.read(lambda connection: connection.scalar(query))

    async def turn_of(self, room: Room, message_id: str) -> tuple[ConversationKey, int] | None:
        """The turn that came in that message of `room`, and its conversation."""
        query = (
            select(conversations.c.persona_id, turns.c.id)
            .select_from(messages.join(turns, messages.c.turn_id == turns.c.id).join(conversations))
            .where(messages.c.room_id == room_id(room))
            .where(messages.c.message_id == message_id)
        )
        row = await self._database.read(lambda connection: connection.execute(query).first())
        return None if row is None else (ConversationKey(room, row.persona_id), row.id)

    async def replies_to(self, room: Room, turn_id: int) -> list[tuple[ConversationKey, int]]:
        """The replies in `room` that were made from that turn of it, oldest first."""
        query = (
            select(conversations.c.persona_id, turns.c.id)
            .select_from(reply_origins.join(turns, reply_origins.c.turn_id == turns.c.id).join(conversations))
            .where(conversations.c.room_id == room_id(room))
            .where(reply_origins.c.asked_turn_id.in_(turn_ids_in(room, [turn_id])))
            .order_by(turns.c.id)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [(ConversationKey(room, row.persona_id), row.id) for row in rows]

    async def origin_of(self, key: ConversationKey, turn_id: int) -> ReplyOrigin | None:
        """What that reply was made from, where that was noted."""
        query = (
            select(reply_origins)
            .select_from(reply_origins.join(turns, reply_origins.c.turn_id == turns.c.id))
            .where(turns.c.conversation_id == conversation_id(key))
            .where(turns.c.id == turn_id)
        )
        row = await self._database.read(lambda connection: connection.execute(query).first())
        return None if row is None else ReplyOrigin(row.asked_turn_id, row.persona_digest)

    async def pictures_of(self, key: ConversationKey, *, max_pictures: int) -> list[PictureShown]:
        """The pictures of the conversation, each once, those shown last first."""
        return await self._database.read(lambda connection: _pictures_of(connection, key, max_pictures))

    async def has_attachment(self, room: Room, digest: str) -> bool:
        """Whether a turn in `room` shows that picture."""
        query = (
            select(turn_attachments.c.digest)
            .select_from(turn_attachments.join(turns).join(conversations))
            .where(conversations.c.room_id == room_id(room))
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
            .where(messages.c.room_id == room_id(room))
            .where(messages.c.message_id == message_id)
            .order_by(turn_attachments.c.position)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return tuple(as_attachment(row) for row in rows)


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
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return {row.digest: _unpacked(row.vector) for row in rows}

    async def put(self, vectors: Mapping[str, Sequence[float]], *, space: str) -> None:
        """Keep embeddings, in place of older ones. Those of pictures that are gone meanwhile are dropped."""
        await self._database.write(lambda connection: _put_embeddings(connection, vectors, space))


class Rooms:
    """What a room has chosen and set. A thread takes over what it has not from the chat around it.

    Raises `StoreError`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def persona_id(self, room: Room) -> str | None:
        """The persona that was chosen in `room`, if any was."""
        return _persona_of(await self._database.read(lambda connection: _kept_of(connection, room)))

    async def choose(self, room: Room, persona_id: str) -> None:
        """Let that persona answer in `room`."""
        await self._database.write(lambda connection: _choose(connection, room, persona_id))

    async def settings(self, room: Room) -> RoomSettings:
        """The settings that hold in `room`: a thread's, laid over those of the chat around it."""
        return _settings_of(await self._database.read(lambda connection: _kept_of(connection, room)))

    async def persona_and_settings(self, room: Room) -> tuple[str | None, RoomSettings]:
        """Both at once, as each message wants them."""
        kept = await self._database.read(lambda connection: _kept_of(connection, room))
        return _persona_of(kept), _settings_of(kept)

    async def own_settings(self, room: Room) -> RoomSettings:
        """What was set in `room` itself."""
        return _read_settings(await self._database.read(lambda connection: _kept_in(connection, room)))

    async def change(self, room: Room, settings: RoomSettings) -> None:
        """Let `settings` be what was set in `room` itself."""
        await self._database.write(lambda connection: _change(connection, room, settings))

    async def move(self, platform: str, old_chat_id: str, new_chat_id: str) -> None:
        """Everything of a chat, topics included, belongs to the new id; with what that has already, it is merged.

        Messages' ids are forgotten: they were the old chat's.
        """
        await self._database.write(lambda connection: move_chat(connection, platform, old_chat_id, new_chat_id))


def _append(connection: Connection, key: ConversationKey, turn: NewTurn) -> StoredTurn | None:
    message_ids = tuple(dict.fromkeys(turn.message_ids))
    in_room, conversation, is_seen = _place_of(connection, key, message_ids)
    if is_seen:
        return None
    if in_room is None:
        in_room = ensure_room(connection, key.room)
    if conversation is None:
        conversation = ensure_conversation(connection, in_room, key.persona_id)
    stored = _insert_turn(connection, conversation, turn)
    _link_messages(connection, in_room, key, stored, message_ids)
    if turn.attachments:
        _link_attachments(connection, stored.id, turn.attachments)
    if turn.origin is not None:
        _note_origin(connection, key.room, stored.id, turn.origin)
    return stored


def _place_of(
    connection: Connection, key: ConversationKey, message_ids: Sequence[str]
) -> tuple[int | None, int | None, bool]:
    """The ids of room and conversation, and whether one of the messages was seen there: one question for every turn."""
    asked = names_of(key.room) | {"persona_id": key.persona_id, "message_ids": message_ids}
    in_room, conversation, is_seen = connection.execute(_place_query(key.room.thread_id is not None), asked).one()
    return in_room, conversation, is_seen


@cache
def _place_query(has_thread: bool) -> Executable:
    in_room = bound_room_id(has_thread=has_thread)
    is_one_of_them = messages.c.message_id.in_(bindparam("message_ids", expanding=True))
    seen = exists().where(messages.c.room_id == in_room).where(is_one_of_them)
    return select(in_room, bound_conversation_id(has_thread=has_thread), seen)


def _insert_turn(connection: Connection, conversation_id: int, turn: NewTurn) -> StoredTurn:
    author = turn.author
    if author is not None:
        author = Author(author.platform, author.user_id, well_formed(author.display_name), author.is_bot)
    text = well_formed(turn.text)
    created_at = datetime.now(UTC)
    values: dict[str, object] = {
        "conversation_id": conversation_id,
        "role": turn.role.value,
        "text": text,
        "created_at": created_at,
        "author_platform": None if author is None else author.platform,
        "author_user_id": None if author is None else author.user_id,
        "author_display_name": None if author is None else author.display_name,
        "author_is_bot": None if author is None else author.is_bot,
    }
    turn_id = connection.execute(_INSERT_TURN, values).scalar_one()
    return StoredTurn(turn_id, turn.role, text, created_at, author, turn.attachments)


def _link_messages(
    connection: Connection, in_room: int, key: ConversationKey, turn: StoredTurn, message_ids: Sequence[str]
) -> None:
    """Those messages show the turn, but for any that shows another one."""
    if not message_ids:
        return
    connection.execute(
        _link_message(),
        [
            {
                "room_id": in_room,
                "message_id": message_id,
                "turn_id": turn.id,
                "persona_id": key.persona_id if turn.role is Role.ASSISTANT else None,
                "position": position,
                "seen_at": datetime.now(UTC),
            }
            for position, message_id in enumerate(message_ids)
        ],
    )


@cache
def _link_message() -> Insert:
    statement = insert(messages)
    new = {name: statement.excluded[name] for name in ("turn_id", "persona_id", "position")}
    return statement.on_conflict_do_update(set_=new, where=messages.c.turn_id.is_(None))


def _turn_query(key: ConversationKey, turn_id: int) -> Select[Any]:
    return select(*STORED_TURN).where(turns.c.conversation_id == conversation_id(key)).where(turns.c.id == turn_id)


def _replace_messages(connection: Connection, key: ConversationKey, turn_id: int, message_ids: Sequence[str]) -> None:
    query = _turn_query(key, turn_id)
    row = connection.execute(query).first()
    if row is None:
        return
    connection.execute(update(messages).where(messages.c.turn_id == turn_id).values(turn_id=None))
    (turn,) = read_turns(connection, [row])
    in_room = ensure_room(connection, key.room)
    _link_messages(connection, in_room, key, turn, tuple(dict.fromkeys(message_ids)))


def _link_attachments(connection: Connection, turn_id: int, shown: Sequence[Attachment]) -> None:
    connection.execute(
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
    connection.execute(
        insert(turn_attachments),
        [
            {"turn_id": turn_id, "position": position, "digest": attachment.digest}
            for position, attachment in enumerate(shown)
        ],
    )


def _note_origin(connection: Connection, room: Room, turn_id: int, origin: ReplyOrigin) -> None:
    # A reset may have come in between: then the question is gone.
    asked_turn_ids = [] if origin.asked_turn_id is None else [origin.asked_turn_id]
    values = {"turn_ids": asked_turn_ids, "turn_id": turn_id, "persona_digest": origin.persona_digest}
    connection.execute(_noting_origin(room.thread_id is not None), names_of(room) | values)


@cache
def _noting_origin(has_thread: bool) -> Insert:
    asked = bound_turn_ids(has_thread=has_thread).scalar_subquery()
    return insert(reply_origins).values(asked_turn_id=asked)


def _pictures_of(connection: Connection, key: ConversationKey, max_pictures: int) -> list[PictureShown]:
    last_shown = (
        select(turn_attachments.c.digest, func.max(turns.c.id).label("turn_id"))
        .select_from(turn_attachments.join(turns))
        .where(turns.c.conversation_id == conversation_id(key))
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
    rows = connection.execute(query)
    return [PictureShown(as_attachment(row), row.created_at, as_author(row)) for row in rows]


def _put_embeddings(connection: Connection, vectors: Mapping[str, Sequence[float]], space: str) -> None:
    for digest, vector in vectors.items():
        still_there = select(
            attachments.c.digest, literal(space).label("space"), literal(_packed(vector)).label("vector")
        ).where(attachments.c.digest == digest)
        statement = insert(picture_embeddings).from_select(["digest", "space", "vector"], still_there)
        new = {"space": statement.excluded.space, "vector": statement.excluded.vector}
        connection.execute(statement.on_conflict_do_update(index_elements=["digest"], set_=new))


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


def _recent(connection: Connection, key: ConversationKey, max_turns: int) -> list[StoredTurn]:
    # A negative limit means "no limit" to SQLite.
    asked = names_of(key.room) | {"persona_id": key.persona_id, "max_turns": max(max_turns, 0)}
    rows = connection.execute(_recent_query(key.room.thread_id is not None), asked).all()
    return read_turns(connection, rows[::-1])


@cache
def _recent_query(has_thread: bool) -> Select[Any]:
    return (
        select(*STORED_TURN)
        .where(turns.c.conversation_id == bound_conversation_id(has_thread=has_thread))
        .order_by(turns.c.id.desc())
        .limit(bindparam("max_turns", type_=Integer))
    )


def _newest_turns(
    room: Room, persona_ids: Sequence[str], max_turns: int, *, role: Role | None = None
) -> Select[tuple[Any, ...]]:
    """The newest turns of those personas' conversations in `room`, newest first.

    Each conversation is asked for its own newest ones, which its index gives at once: of all of them together, SQLite
    would sort every turn that there ever was.
    """
    newest = []
    for persona_id in dict.fromkeys(persona_ids):
        own = select(turns.c.id).where(turns.c.conversation_id == conversation_id(ConversationKey(room, persona_id)))
        if role is not None:
            own = own.where(turns.c.role == role.value)
        newest.append(select(own.order_by(turns.c.id.desc()).limit(max_turns).subquery().c.id))
    wanted = turns.c.id.in_(union_all(*newest)) if newest else false()
    return (
        select(*STORED_TURN, conversations.c.persona_id)
        .select_from(turns.join(conversations))
        .where(wanted)
        .order_by(turns.c.id.desc())
        .limit(max_turns)
    )


def _room_turns(connection: Connection, room: Room, persona_ids: Sequence[str], max_turns: int) -> list[SpokenTurn]:
    # A negative limit means "no limit" to SQLite.
    newest_first = _spoken(connection, _newest_turns(room, persona_ids, max(max_turns, 0)))
    return newest_first[::-1]


def _spoken(connection: Connection, query: Select[tuple[Any, ...]]) -> list[SpokenTurn]:
    rows = connection.execute(query).all()
    found = read_turns(connection, rows)
    return [SpokenTurn(row.persona_id, turn) for row, turn in zip(rows, found, strict=True)]


def _reset(connection: Connection, key: ConversationKey) -> int:
    of_conversation = turns.c.conversation_id == conversation_id(key)
    num_turns = connection.scalar(select(func.count()).select_from(turns).where(of_conversation))
    connection.execute(delete(turns).where(of_conversation))
    return num_turns or 0


def _choose(connection: Connection, room: Room, persona_id: str) -> None:
    in_room = ensure_room(connection, room)
    connection.execute(rooms.update().where(rooms.c.id == in_room).values(persona_id=persona_id))


def _change(connection: Connection, room: Room, settings: RoomSettings) -> None:
    values = {
        "room_id": ensure_room(connection, room),
        "settings": well_formed(settings.model_dump_json(exclude_unset=True)),
    }
    statement = insert(room_settings).values(values)
    new = {"settings": statement.excluded.settings}
    connection.execute(statement.on_conflict_do_update(index_elements=["room_id"], set_=new))


class _Kept(NamedTuple):
    """What is kept of `room`."""

    room: Room
    persona_id: str | None
    settings: str | None


def _kept_of(connection: Connection, room: Room) -> list[_Kept]:
    """What is kept of `room` itself, then of the chat that it is a thread of."""
    return [_kept_in(connection, one) for one in dict.fromkeys((room, _around(room)))]


def _kept_in(connection: Connection, room: Room) -> _Kept:
    row = connection.execute(_kept_query(room.thread_id is not None), names_of(room)).first()
    return _Kept(room, None, None) if row is None else _Kept(room, row.persona_id, row.settings)


@cache
def _kept_query(has_thread: bool) -> Executable:
    return (
        select(rooms.c.persona_id, room_settings.c.settings)
        .select_from(rooms.outerjoin(room_settings))
        .where(rooms.c.id == bound_room_id(has_thread=has_thread))
    )


def _persona_of(kept: Sequence[_Kept]) -> str | None:
    return next((one.persona_id for one in kept if one.persona_id is not None), None)


def _settings_of(kept: Sequence[_Kept]) -> RoomSettings:
    own, *around = map(_read_settings, kept)
    return own.within(around[0]) if around else own


def _read_settings(kept: _Kept) -> RoomSettings:
    if kept.settings is None:
        return RoomSettings()
    try:
        return RoomSettings.model_validate_json(kept.settings)
    except ValidationError:
        # A room must not fall silent because another version of Commedia wrote what this one cannot read.
        logger.warning("the settings of %s cannot be read and are left out: set them again there", kept.room)
        return RoomSettings()


def _around(room: Room) -> Room:
    """The chat that `room` is a thread of, or `room` itself."""
    return Room(room.platform, room.chat_id)
