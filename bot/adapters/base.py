"""The seam between a platform and the bot.

An adapter turns a platform's events into `IncomingMessage` and `CommandCall`, and offers each room as a `ReplyChannel`.
To add a platform: implement `Adapter` and `ReplyChannel`, and add it to `tests/bot/adapters/test_contract.py`.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol, Self

from bot.errors import DeliveryError
from bot.types import ChatKind, Control, IncomingMessage, IncomingReaction, PersonaCard, Room, Speaker, StoredTurn


@dataclass(frozen=True, slots=True)
class PlatformLimits:
    """What a platform allows. `measure` counts a text the way the platform does.

    `draft_interval_s` is the pace of drafts, where a text that is being written can be shown as one; else `None`.
    """

    max_text_length: int
    edit_interval_s: float
    typing_interval_s: float
    max_file_bytes: int
    measure: Callable[[str], int] = len
    draft_interval_s: float | None = None


class ReplyChannel(Protocol):
    """Where a reply goes. Every method raises `RateLimited` or `DeliveryError`, never a library's own error.

    What a platform cannot do may be left out: an implementation that names this class as its base inherits the answer
    of a platform without it.
    """

    limits: PlatformLimits

    async def show_typing(self) -> None:
        """Show once that the bot is writing; it fades by itself after about `typing_interval_s`."""

    async def send(self, text: str, *, reply_to: str | None = None, controls: tuple[Control, ...] = ()) -> str:
        """Send `text`, as a reply to the message with id `reply_to` where given, and return the new message's id.

        `controls` are shown under it, where the platform has buttons.
        """
        ...

    async def send_once(
        self, name: str, text: str, *, reply_to: str | None = None, controls: tuple[Control, ...] = ()
    ) -> str:
        """`send`, for a message that may be there already: nobody knows whether an earlier try has arrived.

        Where a platform can tell by `name`, at most 25 signs, the one that is there gets the text, and its id is given.
        """
        return await self.send(text, reply_to=reply_to, controls=controls)

    async def edit(self, message_id: str, text: str, *, controls: tuple[Control, ...] = ()) -> None:
        """Replace the text of a message that the bot sent, and the buttons under it."""

    async def ready(self, *, is_urgent: bool = False) -> None:
        """Wait until the platform would take another message or edit here, the urgent ones first.

        Called before the text is chosen that is to be shown, so that it is the newest one.
        """
        return

    async def show_draft(self, text: str) -> None:
        """Show `text` as one that is being written. Only where `limits.draft_interval_s` is set."""
        raise DeliveryError("there are no drafts here")

    async def show_controls(self, message_id: str, controls: tuple[Control, ...]) -> None:
        """Replace the buttons under a message that the bot sent; none takes them away."""
        return

    async def delete(self, message_id: str) -> None:
        """Delete a message that the bot sent. That it is gone already is no error."""
        raise DeliveryError("messages cannot be deleted here")

    async def react(self, message_id: str, emoji: str) -> None:
        """Put an emoji under a message."""
        return

    async def send_sticker(self, sticker: Path) -> str | None:
        """Send a persona's sticker, a PNG, WEBP or GIF file, and return the message's id; `None` where it cannot."""
        return None

    def speaking_as(self, speaker: Speaker) -> Self:
        """The same place, where `speaker` speaks: under its own name and picture, or else with its name in the text."""
        return self


class MessageHandler(Protocol):
    """Who answers messages: `bot.chat.ChatService`. Nothing here ever raises but for cancellation."""

    async def handle(self, message: IncomingMessage, channel: ReplyChannel) -> None:
        """Answer `message` in `channel`, if it is meant for the bot."""

    async def handle_edit(self, message: IncomingMessage, channel: ReplyChannel) -> None:
        """Somebody changed what they wrote: `message` is how it reads now."""
        return

    async def handle_deletion(self, room: Room, message_ids: tuple[str, ...], channel: ReplyChannel) -> None:
        """Messages are gone, the bot's own ones included."""
        return

    async def handle_reaction(self, reaction: IncomingReaction, channel: ReplyChannel) -> None:
        """Somebody put an emoji under a message, or took it away."""
        return

    async def handle_move(self, platform: str, old_chat_id: str, new_chat_id: str) -> None:
        """A chat lives on under another id, its topics included."""
        return


class SeenEvents(Protocol):
    """What has arrived already, also before a restart: `bot.store.seen.SeenEvents`. Bounded in number and age.

    Raises `StoreError`.
    """

    async def claim(self, platform: str, event: str) -> bool:
        """Whether `event` comes for the first time; from now on it does not."""
        ...

    def note(self, platform: str, chat_id: str, message_id: str) -> None:
        """`message_id` is the newest one that was seen in that chat. Kept soon, not at once."""

    async def marks(self, platform: str, *, since: datetime) -> Mapping[str, str]:
        """By chat, the newest message that was seen there, for all chats with one since then."""
        ...


class IncidentLog(Protocol):
    """Where adapters tell what went wrong beside single replies: `bot.incidents.Incidents`."""

    def note(self, platform: str, kind: str, detail: str) -> None:
        """Something of `kind`, such as `forbidden`, happened: `detail` says what, where, and how to mend it.

        Logged, counted, and shown by `commedia doctor`. Neither may hold a secret or what anybody wrote.
        """


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

    def channel(self, room: Room, kind: ChatKind) -> ReplyChannel | None:
        """Where to write to `room` without being asked, such as after a restart; `None` where that is impossible."""
        return None


def retry_delays(*, first_s: float, max_s: float) -> Iterator[float]:
    """Waits without end, doubling from `first_s` to `max_s`, with jitter: many bots do not come back in one moment."""
    ceiling_s = first_s
    while True:
        yield ceiling_s * random.uniform(0.5, 1.0)  # noqa: S311 - it spreads load, it hides nothing
        ceiling_s = min(ceiling_s * 2, max_s)
