"""A Telegram chat or topic as a `ReplyChannel`.

Owns how a text, its buttons and a persona's name become a message there, and what is done where the server refuses.
Knows neither updates nor commands.
"""

import copy
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypeVar

from telegram import (
    ForceReply,
    InlineKeyboardMarkup,
    LinkPreviewOptions,
    Message,
    ReactionTypeEmoji,
    ReplyParameters,
)
from telegram.constants import ChatAction
from telegram.error import BadRequest, ChatMigrated, InvalidToken

from bot.adapters.base import PlatformLimits, ReplyChannel
from bot.adapters.telegram.client import (
    MAX_DOWNLOAD_BYTES,
    MEDIA_TIMEOUT_S,
    Barred,
    delivery_errors,
    utf16_length,
)
from bot.adapters.telegram.connection import Connection
from bot.adapters.telegram.formatting import FormattedText, format_markdown, formatted_length, plain_text
from bot.adapters.telegram.reactions import allowed_reaction
from bot.adapters.telegram.stickers import StickerFile, StickerKind
from bot.errors import ChannelClosed, DeliveryError, RateLimited
from bot.types import ChatKind, Control, Speaker

logger = logging.getLogger(__name__)

GENERAL_TOPIC = 1
MAX_TEXT_LENGTH = 4096
MAX_CAPTION_LENGTH = 1024
_MAX_NAME_LENGTH = 64
_NO_PREVIEW = LinkPreviewOptions(is_disabled=True)
# About 1 message/s in a chat, 20 a minute in a group, and edits count.
_EDIT_INTERVAL_S = {ChatKind.DIRECT: 1.2, ChatKind.GROUP: 3.5}
_DRAFT_INTERVAL_S = 0.5
# Telegram may ask for hours. Whoever waited so long would pile up, and speak to people who have gone.
_MAX_HOLD_S = 600.0
_GONE = ("message to edit not found", "message to delete not found", "message_id_invalid", "message can't be found")
_NO_RIGHTS = ("not enough rights", "have no rights", "chat_write_forbidden", "chat_restricted", "chat_send_")
_LOST = ("thread not found", "topic_closed", "topic_deleted", "chat not found")

T = TypeVar("T")
Markup = InlineKeyboardMarkup | ForceReply


def limits_of(kind: ChatKind, *, has_drafts: bool = False) -> PlatformLimits:
    """What Telegram allows in a chat of that kind."""
    return PlatformLimits(
        max_text_length=MAX_TEXT_LENGTH,
        edit_interval_s=_EDIT_INTERVAL_S[kind],
        typing_interval_s=4.0,
        max_file_bytes=MAX_DOWNLOAD_BYTES,
        measure=formatted_length,
        draft_interval_s=_DRAFT_INTERVAL_S if has_drafts and kind is ChatKind.DIRECT else None,
    )


