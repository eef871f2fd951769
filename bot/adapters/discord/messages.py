"""Discord's messages in the bot's words.

Owns what counts as a message to the bot's ears, which room it belongs to, and its readable text. Does not decide
whether to answer: `bot.chat` does.
"""

import asyncio
import logging
import re
from functools import partial

import discord

from bot.adapters.discord.errors import REQUEST_ERRORS, describe
from bot.adapters.discord.files import Downloads
from bot.types import Author, ChatKind, IncomingFile, IncomingMessage, RepliedMessage, Room

logger = logging.getLogger(__name__)

PLATFORM = "discord"
FETCH_TIMEOUT_S = 10.0
_SAID_BY_PEOPLE = frozenset({discord.MessageType.default, discord.MessageType.reply})
_STICKER_MIMES = {
    discord.StickerFormatType.png: "image/png",
    discord.StickerFormatType.apng: "image/png",
    discord.StickerFormatType.gif: "image/gif",
}
_MARKUP = re.compile(r"<(?P<kind>@!?|@&|#|a?:(?P<emoji>\w+):)(?P<id>\d+)>")


def is_conversation(message: discord.Message) -> bool:
    """Whether a person said this: no notice of Discord's, no webhook, no bot, which might talk back for ever."""
    return message.type in _SAID_BY_PEOPLE and not message.author.bot and message.webhook_id is None


def room_of(channel: object, channel_id: int) -> Room:
    """A thread is a room of its own inside its parent channel."""
    if isinstance(channel, discord.Thread):
        return Room(PLATFORM, str(channel.parent_id), str(channel.id))
    return Room(PLATFORM, str(channel_id))


def author_of(user: discord.abc.User) -> Author:
    """Who that is. The id is the identity."""
    return Author(PLATFORM, str(user.id), user.display_name, is_bot=user.bot)


class MessageTranslator:
    """Turns `discord.Message` into `IncomingMessage`."""

    def __init__(self, downloads: Downloads) -> None:
        self._downloads = downloads
        self._fetched_rooms: dict[int, Room] = {}

    async def translate(self, client: discord.Client, message: discord.Message) -> IncomingMessage:
        """`message` with all that belongs to it. What Discord does not tell is fetched, within a time limit."""
        is_direct = isinstance(message.channel, discord.DMChannel)
        return IncomingMessage(
            room=await self._room(client, message),
            kind=ChatKind.DIRECT if is_direct else ChatKind.GROUP,
            message_id=str(message.id),
            author=author_of(message.author),
            text=_text(message, client),
            files=self._files(message),
            reply_to=await self._replied(client, message),
            mentions_bot=_mentions_bot(message, client),
        )

    def replied_to(self, client: discord.Client, message: discord.Message) -> RepliedMessage:
        """`message` as one that something is said about."""
        return RepliedMessage(
            message_id=str(message.id),
            author=author_of(message.author),
            text=_text(message, client),
            files=self._files(message),
            is_from_bot=_is_own(message, client),
        )

    def file(self, item: discord.Attachment) -> IncomingFile:
        """An attachment, not downloaded yet."""
        mime = item.content_type.partition(";")[0].strip().lower() if item.content_type else None
        return IncomingFile(item.filename, mime, item.size, partial(self._downloads.read, item.url, item.filename))

    async def _room(self, client: discord.Client, message: discord.Message) -> Room:
        channel_id = message.channel.id
        if not isinstance(message.channel, discord.PartialMessageable):
            return room_of(message.channel, channel_id)
        # A channel that the gateway has not told of: it may be a thread, and only Discord knows its parent.
        if channel_id not in self._fetched_rooms:
            try:
                async with asyncio.timeout(FETCH_TIMEOUT_S):
                    self._fetched_rooms[channel_id] = room_of(await client.fetch_channel(channel_id), channel_id)
            except REQUEST_ERRORS as error:
                logger.warning("Discord channel %s is unknown: %s", channel_id, describe(error))
                return room_of(None, channel_id)
        return self._fetched_rooms[channel_id]

    async def _replied(self, client: discord.Client, message: discord.Message) -> RepliedMessage | None:
        replied = await _replied_message(message)
        return None if replied is None else self.replied_to(client, replied)

    def _files(self, message: discord.Message) -> tuple[IncomingFile, ...]:
        """Attachments and stickers of a message, and of what it forwards."""
        sources: list[discord.Message | discord.MessageSnapshot] = [message, *message.message_snapshots]
        attachments = [self.file(item) for source in sources for item in source.attachments]
        stickers = [self._sticker(item) for item in message.stickers if item.format in _STICKER_MIMES]
        return (*attachments, *stickers)

    def _sticker(self, item: discord.StickerItem) -> IncomingFile:
        return IncomingFile(
            item.name, _STICKER_MIMES[item.format], None, partial(self._downloads.read, item.url, item.name)
        )


