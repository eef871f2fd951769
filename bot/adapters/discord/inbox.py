"""Hands messages on to the bot.

Owns concurrency and order: every message is handled in a task of its own, so a slow chat holds up no other, and within
one channel the handling begins in the order of arrival, even if one message takes longer to translate.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from bot.adapters.base import MessageHandler, ReplyChannel
from bot.adapters.discord.tasks import TaskSet
from bot.types import IncomingMessage


class Inbox:
    """Messages on their way to the handler."""

    def __init__(self, handler: MessageHandler, tasks: TaskSet) -> None:
        self._handler = handler
        self._tasks = tasks
        self._last_begun: dict[int, asyncio.Event] = {}

    def accept(self, channel_id: int, translation: Coroutine[Any, Any, IncomingMessage], channel: ReplyChannel) -> None:
        """Handle the message that `translation` gives, after those that came before it in that channel have begun."""
        begun = asyncio.Event()
        previous = self._last_begun.get(channel_id)
        self._last_begun[channel_id] = begun
        self._tasks.spawn(self._deliver(channel_id, translation, channel, previous, begun))

    async def _deliver(
        self,
        channel_id: int,
        translation: Coroutine[Any, Any, IncomingMessage],
        channel: ReplyChannel,
        previous: asyncio.Event | None,
        begun: asyncio.Event,
    ) -> None:
        try:
            message = await translation
            if previous is not None:
                await previous.wait()
        finally:
            # The next message's task is only woken here; it runs after this one has entered `handle`.
            begun.set()
            if self._last_begun.get(channel_id) is begun:
                del self._last_begun[channel_id]
        await self._handler.handle(message, channel)
