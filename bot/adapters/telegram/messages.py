"""Telegram's messages as `IncomingMessage`. Pure but for the downloads that `IncomingFile.read` does later."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from telegram import Chat, Message, MessageEntity, PhotoSize, Sticker, User

from bot.adapters.telegram.channel import GENERAL_TOPIC
from bot.adapters.telegram.client import MAX_DOWNLOAD_BYTES, TelegramClient, too_large, utf16_length, utf16_slice
from bot.types import Author, ChatKind, IncomingFile, IncomingMessage, RepliedMessage, Room

PLATFORM = "telegram"


class _Downloadable(Protocol):
    @property
    def file_id(self) -> str: ...
    @property
    def file_size(self) -> int | None: ...


def incoming_message(client: TelegramClient, parts: Sequence[Message]) -> IncomingMessage | None:
    """`parts`, one message or the items of an album, as one; `None` where there is nothing to answer."""
    first = parts[0]
    if not is_from_person(first):
        return None
    files = tuple(file for part in parts for file in files_of(client, part))
    texts = [text for part in parts if (text := part.text if part.text is not None else part.caption) is not None]
    if not files and not texts:
        return None
    bot = client.bot
    stripped = [strip_mentions(part, bot=bot) for part in parts]
    return IncomingMessage(
        room=room_of(first),
        kind=kind_of(first.chat),
        message_id=str(first.message_id),
        author=author_of(first),
        text="\n".join(text for text, _ in stripped if text),
        files=files,
        reply_to=replied_message(client, first),
        mentions_bot=any(is_mentioned for _, is_mentioned in stripped),
    )


def is_from_person(message: Message) -> bool:
    """Whether somebody wrote it: no other bot, no channel's post that Telegram forwarded by itself."""
    if message.chat.type == Chat.CHANNEL or message.is_automatic_forward:
        return False
    if message.sender_chat is not None:  # an anonymous admin, or somebody who writes as their channel
        return True
    return message.from_user is not None and not message.from_user.is_bot


def kind_of(chat: Chat) -> ChatKind:
    """A private chat is direct, everything else a group."""
    return ChatKind.DIRECT if chat.type == Chat.PRIVATE else ChatKind.GROUP


def room_of(message: Message) -> Room:
    """Where a message was written."""
    thread_id = thread_of(message)
    return Room(PLATFORM, str(message.chat.id), None if thread_id is None else str(thread_id))


def thread_of(message: Message) -> int | None:
    """The topic's id. Chains of replies in ordinary groups carry a thread id as well; those are no topics."""
    if message.is_topic_message and message.message_thread_id:
        return message.message_thread_id
    return GENERAL_TOPIC if message.chat.is_forum and message.chat.type == Chat.SUPERGROUP else None


def author_of(message: Message) -> Author:
    """Who wrote it. Somebody who writes as a group or a channel is that chat."""
    if message.sender_chat is not None:
        chat = message.sender_chat
        return Author(PLATFORM, str(chat.id), chat.title or chat.username or str(chat.id))
    if message.from_user is None:
        return Author(PLATFORM, str(message.chat.id), message.chat.effective_name or str(message.chat.id))
    return author_from(message.from_user)


def author_from(user: User) -> Author:
    """A user as an author."""
    return Author(PLATFORM, str(user.id), user.full_name or str(user.id), is_bot=user.is_bot)


def strip_mentions(message: Message, *, bot: User) -> tuple[str, bool]:
    """A message's text or caption without mentions of the bot, and whether there were any.

    Entities count in UTF-16 code units: one emoji is two of them.
    """
    text = message.text or message.caption or ""
    kept, position, is_mentioned = "", 0, False
    for entity in sorted(_entities(message), key=lambda entity: entity.offset):
        if not _is_mention_of(bot, entity, text):
            continue
        is_mentioned = True
        kept += utf16_slice(text, position, entity.offset).rstrip(" \t")
        position = entity.offset + entity.length
    kept += utf16_slice(text, position, utf16_length(text))
    return kept.strip(), is_mentioned


def _entities(message: Message) -> Sequence[MessageEntity]:
    return message.entities if message.text else message.caption_entities


def _is_mention_of(bot: User, entity: MessageEntity, text: str) -> bool:
    if entity.type == MessageEntity.TEXT_MENTION:
        return entity.user is not None and entity.user.id == bot.id
    if entity.type != MessageEntity.MENTION or not bot.username:
        return False
    name = utf16_slice(text, entity.offset, entity.offset + entity.length)
    return name.lower() == f"@{bot.username.lower()}"


def replied_message(client: TelegramClient, message: Message) -> RepliedMessage | None:
    """The message that `message` replies to."""
    replied = message.reply_to_message
    # In a topic, a message that answers nothing "replies" to the topic's creation.
    if replied is None or replied.forum_topic_created is not None:
        return None
    text, _ = strip_mentions(replied, bot=client.bot)
    return RepliedMessage(
        message_id=str(replied.message_id),
        author=author_of(replied),
        text=text,
        files=tuple(files_of(client, replied)),
        is_from_bot=replied.from_user is not None and replied.from_user.id == client.bot.id,
    )


def files_of(client: TelegramClient, message: Message) -> Iterator[IncomingFile]:
    """Everything that can be downloaded, also what media will refuse: its sender shall hear why."""
    if message.photo:
        largest = max(message.photo, key=lambda size: size.width * size.height)
        yield _file(client, largest, name="photo.jpg", mime="image/jpeg")
    if message.sticker:
        yield _sticker(client, message.sticker)
    if message.document:  # an animation comes as a document too
        yield _file(client, message.document, name=message.document.file_name, mime=message.document.mime_type)
    elif message.animation:
        yield _file(client, message.animation, name=message.animation.file_name, mime=message.animation.mime_type)
    if message.video:
        yield _file(client, message.video, name=message.video.file_name or "video.mp4", mime=message.video.mime_type)
    if message.audio:
        yield _file(client, message.audio, name=message.audio.file_name or "audio", mime=message.audio.mime_type)
    if message.voice:
        yield _file(client, message.voice, name="voice.ogg", mime=message.voice.mime_type or "audio/ogg")
    if message.video_note:
        yield _file(client, message.video_note, name="video_note.mp4", mime="video/mp4")


def _sticker(client: TelegramClient, sticker: Sticker) -> IncomingFile:
    """A static sticker is a WEBP; a moving one (TGS, WEBM) is shown by its thumbnail where it has one."""
    if not sticker.is_animated and not sticker.is_video:
        return _file(client, sticker, name="sticker.webp", mime="image/webp")
    thumbnail: PhotoSize | None = sticker.thumbnail
    if thumbnail is not None:
        return _file(client, thumbnail, name="sticker.webp", mime="image/webp")
    ending, mime = ("webm", "video/webm") if sticker.is_video else ("tgs", "application/x-tgsticker")
    return _file(client, sticker, name=f"sticker.{ending}", mime=mime)


def _file(client: TelegramClient, source: _Downloadable, *, name: str | None, mime: str | None) -> IncomingFile:
    file_id, num_bytes, label = source.file_id, source.file_size, name or "the file"

    async def read(max_bytes: int) -> bytes:
        limit = min(max_bytes, MAX_DOWNLOAD_BYTES)
        if num_bytes is not None and num_bytes > limit:
            raise too_large(label, limit)
        return await client.download(file_id, name=label, max_bytes=limit)

    return IncomingFile(name=label, mime=mime, num_bytes=num_bytes, read=read)
