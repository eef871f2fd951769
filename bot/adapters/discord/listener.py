"""What is heard on Discord: messages, changes of them, and reactions, on their way to the bot.

Owns which events mean something, and that each message is handed on once. Does not know how clients come and go, nor
what the bot makes of what it hears.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import discord

from bot.adapters.base import MessageHandler, ReplyChannel
from bot.adapters.discord.catch_up import CatchUp
from bot.adapters.discord.channel import Channels
from bot.adapters.discord.inbox import Inbox
from bot.adapters.discord.messages import MessageTranslator, author_of, is_conversation
from bot.adapters.discord.places import PLATFORM, Place, Places, is_moderator
from bot.adapters.discord.recent import Recent
from bot.types import Author, IncomingMessage, IncomingReaction

Handle = Callable[[IncomingMessage, ReplyChannel], Awaitable[None]]

MAX_REMEMBERED = 10_000
# Pins and previews also announce a message as changed, long after its author changed it.
MAX_EDIT_AGE_S = 3600.0


class Listener:
    """Hands on what clients hear."""

    def __init__(
        self,
        handler: MessageHandler,
        inbox: Inbox,
        channels: Channels,
        translator: MessageTranslator,
        places: Places,
        catch_up: CatchUp,
    ) -> None:
        self._handler = handler
        self._inbox = inbox
        self._channels = channels
        self._translator = translator
        self._places = places
        self._catch_up = catch_up
        self._contents: Recent[int, int] = Recent(MAX_REMEMBERED)

    def hear_session(self, client: discord.Client) -> None:
        """A new session begins: what was said before it, nobody will tell but the channels' history."""
        self._catch_up.begin(client, partial(self._hear, client))

    def hear_ready(self, client: discord.Client) -> None:
        """The session has told of its servers and channels."""
        self._catch_up.go_on(client)

    def hear_message(self, client: discord.Client, message: discord.Message) -> None:
        """Somebody wrote something, just now."""
        self._hear(client, message)

    def hear_edit(self, client: discord.Client, event: discord.RawMessageUpdateEvent) -> None:
        """A message changed. A preview, a pin or a flag changes no word, and is no edit."""
        message = event.message
        edited_at = message.edited_at
        if edited_at is None or "content" not in event.data or not is_conversation(message):
            return
        content, known = _content(message), self._contents.get(message.id)
        is_old = (discord.utils.utcnow() - edited_at).total_seconds() > MAX_EDIT_AGE_S
        if known == content or (known is None and is_old):
            return
        self._contents.put(message.id, content)
        self._inbox.accept(
            message.channel.id,
            partial(self._translator.translate, client, message),
            partial(_hand_to, self._handler.handle_edit, self._channels.open(message.channel.id)),
        )

    def hear_deletion(self, client: discord.Client, channel_id: int, guild_id: int | None, ids: set[int]) -> None:
        """Messages are gone."""
        message_ids = tuple(str(message_id) for message_id in sorted(ids))

        async def handle(place: Place) -> None:
            await self._handler.handle_deletion(place.room, message_ids, self._channels.open(channel_id))

        self._inbox.accept(channel_id, partial(self._places.find, client, channel_id, guild_id), handle)

    def hear_reaction(self, client: discord.Client, event: discord.RawReactionActionEvent) -> None:
        """Somebody put an emoji under a message, or took it away; what bots put there is nobody's wish."""
        is_own = client.user is not None and event.user_id == client.user.id
        if is_own or (event.member is not None and event.member.bot):
            return

        async def handle(place: Place) -> None:
            reaction = _reaction(client, event, place)
            await self._handler.handle_reaction(reaction, self._channels.open(event.channel_id))

        find = partial(self._places.find, client, event.channel_id, event.guild_id)
        self._inbox.accept(event.channel_id, find, handle)

    def _hear(self, client: discord.Client, message: discord.Message) -> None:
        channel_id = message.channel.id
        # What the history repeats of a session that already told it was heard before.
        if not is_conversation(message) or message.id in self._contents:
            self._catch_up.note(channel_id, message.id)
            return
        self._contents.put(message.id, _content(message))
        self._catch_up.note(channel_id, message.id, is_pending=True)

        async def handle(incoming: IncomingMessage) -> None:
            async with self._settling(message):
                await self._handler.handle(incoming, self._channels.open(channel_id))

        async def translate() -> IncomingMessage:
            async with self._settling(message, only_failure=True):
                return await self._translator.translate(client, message)

        self._inbox.accept(channel_id, translate, handle)

    @contextlib.asynccontextmanager
    async def _settling(self, message: discord.Message, *, only_failure: bool = False) -> AsyncIterator[None]:
        """The message is done with in the end, unless that is broken off: then the next process hears it again."""
        try:
            yield
        except asyncio.CancelledError:
            raise
        except BaseException:
            self._catch_up.settle(message.channel.id, message.id)
            raise
        if not only_failure:
            self._catch_up.settle(message.channel.id, message.id)


async def _hand_to(handle: Handle, channel: ReplyChannel, incoming: IncomingMessage) -> None:
    await handle(incoming, channel)


def _content(message: discord.Message) -> int:
    """What tells whether somebody changed what they wrote."""
    return hash((message.content, tuple(attachment.id for attachment in message.attachments)))


def _reaction(client: discord.Client, event: discord.RawReactionActionEvent, place: Place) -> IncomingReaction:
    member, channel = event.member, client.get_channel(event.channel_id)
    is_allowed = False
    if member is not None and isinstance(channel, discord.abc.GuildChannel | discord.Thread):
        is_allowed = is_moderator(channel.permissions_for(member))
    return IncomingReaction(
        room=place.room,
        kind=place.kind,
        message_id=str(event.message_id),
        author=author_of(member) if member is not None else Author(PLATFORM, str(event.user_id), ""),
        emoji=event.emoji.name or "",
        is_added=event.event_type == "REACTION_ADD",
        is_moderator=is_allowed,
    )
