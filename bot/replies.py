"""A reply on its way to a channel: shown while it is being written, and never lost.

Owns pacing, retries and which message shows which part of the text (`bot.splitting` says where to cut). Knows neither
personas nor the store. The newest text is shown, not every text: a slow platform never makes a backlog of edits.

While a request waits in the engine's queue, a first message says where it stands. It becomes the reply, or whatever is
said instead of one; what it said is nobody's words, and is not remembered. Where a platform shows drafts, a text grows
as one, and becomes a message when it is complete.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from bot.adapters.base import ReplyChannel
from bot.errors import BotError, ChannelClosed, DeliveryError, MessageGone, RateLimited
from bot.splitting import Piece, split_text
from bot.types import Control
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

    A text that is complete is tried `max_attempts` times; a platform that asks for patience costs no attempt, but
    whatever fails for `max_patience_s` is given up. Whoever waits for `place_from_s` or more is told their place in the
    queue, anew every `place_interval_s` at most.
    """

    first_num_chars: int = 24
    first_wait_s: float = 0.5
    # With the pauses between them, longer than the half minute for which platforms are often down.
    max_attempts: int = 8
    backoff_s: float = 0.5
    max_backoff_s: float = 8.0
    max_patience_s: float = 120.0
    grace_s: float = 5.0
    place_from_s: float = 4.0
    place_interval_s: float = 4.0


@dataclass(slots=True)
class _Shown:
    """A message of the channel. One that is to be replaced has no `text` yet: what it says is not the reply's."""

    message_id: str
    text: str = ""
    end: int = 0
    is_notice: bool = False
    controls: tuple[Control, ...] = ()


class _Patience:
    """What failed since the last success, and how long to wait before the next try."""

    def __init__(self, pacing: Pacing) -> None:
        self._pacing = pacing
        self._num_failures = 0
        self._num_failures_at_end = 0
        self._failing_since: float | None = None
        self._is_text_complete = False

    @property
    def is_last_try(self) -> bool:
        return self._num_failures_at_end + 1 >= self._pacing.max_attempts

    def restore(self) -> None:
        self._num_failures = 0
        self._failing_since = None

    def pause_s(self, error: DeliveryError, *, is_text_complete: bool) -> float | None:
        """`None` is the end of it."""
        now = time.monotonic()
        # What failed while words still came takes no time from the whole of them.
        is_new = self._failing_since is None or is_text_complete > self._is_text_complete
        self._is_text_complete = is_text_complete
        failing_since = self._failing_since = now if is_new else self._failing_since
        if isinstance(error, ChannelClosed):
            return None
        if isinstance(error, RateLimited):
            pause_s = error.retry_after_s
        else:
            pause_s = min(self._pacing.backoff_s * 2**self._num_failures, self._pacing.max_backoff_s)
            self._num_failures += 1
            self._num_failures_at_end += is_text_complete
        is_at_end = self._num_failures_at_end >= self._pacing.max_attempts
        is_too_long = now - (failing_since or now) + pause_s > self._pacing.max_patience_s
        return None if is_at_end or is_too_long else pause_s


