"""The store in memory: the same promises as `bot.store`, for tests that are about something else.

`tests/bot/store/test_steering.py` holds both to them.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from bot.adapters import base
from bot.errors import StoreError
from bot.rooms import RoomSettings
from bot.store.seen import newer_id
from bot.types import (
    Alternatives,
    Attachment,
    Author,
    AwaitedReply,
    ChatKind,
    ConversationKey,
    NewTurn,
    PictureShown,
    Rating,
    ReplyOrigin,
    Room,
    SpokenTurn,
    StoredTurn,
)
from engine.types import Role

MAX_ALTERNATIVES = 50


@dataclass
class KeptText:
    """One version of a reply, and what people think of it."""

    text: str
    ratings: dict[tuple[str, str], Rating] = field(default_factory=dict)


@dataclass
class KeptTurn:
    """A turn, where it is kept, and what hangs on it."""

    key: ConversationKey
    stored: StoredTurn
    origin: ReplyOrigin | None
    message_ids: tuple[str, ...]
    texts: list[KeptText]
    chosen: int = 0
    kind: ChatKind | None = None
    awaited: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def alternatives(self) -> Alternatives:
        return Alternatives(tuple(kept.text for kept in self.texts), self.chosen)

    def show(self, chosen: int) -> Alternatives:
        self.chosen = chosen
        self.stored = replace(self.stored, text=self.texts[chosen].text)
        return self.alternatives


@dataclass
class MemoryConversations:
    """Like `bot.store.repositories.Conversations`. `failure` makes every write fail."""

    turns: list[KeptTurn] = field(default_factory=list)
    seen: dict[tuple[Room, str], str | None] = field(default_factory=dict)
    failure: StoreError | None = None
    num_appended: int = 0

    async def append(
        self,
        key: ConversationKey,
        turn: NewTurn,
        *,
        awaited: Sequence[str] = (),
        kind: ChatKind | None = None,
        settles: Sequence[int] = (),
    ) -> StoredTurn | None:
        self._fail()
        if awaited and kind is None:
            raise ValueError("replies that are awaited need the kind of their chat")
        if any((key.room, message_id) in self.seen for message_id in turn.message_ids):
            return None
        self.num_appended += 1
        stored = StoredTurn(self.num_appended, turn.role, turn.text, datetime.now(UTC), turn.author, turn.attachments)
        message_ids = tuple(dict.fromkeys(turn.message_ids))
        origin = self._origin(key.room, turn.origin)
        kept = KeptTurn(key, stored, origin, message_ids, [KeptText(turn.text)], kind=kind)
        kept.awaited = dict.fromkeys(awaited, ())
        self.turns.append(kept)
        self._see(kept, message_ids)
        if turn.role is Role.ASSISTANT:
            asked = [origin.asked_turn_id] if origin is not None and origin.asked_turn_id is not None else []
            for turn_id in [*settles, *asked]:
                await self.settle(key, turn_id, key.persona_id)
        return stored

    async def recent(self, key: ConversationKey, *, max_turns: int) -> list[StoredTurn]:
        found = [kept.stored for kept in self.turns if kept.key == key]
        return found[-max_turns:] if max_turns > 0 else []

    async def reset(self, key: ConversationKey) -> int:
        self._fail()
        return self._forget(kept for kept in self.turns if kept.key == key)

    async def turn(self, key: ConversationKey, turn_id: int) -> StoredTurn | None:
        kept = self._kept(key, turn_id)
        return kept.stored if kept else None

    async def room_turns(self, room: Room, persona_ids: Sequence[str], *, max_turns: int) -> list[SpokenTurn]:
        found = [SpokenTurn(kept.key.persona_id, kept.stored) for kept in self._spoken(room, persona_ids)]
        return found[-max_turns:] if max_turns > 0 else []

    async def num_turns_before(self, room: Room, persona_ids: Sequence[str], turn_id: int) -> int:
        return sum(kept.stored.id < turn_id for kept in self._spoken(room, persona_ids))

    async def last_reply(self, room: Room, persona_ids: Sequence[str]) -> tuple[ConversationKey, StoredTurn] | None:
        replies = [kept for kept in self._spoken(room, persona_ids) if kept.stored.role is Role.ASSISTANT]
        return (replies[-1].key, replies[-1].stored) if replies else None

    async def remove(self, key: ConversationKey, turn_ids: Sequence[int]) -> int:
        self._fail()
        return self._forget(kept for kept in self.turns if kept.key == key and kept.stored.id in turn_ids)

    async def settle(self, key: ConversationKey, turn_id: int, persona_id: str) -> None:
        self._fail()
        for kept in self._in_room(key.room, turn_id):
            kept.awaited.pop(persona_id, None)

    async def note_shown(self, key: ConversationKey, turn_id: int, persona_id: str, message_ids: Sequence[str]) -> None:
        self._fail()
        for kept in self._in_room(key.room, turn_id):
            if persona_id in kept.awaited:
                kept.awaited[persona_id] = tuple(message_ids)

    async def awaited(self, platform: str, *, since: datetime) -> list[AwaitedReply]:
        self._fail()
        waiting = [kept for kept in self.turns if kept.key.room.platform == platform]
        for kept in waiting:
            if kept.stored.created_at < since:
                kept.awaited.clear()
        return [
            AwaitedReply(kept.key, kept.stored, persona_id, kept.kind, "".join(kept.message_ids[:1]), message_ids)
            for kept in waiting
            for persona_id, message_ids in kept.awaited.items()
            if kept.kind is not None
        ]

    async def rewrite(self, key: ConversationKey, turn_id: int, text: str) -> bool:
        self._fail()
        kept = self._kept(key, turn_id)
        if kept is None:
            return False
        if kept.stored.text != text:
            kept.texts[kept.chosen] = KeptText(text)
            kept.show(kept.chosen)
        return True

    async def alternatives(self, key: ConversationKey, turn_id: int) -> Alternatives:
        reply = self.reply(key, turn_id)
        return reply.alternatives if reply else Alternatives((), 0)

    async def add_alternative(self, key: ConversationKey, turn_id: int, text: str) -> Alternatives:
        self._fail()
        reply = self.reply(key, turn_id)
        if reply is None:
            return Alternatives((), 0)
        reply.texts.append(KeptText(text))
        del reply.texts[: -MAX_ALTERNATIVES or None]
        return reply.show(len(reply.texts) - 1)

    async def choose_alternative(self, key: ConversationKey, turn_id: int, index: int) -> Alternatives:
        self._fail()
        reply = self.reply(key, turn_id)
        if reply is None:
            return Alternatives((), 0)
        return reply.show(index if 0 <= index < len(reply.texts) else reply.chosen)

    async def message_ids(self, key: ConversationKey, turn_id: int) -> tuple[str, ...]:
        kept = self._kept(key, turn_id)
        return kept.message_ids if kept else ()

    async def replace_messages(self, key: ConversationKey, turn_id: int, message_ids: Sequence[str]) -> None:
        self._fail()
        kept = self._kept(key, turn_id)
        if kept is not None:
            others = {found for other in self.turns if other is not kept for found in self._shown_in(other, key.room)}
            kept.message_ids = tuple(found for found in dict.fromkeys(message_ids) if found not in others)
            self._see(kept, kept.message_ids)

    async def speaker(self, room: Room, message_id: str) -> str | None:
        return self.seen.get((room, message_id))

    async def turn_of(self, room: Room, message_id: str) -> tuple[ConversationKey, int] | None:
        return next(((kept.key, kept.stored.id) for kept in self._shown_by(room, message_id)), None)

    async def replies_to(self, room: Room, turn_id: int) -> list[tuple[ConversationKey, int]]:
        return [
            (kept.key, kept.stored.id)
            for kept in self.turns
            if kept.key.room == room and kept.origin is not None and kept.origin.asked_turn_id == turn_id
        ]

    async def origin_of(self, key: ConversationKey, turn_id: int) -> ReplyOrigin | None:
        kept = self._kept(key, turn_id)
        return kept.origin if kept else None

    async def pictures_of(self, key: ConversationKey, *, max_pictures: int) -> list[PictureShown]:
        shown: dict[str, PictureShown] = {}
        for kept in reversed([kept for kept in self.turns if kept.key == key]):
            for attachment in kept.stored.attachments:
                picture = PictureShown(attachment, kept.stored.created_at, kept.stored.author)
                shown.setdefault(attachment.digest, picture)
        return list(shown.values())[:max_pictures]

    async def has_attachment(self, room: Room, digest: str) -> bool:
        return any(
            kept.key.room == room and digest in {attachment.digest for attachment in kept.stored.attachments}
            for kept in self.turns
        )

    async def attachments_of(self, room: Room, message_id: str) -> tuple[Attachment, ...]:
        return tuple(found for kept in self._shown_by(room, message_id) for found in kept.stored.attachments)

    def reply(self, key: ConversationKey, turn_id: int) -> KeptTurn | None:
        """A reply with its alternatives and ratings."""
        kept = self._kept(key, turn_id)
        return kept if kept is not None and kept.stored.role is Role.ASSISTANT else None

    def said(self, key: ConversationKey) -> list[str]:
        """The texts of a conversation, for assertions."""
        return [kept.stored.text for kept in self.turns if kept.key == key]

    def move(self, platform: str, old_chat_id: str, new_chat_id: str) -> None:
        """What `Rooms.move` does to conversations."""
        is_old = {kept.key.room for kept in self.turns} | {room for room, _ in self.seen}
        moved = {
            room: replace(room, chat_id=new_chat_id)
            for room in is_old
            if (room.platform, room.chat_id) == (platform, old_chat_id)
        }
        self.seen = {place: persona_id for place, persona_id in self.seen.items() if place[0] not in moved}
        for kept in self.turns:
            if kept.key.room in moved:
                kept.key, kept.message_ids = replace(kept.key, room=moved[kept.key.room]), ()

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _kept(self, key: ConversationKey, turn_id: int) -> KeptTurn | None:
        return next((kept for kept in self.turns if (kept.key, kept.stored.id) == (key, turn_id)), None)

    def _in_room(self, room: Room, turn_id: int) -> list[KeptTurn]:
        return [kept for kept in self.turns if (kept.key.room, kept.stored.id) == (room, turn_id)]

    def _spoken(self, room: Room, persona_ids: Sequence[str]) -> list[KeptTurn]:
        return [kept for kept in self.turns if kept.key.room == room and kept.key.persona_id in persona_ids]

    def _shown_by(self, room: Room, message_id: str) -> list[KeptTurn]:
        return [kept for kept in self.turns if message_id in self._shown_in(kept, room)]

    def _shown_in(self, kept: KeptTurn, room: Room) -> tuple[str, ...]:
        return kept.message_ids if kept.key.room == room else ()

    def _see(self, kept: KeptTurn, message_ids: Sequence[str]) -> None:
        speaker = kept.key.persona_id if kept.stored.role is Role.ASSISTANT else None
        self.seen |= {(kept.key.room, message_id): speaker for message_id in message_ids}

    def _origin(self, room: Room, origin: ReplyOrigin | None) -> ReplyOrigin | None:
        if origin is None or origin.asked_turn_id is None or self._in_room(room, origin.asked_turn_id):
            return origin
        return replace(origin, asked_turn_id=None)

    def _forget(self, gone: Iterable[KeptTurn]) -> int:
        turn_ids = {kept.stored.id for kept in gone}
        self.turns = [kept for kept in self.turns if kept.stored.id not in turn_ids]
        for kept in self.turns:
            kept.origin = self._origin(kept.key.room, kept.origin)
        return len(turn_ids)


@dataclass
class MemoryRooms:
    """Like `bot.store.repositories.Rooms`. `conversations` are those that move with their rooms."""

    chosen: dict[Room, str] = field(default_factory=dict)
    changed: dict[Room, RoomSettings] = field(default_factory=dict)
    conversations: MemoryConversations | None = None

    async def persona_id(self, room: Room) -> str | None:
        return self.chosen.get(room, self.chosen.get(replace(room, thread_id=None)))

    async def persona_and_settings(self, room: Room) -> tuple[str | None, RoomSettings]:
        return await self.persona_id(room), await self.settings(room)

    async def choose(self, room: Room, persona_id: str) -> None:
        self.chosen[room] = persona_id

    async def settings(self, room: Room) -> RoomSettings:
        own = await self.own_settings(room)
        return own.within(await self.own_settings(replace(room, thread_id=None))) if room.thread_id is not None else own

    async def own_settings(self, room: Room) -> RoomSettings:
        return self.changed.get(room, RoomSettings())

    async def change(self, room: Room, settings: RoomSettings) -> None:
        self.changed[room] = settings

    async def move(self, platform: str, old_chat_id: str, new_chat_id: str) -> None:
        if old_chat_id == new_chat_id:
            return
        for kept in (self.chosen, self.changed):
            for room in [room for room in kept if (room.platform, room.chat_id) == (platform, old_chat_id)]:
                kept.setdefault(replace(room, chat_id=new_chat_id), kept.pop(room))  # type: ignore[arg-type]
        if self.conversations is not None:
            self.conversations.move(platform, old_chat_id, new_chat_id)


@dataclass
class MemoryRatings:
    """Like `bot.store.ratings.Ratings`, of replies in `conversations`."""

    conversations: MemoryConversations
    consents: dict[tuple[str, str], bool] = field(default_factory=dict)

    async def consent(self, author: Author) -> bool | None:
        return self.consents.get(_identity(author))

    async def give_consent(self, author: Author, is_given: bool) -> None:
        self.consents[_identity(author)] = is_given
        for kept in self.conversations.turns if not is_given else ():
            for version in kept.texts:
                version.ratings.pop(_identity(author), None)

    async def rate(self, key: ConversationKey, turn_id: int, author: Author, rating: Rating | None) -> bool:
        reply = self.conversations.reply(key, turn_id)
        if reply is None or not await self.consent(author):
            return False
        by_author = reply.texts[reply.chosen].ratings
        by_author.pop(_identity(author), None)
        if rating is not None:
            by_author[_identity(author)] = rating
        return True

    async def of(self, key: ConversationKey, turn_id: int) -> Mapping[int, Mapping[Rating, int]]:
        reply = self.conversations.reply(key, turn_id)
        versions = enumerate(reply.texts if reply else ())
        return {index: dict(Counter(version.ratings.values())) for index, version in versions if version.ratings}


@dataclass
class MemorySeen(base.SeenEvents):
    """Like `bot.store.seen.SeenEvents`."""

    claims: set[tuple[str, str]] = field(default_factory=set)
    noted: dict[tuple[str, str], tuple[str, datetime]] = field(default_factory=dict)

    async def claim(self, platform: str, event: str) -> bool:
        is_new = (platform, event) not in self.claims
        self.claims.add((platform, event))
        return is_new

    def note(self, platform: str, chat_id: str, message_id: str) -> None:
        known = self.noted.get((platform, chat_id))
        newest = newer_id(known[0], message_id) if known is not None else message_id
        self.noted[platform, chat_id] = (newest, datetime.now(UTC))

    async def marks(self, platform: str, *, since: datetime) -> Mapping[str, str]:
        return {
            chat_id: message_id
            for (noted_on, chat_id), (message_id, seen_at) in self.noted.items()
            if noted_on == platform and seen_at >= since
        }


def _identity(author: Author) -> tuple[str, str]:
    return author.platform, author.user_id


@dataclass
class MemoryEmbeddings:
    """Like `bot.store.repositories.PictureEmbeddings`."""

    known: dict[str, tuple[str, tuple[float, ...]]] = field(default_factory=dict)

    async def of(self, digests: Sequence[str], *, space: str) -> dict[str, tuple[float, ...]]:
        found = {digest: self.known[digest] for digest in digests if digest in self.known}
        return {digest: vector for digest, (made_in, vector) in found.items() if made_in == space}

    async def put(self, vectors: Mapping[str, Sequence[float]], *, space: str) -> None:
        self.known |= {digest: (space, tuple(vector)) for digest, vector in vectors.items()}


@dataclass
class MemoryAttachments:
    """Like `bot.store.attachments.AttachmentStore`."""

    files: dict[str, bytes] = field(default_factory=dict)

    async def put(self, data: bytes, *, mime: str, width: int, height: int) -> Attachment:
        digest = hashlib.sha256(data).hexdigest()
        self.files[digest] = data
        return Attachment(digest, mime, len(data), width, height)

    async def read(self, digest: str) -> bytes:
        if digest not in self.files:
            raise StoreError(f"attachment {digest} is gone; restore the attachments folder")
        return self.files[digest]
