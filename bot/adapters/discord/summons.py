"""Answers that somebody asked for under a message, with “Reply in persona”.

Owns answering through what Discord calls an interaction: it needs neither the bot's presence in the channel nor the
right to read there. Discord allows it for a quarter of an hour; after that, an answer goes on in the channel itself.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import discord

from bot.adapters.base import ReplyChannel
from bot.adapters.discord.channel import ALLOWED_MENTIONS, REQUEST_TIMEOUT_S, Channels, limits_with, name_line
from bot.adapters.discord.controls import view_of_controls
from bot.adapters.discord.errors import REQUEST_ERRORS, delivery_error
from bot.adapters.discord.files import upload
from bot.types import Control, Speaker

VALID_S = 14.5 * 60
INVALID_TOKEN = 50027
UNKNOWN_INTERACTION = 10015

Result = TypeVar("Result")


@dataclass(slots=True)
class Ticket:
    """The right to answer: `own` are the ids of the messages that were sent with it."""

    application_id: int
    token: str = field(repr=False)
    valid_until: float
    own: set[str] = field(default_factory=set)

    @property
    def is_valid(self) -> bool:
        return asyncio.get_running_loop().time() < self.valid_until


class SummonedChannel(ReplyChannel):
    """One answer's place, as `bot.adapters.base.ReplyChannel`. What it replies to stands above it anyway."""

    def __init__(
        self, channels: Channels, ticket: Ticket, plain: ReplyChannel, *, speaker: Speaker | None = None
    ) -> None:
        self._channels = channels
        self._ticket = ticket
        self._plain = plain
        self._speaker = speaker
        self.limits = limits_with(name_line(speaker))

    @classmethod
    def of(cls, channels: Channels, interaction: discord.Interaction) -> Self:
        """Where `interaction` is answered."""
        valid_until = asyncio.get_running_loop().time() + VALID_S
        ticket = Ticket(interaction.application_id, interaction.token, valid_until)
        return cls(channels, ticket, channels.open(interaction.channel_id or 0))

    def speaking_as(self, speaker: Speaker) -> Self:
        """The same place, where `speaker` speaks. Such an answer is the bot's own, so the name stands in the text."""
        return type(self)(self._channels, self._ticket, self._plain.speaking_as(speaker), speaker=speaker)

    async def show_typing(self) -> None:
        """Discord shows by itself that an answer is being written."""

    async def send(self, text: str, *, reply_to: str | None = None, controls: tuple[Control, ...] = ()) -> str:
        """Send `text` and return the message's id."""
        content: dict[str, Any] = {}
        if (view := view_of_controls(controls)) is not None:
            content["view"] = view

        async def post(webhook: discord.Webhook) -> str:
            said = name_line(self._speaker) + text
            message = await webhook.send(said, wait=True, allowed_mentions=ALLOWED_MENTIONS, **content)
            return str(message.id)

        return await self._post(post, lambda: self._plain.send(text, reply_to=reply_to, controls=controls))

    async def edit(self, message_id: str, text: str, *, controls: tuple[Control, ...] = ()) -> None:
        """Replace the text of a message that was sent here, and the buttons under it."""
        changes: dict[str, Any] = {"content": name_line(self._speaker) + text, "view": view_of_controls(controls)}

        async def patch(webhook: discord.Webhook) -> None:
            await webhook.edit_message(int(message_id), allowed_mentions=ALLOWED_MENTIONS, **changes)

        await self._change(message_id, patch, lambda: self._plain.edit(message_id, text, controls=controls))

    async def show_controls(self, message_id: str, controls: tuple[Control, ...]) -> None:
        """Replace the buttons under a message that was sent here."""
        changes: dict[str, Any] = {"view": view_of_controls(controls)}

        async def patch(webhook: discord.Webhook) -> None:
            await webhook.edit_message(int(message_id), **changes)

        await self._change(message_id, patch, lambda: self._plain.show_controls(message_id, controls))

    async def delete(self, message_id: str) -> None:
        """Delete a message that was sent here. That it is gone already is no error."""

        async def remove(webhook: discord.Webhook) -> None:
            try:
                await webhook.delete_message(int(message_id))
            except discord.NotFound as error:
                if error.code == UNKNOWN_INTERACTION:
                    raise

        await self._change(message_id, remove, lambda: self._plain.delete(message_id))

    async def react(self, message_id: str, emoji: str) -> None:
        """Put an emoji under a message, where the bot is in the channel."""
        await self._plain.react(message_id, emoji)

    async def send_sticker(self, sticker: Path) -> str | None:
        """Upload a persona's sticker as a picture."""

        async def post(webhook: discord.Webhook) -> str:
            return str((await webhook.send(wait=True, **upload(sticker))).id)

        return await self._post(post, lambda: self._plain.send_sticker(sticker))

    async def withdraw(self) -> None:
        """Nothing came: take away the sign that something would."""
        if self._ticket.own or not self._ticket.is_valid:
            return

        async def remove(webhook: discord.Webhook) -> None:
            # Discord's name for the sign stands where other messages have a number.
            await webhook.delete_message("@original")  # type: ignore[arg-type]

        await self._request(remove)

    async def _post(
        self, action: Callable[[discord.Webhook], Awaitable[str]], plain: Callable[[], Awaitable[Result]]
    ) -> str | Result:
        if self._ticket.is_valid:
            try:
                message_id = await self._request(action)
            except _Expired:
                self._ticket.valid_until = 0.0
            else:
                self._ticket.own.add(message_id)
                return message_id
        return await plain()

    async def _change(
        self,
        message_id: str,
        action: Callable[[discord.Webhook], Awaitable[None]],
        plain: Callable[[], Awaitable[None]],
    ) -> None:
        if message_id in self._ticket.own and self._ticket.is_valid:
            try:
                await self._request(action)
            except _Expired:
                self._ticket.valid_until = 0.0
            else:
                return
        await plain()

    async def _request(self, action: Callable[[discord.Webhook], Awaitable[Result]]) -> Result:
        ticket = self._ticket
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                client = await self._channels.connection.client()
                return await action(discord.Webhook.partial(ticket.application_id, ticket.token, client=client))
        except REQUEST_ERRORS as error:
            if isinstance(error, discord.HTTPException) and error.code in (INVALID_TOKEN, UNKNOWN_INTERACTION):
                raise _Expired from error
            raise delivery_error(error) from error


class _Expired(Exception):
    """The right to answer is gone."""
