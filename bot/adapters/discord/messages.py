"""Discord's messages in the bot's words.

Owns what counts as a message to the bot's ears, its readable text and its pictures. Does not decide whether to answer:
`bot.chat` does.
"""

import asyncio
import logging
import re
from functools import partial

import discord

from bot.adapters.discord.errors import REQUEST_ERRORS, describe
from bot.adapters.discord.files import Downloads, is_attachment
from bot.adapters.discord.places import FETCH_TIMEOUT_S, PLATFORM, Place, Places
from bot.types import Author, IncomingFile, IncomingMessage, RepliedMessage

logger = logging.getLogger(__name__)

MAX_EMOJI_FILES = 3
_SAID_BY_PEOPLE = frozenset({discord.MessageType.default, discord.MessageType.reply})
_STICKER_MIMES = {
    discord.StickerFormatType.png: "image/png",
    discord.StickerFormatType.apng: "image/png",
    discord.StickerFormatType.gif: "image/gif",
}
_MARKUP = re.compile(r"<(?P<kind>@!?|@&|#|a?:(?P<emoji>\w+):)(?P<id>\d+)>")
_ONLY_EMOJI = re.compile(r"(?:\s*<a?:\w+:\d+>)+\s*")

Source = discord.Message | discord.MessageSnapshot


def is_conversation(message: discord.Message) -> bool:
    """Whether a person said this: no notice of Discord's, no webhook, no bot, which might talk back for ever.

    A poll is nothing to answer, and neither is a message that the bot may not read.
    """
    is_from_person = message.type in _SAID_BY_PEOPLE and not message.author.bot and message.webhook_id is None
    return is_from_person and bool(
        message.content or message.attachments or message.stickers or message.message_snapshots or message.embeds
    )


def author_of(user: discord.abc.User) -> Author:
    """Who that is. The id is the identity."""
    return Author(PLATFORM, str(user.id), user.display_name, is_bot=user.bot)


class MessageTranslator:
    """Turns `discord.Message` into `IncomingMessage`."""

    def __init__(self, downloads: Downloads, places: Places) -> None:
        self._downloads = downloads
        self._places = places

    async def translate(self, client: discord.Client, message: discord.Message) -> IncomingMessage:
        """`message` with all that belongs to it. What Discord does not tell is fetched, within a time limit."""
        guild_id = message.guild.id if message.guild is not None else None
        if isinstance(message.channel, discord.PartialMessageable):
            guild_id = message.channel.guild_id
        place = await self._places.find(client, message.channel.id, guild_id)
        return IncomingMessage(
            room=place.room,
            kind=place.kind,
            message_id=str(message.id),
            author=author_of(message.author),
            text=_text(message, client),
            files=self._files(message, client),
            reply_to=await self._replied(client, message),
            mentions_bot=_mentions_bot(message, client),
            room_names=place.names,
            sent_at=message.created_at,
            mentioned_names=tuple(user.display_name for user in message.mentions if user != client.user),
        )

    def summons(self, interaction: discord.Interaction, target: discord.Message, place: Place) -> IncomingMessage:
        """The wish for an answer to `target`, of which all comes with the interaction."""
        return IncomingMessage(
            room=place.room,
            kind=place.kind,
            message_id=f"interaction-{interaction.id}",
            author=author_of(interaction.user),
            text="",
            reply_to=self.replied_to(interaction.client, target),
            room_names=place.names,
            sent_at=interaction.created_at,
            is_summons=True,
        )

    def replied_to(self, client: discord.Client, message: discord.Message) -> RepliedMessage:
        """`message` as one that something is said about."""
        return RepliedMessage(
            message_id=str(message.id),
            author=author_of(message.author),
            text=_text(message, client),
            files=self._files(message, client),
            is_from_bot=_is_own(message, client),
        )

    def file(self, item: discord.Attachment) -> IncomingFile:
        """An attachment, not downloaded yet."""
        mime = item.content_type.partition(";")[0].strip().lower() if item.content_type else None
        return IncomingFile(item.filename, mime, item.size, partial(self._downloads.read, item.url, item.filename))

    async def _replied(self, client: discord.Client, message: discord.Message) -> RepliedMessage | None:
        replied = await _replied_message(message)
        return None if replied is None else self.replied_to(client, replied)

    def _files(self, message: discord.Message, client: discord.Client) -> tuple[IncomingFile, ...]:
        """The files of a message, and of what it forwards."""
        sources: list[Source] = [message, *message.message_snapshots]
        attachments = [self.file(item) for source in sources for item in source.attachments]
        stickers = [item for source in sources for item in source.stickers if item.format in _STICKER_MIMES]
        linked = [file for source in sources for file in self._linked(source)]
        said = [_without_bot(message, client), *(snapshot.content for snapshot in message.message_snapshots)]
        emoji = [file for text in said for file in self._emoji(text)]
        return (*attachments, *map(self._sticker, stickers), *linked, *emoji)

    def _sticker(self, item: discord.StickerItem) -> IncomingFile:
        return self._download(item.name, _STICKER_MIMES[item.format], item.url)

    def _linked(self, source: Source) -> list[IncomingFile]:
        """Pictures that a link leads to, if they were uploaded to Discord itself."""
        attached = {item.url.partition("?")[0] for item in source.attachments}
        urls = [url for embed in source.embeds for url in (embed.image.url, embed.thumbnail.url) if url]
        own = [url for url in dict.fromkeys(urls) if is_attachment(url) and url.partition("?")[0] not in attached]
        return [self._download(url.partition("?")[0].rpartition("/")[2] or "picture", None, url) for url in own]

    def _emoji(self, text: str) -> list[IncomingFile]:
        """A server's own emoji as pictures, where they are all that was said."""
        if not _ONLY_EMOJI.fullmatch(text):
            return []
        distinct = {match["id"]: _emoji(match) for match in _MARKUP.finditer(text)}
        shown = list(distinct.values())[:MAX_EMOJI_FILES]
        return [self._download(one.name, "image/png", one.url) for one in shown]

    def _download(self, name: str, mime: str | None, url: str) -> IncomingFile:
        return IncomingFile(name, mime, None, partial(self._downloads.read, url, name))


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


def _emoji(match: re.Match[str]) -> discord.PartialEmoji:
    # Of a moving one, too, Discord has a still picture.
    return discord.PartialEmoji(name=match["emoji"], id=int(match["id"]))


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
    sources: list[Source] = [message, *message.message_snapshots]
    stickers = [item for source in sources for item in source.stickers]
    unseen_stickers = [f"[sticker: {item.name}]" for item in stickers if item.format not in _STICKER_MIMES]
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
