"""The Bot API client: python-telegram-bot's `Bot`, with updates one by one and downloads that stop at a limit.

Owns connections and the translation of the library's errors. Knows nothing of conversations.
"""

import json
import os
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any

import httpx
from telegram import Bot, Sticker
from telegram.error import BadRequest, ChatMigrated, Forbidden, InvalidToken, RetryAfter, TelegramError, TimedOut
from telegram.request import HTTPXRequest

from bot.adapters.telegram.redaction import redact
from bot.errors import ChannelClosed, DeliveryError, MediaError, MessageGone, RateLimited

# The library's documented switch to timedelta; without it every RetryAfter prints a deprecation warning.
os.environ.setdefault("PTB_TIMEDELTA", "1")

PUBLIC_API = "https://api.telegram.org"
MAX_DOWNLOAD_BYTES = 20 * 1024 * 1024
UPDATE_KINDS = ("message", "edited_message", "callback_query", "my_chat_member", "message_reaction")

# What the library raises, bare, for an answer that lacks required fields.
MALFORMED_ANSWER = (AttributeError, IndexError, KeyError, TypeError, ValueError)

_CONNECT_TIMEOUT_S = 10.0
# Sends are not idempotent: giving up early would show a message twice.
_READ_TIMEOUT_S = 20.0
# A picture takes a while on a slow line.
MEDIA_TIMEOUT_S = 60.0
_MAX_CONNECTIONS = 64


class Barred(ChannelClosed):
    """The bot may not write to that chat at all: it was blocked or removed."""


@cache
def _certificates() -> ssl.SSLContext:
    """The trusted certificates. Reading them takes a while, and three connection pools want them."""
    return httpx.create_ssl_context()


def retry_after_s(error: RetryAfter) -> float:
    """How long Telegram asks to wait."""
    value = error.retry_after
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


class _Connections(HTTPXRequest):
    """The library's, but what is no JSON object counts as an empty one.

    Otherwise each 502 page of a gateway would be logged with a traceback and quoted in full in the error.
    """

    @staticmethod
    def parse_json_payload(payload: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(payload.decode(errors="replace"))
        except (RecursionError, ValueError):
            return {}
        return answer if isinstance(answer, dict) else {}


class TelegramClient(Bot):
    """A bot's client. `api_url` and `file_url` name a server without `/bot` and `/file/bot`, which are added here."""

    def __init__(self, token: str, *, api_url: str | None = None, file_url: str | None = None) -> None:
        api = (api_url or PUBLIC_API).rstrip("/")
        super().__init__(
            token,
            base_url=f"{api}/bot",
            base_file_url=f"{(file_url or api).rstrip('/')}/file/bot",
            request=_Connections(
                connection_pool_size=_MAX_CONNECTIONS,
                connect_timeout=_CONNECT_TIMEOUT_S,
                read_timeout=_READ_TIMEOUT_S,
                pool_timeout=_CONNECT_TIMEOUT_S,
                httpx_kwargs={"verify": _certificates()},
            ),
            get_updates_request=_Connections(
                connection_pool_size=2, connect_timeout=_CONNECT_TIMEOUT_S, httpx_kwargs={"verify": _certificates()}
            ),
        )
        self._downloads = httpx.AsyncClient(
            # Nothing compressed: a limit on bytes shall hold for what arrives.
            headers={"Accept-Encoding": "identity"},
            timeout=httpx.Timeout(_READ_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S),
            verify=_certificates(),
        )

    def __repr__(self) -> str:
        return "TelegramClient()"  # the library's shows the token

    async def shutdown(self) -> None:
        """Close every connection. Safe to call twice."""
        await super().shutdown()
        await self._downloads.aclose()

    async def raw_updates(self, *, offset: int, timeout_s: float, limit: int = 100) -> list[dict[str, Any]]:
        """Updates from `offset` on, not parsed; the server forgets those before it.

        `Bot.get_updates` parses a whole batch or nothing, so that one bad update would block all later ones.
        """
        answer: object = await self._post(
            "getUpdates",
            {"offset": offset, "timeout": int(timeout_s), "limit": limit, "allowed_updates": list(UPDATE_KINDS)},
            read_timeout=timeout_s + _READ_TIMEOUT_S,
        )
        if not isinstance(answer, list):
            raise TelegramError("getUpdates answered something that is no list")
        return [update for update in answer if isinstance(update, dict) and isinstance(update.get("update_id"), int)]

    async def moderators(self, chat_id: int) -> frozenset[int]:
        """Who may delete other people's messages in a group.

        Not by the library's classes: those ask for every right that the newest server knows.
        """
        members: Any = await self._post("getChatAdministrators", {"chat_id": chat_id})
        return frozenset(
            int(member["user"]["id"])
            for member in members
            if member["status"] == "creator" or member.get("can_delete_messages")
        )

    async def custom_emoji(self, emoji_id: str) -> Sticker:
        """A custom emoji as a sticker. Raises `MediaError`."""
        try:
            found = await self.get_custom_emoji_stickers([emoji_id])
            return found[0]
        except (TelegramError, *MALFORMED_ANSWER):
            raise MediaError("The emoji cannot be fetched from Telegram right now. Send it again.") from None

    async def download(self, file_id: str, *, name: str, max_bytes: int) -> bytes:
        """A file's bytes. Raises `MediaError` as soon as more than `max_bytes` would come."""
        limit = min(max_bytes, MAX_DOWNLOAD_BYTES)
        url = await self._file_url(file_id, name=name)
        content = bytearray()
        try:
            async with self._downloads.stream("GET", url) as response:
                if response.status_code != httpx.codes.OK:
                    raise MediaError(
                        f"{name} cannot be fetched: Telegram answered {response.status_code}. Send it again."
                    )
                if int(response.headers.get("content-length") or 0) > limit:
                    raise too_large(name, limit)
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > limit:
                        raise too_large(name, limit)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError):
            # The library's text may name the URL, and with it the token.
            raise MediaError(f"{name} cannot be fetched from Telegram right now. Send it again.") from None
        return bytes(content)

    async def _file_url(self, file_id: str, *, name: str) -> str:
        try:
            path = (await self.get_file(file_id)).file_path or ""
        except BadRequest as error:
            if "too big" in error.message.lower():
                raise too_large(name, MAX_DOWNLOAD_BYTES) from None
            raise MediaError(f"{name} cannot be fetched: {redact(error.message, self.token)}") from None
        except (TelegramError, *MALFORMED_ANSWER):
            raise MediaError(f"{name} cannot be fetched from Telegram right now. Send it again.") from None
        if not path or path.startswith("/"):
            # A local Bot API server started with --local names a path on its own disk.
            raise MediaError(f"{name} cannot be fetched: this Bot API server must be started without --local.")
        return path if path.startswith(self.base_file_url) else f"{self.base_file_url}/{path}"


