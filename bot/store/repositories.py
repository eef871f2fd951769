"""What is remembered: turns by conversation, and the persona that a room chose.

Owns every query. Knows neither platforms nor prompts.
"""

from bot.store.database import Database
from bot.types import Attachment, ConversationKey, NewTurn, Room, StoredTurn


class Conversations:
    """The turns of every conversation. Nothing is reachable from outside its own room. Raises `StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, key: ConversationKey, turn: NewTurn) -> StoredTurn | None:
        """Remember `turn`, committed before this returns; `None` where one of its messages was seen in that room."""
        raise NotImplementedError

    async def recent(self, key: ConversationKey, *, max_turns: int) -> list[StoredTurn]:
        """The newest turns since the last reset, oldest first."""
        raise NotImplementedError

    async def reset(self, key: ConversationKey) -> int:
        """Delete the conversation's turns and say how many there were."""
        raise NotImplementedError

    async def speaker(self, room: Room, message_id: str) -> str | None:
        """The id of the persona that sent that message in `room`."""
        raise NotImplementedError

    async def has_attachment(self, room: Room, digest: str) -> bool:
        """Whether a turn in `room` shows that picture."""
        raise NotImplementedError

    async def attachments_of(self, room: Room, message_id: str) -> tuple[Attachment, ...]:
        """The pictures of the turn that came with that message in `room`."""
        raise NotImplementedError


class Rooms:
    """What a room has chosen. Raises `StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def persona_id(self, room: Room) -> str | None:
        """The persona that was chosen in `room`, if any was."""
        raise NotImplementedError

    async def choose(self, room: Room, persona_id: str) -> None:
        """Let that persona answer in `room`."""
        raise NotImplementedError
