"""Telegram's messages as `IncomingMessage`. Pure but for the downloads that `IncomingFile.read` does later."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from telegram import (
    Animation,
    Audio,
    Chat,
    Document,
    ExternalReplyInfo,
    Message,
    MessageEntity,
    MessageOrigin,
    MessageOriginChannel,
    MessageOriginChat,
    MessageOriginHiddenUser,
    MessageOriginUser,
    PhotoSize,
    Sticker,
    User,
    Video,
    VideoNote,
    Voice,
)

from bot.adapters.telegram.channel import GENERAL_TOPIC
from bot.adapters.telegram.chats import PLATFORM, KnownChats
from bot.adapters.telegram.client import MAX_DOWNLOAD_BYTES, TelegramClient, too_large, utf16_length, utf16_slice
from bot.types import Author, ChatKind, IncomingFile, IncomingMessage, RepliedMessage, Room

_MAX_EMOJI_PICTURES = 3


class _Downloadable(Protocol):
    @property
    def file_id(self) -> str: ...
    @property
    def file_size(self) -> int | None: ...


class _WithMedia(Protocol):
    """What a message and a message of another chat have in common."""

    @property
    def photo(self) -> Sequence[PhotoSize] | None: ...
    @property
    def sticker(self) -> Sticker | None: ...
    @property
    def document(self) -> Document | None: ...
    @property
    def animation(self) -> Animation | None: ...
    @property
    def video(self) -> Video | None: ...
    @property
    def audio(self) -> Audio | None: ...
    @property
    def voice(self) -> Voice | None: ...
    @property
    def video_note(self) -> VideoNote | None: ...


def incoming_message(
    client: TelegramClient, parts: Sequence[Message], *, chats: KnownChats | None = None
) -> IncomingMessage | None:
    """`parts`, one message or the items of an album, as one; `None` where there is nothing to answer.

    `chats` knows what topics are called.
    """
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
        room_names=room_names_of(first, chats),
        sent_at=first.date,
        mentioned_names=tuple(name for part in parts for name in _mentioned_names(part, bot=bot)),
    )


def room_names_of(message: Message, chats: KnownChats | None = None) -> tuple[str, ...]:
    """What people call the chat and the topic: a topic is named where it begins, and by what is said in it first."""
    names = [] if message.chat.type == Chat.PRIVATE else [message.chat.title, message.chat.username]
    thread_id, begun = thread_of(message), message.reply_to_message
    if thread_id is not None:
        created = begun.forum_topic_created if begun is not None else None
        known = chats.topic_name(message.chat.id, thread_id) if chats is not None else None
        if known is None and created is not None:
            known = created.name  # its first name; nobody tells a later one, but those who hear of the change
            if chats is not None:
                chats.name_topic(message.chat.id, thread_id, known)
        names.append(known)
    return tuple(name for name in names if name)


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
        return _chat_author(message.sender_chat)
    if message.from_user is None:
        return Author(PLATFORM, str(message.chat.id), message.chat.effective_name or str(message.chat.id))
    return author_from(message.from_user)


def _chat_author(chat: Chat) -> Author:
    return Author(PLATFORM, str(chat.id), chat.title or chat.username or str(chat.id))


def author_from(user: User) -> Author:
    """A user as an author."""
    return Author(PLATFORM, str(user.id), user.full_name or str(user.id), is_bot=user.is_bot)


def strip_mentions(message: Message, *, bot: User) -> tuple[str, bool]:
    """A message's text or caption without mentions of the bot, and whether there were any.

    Somebody without a username is mentioned by a name of any words, which is given an `@`. Entities count in UTF-16
    code units: one emoji is two of them.
    """
    text = message.text or message.caption or ""
    kept, position, is_mentioned = "", 0, False
    for entity in sorted(_entities(message), key=lambda entity: entity.offset):
        if not _is_mention_of(bot, entity, text):
            if entity.type == MessageEntity.TEXT_MENTION:
                kept += f"{utf16_slice(text, position, entity.offset)}@"
                position = entity.offset
            continue
        is_mentioned = True
        kept += utf16_slice(text, position, entity.offset).rstrip(" \t")
        position = entity.offset + entity.length
    kept += utf16_slice(text, position, utf16_length(text))
    return kept.strip(), is_mentioned


def _mentioned_names(message: Message, *, bot: User) -> Iterator[str]:
    """Whom the text mentions, but for the bot, as the text names them."""
    text = message.text or message.caption or ""
    for entity in _entities(message):
        is_mention = entity.type in (MessageEntity.MENTION, MessageEntity.TEXT_MENTION)
        if is_mention and not _is_mention_of(bot, entity, text):
            yield utf16_slice(text, entity.offset, entity.offset + entity.length).removeprefix("@")


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
    """The message that `message` replies to. Where a part of it was quoted, that part is its text."""
    replied, quoted = message.reply_to_message, message.quote.text if message.quote is not None else None
    if replied is None:
        return _replied_elsewhere(client, message.external_reply, quoted or "") if message.external_reply else None
    # In a topic, a message that answers nothing "replies" to the topic's creation.
    if replied.forum_topic_created is not None:
        return None
    text, _ = strip_mentions(replied, bot=client.bot)
    return RepliedMessage(
        message_id=str(replied.message_id),
        author=author_of(replied),
        text=quoted or text,
        files=tuple(files_of(client, replied)),
        is_from_bot=replied.from_user is not None and replied.from_user.id == client.bot.id,
    )


def _replied_elsewhere(client: TelegramClient, external: ExternalReplyInfo, quoted: str) -> RepliedMessage:
    """A message of another chat: Telegram tells its pictures, and of its text what was quoted.

    Its id means nothing here, and must not be taken for one of this chat's.
    """
    where = external.chat.id if external.chat is not None else "elsewhere"
    author = _origin(external.origin)
    return RepliedMessage(
        message_id=f"{where}/{external.message_id or 0}",
        author=author,
        text=quoted,
        files=tuple(_media(client, external)),
        is_from_bot=author.user_id == str(client.bot.id),
    )


def _origin(origin: MessageOrigin) -> Author:
    match origin:
        case MessageOriginUser():
            return author_from(origin.sender_user)
        case MessageOriginHiddenUser():
            return Author(PLATFORM, "hidden", origin.sender_user_name)
        case MessageOriginChat():
            return _chat_author(origin.sender_chat)
        case MessageOriginChannel():
            return _chat_author(origin.chat)
        case _:
            return Author(PLATFORM, "unknown", "somebody")


def files_of(client: TelegramClient, message: Message) -> Iterator[IncomingFile]:
    """Everything that can be downloaded, also what media will refuse: its sender shall hear why."""
    yield from _media(client, message)
    yield from _emoji_pictures(client, message)


def _media(client: TelegramClient, message: _WithMedia) -> Iterator[IncomingFile]:
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


def _emoji_pictures(client: TelegramClient, message: Message) -> Iterator[IncomingFile]:
    """A message of custom emoji alone shows them large, as pictures."""
    text, rest, position = message.text or "", "", 0
    custom = sorted((e for e in message.entities if e.type == MessageEntity.CUSTOM_EMOJI), key=lambda e: e.offset)
    for entity in custom:
        rest += utf16_slice(text, position, entity.offset)
        position = entity.offset + entity.length
    if not custom or (rest + utf16_slice(text, position, utf16_length(text))).strip():
        return
    distinct = dict.fromkeys(entity.custom_emoji_id for entity in custom if entity.custom_emoji_id)
    for emoji_id in list(distinct)[:_MAX_EMOJI_PICTURES]:
        yield _emoji(client, emoji_id)


def _emoji(client: TelegramClient, emoji_id: str) -> IncomingFile:
    async def read(max_bytes: int) -> bytes:
        return await _sticker(client, await client.custom_emoji(emoji_id)).read(max_bytes)

    return IncomingFile(name="emoji.webp", mime="image/webp", num_bytes=None, read=read)


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
