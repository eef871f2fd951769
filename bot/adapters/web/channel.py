"""The reply channel of the page: a reply becomes bubbles of the conversation that its message was written in.

Knows neither tabs nor HTTP: whoever watches the transcript shows the bubbles.
"""

import asyncio
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from typing import Self
from uuid import uuid4

from bot.adapters.base import PlatformLimits, ReplyChannel
from bot.adapters.web.transcript import Bubble, Transcript
from bot.adapters.web.transcript import Speaker as Side
from bot.errors import DeliveryError
from bot.types import Control, Speaker

MAX_FILE_BYTES = 20 * 2**20
LIMITS = PlatformLimits(
    max_text_length=100_000, edit_interval_s=0.1, typing_interval_s=3.0, max_file_bytes=MAX_FILE_BYTES
)


@dataclass(slots=True, eq=False)
class Exchange:
    """One message of the user's, and what comes back for it. It lives as long as its task runs."""

    persona_id: str
    transcript: Transcript
    question: Bubble
    upload_ids: tuple[str, ...] = ()
    reply_ids: list[str] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    is_stopped: bool = False

    @property
    def has_answer(self) -> bool:
        """Whether something of the reply can be read already."""
        return bool(self.reply_ids)


class PageChannel(ReplyChannel):
    """`ReplyChannel` of one exchange. `on_activity` hears when the waiting ends and the reading begins."""

    limits = LIMITS

    def __init__(self, exchange: Exchange, on_activity: Callable[[], None]) -> None:
        self._exchange = exchange
        self._on_activity = on_activity
        self._name = ""

    async def show_typing(self) -> None:
        """The page shows dots from the moment a message is sent: there is nothing to add."""

    def speaking_as(self, speaker: Speaker) -> Self:
        """The same conversation, with the speaker's name before what it says."""
        named = copy(self)
        named._name = f"**{speaker.name}:** "
        return named

    async def send(
        self,
        text: str,
        *,
        reply_to: str | None = None,  # noqa: ARG002 - one person, no quotes
        controls: tuple[Control, ...] = (),  # noqa: ARG002 - the page has buttons of its own
    ) -> str:
        """Add a bubble."""
        bubble = self._exchange.transcript.add(Bubble(Side.PERSONA, self._name + text))
        self._exchange.reply_ids.append(bubble.id)
        self._on_activity()
        return bubble.id

    async def edit(self, message_id: str, text: str, *, controls: tuple[Control, ...] = ()) -> None:  # noqa: ARG002
        """Replace a bubble's text."""
        if message_id not in self._exchange.reply_ids:
            raise DeliveryError("there is no such message on the page")
        self._exchange.transcript.set_text(message_id, self._name + text)


class UnseenChannel(ReplyChannel):
    """Where a command that changes a reply writes to. Nobody looks at it: the page reads the conversation anew."""

    limits = LIMITS

    async def show_typing(self) -> None:
        """Nobody would see it."""

    async def send(
        self,
        text: str,  # noqa: ARG002
        *,
        reply_to: str | None = None,  # noqa: ARG002
        controls: tuple[Control, ...] = (),  # noqa: ARG002
    ) -> str:
        """Give the message an id."""
        return uuid4().hex

    async def edit(self, message_id: str, text: str, *, controls: tuple[Control, ...] = ()) -> None:
        """What it shows is in the store."""

    async def delete(self, message_id: str) -> None:
        """What is deleted is gone from the store."""
