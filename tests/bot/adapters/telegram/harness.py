"""A running Telegram adapter against the fake server, with a handler that remembers what it was given."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from bot.adapters.base import AdapterState, ReplyChannel
from bot.adapters.telegram import TelegramAdapter, Timing
from bot.commands import CommandTable
from bot.types import IncomingMessage
from tests.fakes.telegram import FakeTelegram

T = TypeVar("T")
Answer = Callable[[IncomingMessage, ReplyChannel], Awaitable[None]]

FAST = Timing(album_wait_s=0.15, long_poll_s=5.0, repeated_poll_s=0.03, first_retry_s=0.02, max_retry_s=0.1)


async def echo(message: IncomingMessage, channel: ReplyChannel) -> None:
    """Answer with the same words."""
    await channel.send(f"echo: {message.text}", reply_to=message.message_id)


async def stay_silent(message: IncomingMessage, channel: ReplyChannel) -> None:
    """Answer nothing."""


class RecordingHandler:
    """A `MessageHandler` that remembers every message, then lets `answer` deal with it."""

    def __init__(self, answer: Answer = echo) -> None:
        self.messages: list[IncomingMessage] = []
        self.answer = answer

    async def handle(self, message: IncomingMessage, channel: ReplyChannel) -> None:
        self.messages.append(message)
        await self.answer(message, channel)


async def eventually(probe: Callable[[], T], timeout_s: float = 20.0) -> T:
    """The first true result of `probe`."""
    async with asyncio.timeout(timeout_s):
        while not (result := probe()):
            await asyncio.sleep(0.01)
        return result


@asynccontextmanager
async def serving(
    fake: FakeTelegram,
    handler: RecordingHandler,
    *,
    commands: CommandTable | None = None,
    timing: Timing = FAST,
) -> AsyncIterator[TelegramAdapter]:
    """A connected adapter, stopped cleanly afterwards."""
    adapter = TelegramAdapter(
        fake.token, handler=handler, commands=commands or CommandTable(()), api_url=fake.url, timing=timing
    )
    async with in_background(adapter):
        await eventually(lambda: adapter.status.state is AdapterState.RUNNING)
        yield adapter


@asynccontextmanager
async def in_background(adapter: TelegramAdapter) -> AsyncIterator[asyncio.Task[None]]:
    """The adapter's `run` as a task, cancelled afterwards if it is not over by itself."""
    task = asyncio.create_task(adapter.run())
    try:
        yield task
    finally:
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
