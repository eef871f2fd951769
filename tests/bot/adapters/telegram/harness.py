"""A running Telegram adapter against the fake server, with a handler that remembers what it was given."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from bot.adapters.base import AdapterState, IncidentLog, MessageHandler, ReplyChannel, SeenEvents
from bot.adapters.telegram import TelegramAdapter, Timing
from bot.commands import CommandTable
from bot.types import IncomingMessage, IncomingReaction
from tests.fakes.telegram import FakeTelegram

T = TypeVar("T")
Answer = Callable[[IncomingMessage, ReplyChannel], Awaitable[None]]

FAST = Timing(
    album_wait_s=0.15,
    long_poll_s=5.0,
    repeated_poll_s=0.03,
    first_retry_s=0.02,
    max_retry_s=0.1,
    webhook_wait_s=2.0,
    webhook_check_s=0.05,
    per_chat=None,
    per_group=None,
    overall=None,
)


async def echo(message: IncomingMessage, channel: ReplyChannel) -> None:
    """Answer with the same words."""
    await channel.send(f"echo: {message.text}", reply_to=message.message_id)


async def stay_silent(message: IncomingMessage, channel: ReplyChannel) -> None:
    """Answer nothing."""


class RecordingHandler(MessageHandler):
    """A `MessageHandler` that remembers all that it hears of, and lets `answer` deal with messages."""

    def __init__(self, answer: Answer = echo) -> None:
        self.messages: list[IncomingMessage] = []
        self.edits: list[IncomingMessage] = []
        self.reactions: list[IncomingReaction] = []
        self.moves: list[tuple[str, str, str]] = []
        self.channels: list[ReplyChannel] = []
        self.answer = answer

    async def handle(self, message: IncomingMessage, channel: ReplyChannel) -> None:
        self.messages.append(message)
        self.channels.append(channel)
        await self.answer(message, channel)

    async def handle_edit(self, message: IncomingMessage, channel: ReplyChannel) -> None:
        self.edits.append(message)

    async def handle_reaction(self, reaction: IncomingReaction, channel: ReplyChannel) -> None:
        self.reactions.append(reaction)

    async def handle_move(self, platform: str, old_chat_id: str, new_chat_id: str) -> None:
        self.moves.append((platform, old_chat_id, new_chat_id))


class RecordingIncidents(IncidentLog):
    """What the admin is told."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, str]] = []

    def note(self, platform: str, kind: str, detail: str) -> None:
        self.noted.append((kind, detail))

    def kinds(self) -> list[str]:
        """Of what kinds they were."""
        return [kind for kind, _ in self.noted]


class MemorySeen(SeenEvents):
    """What has arrived, without a database."""

    def __init__(self) -> None:
        self.claimed: list[tuple[str, str]] = []

    async def claim(self, platform: str, event: str) -> bool:
        is_new = (platform, event) not in self.claimed
        self.claimed.append((platform, event))
        return is_new


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
    **others: Any,
) -> AsyncIterator[TelegramAdapter]:
    """A connected adapter, stopped cleanly afterwards."""
    adapter = TelegramAdapter(
        fake.token, handler=handler, commands=commands or CommandTable(()), api_url=fake.url, timing=timing, **others
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
