"""The words that every room of the bot shares: plain values, no behaviour that needs a library."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from engine.types import Role


class ChatKind(StrEnum):
    """Whether one person talks to the bot alone, or several people share the room."""

    DIRECT = "direct"
    GROUP = "group"


@dataclass(frozen=True, slots=True)
class Room:
    """A place where people write: a direct chat, a channel, a thread, a forum topic, a browser's session."""

    platform: str
    chat_id: str
    thread_id: str | None = None


@dataclass(frozen=True, slots=True)
class ConversationKey:
    """One persona's conversation in one room."""

    room: Room
    persona_id: str


@dataclass(frozen=True, slots=True)
class Author:
    """Who wrote something. `user_id` is the identity; `display_name` is for display only and can be anyone's.

    It is empty where nobody gave a name: on the page and in the terminal.
    """

    platform: str
    user_id: str
    display_name: str
    is_bot: bool = False


@dataclass(frozen=True, slots=True)
class IncomingFile:
    """A file that came with a message, not downloaded yet. `num_bytes` is what the platform claims, if anything."""

    name: str
    mime: str | None
    num_bytes: int | None
    read: Callable[[int], Awaitable[bytes]] = field(repr=False)
    """Download it. Takes the limit in bytes and raises `MediaError` as soon as more would come."""


@dataclass(frozen=True, slots=True)
class RepliedMessage:
    """The message that an incoming one replies to."""

    message_id: str
    author: Author
    text: str
    files: tuple[IncomingFile, ...] = ()
    is_from_bot: bool = False


@dataclass(frozen=True, slots=True)
class IncomingMessage:
    """A message as the adapter saw it. `text` has no mention of the bot left in it."""

    room: Room
    kind: ChatKind
    message_id: str
    author: Author
    text: str
    files: tuple[IncomingFile, ...] = ()
    reply_to: RepliedMessage | None = None
    mentions_bot: bool = False


@dataclass(frozen=True, slots=True)
class Attachment:
    """A stored, normalised picture. `digest` is the SHA-256 of its bytes in hex; sizes in pixels."""

    digest: str
    mime: str
    num_bytes: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class ReplyOrigin:
    """What a reply was made from: the turn that it answers, `None` for a greeting or once that turn is gone, and the
    persona as it was."""

    asked_turn_id: int | None
    persona_digest: str


@dataclass(frozen=True, slots=True)
class NewTurn:
    """What is to be remembered. `message_ids` are the platform's, several where a reply was split."""

    role: Role
    text: str
    author: Author | None = None
    message_ids: tuple[str, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    origin: ReplyOrigin | None = None


@dataclass(frozen=True, slots=True)
class StoredTurn:
    """A remembered turn, with the identity that the store gave it."""

    id: int
    role: Role
    text: str
    created_at: datetime
    author: Author | None = None
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True)
class PictureShown:
    """A picture of a conversation: who showed it last, and when."""

    attachment: Attachment
    shown_at: datetime
    author: Author | None = None


@dataclass(frozen=True, slots=True)
class PersonaCard:
    """What people see of a persona before they talk to it. `avatar` is a picture file."""

    id: str
    name: str
    summary: str
    language: str
    avatar: Path | None = None
