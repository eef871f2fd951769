"""What the fake Telegram remembers, and how the Bot API writes it as JSON. No sockets here."""

import re
import time
from dataclasses import dataclass, field
from itertools import count
from typing import Any

Json = dict[str, Any]

_MENTION = re.compile(r"(?<!\w)@\w{3,}")
_COMMAND = re.compile(r"(?<!\S)/[A-Za-z0-9_]{1,32}(@\w+)?")


@dataclass(frozen=True, slots=True)
class User:
    """A person or a bot."""

    id: int
    first_name: str
    username: str | None = None
    is_bot: bool = False

    def json(self) -> Json:
        user: Json = {"id": self.id, "is_bot": self.is_bot, "first_name": self.first_name}
        return user | ({"username": self.username} if self.username else {})


@dataclass(slots=True)
class Chat:
    """A private chat, a group, a supergroup or a channel. `topics` maps thread ids to names."""

    id: int
    type: str
    title: str
    is_forum: bool = False
    topics: dict[int, str] = field(default_factory=dict)
    moved_to: int | None = None
    is_blocked: bool = False
    admins: dict[int, Json] = field(default_factory=dict)
    takes_reactions: bool = True

    def json(self) -> Json:
        name = "first_name" if self.type == "private" else "title"
        return {"id": self.id, "type": self.type, name: self.title} | ({"is_forum": True} if self.is_forum else {})


@dataclass(frozen=True, slots=True)
class Button:
    """An inline button under a message of the bot."""

    text: str
    data: str
    message: "SentMessage"


@dataclass(frozen=True, slots=True)
class Version:
    """What a message of the bot said from `at` on, in seconds of the monotonic clock."""

    text: str
    at: float
    entities: list[Json] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Draft:
    """What a person saw the bot write at `at`."""

    chat_id: int
    draft_id: int
    text: str
    at: float
    thread_id: int | None = None


@dataclass(frozen=True, slots=True)
class CallbackAnswer:
    """What a person was shown after a press: nothing, a line, or with `is_alert` a window."""

    query_id: str
    text: str = ""
    is_alert: bool = False


@dataclass(slots=True)
class SentMessage:
    """A message of the bot with its edit history, first version first."""

    message_id: int
    chat: Chat
    thread_id: int | None
    reply_to: int | None
    parameters: Json
    versions: list[Version]
    buttons: list[Button] = field(default_factory=list)
    picture: bytes | None = None
    is_document: bool = False
    kind: str = "text"
    is_deleted: bool = False

    @property
    def text(self) -> str:
        """What it says now."""
        return self.versions[-1].text

    @property
    def entities(self) -> list[Json]:
        """What is special in its text now."""
        return self.versions[-1].entities

    @property
    def special(self) -> list[tuple[str, str]]:
        """The kind and the words of each entity."""
        units = self.text.encode("utf-16-le", "surrogatepass")
        return [
            (each["type"], units[each["offset"] * 2 : (each["offset"] + each["length"]) * 2].decode("utf-16-le"))
            for each in self.entities
        ]


@dataclass(frozen=True, slots=True)
class ChatAction:
    """ "typing…" and the like."""

    chat_id: int
    thread_id: int | None
    action: str
    at: float


@dataclass(slots=True)
class StoredFile:
    """A file that somebody sent. `claimed_size` is what the server says about it."""

    file_id: str
    path: str
    data: bytes = field(repr=False)
    claimed_size: int


