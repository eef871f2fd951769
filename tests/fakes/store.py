"""The store in memory: the same promises as `bot.store`, for tests that are about something else."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from bot.errors import StoreError
from bot.types import Attachment, ConversationKey, NewTurn, PictureShown, ReplyOrigin, Room, StoredTurn


@dataclass
class MemoryConversations:
    """Like `bot.store.repositories.Conversations`. `failure` makes every write fail."""

    turns: list[tuple[ConversationKey, NewTurn, StoredTurn]] = field(default_factory=list)
    failure: StoreError | None = None
    num_appended: int = 0

    async def append(self, key: ConversationKey, turn: NewTurn) -> StoredTurn | None:
        if self.failure is not None:
            raise self.failure
        if any(self._sent(key.room, message_id) for message_id in turn.message_ids):
            return None
        self.num_appended += 1
        stored = StoredTurn(self.num_appended, turn.role, turn.text, datetime.now(UTC), turn.author, turn.attachments)
        self.turns.append((key, turn, stored))
        return stored

    async def recent(self, key: ConversationKey, *, max_turns: int) -> list[StoredTurn]:
        return [stored for owner, _, stored in self.turns if owner == key][-max_turns:]

    async def reset(self, key: ConversationKey) -> int:
        num_before = len(self.turns)
        self.turns = [entry for entry in self.turns if entry[0] != key]
        return num_before - len(self.turns)

    async def speaker(self, room: Room, message_id: str) -> str | None:
        found = [key.persona_id for key, turn, _ in self._sent(room, message_id) if turn.author is None]
        return found[0] if found else None

    async def turn_of(self, room: Room, message_id: str) -> tuple[ConversationKey, int] | None:
        return next(((key, stored.id) for key, _, stored in self._sent(room, message_id)), None)

    async def origin_of(self, key: ConversationKey, turn_id: int) -> ReplyOrigin | None:
        return next((turn.origin for owner, turn, stored in self.turns if (owner, stored.id) == (key, turn_id)), None)

    async def pictures_of(self, key: ConversationKey, *, max_pictures: int) -> list[PictureShown]:
        shown: dict[str, PictureShown] = {}
        for _, _, stored in reversed([entry for entry in self.turns if entry[0] == key]):
            for attachment in stored.attachments:
                shown.setdefault(attachment.digest, PictureShown(attachment, stored.created_at, stored.author))
        return list(shown.values())[:max_pictures]

    async def has_attachment(self, room: Room, digest: str) -> bool:
        return any(
            key.room == room and digest in {attachment.digest for attachment in turn.attachments}
            for key, turn, _ in self.turns
        )

    async def attachments_of(self, room: Room, message_id: str) -> tuple[Attachment, ...]:
        return tuple(found for _, turn, _ in self._sent(room, message_id) for found in turn.attachments)

    def _sent(self, room: Room, message_id: str) -> list[tuple[ConversationKey, NewTurn, StoredTurn]]:
        return [entry for entry in self.turns if entry[0].room == room and message_id in entry[1].message_ids]

    def said(self, key: ConversationKey) -> list[str]:
        """The texts of a conversation, for assertions."""
        return [stored.text for owner, _, stored in self.turns if owner == key]


@dataclass
class MemoryRooms:
    """Like `bot.store.repositories.Rooms`."""

    chosen: dict[Room, str] = field(default_factory=dict)

    async def persona_id(self, room: Room) -> str | None:
        return self.chosen.get(room)

    async def choose(self, room: Room, persona_id: str) -> None:
        self.chosen[room] = persona_id


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
