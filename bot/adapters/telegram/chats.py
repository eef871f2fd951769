"""What is known of the chats that the bot is in: who moderates, which are closed to it, and where they moved to.

Owns that knowledge, in memory and bounded, and tells the admin what is wrong with a chat. Knows no texts.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from telegram.error import TelegramError

from bot.adapters.base import IncidentLog
from bot.adapters.telegram.client import MALFORMED_ANSWER, TelegramClient

logger = logging.getLogger(__name__)

PLATFORM = "telegram"
_MODERATORS_FOR_S = 60.0
_SAME_INCIDENT_S = 3600.0
_MAX_CHATS = 20_000

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

OnMove = Callable[[str, str, str], Awaitable[None]]


class LoggedIncidents(IncidentLog):
    """Incidents where nobody counts them: in the log."""

    def note(self, platform: str, kind: str, detail: str) -> None:
        """Log it."""
        logger.warning("%s, %s: %s", platform, kind, detail)


class Recent(Generic[K, V]):
    """The values that were set last, at most `max_entries`."""

    def __init__(self, max_entries: int) -> None:
        self._values: OrderedDict[K, V] = OrderedDict()
        self._max_entries = max_entries

    def __setitem__(self, key: K, value: V) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        while len(self._values) > self._max_entries:
            self._values.popitem(last=False)

    def get(self, key: K) -> V | None:
        """The value of `key`, if it is still known."""
        return self._values.get(key)

    def pop(self, key: K) -> V | None:
        """Forget `key`."""
        return self._values.pop(key, None)


class KnownChats:
    """The chats of one bot. `on_move` hears once of each chat that got another id."""

    def __init__(
        self, client: TelegramClient, *, incidents: IncidentLog | None = None, on_move: OnMove | None = None
    ) -> None:
        self.incidents = incidents or LoggedIncidents()
        self._client = client
        self._on_move = on_move
        self._moved: Recent[int, int] = Recent(_MAX_CHATS)
        self._closed: Recent[int, str] = Recent(_MAX_CHATS)
        self._muted: Recent[int, str] = Recent(_MAX_CHATS)
        self._moderators: Recent[int, tuple[float, asyncio.Task[frozenset[int]]]] = Recent(_MAX_CHATS)
        self._topics: Recent[tuple[int, int], str] = Recent(_MAX_CHATS)
        self._threads: Recent[tuple[int, int], int] = Recent(_MAX_CHATS)
        self._noted: Recent[tuple[str, int], float] = Recent(_MAX_CHATS)
        self._moves: set[asyncio.Future[None]] = set()
        self._asking: set[asyncio.Task[frozenset[int]]] = set()

    # Where chats are

    def address(self, chat_id: int) -> int:
        """The id that the chat has now."""
        return self._moved.get(chat_id) or chat_id

    def move(self, old_id: int, new_id: int) -> None:
        """A group became a supergroup. Everybody hears of it once, beside whatever found out."""
        if new_id in {old_id, self._moved.get(old_id)}:
            return
        self._moved[old_id] = new_id
        if self._on_move is not None:
            task = asyncio.ensure_future(self._on_move(PLATFORM, str(old_id), str(new_id)))
            self._moves.add(task)
            task.add_done_callback(self._moves.discard)

    async def aclose(self) -> None:
        """Wait for whom was told something, and stop asking."""
        for asking in self._asking:
            asking.cancel()
        if under_way := self._moves | self._asking:
            await asyncio.wait(under_way, timeout=5.0)

    # Where the bot may write

    def why_closed(self, chat_id: int) -> str | None:
        """Why nothing is sent to that chat, if so."""
        return self._closed.get(chat_id) or self._muted.get(chat_id)

    def close(self, chat_id: int, reason: str, *, remedy: str) -> None:
        """The bot is not in that chat any more, or its person has blocked it."""
        if self._closed.get(chat_id) is None:
            self.incidents.note(PLATFORM, "forbidden", f"chat {chat_id}: {reason}. {remedy}")
        self._closed[chat_id] = reason

    def mute(self, chat_id: int, reason: str, *, remedy: str) -> None:
        """The bot is in that chat, but may not write."""
        if self._muted.get(chat_id) is None:
            self.incidents.note(PLATFORM, "rights", f"chat {chat_id}: {reason}. {remedy}")
        self._muted[chat_id] = reason

    def hear_from(self, chat_id: int) -> None:
        """Something was said there, so the bot is in it."""
        self._closed.pop(chat_id)

    def admit(self, chat_id: int) -> None:
        """The bot was added, or may write again."""
        self._closed.pop(chat_id)
        self._muted.pop(chat_id)

    def note_once(self, kind: str, chat_id: int, detail: str) -> None:
        """Tell the admin, unless the same was told of that chat within the hour."""
        now = time.monotonic()
        noted_at = self._noted.get((kind, chat_id))
        if noted_at is None or now - noted_at >= _SAME_INCIDENT_S:
            self._noted[kind, chat_id] = now
            self.incidents.note(PLATFORM, kind, detail)

    # Who is there

    async def is_moderator(self, chat_id: int, user_id: int) -> bool:
        """Whether that person may delete other people's messages in a group. `False` where Telegram does not tell."""
        known = self._moderators.get(chat_id)
        if known is None or known[0] <= time.monotonic():
            # Those who ask meanwhile wait for the same answer, so that they go on in their order.
            asking = asyncio.create_task(self._moderators_of(chat_id))
            self._asking.add(asking)
            asking.add_done_callback(self._asking.discard)
            known = self._moderators[chat_id] = time.monotonic() + _MODERATORS_FOR_S, asking
        return user_id in await asyncio.shield(known[1])

    async def _moderators_of(self, chat_id: int) -> frozenset[int]:
        try:
            return await self._client.moderators(chat_id)
        except (TelegramError, *MALFORMED_ANSWER) as error:
            logger.info("the moderators of chat %s are not known: %s", chat_id, type(error).__name__)
            self._moderators.pop(chat_id)
            return frozenset()

    # Topics

    def name_topic(self, chat_id: int, thread_id: int, name: str) -> None:
        """A topic is called so from now on."""
        self._topics[chat_id, thread_id] = name

    def topic_name(self, chat_id: int, thread_id: int) -> str | None:
        """What a topic is called, if that was heard."""
        return self._topics.get((chat_id, thread_id))

    def place(self, chat_id: int, message_id: int, thread_id: int) -> None:
        """That message stands in that topic."""
        self._threads[chat_id, message_id] = thread_id

    def thread_of(self, chat_id: int, message_id: int) -> int | None:
        """The topic in which a message stands, if that was seen: reactions do not say it."""
        return self._threads.get((chat_id, message_id))