def too_large(name: str, max_bytes: int) -> MediaError:
    """The refusal of a file beyond `max_bytes`."""
    return MediaError(
        f"{name} is too large: at most {max_bytes / 1024 / 1024:.3g} MB can be taken. Send a smaller one."
    )


@contextmanager
def delivery_errors(token: str) -> Iterator[None]:
    """Turn the library's errors into ours; only `ChatMigrated` passes, for the channel to follow."""
    try:
        yield
    except ChatMigrated:
        raise
    except RetryAfter as error:
        raise RateLimited(retry_after_s(error)) from None
    except TimedOut:
        raise DeliveryError("Telegram did not answer in time") from None
    except Forbidden as error:
        raise Barred(f"Telegram forbids it: {_reason(error, token)}") from None
    except BadRequest as error:
        kind = MessageGone if "message to edit not found" in error.message.lower() else DeliveryError
        raise kind(f"Telegram refused it: {_reason(error, token)}") from None
    except InvalidToken:
        # The library says so for every 404. Whether the token is wrong shows where updates are fetched.
        raise DeliveryError("Telegram's server does not know that method") from None
    except TelegramError as error:
        raise DeliveryError(f"Telegram cannot be reached: {_reason(error, token)}") from None
    except MALFORMED_ANSWER as error:
        raise DeliveryError(f"Telegram's answer made no sense ({type(error).__name__})") from None


def _reason(error: TelegramError, token: str) -> str:
    return redact(error.message, token).removeprefix("Forbidden: ")


def utf16_length(text: str) -> int:
    """The length as Telegram counts it, in UTF-16 code units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def utf16_slice(text: str, start: int, end: int) -> str:
    """The part of `text` between two offsets in UTF-16 code units."""
    return text.encode("utf-16-le", "surrogatepass")[start * 2 : end * 2].decode("utf-16-le", "replace")


def split_text(text: str, max_length: int, *, measure: Callable[[str], int] = utf16_length) -> Sequence[str]:
    """Pieces of at most `max_length` as `measure` counts, cut behind a line where there is one."""
    pieces = []
    while measure(text) > max_length:
        # No character is shorter than one code unit, so `max_length` characters are enough to look at.
        head = text[:max_length]
        while (excess := measure(head) - max_length) > 0:
            head = head[: -max(1, excess // 16)]
        cut = head.rfind("\n") + 1 or len(head)
        pieces.append(text[:cut])
        text = text[cut:]
    return [*pieces, text]
