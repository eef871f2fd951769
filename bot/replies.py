"""A reply on its way to a channel: shown while it is being written, and never lost.

Owns pacing, retries and which message shows which part of the text (`bot.splitting` says where to cut). Knows neither
personas nor the store. The newest text is shown, not every text: a slow platform never makes a backlog of edits.

While a request waits in the engine's queue, a first message says where it stands. It becomes the reply, or whatever is
said instead of one; what it said is nobody's words, and is not remembered.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any

from bot.adapters.base import ReplyChannel
from bot.errors import DeliveryError, RateLimited
from bot.splitting import Piece, split_text
from engine.types import FinishReason, QueuePlace, ReplyChunk

logger = logging.getLogger(__name__)

CUT_SHORT = "…"
EMPTY_REPLY = "(I have no words for that. Please say it in another way.)"
STOPPED = "(Stopped before an answer came.)"
_ORDINAL_ENDINGS = {1: "st", 2: "nd", 3: "rd"}
_ENDS_TOO_SOON = frozenset({FinishReason.LENGTH, FinishReason.TIME})


@dataclass(frozen=True, slots=True)
class Pacing:
    """How patient a reply is. The pace of edits is the platform's: see `PlatformLimits.edit_interval_s`.

    Whoever waits for `place_from_s` or more is told their place in the queue, anew every `place_interval_s` at most.
    """

    first_num_chars: int = 24
    first_wait_s: float = 0.5
    max_attempts: int = 6
    backoff_s: float = 0.5
    max_backoff_s: float = 8.0
    max_patience_s: float = 120.0
    grace_s: float = 5.0
    place_from_s: float = 4.0
    place_interval_s: float = 4.0


@dataclass(slots=True)
class _Shown:
    message_id: str
    text: str
    end: int
    is_notice: bool = False


class ReplyStream:
    """One reply in one channel. Use it once. `instead_of` is a message that is to become the first of the reply's."""

    def __init__(
        self,
        channel: ReplyChannel,
        *,
        reply_to: str | None = None,
        pacing: Pacing | None = None,
        instead_of: str | None = None,
    ) -> None:
        self._channel = channel
        self._reply_to = reply_to
        self._pacing = pacing or Pacing()
        self._text = ""
        self._fallback = ""
        self._place: QueuePlace | None = None
        self._shown = [_Shown(instead_of, "", 0, is_notice=True)] if instead_of is not None else []
        self._replaced_ids: list[str] = []
        self._changed = asyncio.Event()
        self._has_moved_up = asyncio.Event()
        self._has_ended = False
        self._is_whole = False

    @property
    def text_to_remember(self) -> str:
        """The whole reply, or what people saw of it where it was broken off."""
        seen = self._text if self._is_whole else self._text[: self._shown[-1].end if self._shown else 0]
        return seen.strip()

    @property
    def message_ids(self) -> tuple[str, ...]:
        """The platform's ids of the messages that show the reply, in order."""
        return (*self._replaced_ids, *(shown.message_id for shown in self._shown))

    @property
    def notice_id(self) -> str | None:
        """The message that still says where the request waits, if one does. After `deliver` it is to be replaced."""
        return next((shown.message_id for shown in self._shown if shown.is_notice), None)

    async def deliver(self, chunks: AsyncIterator[ReplyChunk]) -> None:
        """Show the reply as it comes, until all of it is shown or the channel proves to be out of reach.

        Raises what `chunks` raises, after showing what had come before. Cancelling it closes `chunks`.
        """
        reader = asyncio.create_task(self._read(chunks))
        typing = asyncio.create_task(self._pulse_typing())
        places = asyncio.create_task(self._show_places())
        try:
            try:
                await self._wait_for_first_words()
                typing.cancel()
                # A notice on its way arrives first: the words are to take its place.
                await self._end(places)
                await self._show_until_ended()
                await reader
            finally:
                await self._end(reader, typing, places)
        except asyncio.CancelledError:
            await self._withdraw_notice()
            raise

    async def _read(self, chunks: AsyncIterator[ReplyChunk]) -> None:
        reason = None
        try:
            async for chunk in chunks:
                reason = chunk.finish_reason
                self._text += chunk.text
                if chunk.queue is not None:
                    self._place = chunk.queue
                    self._has_moved_up.set()
                if chunk.finish_reason in _ENDS_TOO_SOON and self._text.rstrip()[-1:].isalnum():
                    # Without a sign, a reply that stops in the middle of a sentence looks like a crash.
                    self._text = self._text.rstrip() + CUT_SHORT
                if chunk.text:
                    self._changed.set()
            self._is_whole = True
            if not self._text.strip():
                self._fallback = STOPPED if reason is FinishReason.CANCELLED else EMPTY_REPLY
        finally:
            self._has_ended = True
            self._changed.set()
            close = getattr(chunks, "aclose", None)
            if close is not None:
                await close()

    async def _pulse_typing(self) -> None:
        while True:
            try:
                await self._channel.show_typing()
            except DeliveryError as error:
                logger.debug("typing could not be shown: %s", error)
            await asyncio.sleep(self._channel.limits.typing_interval_s)

    async def _show_places(self) -> None:
        """Say where the request waits, calmly and only if it waits for long, until cancelled."""
        began_at = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pacing.place_from_s):
                    await self._has_moved_up.wait()
            self._has_moved_up.clear()
            place = self._place
            if place is None or self._text.strip() or self._has_ended:
                continue
            wait_s = max(place.wait_s or 0.0, time.monotonic() - began_at)
            if self._shown or wait_s >= self._pacing.place_from_s:
                await self._uninterrupted(self._show_notice(describe_place(place)))
                await asyncio.sleep(max(self._pacing.place_interval_s, self._channel.limits.edit_interval_s))

    async def _show_notice(self, text: str) -> None:
        """Bring the notice in line with `text`; where that fails, people wait without it."""
        try:
            if not self._shown:
                message_id = await self._channel.send(text, reply_to=self._reply_to)
                self._shown.append(_Shown(message_id, text, 0, is_notice=True))
            elif self._shown[0].text != text:
                await self._channel.edit(self._shown[0].message_id, text)
                self._shown[0].text = text
        except DeliveryError as error:
            logger.debug("a place in the queue could not be shown: %s", error)

    async def _withdraw_notice(self) -> None:
        """Nobody waits any more."""
        if self.notice_id is not None:
            await self._end(asyncio.create_task(self._show_notice(STOPPED)), grace_s=self._pacing.grace_s)

    async def _wait_for_first_words(self) -> None:
        while not self._has_ended and not self._text.strip():
            await self._next_change()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pacing.first_wait_s):
                while not self._has_ended and len(self._text.strip()) < self._pacing.first_num_chars:
                    await self._next_change()
        self._changed.set()

    async def _next_change(self) -> None:
        await self._changed.wait()
        self._changed.clear()

    async def _show_until_ended(self) -> None:
        num_failures = 0
        num_attempts_at_end = 0
        while True:
            await self._next_change()
            is_last = self._has_ended
            num_attempts_at_end += is_last
            pause = self._channel.limits.edit_interval_s
            try:
                await self._show_newest(may_replace=num_attempts_at_end >= self._pacing.max_attempts)
                num_failures = 0
                if is_last:
                    return
            except DeliveryError as error:
                num_failures += 1
                pause = max(pause, self._patience(error, num_failures))
                if num_attempts_at_end >= self._pacing.max_attempts or pause > self._pacing.max_patience_s:
                    logger.error("a reply could not be shown in full: %s", error)
                    return
                self._changed.set()  # the text is still to be shown
            await asyncio.sleep(pause)

    def _patience(self, error: DeliveryError, num_failures: int) -> float:
        if isinstance(error, RateLimited):
            return error.retry_after_s
        backoff: float = self._pacing.backoff_s * 2 ** (num_failures - 1)
        return min(backoff, self._pacing.max_backoff_s)

    async def _show_newest(self, *, may_replace: bool) -> None:
        """Bring the channel's messages in line with the text as it is now."""
        limits = self._channel.limits
        text = self._fallback or self._text
        pieces = split_text(text, limit=limits.max_text_length, measure=limits.measure)
        for shown, piece in zip(self._shown, pieces, strict=False):
            if shown.text != piece.text:
                await self._uninterrupted(self._edit(shown, piece, may_replace=may_replace))
        for piece in pieces[len(self._shown) :]:
            await self._uninterrupted(self._send(piece))

    async def _send(self, piece: Piece) -> None:
        reply_to = None if self._shown else self._reply_to
        message_id = await self._channel.send(piece.text, reply_to=reply_to)
        self._shown.append(_Shown(message_id, piece.text, piece.end))

    async def _edit(self, shown: _Shown, piece: Piece, *, may_replace: bool) -> None:
        try:
            await self._channel.edit(shown.message_id, piece.text)
        except RateLimited:
            raise
        except DeliveryError:
            if not may_replace:
                raise
            # The message is gone or closed to us: showing a part twice is better than losing the rest.
            message_id = await self._channel.send(piece.text)
            self._replaced_ids.append(shown.message_id)
            shown.message_id = message_id
        shown.text, shown.end, shown.is_notice = piece.text, piece.end, False

    async def _uninterrupted(self, call: Coroutine[Any, Any, None]) -> None:
        """Run `call`. A cancellation lets it end for a moment, so that what people see is known."""
        task = asyncio.create_task(call)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await self._end(task, grace_s=self._pacing.grace_s)
            raise

    async def _end(self, *tasks: asyncio.Task[None], grace_s: float = 0.0) -> None:
        for task in tasks:
            task.add_done_callback(_see_failure)
        if grace_s:
            await asyncio.wait(tasks, timeout=grace_s)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=self._pacing.grace_s)