class World:
    """Users, chats, files and messages, with the ids that Telegram would give them."""

    def __init__(self) -> None:
        self.users: dict[int, User] = {}
        self.chats: dict[int, Chat] = {}
        self.files: dict[str, StoredFile] = {}
        self.messages: dict[tuple[int, int], Json] = {}
        self._user_ids = count(1001)
        self._group_ids = count(1)
        self._message_ids = count(10)
        self._file_ids = count(1)

    def add_user(self, name: str, *, username: str | None = None, is_bot: bool = False) -> User:
        user = User(next(self._user_ids), name, username, is_bot)
        self.users[user.id] = user
        return user

    def add_chat(self, type_: str, title: str, *, chat_id: int | None = None, is_forum: bool = False) -> Chat:
        number = chat_id if chat_id is not None else -1_000_000_000_000 - next(self._group_ids)
        chat = self.chats[number] = Chat(number, type_, title, is_forum)
        return chat

    def add_file(self, data: bytes, *, folder: str, ending: str, claimed_size: int | None = None) -> StoredFile:
        number = next(self._file_ids)
        file = StoredFile(f"file-{number}", f"{folder}/file_{number}.{ending}", data, claimed_size or len(data))
        self.files[file.file_id] = file
        return file

    def new_message(self, chat: Chat, sender: User | None, fields: Json, *, thread_id: int | None = None) -> Json:
        message: Json = {"message_id": next(self._message_ids), "date": int(time.time()), "chat": chat.json()}
        if sender is not None:
            message["from"] = sender.json()
        if thread_id is not None:
            message |= {"message_thread_id": thread_id, "is_topic_message": True}
        message |= fields
        self.messages[chat.id, message["message_id"]] = message
        return message

    def text_fields(self, text: str, *, as_caption: bool = False) -> Json:
        if not text:
            return {}
        names = ("caption", "caption_entities") if as_caption else ("text", "entities")
        return {names[0]: text, names[1]: entities_of(text)}

    def photo_fields(self, data: bytes, *, claimed_size: int | None = None) -> Json:
        """Two sizes, as the server makes them: a small preview and the picture itself."""
        preview = self.add_file(b"preview of a photo", folder="photos", ending="jpg")
        full = self.add_file(data, folder="photos", ending="jpg", claimed_size=claimed_size)
        return {"photo": [_photo_size(preview, 90, 60), _photo_size(full, 1200, 800)]}

    def document_fields(self, name: str, mime: str | None, data: bytes, *, claimed_size: int | None = None) -> Json:
        file = self.add_file(data, folder="documents", ending=name.rpartition(".")[2], claimed_size=claimed_size)
        return {"document": _file_json(file) | {"file_name": name} | ({"mime_type": mime} if mime else {})}

    def sticker_fields(self, data: bytes, *, is_animated: bool = False, thumbnail: bytes | None = None) -> Json:
        file = self.add_file(data, folder="stickers", ending="tgs" if is_animated else "webp")
        sticker = _file_json(file) | {
            "type": "regular",
            "width": 512,
            "height": 512,
            "is_animated": is_animated,
            "is_video": False,
            "emoji": "🙂",
        }
        if thumbnail is not None:
            sticker["thumbnail"] = _photo_size(self.add_file(thumbnail, folder="thumbnails", ending="webp"), 128, 128)
        return {"sticker": sticker}


def _file_json(file: StoredFile) -> Json:
    return {"file_id": file.file_id, "file_unique_id": f"u-{file.file_id}", "file_size": file.claimed_size}


def _photo_size(file: StoredFile, width: int, height: int) -> Json:
    return _file_json(file) | {"width": width, "height": height}


def entities_of(text: str) -> list[Json]:
    """Commands and mentions in `text`, with offsets in UTF-16 code units as the server counts them."""
    found = [("bot_command", match) for match in _COMMAND.finditer(text)]
    taken = [match.span() for _, match in found]
    found += [
        ("mention", match)
        for match in _MENTION.finditer(text)
        if not any(start <= match.start() < end for start, end in taken)
    ]
    return [
        {"type": kind, "offset": utf16_length(text[: match.start()]), "length": utf16_length(match.group())}
        for kind, match in sorted(found, key=lambda each: each[1].start())
    ]


def utf16_length(text: str) -> int:
    """How long Telegram says `text` is."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


_SPLITTABLE = {"bold", "italic", "underline", "strikethrough", "spoiler"}
_CODE = {"code", "pre"}


def entity_problem(text: str, entities: list[Json]) -> str:
    """Why the server would refuse `entities` of `text`, if it would: bounds, empty ones, and what may hold what."""
    length = utf16_length(text)
    spans = [(each["offset"], each["offset"] + each["length"], each["type"]) for each in entities]
    for start, end, kind in spans:
        if not 0 <= start < end <= length:
            return f"{kind} at {start}..{end} is outside of the text"
    for at, (start, end, kind) in enumerate(spans):
        for other_start, other_end, other in spans[at + 1 :]:
            if other_start >= end or start >= other_end:
                continue
            if _CODE & {kind, other} and "blockquote" not in {kind, other}:
                return f"{kind} and {other} share characters"
            if kind == other == "blockquote":
                return "a quote in a quote"
            is_nested = (start <= other_start and other_end <= end) or (other_start <= start and end <= other_end)
            if not is_nested and not {kind, other} <= _SPLITTABLE:
                return f"{kind} and {other} overlap"
    return ""