class TelegramChannel(ReplyChannel):
    """One chat, or one topic of it. `on_sent` hears of everything that was sent or changed."""

    def __init__(
        self,
        connection: Connection,
        *,
        chat_id: int,
        thread_id: int | None,
        kind: ChatKind,
        on_sent: Callable[[], None] | None = None,
    ) -> None:
        self.limits = limits_of(kind, has_drafts=connection.has_drafts)
        self._connection = connection
        self._client = connection.client
        self._chats = connection.chats
        self._chat_id = chat_id
        self._thread_id = thread_id
        self._kind = kind
        self._on_sent = on_sent
        self._name = ""
        self._draft_id = 0
        self._typing_from = 0.0

    @property
    def chat_id(self) -> int:
        """Where it is now."""
        return self._chats.address(self._chat_id)

    def speaking_as(self, speaker: Speaker) -> Self:
        """The same place, with the speaker's name in bold above each text: a bot has one name and one picture."""
        named = copy.copy(self)
        named._name = plain_text(" ".join(speaker.name.split())[:_MAX_NAME_LENGTH]).text
        named._draft_id = 0
        named.limits = replace(self.limits, max_text_length=MAX_TEXT_LENGTH - utf16_length(named._name) - 1)
        return named

    async def ready(self, *, is_urgent: bool = False) -> None:
        """Wait for this chat's turn: a message a second, twenty a minute in a group, thirty a second over all.

        Raises `RateLimited` where Telegram asked for more patience than anybody has.
        """
        if self._chats.why_closed(self.chat_id) is not None:
            return
        if (held_s := self._connection.pacer.held_s(self.chat_id)) > _MAX_HOLD_S:
            raise RateLimited(held_s)
        is_group = self._kind is ChatKind.GROUP
        await self._connection.pacer.ready(self.chat_id, is_urgent=is_urgent, is_group=is_group)

    async def show_typing(self) -> None:
        """Show "typing…" for about five seconds."""
        if time.monotonic() < self._typing_from:
            return
        try:
            await self._call(
                lambda: self._client.send_chat_action(
                    self.chat_id, ChatAction.TYPING, message_thread_id=self._thread_id
                ),
                holds_chat=False,
            )
        except RateLimited as error:
            self._typing_from = time.monotonic() + error.retry_after_s
            raise

    # Texts

    async def send(
        self,
        text: str,
        *,
        reply_to: str | None = None,
        controls: tuple[Control, ...] = (),
        keyboard: InlineKeyboardMarkup | None = None,
    ) -> str:
        """Send `text` with its Markdown as Telegram shows it, and return the new message's id.

        `keyboard` is shown instead of `controls`.
        """
        markup = keyboard or self._connection.buttons.controls(controls)
        return await self.send_formatted(self._formatted(text), reply_to=reply_to, markup=markup)

    async def send_formatted(
        self, formatted: FormattedText, *, reply_to: str | None = None, markup: Markup | None = None
    ) -> str:
        """Send a text that is formatted already, and return the new message's id."""
        reply = self._reply(reply_to)
        message = await self._call(
            lambda: self._or_plainly(
                formatted,
                lambda shown: self._client.send_message(
                    self.chat_id,
                    shown.text,
                    entities=shown.entities or None,
                    message_thread_id=self._sending_thread,
                    link_preview_options=_NO_PREVIEW,
                    reply_parameters=reply,
                    reply_markup=markup,
                    parse_mode=None,
                ),
            )
        )
        self._draft_id = 0
        return self._sent(message)

    async def edit(self, message_id: str, text: str, *, controls: tuple[Control, ...] = ()) -> None:
        """Replace a sent message's text and buttons; that they are there already is no error."""
        number = _number(message_id)
        markup = self._connection.buttons.controls(controls)
        await self._call(
            lambda: self._unless_same(
                lambda: self._or_plainly(
                    self._formatted(text),
                    lambda shown: self._client.edit_message_text(
                        shown.text,
                        chat_id=self.chat_id,
                        message_id=number,
                        entities=shown.entities or None,
                        link_preview_options=_NO_PREVIEW,
                        reply_markup=markup,
                        parse_mode=None,
                    ),
                )
            )
        )
        if self._on_sent is not None:
            self._on_sent()

    async def show_draft(self, text: str) -> None:
        """Show `text` as one that is being written. The first refusal ends all drafts: edits do as well."""
        if not self._connection.has_drafts or self._kind is not ChatKind.DIRECT:
            self._stop_drafts()
            raise DeliveryError("there are no drafts here")
        self._draft_id = self._draft_id or secrets.randbelow(2**31 - 1) + 1
        try:
            await self._call(lambda: self._or_plainly(self._formatted(text), self._send_draft), holds_chat=False)
        except _DraftRefused as error:
            self._connection.has_drafts = False
            self._stop_drafts()
            logger.info("drafts are off: the server refuses them (%s); edits are used instead", error)
            raise DeliveryError("there are no drafts here") from None

    async def _send_draft(self, shown: FormattedText) -> bool:
        try:
            return await self._client.send_message_draft(
                self.chat_id,
                self._draft_id,
                shown.text,
                message_thread_id=self._sending_thread,
                entities=shown.entities or None,
                parse_mode=None,
            )
        except InvalidToken:  # what the library makes of a method that the server does not know
            raise _DraftRefused("it does not know them") from None
        except BadRequest as error:
            if shown.entities and _is_about_entities(error):
                raise
            raise _DraftRefused(error.message) from None

    def _stop_drafts(self) -> None:
        self._draft_id = 0
        self.limits = replace(self.limits, draft_interval_s=None)

    async def show_controls(self, message_id: str, controls: tuple[Control, ...]) -> None:
        """Replace the buttons under a sent message; none takes them away. That it is gone is no error."""
        number = _number(message_id)
        markup = self._connection.buttons.controls(controls)
        await self._call(
            lambda: self._unless_same(
                lambda: self._client.edit_message_reply_markup(self.chat_id, number, reply_markup=markup),
                is_gone_well=True,
            )
        )

    async def delete(self, message_id: str) -> None:
        """Delete a sent message; Telegram lets a bot do so for two days."""
        number = _number(message_id)
        await self._call(
            lambda: self._unless_same(lambda: self._client.delete_message(self.chat_id, number), is_gone_well=True)
        )

    async def react(self, message_id: str, emoji: str) -> None:
        """Put an emoji under a message, or the nearest that Telegram takes; what it does not take is left out."""
        await self.try_to_react(message_id, emoji)

    async def try_to_react(self, message_id: str, emoji: str) -> bool:
        """Like `react`, and say whether it is there now."""
        number, allowed = _number(message_id), allowed_reaction(emoji)
        if allowed is None:
            return False

        async def reacted() -> bool:
            try:
                return await self._client.set_message_reaction(self.chat_id, number, [ReactionTypeEmoji(allowed)])
            except (BadRequest, InvalidToken) as error:  # a chat may allow few of them, or none
                logger.debug("a reaction was refused: %s", type(error).__name__)
                return False

        return await self._call(reacted)

    # Pictures

    async def send_picture(
        self,
        data: bytes,
        *,
        name: str,
        caption: str = "",
        reply_to: str | None = None,
        keyboard: InlineKeyboardMarkup | None = None,
    ) -> str:
        """Send a picture, with a caption of at most `MAX_CAPTION_LENGTH`, and return the new message's id.

        One whose shape Telegram does not take as a photo is sent as a file.
        """
        common: dict[str, Any] = {
            "filename": name,
            "message_thread_id": self._sending_thread,
            "reply_parameters": self._reply(reply_to),
            "reply_markup": keyboard,
            "parse_mode": None,
            "write_timeout": MEDIA_TIMEOUT_S,
        }

        async def sent(shown: FormattedText) -> Message:
            words: dict[str, Any] = {"caption": shown.text or None, "caption_entities": shown.entities or None}
            try:
                return await self._client.send_photo(self.chat_id, data, **common, **words)
            except BadRequest as error:
                # PHOTO_INVALID_DIMENSIONS, IMAGE_PROCESS_FAILED, "file is too big for a photo"
                if not any(word in error.message.lower() for word in ("photo", "image")):
                    raise
                return await self._client.send_document(self.chat_id, data, **common, **words)

        formatted = format_markdown(caption) if caption else FormattedText("")
        return self._sent(await self._call(lambda: self._or_plainly(formatted, sent)))

    async def send_sticker(self, sticker: Path) -> str | None:
        """Send a persona's sticker. Telegram keeps what it was given once."""
        file = await self._connection.stickers.prepare(sticker)
        try:
            message = await self._call(lambda: self._send_file(file))
        except _FileUnknown:
            self._connection.stickers.forget(file)
            file = await self._connection.stickers.prepare(sticker)
            message = await self._call(lambda: self._send_file(file))
        kept = message.sticker or message.animation or (message.photo[-1] if message.photo else None)
        if kept is not None:
            self._connection.stickers.remember(file, kept.file_id)
        return self._sent(message)

    async def _send_file(self, file: StickerFile) -> Message:
        thread_id, name = self._sending_thread, None if isinstance(file.source, str) else file.name
        try:
            match file.kind:
                case StickerKind.STICKER:
                    return await self._client.send_sticker(
                        self.chat_id, file.source, message_thread_id=thread_id, write_timeout=MEDIA_TIMEOUT_S
                    )
                case StickerKind.ANIMATION:
                    return await self._client.send_animation(
                        self.chat_id,
                        file.source,
                        filename=name,
                        message_thread_id=thread_id,
                        write_timeout=MEDIA_TIMEOUT_S,
                    )
                case StickerKind.PHOTO:
                    return await self._client.send_photo(
                        self.chat_id,
                        file.source,
                        filename=name,
                        message_thread_id=thread_id,
                        write_timeout=MEDIA_TIMEOUT_S,
                    )
        except BadRequest as error:
            if isinstance(file.source, str) and "file" in error.message.lower():
                raise _FileUnknown from None
            raise

    # What all of them share

    @property
    def _sending_thread(self) -> int | None:
        # Telegram knows no topic 1 when sending, although it is the General topic's id.
        return None if self._thread_id == GENERAL_TOPIC else self._thread_id

    def _formatted(self, text: str) -> FormattedText:
        formatted = format_markdown(text)
        return formatted.after(self._name) if self._name else formatted

    def _reply(self, message_id: str | None) -> ReplyParameters | None:
        return ReplyParameters(_number(message_id), allow_sending_without_reply=True) if message_id else None

    def _sent(self, message: Message) -> str:
        if self._thread_id is not None:
            self._chats.place(self.chat_id, message.message_id, self._thread_id)
        if self._on_sent is not None:
            self._on_sent()
        return str(message.message_id)

    async def _or_plainly(self, formatted: FormattedText, call: Callable[[FormattedText], Awaitable[T]]) -> T:
        """Show it formatted; where the server does not take that, the same words without."""
        try:
            return await call(formatted)
        except BadRequest as error:
            if not formatted.entities or not _is_about_entities(error):
                raise
            detail = f"chat {self.chat_id}: a text's formatting was refused, so it was sent without: {error.message}"
            self._chats.note_once("formatting", self.chat_id, detail)
        return await call(plain_text(formatted.text))

    async def _unless_same(self, call: Callable[[], Awaitable[Any]], *, is_gone_well: bool = False) -> None:
        try:
            await call()
        except BadRequest as error:
            message = error.message.lower()
            is_gone = is_gone_well and any(words in message for words in _GONE)
            if "message is not modified" not in message and not is_gone:
                raise

    async def _call(self, call: Callable[[], Awaitable[T]], *, holds_chat: bool = True) -> T:
        """Do `call`, which follows the group where it moved to. Raises `DeliveryError` alone."""
        address = self.chat_id
        if (reason := self._chats.why_closed(address)) is not None:
            raise ChannelClosed(f"nothing is sent to this chat: {reason}")
        try:
            try:
                return await self._attempt(call)
            except ChatMigrated as moved:
                # The group became a supergroup and lives on under another id.
                self._chats.move(address, moved.new_chat_id)
                return await self._attempt(call)
        except ChatMigrated:
            raise DeliveryError("the group moved twice; write to it again") from None
        except RateLimited as error:
            if holds_chat:
                self._connection.pacer.hold(self.chat_id, error.retry_after_s)
            raise

    async def _attempt(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            with delivery_errors(self._client.token):
                return await call()
        except Barred as error:
            remedy = (
                "They have to start the bot again."
                if self._kind is ChatKind.DIRECT
                else "Add the bot to the group again, if it is wanted there."
            )
            self._chats.close(self.chat_id, str(error), remedy=remedy)
            raise
        except DeliveryError as error:
            self._note_trouble(str(error))
            raise

    def _note_trouble(self, reason: str) -> None:
        """Tell the admin where only a person can help."""
        if any(words in reason.lower() for words in _NO_RIGHTS):
            detail = f"chat {self.chat_id}: {reason}. Let the bot write there, in the group's permissions."
            self._chats.note_once("rights", self.chat_id, detail)
        elif any(words in reason.lower() for words in _LOST):
            detail = f"chat {self.chat_id}, topic {self._thread_id}: {reason}. Nothing is to be done if it was deleted."
            self._chats.note_once("gone", self.chat_id, detail)


class _DraftRefused(DeliveryError):
    """The server takes no drafts."""


class _FileUnknown(DeliveryError):
    """The server does not know a file's id any more."""


def _is_about_entities(error: BadRequest) -> bool:
    return "entit" in error.message.lower()


def _number(message_id: str) -> int:
    try:
        return int(message_id)
    except ValueError:
        raise DeliveryError(f"{message_id!r} is no message id of Telegram") from None
