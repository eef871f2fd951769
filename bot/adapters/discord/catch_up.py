"""What was said while nobody listened.

Owns the marks of how far each channel was heard, and looking up what came after them when a new session begins: one
that goes on brings what was missed by itself. A mark stands before what is still being answered, so that a crash loses
nothing; that some is looked up twice is found out by the store. Does not know what a message means.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Mapping
from datetime import timedelta

import discord

from bot.adapters.base import SeenEvents, retry_delays
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
# After so many failures in a row somebody hears of it; it is tried on, ever more rarely.
NUM_FAILURES_TO_TELL = 3
FIRST_RETRY_S = 2.0
MAX_RETRY_S = 60.0
CLOSE_CHECK_S = 2.0
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
        self._gaps: dict[int, dict[int, int]] = {}
        """By channel, for each shard that may tell of it, which of that shard's sessions left a gap open."""
        self._sessions = itertools.count()
        self._told: dict[int, asyncio.Event] = {}
        """By shard, whether its newest session has told of all servers: without them, nothing is known of channels."""
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
        is_told = self._told[client.shard_id or 0] = asyncio.Event()
        self._tasks.spawn(self._run(self._seen, client, is_told, hear))

    def go_on(self, client: discord.Client) -> None:
        """The session of `client` has told of its servers."""
        if (is_told := self._told.get(client.shard_id or 0)) is not None:
            is_told.set()

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
        if self._num_reading or channel_id in self._gaps:
            self._held[channel_id] = max(message_id, self._held.get(channel_id, 0))
        else:
            self._seen.note(PLATFORM, str(channel_id), str(message_id))

    async def _run(self, seen: SeenEvents, client: discord.Client, is_told: asyncio.Event, hear: Hear) -> None:
        session = next(self._sessions)
        marks = await self._read(seen, client, session)
        while not is_told.is_set():
            if client.is_closed() or self._told[client.shard_id or 0] is not is_told:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(is_told.wait(), CLOSE_CHECK_S)
        if client.is_closed():
            return
        to_ask = _channels_to_ask(client, marks)
        for channel_id in marks.keys() - set(to_ask):
            self._close(channel_id, client, session)
        async with asyncio.TaskGroup() as group:
            for channel_id in to_ask:
                group.create_task(self._fill(client, session, channel_id, marks[channel_id], hear))

    async def _read(self, seen: SeenEvents, client: discord.Client, session: int) -> dict[int, int]:
        """The marks as they were when the session began, with a gap behind each of them."""
        marks: dict[int, int] = {}
        try:
            told = await seen.marks(PLATFORM, since=discord.utils.utcnow() - MARKS_AGE)
            marks = {int(chat): int(mark) for chat, mark in told.items() if chat.isdigit() and mark.isdigit()}
            for channel_id in marks:
                self._gaps.setdefault(channel_id, {})[client.shard_id or 0] = session
        except BotError as error:
            self._troubles.note(CATCH_UP, f"what was said during the gap cannot be looked up: {error}")
        finally:
            self._num_reading -= 1
            self._release()
        return marks

    async def _fill(self, client: discord.Client, session: int, channel_id: int, mark: int, hear: Hear) -> None:
        """Hear what was said in one channel after `mark`. Should the client end before, the gap stays for the next."""
        delays = retry_delays(first_s=FIRST_RETRY_S, max_s=MAX_RETRY_S)
        num_failures = 0
        too_late_at = discord.utils.utcnow() + self._max_age
        while not client.is_closed():
            try:
                async with self._at_once, asyncio.timeout(REQUEST_TIMEOUT_S):
                    missed = await self._fetch(client, channel_id, mark)
            except (discord.Forbidden, discord.NotFound) as error:
                logger.debug("Discord channel %s tells nothing of the gap: %s", channel_id, describe(error))
                break
            except REQUEST_ERRORS as error:
                num_failures += 1
                if num_failures == NUM_FAILURES_TO_TELL:
                    self._troubles.note(
                        CATCH_UP, f"what was said in channel {channel_id} is not told, trying on: {describe(error)}"
                    )
                if discord.utils.utcnow() > too_late_at:
                    break
                await asyncio.sleep(next(delays))
            else:
                self._hear_all(channel_id, missed, hear)
                break
        else:
            return
        self._close(channel_id, client, session)

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

    def _close(self, channel_id: int, client: discord.Client, session: int) -> None:
        """That session's gap is closed; one that a later session found is that one's to close."""
        gaps, shard_id = self._gaps.get(channel_id, {}), client.shard_id or 0
        if gaps.get(shard_id) == session:
            del gaps[shard_id]
        if not gaps:
            self._gaps.pop(channel_id, None)
        self._release()

    def _release(self) -> None:
        """Note what was held back, where no gap is open any more."""
        if self._num_reading or self._seen is None:
            return
        for channel_id in [channel_id for channel_id in self._held if channel_id not in self._gaps]:
            self._seen.note(PLATFORM, str(channel_id), str(self._held.pop(channel_id)))


def _channels_to_ask(client: discord.Client, marks: Mapping[int, int]) -> list[int]:
    """The channels of this client's shard in which something may have been said after its mark."""
    known = {channel_id: client.get_channel(channel_id) for channel_id in marks}
    told = [channel_id for channel_id, channel in known.items() if _may_have_more(channel, marks[channel_id])]
    untold = [channel_id for channel_id, channel in known.items() if channel is None]
    # What belongs to no server is the first shard's; and a server may be late to tell of its channels.
    may_be_its = not client.shard_id or any(guild.unavailable for guild in client.guilds)
    latest = sorted(untold, key=lambda channel_id: marks[channel_id], reverse=True)[:MAX_UNTOLD_CHANNELS]
    return [*told, *(latest if may_be_its else ())]


def _is_of_another_shard(client: discord.Client, channel: object) -> bool:
    guild = getattr(channel, "guild", None)
    return guild is not None and bool(client.shard_count) and (guild.id >> 22) % client.shard_count != client.shard_id


def _may_have_more(channel: object, mark: int) -> bool:
    if channel is None:
        return False
    last = getattr(channel, "last_message_id", None)
    return last is None or last > mark
