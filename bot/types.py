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
    """A message as the adapter saw it. `text` has no mention of the bot left in it.

    `room_names` are what people call the room and the channels around it, without marks such as `#`. `sent_at` is when
    it was written, where the platform tells. `mentioned_names` are the display names of people whom the text mentions
    as `@name`: whoever is called like a persona is not that persona. `is_summons`: a command asks for an answer to
    `reply_to`, so that no trigger is needed; such a message exists on no platform, and `message_id` is the command's.
    """

    room: Room
    kind: ChatKind
    message_id: str
    author: Author
    text: str
    files: tuple[IncomingFile, ...] = ()
    reply_to: RepliedMessage | None = None
    mentions_bot: bool = False
    room_names: tuple[str, ...] = ()
    sent_at: datetime | None = None
    is_summons: bool = False
    mentioned_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IncomingReaction:
    """Somebody put an emoji under a message, or took it away. `emoji` is the Unicode one, or a custom one's name."""

    room: Room
    kind: ChatKind
    message_id: str
    author: Author
    emoji: str
    is_added: bool = True
    is_moderator: bool = False


@dataclass(frozen=True, slots=True)
class Speaker:
    """The persona that a reply is shown as, where several may speak: its id, name and picture on a platform.

    `avatar_for` gives the picture that suits a text, such as a smiling one; `None` is the usual one.
    """

    persona_id: str
    name: str
    avatar: Path | None = None
    avatar_for: Callable[[str], Path | None] = field(default=lambda _: None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Control:
    """A button under a reply. Pressing it runs the command `path`, with `value` as its argument `argument` if named.

    The command hears which message the button is under.
    """

    label: str
    path: tuple[str, ...]
    argument: str = ""
    value: str = ""


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
class SpokenTurn:
    """A turn in a room where several personas speak: `persona_id` says in whose conversation it is kept."""

    persona_id: str
    turn: StoredTurn


@dataclass(frozen=True, slots=True)
class Alternatives:
    """The versions of a reply, and which of them counts, from 0."""

    texts: tuple[str, ...]
    chosen: int


@dataclass(frozen=True, slots=True)
class AwaitedReply:
    """A reply that is owed: the turn that asks for it, who is to answer, and where.

    It is kept from the moment the question is, and gone as soon as the reply is kept. `message_ids` show it so far.
    """

    key: ConversationKey
    turn: StoredTurn
    persona_id: str
    kind: ChatKind
    message_id: str
    message_ids: tuple[str, ...] = ()


class Rating(StrEnum):
    """What somebody thinks of a reply."""

    GOOD = "good"
    BAD = "bad"


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
