"""Hands events on to the bot.

Owns concurrency and order: every event is handled in a task of its own, so a slow chat holds up no other, and within
one channel the handling begins in the order of arrival, even if one message takes longer to translate.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from bot.adapters.discord.tasks import TaskSet

Event = TypeVar("Event")


class Inbox:
    """Events on their way to the handler."""

    def __init__(self, tasks: TaskSet) -> None:
        self._tasks = tasks
        self._last_begun: dict[int, asyncio.Event] = {}

    def accept(
        self,
        channel_id: int,
        translate: Callable[[], Awaitable[Event]],
        handle: Callable[[Event], Awaitable[None]],
    ) -> None:
        """Handle what `translate` gives, after what came before it in that channel has begun to be handled."""
        begun = asyncio.Event()
        previous = self._last_begun.get(channel_id)
        self._last_begun[channel_id] = begun
        self._tasks.spawn(self._deliver(channel_id, translate, handle, previous, begun))

    async def _deliver(
        self,
        channel_id: int,
        translate: Callable[[], Awaitable[Event]],
        handle: Callable[[Event], Awaitable[None]],
        previous: asyncio.Event | None,
        begun: asyncio.Event,
    ) -> None:
        try:
            event = await translate()
            if previous is not None:
                await previous.wait()
        finally:
            # The next event's task is only woken here; it runs after this one has been handed over.
            begun.set()
            if self._last_begun.get(channel_id) is begun:
                del self._last_begun[channel_id]
        await handle(event)
