"""Where a reply goes on Discord: a channel, a thread or a direct chat, by its id.

Owns sending, editing, typing and the rest, and telling why it did not work. Knows neither splitting nor pacing:
`bot.replies` does; nor how a persona gets a face: `faces.py` does.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import discord

from bot.adapters.base import PlatformLimits, ReplyChannel
from bot.adapters.discord.connection import Connection
from bot.adapters.discord.controls import view_of_controls
from bot.adapters.discord.errors import REQUEST_ERRORS, delivery_error, is_shut_out
from bot.adapters.discord.faces import Faces, is_gone
from bot.adapters.discord.files import upload
from bot.adapters.discord.traffic import Traffic
from bot.adapters.discord.troubles import FORBIDDEN, GONE, UNDELIVERED, Troubles
from bot.errors import ChannelClosed, DeliveryError, MessageGone, RateLimited
from bot.types import Control, Speaker

LIMITS = PlatformLimits(
    max_text_length=2000, edit_interval_s=1.2, typing_interval_s=8.0, max_file_bytes=10 * 1024 * 1024
)
# discord.py itself retries a 5xx for 25 s, and waits for an answer for ever.
REQUEST_TIMEOUT_S = 60.0
TYPING_TIMEOUT_S = 5.0

# What a model writes must not ring anybody's phone, but for the person it answers.
ALLOWED_MENTIONS = discord.AllowedMentions(everyone=False, users=False, roles=False, replied_user=True)

NOT_MINE = (
    "that message was said under a persona's own name, by a webhook that is gone or not the bot's. "
    "Grant “Manage Webhooks” in the channel's settings, or delete the message by hand."
)
_NOT_THE_AUTHOR = {50003, 50005, 50013}
_GONE = {10003, 10004}
_NO_MESSAGE = 10008

Result = TypeVar("Result")
Action = Callable[[discord.Client], Awaitable[Result]]


@dataclass(slots=True)
class _Standing:
    """Why the bot is shut out of a channel, if it is; shared by all who speak there."""

    shut_out: str | None = None


@dataclass(frozen=True, slots=True)
class Channels:
    """Opens channels; holds what they share."""

    connection: Connection
    faces: Faces
    troubles: Troubles
    traffic: Traffic

    def open(self, channel_id: int) -> "DiscordChannel":
        """Where to write to that channel, thread or direct chat."""
        return DiscordChannel(self, channel_id)


class DiscordChannel(ReplyChannel):
    """One place to write to, as `bot.adapters.base.ReplyChannel`. Made for one message, it remembers being shut out."""

    def __init__(
        self,
        channels: Channels,
        channel_id: int,
        *,
        speaker: Speaker | None = None,
        standing: _Standing | None = None,
    ) -> None:
        self._channels = channels
        self._channel_id = channel_id
        self._speaker = speaker
        self._standing = standing or _Standing()
        self.limits = limits_with(name_line(speaker))

    def speaking_as(self, speaker: Speaker) -> Self:
        """The same place, where `speaker` speaks: through a webhook, or else with its name before the text."""
        return type(self)(self._channels, self._channel_id, speaker=speaker, standing=self._standing)

    async def show_typing(self) -> None:
        """Show once that the bot is writing."""

        async def type_(client: discord.Client) -> None:
            await self._target(client).typing()

        await self._request(type_, TYPING_TIMEOUT_S, is_post=True)

    async def ready(self, *, is_urgent: bool = False) -> None:
        """Wait until what was sent or changed here before has come through."""
        await self._channels.traffic.clear(self._channel_id, is_urgent=is_urgent)

    async def send(self, text: str, *, reply_to: str | None = None, controls: tuple[Control, ...] = ()) -> str:
        """Send `text` and return the message's id. A message to reply to that is gone is no obstacle."""
        content: dict[str, Any] = {"allowed_mentions": ALLOWED_MENTIONS}
        if (view := view_of_controls(controls)) is not None:
            content["view"] = view
        return await self._say(text, content, reply_to=reply_to)

    async def send_once(
        self, name: str, text: str, *, reply_to: str | None = None, controls: tuple[Control, ...] = ()
    ) -> str:
        """`send`, by a nonce: Discord gives back the message that it has of the last minutes, as it was then.

        Webhooks know no nonces.
        """
        content: dict[str, Any] = {"allowed_mentions": ALLOWED_MENTIONS, "nonce": name}
        if (view := view_of_controls(controls)) is not None:
            content["view"] = view
        return await self._say(text, content, reply_to=reply_to)

    async def edit(self, message_id: str, text: str, *, controls: tuple[Control, ...] = ()) -> None:
        """Replace the text of a message that was sent here, and the buttons under it."""
        view = view_of_controls(controls)
        await self._change(
            message_id,
            {"content": text, "view": view, "allowed_mentions": ALLOWED_MENTIONS},
            {"content": name_line(self._speaker) + text, "view": view, "allowed_mentions": ALLOWED_MENTIONS},
        )

    async def show_controls(self, message_id: str, controls: tuple[Control, ...]) -> None:
        """Replace the buttons under a message that was sent here."""
        changes: dict[str, Any] = {"view": view_of_controls(controls)}
        await self._change(message_id, changes, changes)

    async def delete(self, message_id: str) -> None:
        """Delete a message that was sent here. That it is gone already is no error."""
        number = int(message_id)

        async def remove(client: discord.Client) -> None:
            await self._target(client).get_partial_message(number).delete()

        async def remove_through(client: discord.Client) -> None:
            try:
                await self._channels.faces.delete(client, number)
            except discord.HTTPException as error:
                if not is_gone(error):
                    raise
                # Without its webhook, it is anybody's: whoever manages messages may delete it.
                await remove(client)

        async def act(client: discord.Client) -> None:
            try:
                await self._as_its_author(client, number, remove, remove_through)
            except discord.NotFound as error:
                if error.code != _NO_MESSAGE:
                    raise

        await self._request(act, REQUEST_TIMEOUT_S, also_needed="manage_messages")

    async def react(self, message_id: str, emoji: str) -> None:
        """Put an emoji under a message."""

        async def add(client: discord.Client) -> None:
            await self._target(client).get_partial_message(int(message_id)).add_reaction(emoji)

        await self._request(add, REQUEST_TIMEOUT_S, also_needed="add_reactions")

    async def send_sticker(self, sticker: Path) -> str | None:
        """Upload a persona's sticker as a picture."""
        return await self._say("", {"allowed_mentions": ALLOWED_MENTIONS}, picture=sticker)

    def _target(self, client: discord.Client) -> discord.PartialMessageable:
        return client.get_partial_messageable(self._channel_id)

    async def _say(
        self, text: str, content: dict[str, Any], *, reply_to: str | None = None, picture: Path | None = None
    ) -> str:
        async def post(client: discord.Client) -> str:
            nameless = {key: value for key, value in content.items() if key != "nonce"}
            if self._speaker is not None:
                said = await self._channels.faces.send(
                    client, self._channel_id, self._speaker, text, nameless, picture=picture
                )
                if said is not None:
                    return said
            named = name_line(self._speaker) + text if text else text
            own = content | upload(picture) | _reference(reply_to, self._channel_id)
            message = await self._target(client).send(named, **own)
            if "nonce" in content and message.content != named.strip():
                await message.edit(content=named, **nameless)
            return str(message.id)

        with self._channels.traffic.using(self._channel_id):
            return await self._request(post, REQUEST_TIMEOUT_S, is_post=True)

    async def _change(self, message_id: str, through: dict[str, Any], own: dict[str, Any]) -> None:
        """Change a message: `through` the webhook that said it, or else as the bot's `own` one."""
        number = int(message_id)

        async def patch(client: discord.Client) -> None:
            await self._target(client).get_partial_message(number).edit(**own)

        async def patch_through(client: discord.Client) -> None:
            try:
                await self._channels.faces.edit(client, number, through)
            except discord.HTTPException as error:
                if not is_gone(error) or "content" not in through:
                    raise
                # Nobody can change it any more: it makes room for another one, where the bot may delete it.
                try:
                    await self._target(client).get_partial_message(number).delete()
                except discord.Forbidden:
                    raise error from None
                raise MessageGone("a webhook that said a message is gone, and so is the message now") from error

        async def act(client: discord.Client) -> None:
            await self._as_its_author(client, number, patch, patch_through)

        with self._channels.traffic.using(self._channel_id):
            await self._request(act, REQUEST_TIMEOUT_S)

    async def _as_its_author(
        self, client: discord.Client, message_id: int, own: Action[None], through: Action[None]
    ) -> None:
        """Do something to a message as the bot, or through the webhook that said it: only its author may."""
        faces = self._channels.faces
        if faces.has_said(message_id):
            await through(client)
            return
        try:
            await own(client)
        except discord.Forbidden as error:
            if error.code not in _NOT_THE_AUTHOR:
                raise
            if not await faces.find(client, self._channel_id, message_id):
                if error.code == 50013:
                    raise
                raise DeliveryError(f"Discord refuses: {NOT_MINE}") from error
            await through(client)

    async def _request(
        self,
        action: Callable[[discord.Client], Coroutine[Any, Any, Result]],
        timeout_s: float,
        *,
        is_post: bool = False,
        also_needed: str | None = None,
    ) -> Result:
        """Do `action`. A refusal of one that `is_post` holds for all that follows: there is no writing here."""
        client: discord.Client | None = None
        if self._standing.shut_out is not None:
            raise ChannelClosed(self._standing.shut_out)
        try:
            async with asyncio.timeout(timeout_s):
                client = await self._channels.connection.client(self._channel_id)
                return await action(client)
        except REQUEST_ERRORS as error:
            is_forbidden = isinstance(error, discord.Forbidden)
            missing = missing_permissions(client, self._channel_id, also_needed) if is_forbidden else ()
            delivery = delivery_error(error, missing)
            # Asking again in the same breath helps nobody, and ten thousand refusals in ten minutes lock the bot out.
            if is_post and is_shut_out(error):
                self._standing.shut_out = str(delivery)
            self._take_note(error, delivery)
            raise delivery from error

    def _take_note(self, error: Exception, delivery: DeliveryError) -> None:
        if isinstance(delivery, RateLimited):
            return
        kind = UNDELIVERED
        if isinstance(error, discord.Forbidden):
            kind = FORBIDDEN
        elif isinstance(error, discord.HTTPException) and error.code in _GONE:
            kind = GONE
        self._channels.troubles.note(kind, f"channel {self._channel_id}: {delivery}")


