"""Discord's channels as the bot's rooms.

Owns which room a channel is, what people call it, and who may tidy up there. Does not know what is said in it.
"""

import asyncio
import logging
from dataclasses import dataclass

import discord

from bot.adapters.discord.errors import REQUEST_ERRORS, describe
from bot.adapters.discord.recent import Recent
from bot.types import ChatKind, Room

logger = logging.getLogger(__name__)

PLATFORM = "discord"
FETCH_TIMEOUT_S = 10.0
MAX_PLACES = 2_000


@dataclass(frozen=True, slots=True)
class Place:
    """A room, whether one person is alone with the bot there, and the names of it and of the channels around it."""

    room: Room
    kind: ChatKind
    names: tuple[str, ...] = ()


def place_of(channel: object, channel_id: int, guild_id: int | None) -> Place:
    """The place that `channel` is. A thread, also a forum's post, is a room of its own inside its parent channel."""
    is_direct = guild_id is None or isinstance(channel, discord.DMChannel)
    kind = ChatKind.DIRECT if is_direct else ChatKind.GROUP
    if isinstance(channel, discord.Thread):
        return Place(Room(PLATFORM, str(channel.parent_id), str(channel.id)), kind, _names(channel, channel.parent))
    return Place(Room(PLATFORM, str(channel_id)), kind, _names(channel))


def is_moderator(permissions: discord.Permissions) -> bool:
    """Whether somebody with these permissions may delete what others wrote."""
    return permissions.manage_messages or permissions.administrator


class Places:
    """Finds the place of a channel, also where the gateway has not told of it."""

    def __init__(self) -> None:
        self._fetched: Recent[int, Place] = Recent(MAX_PLACES)

    async def find(self, client: discord.Client, channel_id: int, guild_id: int | None) -> Place:
        """The place of a channel. One that even Discord does not tell of is better a room of its own than none."""
        known = client.get_channel(channel_id)
        if known is not None or guild_id is None:
            return place_of(known, channel_id, guild_id)
        # It may be a thread, and only Discord knows its parent.
        fetched = self._fetched.get(channel_id)
        if fetched is None:
            try:
                async with asyncio.timeout(FETCH_TIMEOUT_S):
                    channel = await client.fetch_channel(channel_id)
            except REQUEST_ERRORS as error:
                logger.warning("Discord channel %s is unknown: %s", channel_id, describe(error))
                return place_of(None, channel_id, guild_id)
            fetched = place_of(channel, channel_id, guild_id)
            self._fetched.put(channel_id, fetched)
        return fetched


def _names(*channels: object) -> tuple[str, ...]:
    around = [*channels, getattr(channels[-1], "category", None)]
    names = [getattr(channel, "name", None) for channel in around]
    return tuple(name for name in names if isinstance(name, str) and name)
