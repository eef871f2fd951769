"""Hands messages on to the bot.

Owns concurrency and order: every message is handled in a task of its own, so a slow chat holds up no other, and within
one channel the handling begins in the order of arrival, even if one message takes longer to translate.
"""

import asyncio
from collections.abc import Awaitable, Callable

from bot.adapters.base import MessageHandler, ReplyChannel
from bot.adapters.discord.tasks import TaskSet
from bot.types import IncomingMessage


class Inbox:
    """Messages on their way to the handler."""

    def __init__(self, handler: MessageHandler, tasks: TaskSet) -> None:
        self._handler = handler
        self._tasks = tasks
        self._last_begun: dict[int, asyncio.Event] = {}

    def accept(
        self, channel_id: int, translate: Callable[[], Awaitable[IncomingMessage]], channel: ReplyChannel
    ) -> None:
        """Handle the message that `translate` gives, after those that came before it in that channel have begun."""
        begun = asyncio.Event()
        previous = self._last_begun.get(channel_id)
        self._last_begun[channel_id] = begun
        self._tasks.spawn(self._deliver(channel_id, translate, channel, previous, begun))

    async def _deliver(
        self,
        channel_id: int,
        translate: Callable[[], Awaitable[IncomingMessage]],
        channel: ReplyChannel,
        previous: asyncio.Event | None,
        begun: asyncio.Event,
    ) -> None:
        try:
            message = await translate()
            if previous is not None:
                await previous.wait()
        finally:
            # The next message's task is only woken here; it runs after this one has entered `handle`.
            begun.set()
            if self._last_begun.get(channel_id) is begun:
                del self._last_begun[channel_id]
        await self._handler.handle(message, channel)
