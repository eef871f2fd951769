"""The seam between a platform and the bot.

An adapter turns a platform's events into `IncomingMessage` and `CommandCall`, and offers each room as a `ReplyChannel`.
To add a platform: implement `Adapter` and `ReplyChannel`, and add it to `tests/bot/adapters/test_contract.py`.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from bot.types import IncomingMessage, PersonaCard, Room, StoredTurn


@dataclass(frozen=True, slots=True)
class PlatformLimits:
    """What a platform allows. `measure` counts a text the way the platform does."""

    max_text_length: int
    edit_interval_s: float
    typing_interval_s: float
    max_file_bytes: int
    measure: Callable[[str], int] = len


class ReplyChannel(Protocol):
    """Where a reply goes. Every method raises `RateLimited` or `DeliveryError`, never a library's own error."""

    limits: PlatformLimits

    async def show_typing(self) -> None:
        """Show once that the bot is writing; it fades by itself after about `typing_interval_s`."""

    async def send(self, text: str, *, reply_to: str | None = None) -> str:
        """Send `text`, as a reply to the message with id `reply_to` where given, and return the new message's id."""

    async def edit(self, message_id: str, text: str) -> None:
        """Replace the text of a message that this channel sent."""


class MessageHandler(Protocol):
    """Who answers messages: `bot.chat.ChatService`."""

    async def handle(self, message: IncomingMessage, channel: ReplyChannel) -> None:
        """Answer `message` in `channel`, if it is meant for the bot. Never raises but for cancellation."""


class ConversationBrowser(Protocol):
    """What a page shows beside the running conversation; `bot.chat.ChatService` has it. Raises `BotError`."""

    def personas(self) -> tuple[PersonaCard, ...]:
        """All personas that can be talked to, by name."""

    async def chosen(self, room: Room) -> str:
        """The id of the persona that answers in `room`."""

    async def choose(self, room: Room, persona_id: str) -> None:
        """Let another persona answer in `room`; its earlier conversation there goes on."""

    async def history(self, room: Room, *, max_turns: int = 200) -> list[StoredTurn]:
        """The conversation with the chosen persona, oldest first. A new one begins with the persona's greeting."""

    async def start_over(self, room: Room) -> None:
        """Forget the conversation with the chosen persona in `room`."""

    async def picture(self, room: Room, digest: str) -> bytes:
        """A picture that was shown in `room`; pictures of other rooms are refused."""


class AdapterState(StrEnum):
    """How an adapter is doing."""

    STARTING = "starting"
    RUNNING = "running"
    RECONNECTING = "reconnecting"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class AdapterStatus:
    """An adapter's state for people: `detail` says why, and what to do."""

    state: AdapterState
    detail: str = ""


class Adapter(Protocol):
    """A platform bridge."""

    name: str

    @property
    def status(self) -> AdapterStatus:
        """How it is doing right now."""

    async def run(self) -> None:
        """Connect, serve and reconnect until cancelled; on cancellation finish cleanly.

        Raises `PlatformFatal` where only an admin can help.
        """


def retry_delays(*, first_s: float, max_s: float) -> Iterator[float]:
    """Waits without end, doubling from `first_s` to `max_s`, with jitter: many bots do not come back in one moment."""
    ceiling_s = first_s
    while True:
        yield ceiling_s * random.uniform(0.5, 1.0)  # noqa: S311 - it spreads load, it hides nothing
        ceiling_s = min(ceiling_s * 2, max_s)
