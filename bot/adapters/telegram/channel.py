"""A Telegram chat or topic as a `ReplyChannel`."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from telegram import InlineKeyboardMarkup, LinkPreviewOptions, Message, ReplyParameters
from telegram.constants import ChatAction
from telegram.error import BadRequest, ChatMigrated

from bot.adapters.base import PlatformLimits, ReplyChannel
from bot.adapters.telegram.client import MAX_DOWNLOAD_BYTES, TelegramClient, delivery_errors, utf16_length
from bot.errors import DeliveryError
from bot.types import ChatKind, Control

GENERAL_TOPIC = 1
MAX_CAPTION_LENGTH = 1024
_NO_PREVIEW = LinkPreviewOptions(is_disabled=True)
# About 1 message/s in a chat, 20 a minute in a group, and edits count.
_EDIT_INTERVAL_S = {ChatKind.DIRECT: 1.2, ChatKind.GROUP: 3.5}

T = TypeVar("T")


def limits_of(kind: ChatKind) -> PlatformLimits:
    """What Telegram allows in a chat of that kind."""
    return PlatformLimits(
        max_text_length=4096,
        edit_interval_s=_EDIT_INTERVAL_S[kind],
        typing_interval_s=4.0,
        max_file_bytes=MAX_DOWNLOAD_BYTES,
        measure=utf16_length,
    )


class TelegramChannel(ReplyChannel):
    """One chat, or one topic of it. `on_sent` hears of everything that was sent."""

    def __init__(
        self,
        client: TelegramClient,
        *,
        chat_id: int,
        thread_id: int | None,
        kind: ChatKind,
        on_sent: Callable[[], None] | None = None,
    ) -> None:
        self.limits = limits_of(kind)
        self._client = client
        self._chat_id = chat_id
        self._thread_id = thread_id
        self._on_sent = on_sent

    async def show_typing(self) -> None:
        """Show "typing…" for about five seconds."""
        await self._call(
            lambda: self._client.send_chat_action(self._chat_id, ChatAction.TYPING, message_thread_id=self._thread_id)
        )

    async def send(
        self,
        text: str,
        *,
        reply_to: str | None = None,
        controls: tuple[Control, ...] = (),  # noqa: ARG002
        keyboard: InlineKeyboardMarkup | None = None,
    ) -> str:
        """Send `text` as it is, without markup and link previews, and return the new message's id."""
        reply = ReplyParameters(_number(reply_to), allow_sending_without_reply=True) if reply_to else None
        message = await self._call(
            lambda: self._client.send_message(
                self._chat_id,
                text,
                # Telegram knows no topic 1 when sending, although it is the General topic's id.
                message_thread_id=None if self._thread_id == GENERAL_TOPIC else self._thread_id,
                link_preview_options=_NO_PREVIEW,
                reply_parameters=reply,
                reply_markup=keyboard,
                parse_mode=None,
            )
        )
        if self._on_sent is not None:
            self._on_sent()
        return str(message.message_id)

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
        reply = ReplyParameters(_number(reply_to), allow_sending_without_reply=True) if reply_to else None
        common: dict[str, Any] = {
            "caption": caption or None,
            "filename": name,
            "message_thread_id": None if self._thread_id == GENERAL_TOPIC else self._thread_id,
            "reply_parameters": reply,
            "reply_markup": keyboard,
            "parse_mode": None,
        }

        async def sent() -> Message:
            try:
                return await self._client.send_photo(self._chat_id, data, **common)
            except BadRequest as error:
                # PHOTO_INVALID_DIMENSIONS, IMAGE_PROCESS_FAILED, "file is too big for a photo"
                if not any(word in error.message.lower() for word in ("photo", "image")):
                    raise
                return await self._client.send_document(self._chat_id, data, **common)

        return str((await self._call(sent)).message_id)

    async def edit(self, message_id: str, text: str, *, controls: tuple[Control, ...] = ()) -> None:  # noqa: ARG002
        """Replace a sent message's text; that it is there already is no error."""
        number = _number(message_id)

        async def edited() -> Message | bool:
            try:
                return await self._client.edit_message_text(
                    text,
                    chat_id=self._chat_id,
                    message_id=number,
                    link_preview_options=_NO_PREVIEW,
                    parse_mode=None,
                )
            except BadRequest as error:
                if "message is not modified" in error.message.lower():
                    return True
                raise

        await self._call(edited)

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        with delivery_errors(self._client.token):
            try:
                return await call()
            except ChatMigrated as moved:
                # The group became a supergroup and lives on under another id.
                self._chat_id = moved.new_chat_id
        try:
            with delivery_errors(self._client.token):
                return await call()
        except ChatMigrated:
            raise DeliveryError("the group moved twice; write to it again") from None


def _number(message_id: str) -> int:
    try:
        return int(message_id)
    except ValueError:
        raise DeliveryError(f"{message_id!r} is no message id of Telegram") from None
