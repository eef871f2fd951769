"""What was said while nobody listened.

Owns the marks of how far each channel was heard, and looking up what came after them when a new session begins: one
that goes on brings what was missed by itself. A mark stands before what is still being answered, so that a crash loses
nothing; that some is looked up twice is found out by the store. Does not know what a message means.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import timedelta

import discord

from bot.adapters.base import SeenEvents
from bot.adapters.discord.errors import REQUEST_ERRORS, describe
from bot.adapters.discord.places import PLATFORM
from bot.adapters.discord.tasks import TaskSet
from bot.adapters.discord.troubles import CATCH_UP, Troubles
from bot.errors import BotError

logger = logging.getLogger(__name__)

# A quiet channel's mark is old, and what was asked there in the gap counts all the same.
MARKS_AGE = timedelta(days=7)
# Of direct chats and archived threads nobody tells whether there is something new, so only the latest are asked.
MAX_UNTOLD_CHANNELS = 100
MAX_MESSAGES = 200
MAX_AT_ONCE = 4
MAX_ATTEMPTS = 3
RETRY_AFTER_S = 5.0
READY_TIMEOUT_S = 60.0
REQUEST_TIMEOUT_S = 60.0

Hear = Callable[[discord.Message], None]


class CatchUp:
    """Marks how far each channel was heard, and hears the rest after a gap of at most `max_age_s` seconds."""

    def __init__(self, seen: SeenEvents | None, tasks: TaskSet, troubles: Troubles, *, max_age_s: float) -> None:
        self._seen = seen
        self._tasks = tasks
        self._troubles = troubles
        self._max_age = timedelta(seconds=max_age_s)
        self._pending: dict[int, set[int]] = {}
        self._newest: dict[int, int] = {}
        self._held: dict[int, int] = {}
        self._num_reading = 0
        self._unread: dict[int, int] = {}
        self._at_once = asyncio.Semaphore(MAX_AT_ONCE)

    def note(self, channel_id: int, message_id: int, *, is_pending: bool = False) -> None:
        """That message was heard. One that `is_pending` is not done with until `settle` says so."""
        if is_pending:
            self._pending.setdefault(channel_id, set()).add(message_id)
        self._newest[channel_id] = max(message_id, self._newest.get(channel_id, 0))
        self._advance(channel_id)

    def settle(self, channel_id: int, message_id: int) -> None:
        """That message is done with."""
        pending = self._pending.get(channel_id, set())
        pending.discard(message_id)
        self._advance(channel_id)

    def begin(self, client: discord.Client, hear: Hear) -> None:
        """A new session of `client` begins: give `hear` what was missed, in the background."""
        if self._seen is None or not self._max_age:
            return
        # At once, so that nothing that is heard from now on can move the marks beyond the gap.
        self._num_reading += 1
        self._tasks.spawn(self._run(self._seen, client, hear))

    def _advance(self, channel_id: int) -> None:
        """Move a channel's mark as far as everything is done with."""
        pending = self._pending.get(channel_id)
        if pending:
            self._mark(channel_id, min(pending) - 1)
        else:
            self._pending.pop(channel_id, None)
            self._mark(channel_id, self._newest.pop(channel_id, 0))

    def _mark(self, channel_id: int, message_id: int) -> None:
        """While a channel's gap is open, its mark stays in front of it."""
        if self._seen is None or not message_id:
            return
        if self._num_reading or channel_id in self._unread:
            self._held[channel_id] = max(message_id, self._held.get(channel_id, 0))
        else:
            self._seen.note(PLATFORM, str(channel_id), str(message_id))

    async def _run(self, seen: SeenEvents, client: discord.Client, hear: Hear) -> None:
        marks = await self._read(seen)
        try:
            await self._wait_until_ready(client)
            async with asyncio.TaskGroup() as group:
                for channel_id in _channels_to_ask(client, marks):
                    group.create_task(self._fill(client, channel_id, marks[channel_id], hear))
        finally:
            for channel_id in marks:
                self._close(channel_id)

    async def _read(self, seen: SeenEvents) -> dict[int, int]:
        marks: Mapping[str, str] = {}
        try:
            marks = await seen.marks(PLATFORM, since=discord.utils.utcnow() - MARKS_AGE)
        except BotError as error:
            self._troubles.note(CATCH_UP, f"what was said during the gap cannot be looked up: {error}")
        finally:
            self._num_reading -= 1
            numbers = {int(chat): int(mark) for chat, mark in marks.items() if chat.isdigit() and mark.isdigit()}
            for channel_id in numbers:
                self._unread[channel_id] = self._unread.get(channel_id, 0) + 1
            self._release()
        return numbers

    async def _wait_until_ready(self, client: discord.Client) -> None:
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await client.wait_until_ready()
        except (TimeoutError, RuntimeError):
            logger.debug("a Discord session ended before it was ready")

    async def _fill(self, client: discord.Client, channel_id: int, mark: int, hear: Hear) -> None:
        """Hear what was said in one channel after `mark`."""
        async with self._at_once:
            for attempt in range(MAX_ATTEMPTS):
                try:
                    async with asyncio.timeout(REQUEST_TIMEOUT_S):
                        missed = await self._fetch(client, channel_id, mark)
                except (discord.Forbidden, discord.NotFound) as error:
                    logger.debug("Discord channel %s tells nothing of the gap: %s", channel_id, describe(error))
                    return
                except REQUEST_ERRORS as error:
                    if attempt + 1 == MAX_ATTEMPTS:
                        self._troubles.note(
                            CATCH_UP, f"what was said in channel {channel_id} was not told: {describe(error)}"
                        )
                        return
                    await asyncio.sleep(RETRY_AFTER_S)
                else:
                    self._hear_all(channel_id, missed, hear)
                    return

    async def _fetch(self, client: discord.Client, channel_id: int, mark: int) -> list[discord.Message]:
        channel = client.get_channel(channel_id) or await client.fetch_channel(channel_id)
        if not isinstance(channel, discord.abc.Messageable) or _is_of_another_shard(client, channel):
            return []
        oldest = discord.utils.time_snowflake(discord.utils.utcnow() - self._max_age)
        after = discord.Object(max(mark, oldest))
        return [message async for message in channel.history(limit=MAX_MESSAGES, after=after, oldest_first=True)]

    def _hear_all(self, channel_id: int, missed: list[discord.Message], hear: Hear) -> None:
        for message in missed:
            hear(message)
        if len(missed) == MAX_MESSAGES:
            self._troubles.note(
                CATCH_UP, f"in channel {channel_id} more was said during the gap than is looked up ({MAX_MESSAGES})"
            )

    def _close(self, channel_id: int) -> None:
        self._unread[channel_id] -= 1
        if not self._unread[channel_id]:
            del self._unread[channel_id]
        self._release()

    def _release(self) -> None:
        """Note what was held back, where no gap is open any more."""
        if self._num_reading or self._seen is None:
            return
        for channel_id in [channel_id for channel_id in self._held if channel_id not in self._unread]:
            self._seen.note(PLATFORM, str(channel_id), str(self._held.pop(channel_id)))


def _channels_to_ask(client: discord.Client, marks: Mapping[int, int]) -> list[int]:
    """The channels of this client's shard in which something may have been said after its mark."""
    known = {channel_id: client.get_channel(channel_id) for channel_id in marks}
    told = [channel_id for channel_id, channel in known.items() if _may_have_more(channel, marks[channel_id])]
    untold = [channel_id for channel_id, channel in known.items() if channel is None]
    # What belongs to no server is the first shard's.
    is_first = not client.shard_id
    latest = sorted(untold, key=lambda channel_id: marks[channel_id], reverse=True)[:MAX_UNTOLD_CHANNELS]
    return [*told, *(latest if is_first else ())]


def _is_of_another_shard(client: discord.Client, channel: object) -> bool:
    guild = getattr(channel, "guild", None)
    return guild is not None and bool(client.shard_count) and (guild.id >> 22) % client.shard_count != client.shard_id


def _may_have_more(channel: object, mark: int) -> bool:
    if channel is None:
        return False
    last = getattr(channel, "last_message_id", None)
    return last is None or last > mark