async def _replied_message(message: discord.Message) -> discord.Message | None:
    reference = message.reference
    if reference is None or reference.type is not discord.MessageReferenceType.reply or reference.message_id is None:
        return None
    if isinstance(reference.resolved, discord.Message):
        return reference.resolved
    if isinstance(reference.resolved, discord.DeletedReferencedMessage):
        return None
    try:
        async with asyncio.timeout(FETCH_TIMEOUT_S):
            return await message.channel.fetch_message(reference.message_id)
    except REQUEST_ERRORS as error:
        logger.info("Discord does not give the message that was replied to: %s", describe(error))
        return None


def _is_own(message: discord.Message, client: discord.Client) -> bool:
    """Whether the bot said this, as itself or through a webhook of its own."""
    if message.webhook_id is not None:
        return message.application_id is not None and message.application_id == client.application_id
    return client.user is not None and message.author.id == client.user.id


def _mentions_bot(message: discord.Message, client: discord.Client) -> bool:
    """Whether the text names the bot or its own role. A reply's silent ping is no mention, and @everyone is none."""
    if client.user is None:
        return False
    is_named = client.user.id in message.raw_mentions and any(user.id == client.user.id for user in message.mentions)
    own_role = message.guild.self_role if message.guild is not None else None
    return is_named or (own_role is not None and own_role in message.role_mentions)


def _text(message: discord.Message, client: discord.Client) -> str:
    """What was said, as people read it, without the bot's own name."""
    said = _readable(_without_bot(message, client), message)
    forwarded = [_readable(snapshot.content, message) for snapshot in message.message_snapshots]
    unseen_stickers = [f"[sticker: {item.name}]" for item in message.stickers if item.format not in _STICKER_MIMES]
    return "\n".join(part.strip() for part in (said, *forwarded, *unseen_stickers) if part.strip())


def _without_bot(message: discord.Message, client: discord.Client) -> str:
    """The text without mentions of the bot and of its own role, and without the gaps that those leave."""
    names = []
    if client.user is not None:
        names.append(f"@!?{client.user.id}")
    if message.guild is not None and message.guild.self_role is not None:
        names.append(f"@&{message.guild.self_role.id}")
    if not names:
        return message.content
    mention = f"<(?:{'|'.join(names)})>(?:[,:](?=\\s))?"
    return re.sub(f"(?m)^{mention}[ \\t]*|[ \\t]*{mention}", "", message.content)


def _readable(text: str, message: discord.Message) -> str:
    """`text` with names in place of Discord's numbers."""
    users = {user.id: user.display_name for user in message.mentions}

    def name(match: re.Match[str]) -> str:
        number = int(match["id"])
        if match["emoji"]:
            return f":{match['emoji']}:"
        if match["kind"] == "#":
            channel = message.guild.get_channel_or_thread(number) if message.guild is not None else None
            return f"#{channel.name}" if channel is not None else match[0]
        if match["kind"] == "@&":
            role = message.guild.get_role(number) if message.guild is not None else None
            return f"@{role.name}" if role is not None else match[0]
        return f"@{users[number]}" if number in users else match[0]

    return _MARKUP.sub(name, text)
