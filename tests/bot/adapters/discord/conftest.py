"""The real adapter, with the real discord.py, against the fake Discord."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest

from bot.adapters.base import AdapterState, MessageHandler, ReplyChannel
from bot.adapters.discord.adapter import DiscordAdapter
from bot.commands import Argument, Choice, Command, CommandCall, CommandReply, CommandTable
from bot.errors import PersonaError
from bot.types import IncomingMessage, IncomingReaction, Room
from tests.bot.adapters.discord.harness import QUICK, library_put_back
from tests.fakes.discord import FakeDiscord


@dataclass
class RecordingHandler(MessageHandler):
    """Keeps what it is given; `answer` says what else to do."""

    received: list[IncomingMessage] = field(default_factory=list)
    edits: list[IncomingMessage] = field(default_factory=list)
    deletions: list[tuple[Room, tuple[str, ...]]] = field(default_factory=list)
    reactions: list[IncomingReaction] = field(default_factory=list)
    answer: Callable[[IncomingMessage, ReplyChannel], Awaitable[None]] | None = None

    async def handle(self, message: IncomingMessage, channel: ReplyChannel) -> None:
        self.received.append(message)
        if self.answer is not None:
            await self.answer(message, channel)

    async def handle_edit(self, message: IncomingMessage, channel: ReplyChannel) -> None:
        self.edits.append(message)

    async def handle_deletion(self, room: Room, message_ids: tuple[str, ...], channel: ReplyChannel) -> None:
        self.deletions.append((room, message_ids))

    async def handle_reaction(self, reaction: IncomingReaction, channel: ReplyChannel) -> None:
        self.reactions.append(reaction)


@dataclass
class RecordingIncidents:
    """Keeps what went wrong."""

    noted: list[tuple[str, str]] = field(default_factory=list)

    def note(self, platform: str, kind: str, detail: str) -> None:
        assert platform == "discord"
        self.noted.append((kind, detail))

    def of(self, kind: str) -> list[str]:
        return [detail for noted, detail in self.noted if noted == kind]


@dataclass
class MemorySeen:
    """The marks of what was heard, which outlive an adapter."""

    newest: dict[str, str] = field(default_factory=dict)
    error: Exception | None = None

    async def claim(self, platform: str, event: str) -> bool:
        raise AssertionError("Discord tells each event once")

    def note(self, platform: str, chat_id: str, message_id: str) -> None:
        self.newest[chat_id] = max(message_id, self.newest.get(chat_id, "0"), key=int)

    async def marks(self, platform: str, *, since: datetime) -> Mapping[str, str]:
        if self.error is not None:
            raise self.error
        return dict(self.newest)


@dataclass
class Commands:
    """A table of commands with one of each kind, and the calls that reached it."""

    calls: list[CommandCall] = field(default_factory=list)
    run_reset: Callable[[], Awaitable[CommandReply]] | None = None
    suggestion_error: Exception | None = None

    def table(self) -> CommandTable:
        name = Argument("name", "Whom to talk to", suggest=self.suggest)
        return CommandTable(
            (
                Command(("persona", "list"), "All personas", self.list),
                Command(("persona", "use"), "Talk to another persona", self.use, (name,)),
                Command(("reset",), "Start over", self.reset),
            )
        )

    async def suggest(self, call: CommandCall, typed: str) -> tuple[Choice, ...]:
        self.calls.append(call)
        if self.suggestion_error is not None:
            raise self.suggestion_error
        return tuple(Choice(name.title(), name) for name in ("lia", "otto") if name.startswith(typed))

    async def list(self, call: CommandCall) -> CommandReply:
        self.calls.append(call)
        choices = (Choice("Lia", "lia"), Choice("Otto", "otto"))
        return CommandReply("Whom?", True, choices, ("persona", "use"), "name")

    async def use(self, call: CommandCall) -> CommandReply:
        self.calls.append(call)
        if call.arguments["name"] not in ("lia", "otto"):
            raise PersonaError(f"There is no {call.arguments['name']}.")
        return CommandReply(f"You talk to {call.arguments['name']}.")

    async def reset(self, call: CommandCall) -> CommandReply:
        self.calls.append(call)
        return await self.run_reset() if self.run_reset is not None else CommandReply("Forgotten.", is_private=True)


@dataclass
class Stage:
    """Everything that a test of the running adapter needs."""

    discord: FakeDiscord
    handler: RecordingHandler
    commands: Commands
    adapter: DiscordAdapter
    running: asyncio.Task[None]
    incidents: RecordingIncidents

    async def wait_for_messages(self, count: int = 1) -> list[IncomingMessage]:
        await self.discord.wait_for(lambda: len(self.handler.received) >= count)
        return self.handler.received

    async def wait_for_state(self, state: AdapterState) -> None:
        await self.discord.wait_for(lambda: self.adapter.status.state is state)


@pytest.fixture
async def discord() -> AsyncIterator[FakeDiscord]:
    """The fake; what discord.py is pointed at is put back afterwards."""
    with library_put_back():
        async with FakeDiscord(token="not-a-real-token") as fake:
            yield fake


@contextlib.asynccontextmanager
async def performing(
    discord: FakeDiscord, *, token: str | None = None, table: CommandTable | None = None, **options: Any
) -> AsyncIterator[Stage]:
    """Run an adapter on `discord` for the length of the block."""
    handler, commands, incidents = RecordingHandler(), Commands(), RecordingIncidents()
    adapter = DiscordAdapter(
        token or discord.token,
        handler=handler,
        commands=table or commands.table(),
        incidents=incidents,
        api_url=discord.api_url,
        gateway_url=discord.gateway_url,
        backoff=QUICK,
        **options,
    )
    running = asyncio.create_task(adapter.run())
    try:
        yield Stage(discord, handler, commands, adapter, running, incidents)
    finally:
        running.cancel()
        await asyncio.wait({running})


@contextlib.asynccontextmanager
async def online(discord: FakeDiscord, **options: Any) -> AsyncIterator[Stage]:
    """An adapter that has connected."""
    async with performing(discord, **options) as stage:
        await discord.wait_until_connected()
        yield stage


@pytest.fixture
async def stage(discord: FakeDiscord) -> AsyncIterator[Stage]:
    """A running adapter that has connected."""
    async with performing(discord) as stage:
        await discord.wait_until_connected()
        yield stage