def name_line(speaker: Speaker | None) -> str:
    """What stands before the text of somebody who cannot have a face."""
    return f"**{discord.utils.escape_markdown(speaker.name)}:** " if speaker is not None else ""


def limits_with(line: str) -> PlatformLimits:
    """Discord's limits, where `line` stands before every text."""
    return replace(LIMITS, max_text_length=LIMITS.max_text_length - len(line))


def missing_permissions(
    client: discord.Client | None, channel_id: int, also_needed: str | None = None
) -> tuple[str, ...]:
    """The permissions that answering in a channel needs and the bot has not, as Discord's settings name them."""
    channel = client.get_channel(channel_id) if client is not None else None
    if not isinstance(channel, (discord.abc.GuildChannel, discord.Thread)):
        return ()
    granted = channel.permissions_for(channel.guild.me)
    send = "send_messages_in_threads" if isinstance(channel, discord.Thread) else "send_messages"
    needed = ("view_channel", send, "read_message_history", *([also_needed] if also_needed else []))
    return tuple(name.replace("_", " ").title() for name in needed if not getattr(granted, name))


def _reference(reply_to: str | None, channel_id: int) -> dict[str, Any]:
    # What a command asked for has no message that could be replied to.
    if reply_to is None or not reply_to.isdecimal():
        return {}
    return {
        "reference": discord.MessageReference(message_id=int(reply_to), channel_id=channel_id, fail_if_not_exists=False)
    }
