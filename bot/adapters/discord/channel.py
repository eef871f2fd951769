"""Where a reply goes on Discord: a channel, a thread or a direct chat, by its id.

Owns sending, editing and typing, and telling why it did not work. Knows neither splitting nor pacing: `bot.replies`
does.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import discord

from bot.adapters.base import PlatformLimits, ReplyChannel
from bot.adapters.discord.connection import Connection
from bot.adapters.discord.errors import REQUEST_ERRORS, delivery_error
from bot.errors import DeliveryError
from bot.types import Control

LIMITS = PlatformLimits(
    max_text_length=2000, edit_interval_s=1.2, typing_interval_s=8.0, max_file_bytes=10 * 1024 * 1024
)
# discord.py itself retries a 5xx for 25 s, and waits for an answer for ever.
REQUEST_TIMEOUT_S = 60.0
TYPING_TIMEOUT_S = 5.0

# Missing access, no direct messages, missing permission: asking again in the same breath helps nobody, and ten thousand
# refusals in ten minutes lock the bot out of Discord.
_LASTING_REFUSALS = {50001, 50007, 50013}

# What a model writes must not ring anybody's phone, but for the person it answers.
ALLOWED_MENTIONS = discord.AllowedMentions(everyone=False, users=False, roles=False, replied_user=True)

Result = TypeVar("Result")


class DiscordChannel(ReplyChannel):
    """One place to write to, as `bot.adapters.base.ReplyChannel`. Made for one message, it remembers being shut out."""

    limits = LIMITS

    def __init__(self, connection: Connection, channel_id: int) -> None:
        self._connection = connection
        self._channel_id = channel_id
        self._shut_out: str | None = None

    async def show_typing(self) -> None:
        """Show once that the bot is writing."""

        async def type_(target: discord.PartialMessageable) -> None:
            await target.typing()

        await self._request(type_, TYPING_TIMEOUT_S)

    async def send(self, text: str, *, reply_to: str | None = None, controls: tuple[Control, ...] = ()) -> str:  # noqa: ARG002
        """Send `text` and return the message's id. A message to reply to that is gone is no obstacle."""

        async def post(target: discord.PartialMessageable) -> str:
            if reply_to is None:
                message = await target.send(text, allowed_mentions=ALLOWED_MENTIONS)
            else:
                reference = discord.MessageReference(
                    message_id=int(reply_to), channel_id=self._channel_id, fail_if_not_exists=False
                )
                message = await target.send(text, reference=reference, allowed_mentions=ALLOWED_MENTIONS)
            return str(message.id)

        return await self._request(post, REQUEST_TIMEOUT_S)

    async def edit(self, message_id: str, text: str, *, controls: tuple[Control, ...] = ()) -> None:  # noqa: ARG002
        """Replace the text of a message that was sent here."""

        async def patch(target: discord.PartialMessageable) -> None:
            message = target.get_partial_message(int(message_id))
            await message.edit(content=text, allowed_mentions=ALLOWED_MENTIONS)

        await self._request(patch, REQUEST_TIMEOUT_S)

    async def _request(
        self, action: Callable[[discord.PartialMessageable], Coroutine[Any, Any, Result]], timeout_s: float
    ) -> Result:
        client: discord.Client | None = None
        if self._shut_out is not None:
            raise DeliveryError(self._shut_out)
        try:
            async with asyncio.timeout(timeout_s):
                client = await self._connection.client()
                return await action(client.get_partial_messageable(self._channel_id))
        except REQUEST_ERRORS as error:
            missing = missing_permissions(client, self._channel_id) if isinstance(error, discord.Forbidden) else ()
            delivery = delivery_error(error, missing)
            if isinstance(error, discord.Forbidden) and error.code in _LASTING_REFUSALS:
                self._shut_out = str(delivery)
            raise delivery from error


def missing_permissions(client: discord.Client | None, channel_id: int) -> tuple[str, ...]:
    """The permissions that answering in a channel needs and the bot has not, as Discord's settings name them."""
    channel = client.get_channel(channel_id) if client is not None else None
    if not isinstance(channel, (discord.abc.GuildChannel, discord.Thread)):
        return ()
    granted = channel.permissions_for(channel.guild.me)
    send = "send_messages_in_threads" if isinstance(channel, discord.Thread) else "send_messages"
    needed = ("view_channel", send, "read_message_history")
    return tuple(name.replace("_", " ").title() for name in needed if not getattr(granted, name))
