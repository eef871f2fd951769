"""From raw updates to whoever handles them, each in a task of its own, begun in the order of arrival.

Owns the parsing of one update, the tasks and the albums. Does not poll, and decides nothing about acknowledging
beyond telling the ledger what has been handed over.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from telegram import CallbackQuery, Message, Update

from bot.adapters.base import MessageHandler
from bot.adapters.telegram.albums import AlbumCollector
from bot.adapters.telegram.channel import TelegramChannel
from bot.adapters.telegram.client import TelegramClient
from bot.adapters.telegram.commands import TelegramCommands, parse_invocation
from bot.adapters.telegram.messages import incoming_message, is_from_person, kind_of, thread_of
from bot.adapters.telegram.updates import RawUpdate, UpdateLedger
from bot.commands import CommandTable
from bot.types import ChatKind

logger = logging.getLogger(__name__)

_STOP_GRACE_S = 10.0

HandOver = Callable[[], None]


class UpdateDispatcher:
    """Hands updates over and tells the ledger so."""

    def __init__(
        self,
        client: TelegramClient,
        ledger: UpdateLedger,
        *,
        handler: MessageHandler,
        commands: CommandTable,
        album_wait_s: float,
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._handler = handler
        self._commands = TelegramCommands(client, commands)
        self._albums = AlbumCollector(self._start_messages, wait_s=album_wait_s)
        self._tasks: set[asyncio.Task[None]] = set()

    def dispatch(self, raw: RawUpdate) -> None:
        """Begin to handle one update. One that makes no sense is logged and given up, so that it blocks no other."""
        update_id = raw["update_id"]
        try:
            self._route(Update.de_json(raw, self._client))
        except Exception:  # the library's parsers raise whatever a field's absence leads to
            logger.exception("update %s cannot be read and is skipped", update_id)
            self._ledger.handed_over(update_id)

    async def aclose(self) -> None:
        """Stop what is running, and forget albums that are not complete: they were not handed over."""
        self._albums.discard()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            _, stuck = await asyncio.wait(self._tasks, timeout=_STOP_GRACE_S)
            if stuck:
                logger.warning("%d handlers did not stop within %.0f s", len(stuck), _STOP_GRACE_S)

    def _route(self, update: Update) -> None:
        if update.message is not None:
            self._take(update.message, update.update_id)
        elif update.callback_query is not None:
            query = update.callback_query
            self._start([update.update_id], lambda hand_over: self._press(query, hand_over))
        else:
            self._ledger.handed_over(update.update_id)

    def _take(self, message: Message, update_id: int) -> None:
        self._albums.complete_before(message)
        if message.media_group_id:
            self._albums.add(message, update_id)
        else:
            self._start_messages([message], [update_id])

    def _start_messages(self, messages: list[Message], update_ids: list[int]) -> None:
        self._start(update_ids, lambda hand_over: self._handle(messages, hand_over))

    def _start(self, update_ids: Sequence[int], work: Callable[[HandOver], Coroutine[Any, Any, None]]) -> None:
        def hand_over() -> None:
            for update_id in update_ids:
                self._ledger.handed_over(update_id)

        async def guarded() -> None:
            try:
                await work(hand_over)
            except Exception:
                logger.exception("update %s could not be handled", update_ids[0])
            # Not where it is cancelled: what nobody has kept yet comes again after the restart.
            hand_over()

        task = asyncio.create_task(guarded(), name=f"telegram update {update_ids[0]}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, messages: list[Message], hand_over: HandOver) -> None:
        """Answer. Until the answer begins, a message may not be kept yet: its pictures are fetched before.

        So the server keeps it until then. Should it come twice, the handler knows it by its id; a command is not known
        again, and is handed over before it runs.
        """
        first = messages[0]
        invocation = parse_invocation(first)
        if invocation is not None and is_from_person(first):
            if not self._commands.is_for_others(invocation, first.chat):
                hand_over()
                await self._commands.run(invocation, messages, self._channel(first))
            return
        incoming = incoming_message(self._client, messages)
        if incoming is not None:
            await self._handler.handle(incoming, self._channel(first, on_sent=hand_over))

    async def _press(self, query: CallbackQuery, hand_over: HandOver) -> None:
        hand_over()
        message = query.message
        if isinstance(message, Message):
            channel = self._channel(message)
        else:
            chat = query.from_user if message is None else message.chat
            kind = kind_of(message.chat) if message is not None else ChatKind.DIRECT
            channel = TelegramChannel(self._client, chat_id=chat.id, thread_id=None, kind=kind)
        await self._commands.press(query, channel)

    def _channel(self, message: Message, *, on_sent: HandOver | None = None) -> TelegramChannel:
        return TelegramChannel(
            self._client,
            chat_id=message.chat.id,
            thread_id=thread_of(message),
            kind=kind_of(message.chat),
            on_sent=on_sent,
        )
