"""From raw updates to whoever handles them, each in a task of its own, begun in the order of arrival.

Owns the parsing of one update, the tasks, the albums, and that no command is run twice. Does not fetch updates, and
decides nothing about acknowledging beyond telling what has been handed over.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from telegram import (
    CallbackQuery,
    Chat,
    ChatMember,
    Message,
    MessageReactionUpdated,
    Update,
)

from bot.adapters.base import MessageHandler, SeenEvents
from bot.adapters.telegram.albums import AlbumCollector
from bot.adapters.telegram.channel import TelegramChannel
from bot.adapters.telegram.chats import PLATFORM, Recent
from bot.adapters.telegram.commands import TelegramCommands, parse_invocation
from bot.adapters.telegram.connection import Connection
from bot.adapters.telegram.messages import author_from, incoming_message, is_from_person, kind_of, thread_of
from bot.adapters.telegram.reactions import changes_of
from bot.adapters.telegram.updates import RawUpdate
from bot.commands import CommandTable
from bot.errors import StoreError
from bot.types import ChatKind, IncomingReaction, Room

logger = logging.getLogger(__name__)

_STOP_GRACE_S = 10.0
_MAX_ALBUMS = 500

HandOver = Callable[[], None]


class Ledger(Protocol):
    """Who acknowledges updates."""

    def handed_over(self, update_id: int) -> None:
        """`update_id` has reached whoever handles it, or cannot be handled at all."""


class UpdateDispatcher:
    """Hands updates over and tells the ledger so. `seen` knows which commands were run before a restart."""

    def __init__(
        self,
        connection: Connection,
        ledger: Ledger,
        *,
        handler: MessageHandler,
        commands: CommandTable,
        album_wait_s: float,
        seen: SeenEvents | None = None,
    ) -> None:
        self._connection = connection
        self._client = connection.client
        self._chats = connection.chats
        self._ledger = ledger
        self._handler = handler
        self._seen = seen
        self._commands = TelegramCommands(connection, commands)
        self._albums = AlbumCollector(self._start_messages, wait_s=album_wait_s)
        self._complete_albums: Recent[tuple[int, str], list[Message]] = Recent(_MAX_ALBUMS)
        self._tasks: set[asyncio.Task[None]] = set()

    def dispatch(self, raw: RawUpdate) -> None:
        """Begin to handle one update. One that makes no sense is reported and given up, so that it blocks no other."""
        update_id = raw["update_id"]
        try:
            if (membership := raw.get("my_chat_member")) is not None:
                self._note_membership(membership)
                self._ledger.handed_over(update_id)
            else:
                self._route(Update.de_json(raw, self._client))
        except Exception as error:
            # Without the traceback: it may quote what somebody wrote.
            detail = f"update {update_id} cannot be read ({type(error).__name__}) and is skipped; nothing is to be done"
            self._chats.incidents.note(PLATFORM, "poison_update", detail)
            logger.debug("update %s", update_id, exc_info=True)
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
        update_ids = [update.update_id]
        if update.message is not None:
            self._take(update.message, update.update_id)
        elif update.edited_message is not None:
            edited = update.edited_message
            self._start(update_ids, lambda hand_over: self._edited(edited, hand_over))
        elif update.callback_query is not None:
            query = update.callback_query
            self._start(update_ids, lambda hand_over: self._press(query, update.update_id, hand_over))
        elif update.message_reaction is not None:
            reaction = update.message_reaction
            self._start(update_ids, lambda _: self._react(reaction))
        else:
            self._ledger.handed_over(update.update_id)

    def _take(self, message: Message, update_id: int) -> None:
        self._chats.hear_from(message.chat.id)
        self._note_service(message)
        self._albums.complete_before(message)
        if message.media_group_id:
            self._albums.add(message, update_id)
        else:
            self._start_messages([message], [update_id])

    def _start_messages(self, messages: list[Message], update_ids: list[int]) -> None:
        self._start(update_ids, lambda hand_over: self._handle(messages, update_ids[0], hand_over))

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

    # What people say

    async def _handle(self, messages: list[Message], update_id: int, hand_over: HandOver) -> None:
        """Answer. Until the answer begins, a message may not be kept yet: its pictures are fetched before.

        So the server keeps it until then. Should it come twice, the handler knows it by its id; a command is not known
        again, and is handed over before it runs.
        """
        first = messages[0]
        if first.media_group_id:
            self._complete_albums[first.chat.id, first.media_group_id] = messages
        if is_from_person(first) and await self._run_command(messages, update_id, hand_over):
            return
        incoming = incoming_message(self._client, messages, chats=self._chats)
        if incoming is not None:
            await self._handler.handle(incoming, self._channel(first, on_sent=hand_over))

    async def _run_command(self, messages: list[Message], update_id: int, hand_over: HandOver) -> bool:
        """Run what was typed as a command or as an answer to a command's question; `False` where it is neither."""
        first = messages[0]
        invocation, answer = parse_invocation(first), self._commands.answered_by(first)
        if invocation is None and answer is None:
            return False
        if invocation is not None and self._commands.is_for_others(invocation, first.chat):
            return True
        if await self._is_first(update_id):
            hand_over()
            channel = self._channel(first)
            if invocation is not None:
                await self._commands.run(invocation, messages, channel)
            elif answer is not None:
                await self._commands.answer(answer, first, channel)
        return True

    async def _edited(self, message: Message, hand_over: HandOver) -> None:
        """Somebody changed a text or a caption. An album is one message, which reads as all of its items do now."""
        if not is_from_person(message) or parse_invocation(message) is not None or self._albums.edit(message):
            return
        key = message.chat.id, message.media_group_id or ""
        parts = [message if part.message_id == message.message_id else part for part in self._album(message)]
        if message.media_group_id:
            self._complete_albums[key] = parts
        incoming = incoming_message(self._client, parts, chats=self._chats)
        if incoming is not None:
            await self._handler.handle_edit(incoming, self._channel(message, on_sent=hand_over))

    def _album(self, message: Message) -> list[Message]:
        """The items of the album of which `message` is one, as far as they are remembered."""
        items = self._complete_albums.get((message.chat.id, message.media_group_id or "")) or []
        return items if any(item.message_id == message.message_id for item in items) else [message]

    async def _press(self, query: CallbackQuery, update_id: int, hand_over: HandOver) -> None:
        if not await self._is_first(update_id):
            return
        hand_over()
        message = query.message
        if isinstance(message, Message):
            channel = self._channel(message)
        else:
            chat = query.from_user if message is None else message.chat
            kind = kind_of(message.chat) if message is not None else ChatKind.DIRECT
            channel = TelegramChannel(self._connection, chat_id=chat.id, thread_id=None, kind=kind)
        await self._commands.press(query, channel)

    async def _is_first(self, update_id: int) -> bool:
        """Whether a command may run: it is claimed before, so that a crash in between does not repeat it."""
        if self._seen is None:
            return True
        try:
            return await self._seen.claim(PLATFORM, f"{self._client.bot.id}:{update_id}")
        except StoreError as error:
            logger.error("it is not known whether update %s was handled before: %s", update_id, error)
            return True

    async def _react(self, update: MessageReactionUpdated) -> None:
        """Emoji that somebody put or took away; anonymous ones are nobody's."""
        user, chat = update.user, update.chat
        if user is None or user.is_bot:
            return
        kind = kind_of(chat)
        thread_id = self._chats.thread_of(chat.id, update.message_id)
        room = Room(PLATFORM, str(chat.id), None if thread_id is None else str(thread_id))
        channel = TelegramChannel(self._connection, chat_id=chat.id, thread_id=thread_id, kind=kind)
        is_moderator = kind is ChatKind.DIRECT or await self._chats.is_moderator(chat.id, user.id)
        for emoji, is_added in changes_of(update):
            reaction = IncomingReaction(
                room, kind, str(update.message_id), author_from(user), emoji, is_added, is_moderator
            )
            await self._handler.handle_reaction(reaction, channel)

    # What becomes of chats

    def _note_service(self, message: Message) -> None:
        """Topics that are named, groups that move."""
        if message.forum_topic_created is not None and message.message_thread_id:
            self._chats.name_topic(message.chat.id, message.message_thread_id, message.forum_topic_created.name)
        edited = message.forum_topic_edited
        if edited is not None and edited.name and message.message_thread_id:
            self._chats.name_topic(message.chat.id, message.message_thread_id, edited.name)
        if message.migrate_to_chat_id:
            self._chats.move(message.chat.id, message.migrate_to_chat_id)
        if message.migrate_from_chat_id:
            self._chats.move(message.migrate_from_chat_id, message.chat.id)

    def _note_membership(self, change: dict[str, Any]) -> None:
        """The bot was added, removed, muted or allowed to write.

        Not by the library's classes: those ask for every right that the newest server knows.
        """
        chat_id, is_private = int(change["chat"]["id"]), change["chat"]["type"] == Chat.PRIVATE
        member = change["new_chat_member"]
        is_restricted = member["status"] == ChatMember.RESTRICTED
        is_gone = member["status"] in {ChatMember.LEFT, ChatMember.BANNED}
        if is_gone and is_private:
            self._chats.close(chat_id, "its person has blocked the bot", remedy="They have to start it again.")
        elif is_gone or (is_restricted and not member.get("is_member")):
            remedy = "Add it again, if it is wanted there."
            self._chats.close(chat_id, "the bot was removed from the group", remedy=remedy)
        elif is_restricted and not member.get("can_send_messages"):
            self._chats.mute(chat_id, "the bot may not write there", remedy="Allow it in the group's permissions.")
        else:
            self._chats.admit(chat_id)

    def _channel(self, message: Message, *, on_sent: HandOver | None = None) -> TelegramChannel:
        return TelegramChannel(
            self._connection,
            chat_id=message.chat.id,
            thread_id=thread_of(message),
            kind=kind_of(message.chat),
            on_sent=on_sent,
        )