class ReplyStream:
    """One reply in one channel. Use it once.

    `instead_of` are messages that become the reply's, in order; those that it does not need are deleted, and until its
    first words come they stay as they are. `controls` are shown under the last message, once the text is complete.
    `on_shown` hears of every new message, with all that show the reply by then. Where the platform shows drafts, the
    part of a text that still grows is one: drafts have their own pace, so that `ReplyChannel.ready` is not asked for
    them.
    """

    def __init__(
        self,
        channel: ReplyChannel,
        *,
        reply_to: str | None = None,
        pacing: Pacing | None = None,
        instead_of: Sequence[str] = (),
        controls: tuple[Control, ...] = (),
        on_shown: Callable[[tuple[str, ...]], Awaitable[None]] | None = None,
        name: str = "",
    ) -> None:
        """A reply with a `name` is known again by platforms that can tell, so that no try of it shows it twice."""
        self._channel = channel
        self._reply_to = reply_to
        self._pacing = pacing or Pacing()
        self._controls = controls
        self._on_shown = on_shown
        self._name = name
        self._text = ""
        self._fallback = ""
        self._place: QueuePlace | None = None
        self._shown = [_Shown(message_id) for message_id in instead_of]
        self._is_replacing = bool(self._shown)
        self._replaced_ids: list[str] = []
        self._uses_drafts = False
        self._draft: Piece | None = None
        self._split: tuple[str, list[Piece]] = ("", [])
        self._changed = asyncio.Event()
        self._has_moved_up = asyncio.Event()
        self._ended = asyncio.Event()
        self._is_whole = False

    @property
    def text_to_remember(self) -> str:
        """The whole reply, or what people saw of it where it was broken off."""
        seen = self._text if self._is_whole else self._text[: max((shown.end for shown in self._shown), default=0)]
        return seen.strip()

    @property
    def message_ids(self) -> tuple[str, ...]:
        """The platform's ids of the messages that show the reply, in order."""
        return (*self._replaced_ids, *(shown.message_id for shown in self._shown))

    @property
    def notice_id(self) -> str | None:
        """The message that still says where the request waits, if one does. After `deliver` it is to be replaced."""
        return next((shown.message_id for shown in self._shown if shown.is_notice), None)

    @property
    def is_delivered(self) -> bool:
        """Whether people see all of the text that came."""
        shown = [shown.text for shown in self._shown]
        return self._ended.is_set() and shown[: len(self._pieces())] == [piece.text for piece in self._pieces()]

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
                self._uses_drafts = self._channel.limits.draft_interval_s is not None and not self._shown
                await self._show_until_ended()
                await reader
            finally:
                await self._end(reader, typing, places)
        except asyncio.CancelledError:
            # All of it may have come, and not all of it been shown.
            self._is_whole = self._is_whole and self.is_delivered
            await self._end(asyncio.create_task(self._break_off()), grace_s=self._pacing.grace_s)
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
                self._fallback = self._words_for_nothing(reason)
        finally:
            self._ended.set()
            self._changed.set()
            close = getattr(chunks, "aclose", None)
            if close is not None:
                await close()

    def _words_for_nothing(self, reason: FinishReason | None) -> str:
        if reason is not FinishReason.CANCELLED:
            return EMPTY_REPLY
        # Where another reply stands already, it stays.
        return "" if self._is_replacing else STOPPED

    async def _pulse_typing(self) -> None:
        while True:
            try:
                await self._channel.show_typing()
            except DeliveryError as error:
                logger.debug("typing could not be shown: %s", error)
            await asyncio.sleep(self._channel.limits.typing_interval_s)

    # --- while it waits

    async def _show_places(self) -> None:
        """Say where the request waits, calmly and only if it waits for long, until cancelled."""
        began_at = time.monotonic()
        while not self._is_replacing:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pacing.place_from_s):
                    await self._has_moved_up.wait()
            self._has_moved_up.clear()
            if self._is_place_worth_telling(waited_s=time.monotonic() - began_at):
                await self._show_place()
                await asyncio.sleep(max(self._pacing.place_interval_s, self._channel.limits.edit_interval_s))

    def _is_place_worth_telling(self, *, waited_s: float) -> bool:
        if self._place is None or self._text.strip() or self._ended.is_set():
            return False
        return bool(self._shown) or max(self._place.wait_s or 0.0, waited_s) >= self._pacing.place_from_s

    async def _show_place(self) -> None:
        """Where that fails, people wait without it."""
        try:
            await self._channel.ready()
            if self._place is not None and not self._text.strip() and not self._ended.is_set():
                await self._uninterrupted(self._show_notice(describe_place(self._place)))
        except DeliveryError as error:
            logger.debug("a place in the queue could not be shown: %s", error)

    async def _show_notice(self, text: str) -> None:
        """Bring the notice in line with `text`."""
        if not self._shown:
            message_id = await self._channel.send(text, reply_to=self._reply_to)
            self._shown.append(_Shown(message_id, text, is_notice=True))
            await self._tell_of_new()
        elif self._shown[0].text != text:
            await self._channel.edit(self._shown[0].message_id, text)
            self._shown[0].text = text

    # --- as it comes

    async def _wait_for_first_words(self) -> None:
        while not self._ended.is_set() and not self._text.strip():
            await self._next_change()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pacing.first_wait_s):
                while not self._ended.is_set() and len(self._text.strip()) < self._pacing.first_num_chars:
                    await self._next_change()
        self._changed.set()

    async def _next_change(self) -> None:
        await self._changed.wait()
        self._changed.clear()

    async def _show_until_ended(self) -> None:
        patience = _Patience(self._pacing)
        while True:
            await self._next_change()
            try:
                await self._show_newest(is_last_try=patience.is_last_try)
                patience.restore()
                if self._is_finished:
                    return
                await self._pause()
            except DeliveryError as error:
                pause_s = patience.pause_s(error, is_text_complete=self._ended.is_set())
                if pause_s is None:
                    self._give_up(error)
                    return
                self._changed.set()  # the text is still to be shown
                await asyncio.sleep(max(pause_s, self._channel.limits.edit_interval_s))

    async def _pause(self) -> None:
        draft_interval_s = self._channel.limits.draft_interval_s
        if not self._uses_drafts or draft_interval_s is None:
            await asyncio.sleep(self._channel.limits.edit_interval_s)
            return
        # The message that a draft becomes needs no distance from it.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), draft_interval_s)

    def _give_up(self, error: DeliveryError) -> None:
        if self._ended.is_set() and self.is_delivered:
            logger.warning("the buttons under a reply could not be shown: %s", error)
        else:
            logger.error("a reply could not be shown in full: %s", error)

    async def _show_newest(self, *, is_last_try: bool) -> None:
        """Bring the channel's messages in line with the text as it is now, each as it is when its turn has come."""
        index = 0
        while index < len(self._pieces()):
            if self._is_growing_draft(index):
                await self._uninterrupted(self._show_draft(self._pieces()[index]))
                if not self._uses_drafts:
                    continue
            elif not self._is_in_line(index):
                await self._turn()
                await self._uninterrupted(self._show_piece(index, is_last_try=is_last_try))
            index += 1
        while self._surplus:
            await self._turn()
            await self._uninterrupted(self._remove(self._surplus[-1]))

    def _pieces(self) -> list[Piece]:
        text, limits = self._fallback or self._text, self._channel.limits
        if self._split[0] != text:
            self._split = text, split_text(text, limit=limits.max_text_length, measure=limits.measure)
        return self._split[1]

    @property
    def _is_finished(self) -> bool:
        is_in_line = all(self._is_in_line(index) for index in range(len(self._pieces())))
        return self._ended.is_set() and is_in_line and not self._surplus

    @property
    def _surplus(self) -> list[_Shown]:
        pieces = self._pieces()
        return self._shown[len(pieces) :] if pieces and self._ended.is_set() else []

    def _is_in_line(self, index: int) -> bool:
        if index >= len(self._shown):
            return False
        shown = self._shown[index]
        return shown.text == self._pieces()[index].text and shown.controls == self._controls_of(index)

    def _controls_of(self, index: int) -> tuple[Control, ...]:
        is_end = self._ended.is_set() and index == len(self._pieces()) - 1
        return self._controls if is_end and not self._fallback else ()

    def _is_growing_draft(self, index: int) -> bool:
        is_growing = not self._ended.is_set() and index == len(self._pieces()) - 1
        return self._uses_drafts and is_growing and index >= len(self._shown)

    async def _turn(self) -> None:
        """Wait until the channel takes another call; from when the text is complete on, in haste."""
        if not self._ended.is_set():
            turn = asyncio.create_task(self._channel.ready())
            ended = asyncio.create_task(self._ended.wait())
            try:
                await asyncio.wait({turn, ended}, return_when=asyncio.FIRST_COMPLETED)
                if turn.done():
                    turn.result()
                    return
            finally:
                await self._end(turn, ended)
        await self._channel.ready(is_urgent=True)

    async def _show_draft(self, piece: Piece) -> None:
        if self._draft == piece:
            return
        try:
            await self._channel.show_draft(piece.text)
            self._draft = piece
        except RateLimited:
            raise
        except DeliveryError as error:
            logger.debug("there are no drafts here: %s", error)
            self._uses_drafts = False

    async def _show_piece(self, index: int, *, is_last_try: bool) -> None:
        if index >= len(self._pieces()):
            return
        piece, controls = self._pieces()[index], self._controls_of(index)
        if index >= len(self._shown):
            await self._send(piece, controls)
            return
        shown = self._shown[index]
        if shown.text != piece.text:
            await self._edit(shown, piece, controls, may_replace=is_last_try and self._ended.is_set())
        elif shown.controls != controls:
            await self._channel.show_controls(shown.message_id, controls)
        shown.controls = controls

    async def _send(self, piece: Piece, controls: tuple[Control, ...]) -> None:
        reply_to = None if self._shown else self._reply_to
        if self._name:
            name = f"{self._name}.{len(self._shown)}"
            message_id = await self._channel.send_once(name, piece.text, reply_to=reply_to, controls=controls)
        else:
            message_id = await self._channel.send(piece.text, reply_to=reply_to, controls=controls)
        self._shown.append(_Shown(message_id, piece.text, piece.end, controls=controls))
        self._draft = None
        await self._tell_of_new()

    async def _edit(self, shown: _Shown, piece: Piece, controls: tuple[Control, ...], *, may_replace: bool) -> None:
        try:
            await self._channel.edit(shown.message_id, piece.text, controls=controls)
        except RateLimited:
            raise
        except DeliveryError as error:
            is_gone = isinstance(error, MessageGone)
            if not may_replace and not (is_gone and self._ended.is_set()):
                raise
            # The message is gone or closed to us: showing a part twice is better than losing the rest.
            message_id = await self._channel.send(piece.text, controls=controls)
            self._replaced_ids += () if is_gone else (shown.message_id,)
            shown.message_id = message_id
            await self._tell_of_new()
        shown.text, shown.end, shown.is_notice = piece.text, piece.end, False

    async def _remove(self, shown: _Shown) -> None:
        """Take away a message that the reply does not need; where that is impossible, what it says."""
        try:
            await self._channel.delete(shown.message_id)
        except RateLimited:
            raise
        except DeliveryError:
            with contextlib.suppress(MessageGone):
                await self._channel.edit(shown.message_id, CUT_SHORT)
        self._shown.remove(shown)

    async def _tell_of_new(self) -> None:
        if self._on_shown is None:
            return
        try:
            await self._on_shown(self.message_ids)
        except BotError as error:
            logger.error("it could not be noted which message shows a reply: %s", error)

    # --- when it is broken off

    async def _break_off(self) -> None:
        """Leave the channel so that it shows what was said, and nothing else."""
        try:
            if self.notice_id is not None:
                await self._show_notice(STOPPED)
            if self._draft is not None:
                await self._send(self._draft, ())
            if any(shown.end for shown in self._shown):
                for stale in [shown for shown in self._shown if not shown.text]:
                    await self._remove(stale)
        except DeliveryError as error:
            logger.debug("a reply that was broken off could not be tidied up: %s", error)

    async def _uninterrupted(self, call: Coroutine[Any, Any, None]) -> None:
        """Run `call`. A cancellation lets it end for a moment, so that what people see is known."""
        task = asyncio.create_task(call)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await self._end(task, grace_s=self._pacing.grace_s)
            raise

    async def _end(self, *tasks: asyncio.Task[Any], grace_s: float = 0.0) -> None:
        for task in tasks:
            task.add_done_callback(_see_failure)
        if grace_s:
            await asyncio.wait(tasks, timeout=grace_s)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=self._pacing.grace_s)


def _see_failure(task: asyncio.Task[Any]) -> None:
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
    instead_of: Sequence[str] | str | None = None,
    controls: tuple[Control, ...] = (),
) -> tuple[str, ...]:
    """Send a text that is complete already, with a reply's care, and return the ids of its messages.

    With `instead_of`, it takes the place of that message, or of those.
    """
    replaced = (instead_of,) if isinstance(instead_of, str) else instead_of or ()
    stream = ReplyStream(channel, reply_to=reply_to, pacing=pacing, instead_of=replaced, controls=controls)
    await stream.deliver(_at_once(text))
    return stream.message_ids


async def _at_once(text: str) -> AsyncIterator[ReplyChunk]:
    yield ReplyChunk(text, FinishReason.STOP)