def _see_failure(task: asyncio.Task[None]) -> None:
    """Else the loop would report it. It was raised already, or is of no use to a reply that was broken off."""
    if not task.cancelled():
        task.exception()


def describe_place(place: QueuePlace) -> str:
    """Where somebody waits, in a sentence."""
    where = "You are next in line" if place.position <= 1 else f"You are {_ordinal(place.position)} in line"
    return f"{where}{_describe_wait(place.wait_s)}."


def _describe_wait(wait_s: float | None) -> str:
    if wait_s is None:
        return ""
    if wait_s >= 90:
        return f", about {wait_s / 60:.0f} min"
    # Nobody's estimate is that good; and steady words need no edits.
    return f", about {max(5, 5 * round(wait_s / 5))} s"


def _ordinal(number: int) -> str:
    is_teen = number % 100 in (11, 12, 13)
    return f"{number}{'th' if is_teen else _ORDINAL_ENDINGS.get(number % 10, 'th')}"


async def send_text(
    channel: ReplyChannel,
    text: str,
    *,
    reply_to: str | None = None,
    pacing: Pacing | None = None,
    instead_of: str | None = None,
) -> tuple[str, ...]:
    """Send a text that is complete already, with a reply's care, and return the ids of its messages.

    With `instead_of`, it takes the place of that message.
    """
    stream = ReplyStream(channel, reply_to=reply_to, pacing=pacing, instead_of=instead_of)
    await stream.deliver(_at_once(text))
    return stream.message_ids


async def _at_once(text: str) -> AsyncIterator[ReplyChunk]:
    yield ReplyChunk(text, FinishReason.STOP)
