"""Albums: Telegram sends each picture of one as a message of its own, and says nowhere how many will come.

Owns the waiting. Knows neither how a message is answered nor how updates are acknowledged.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from telegram import Message

_MAX_ITEMS = 10


@dataclass(slots=True)
class _Album:
    sender_id: int | None
    messages: dict[int, Message] = field(default_factory=dict)
    update_ids: list[int] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None


CompleteAlbum = Callable[[list[Message], list[int]], None]


class AlbumCollector:
    """Collects the items of each album until none came for `wait_s`, then passes them to `complete` in order."""

    def __init__(self, complete: CompleteAlbum, *, wait_s: float) -> None:
        self._complete = complete
        self._wait_s = wait_s
        self._open: dict[tuple[int, str], _Album] = {}

    def add(self, message: Message, update_id: int) -> None:
        """Take an item, which has a `media_group_id`."""
        key = _key(message)
        album = self._open.setdefault(key, _Album(_sender_id(message)))
        album.messages[message.message_id] = message
        album.update_ids.append(update_id)
        if album.timer is not None:
            album.timer.cancel()
        if len(album.messages) >= _MAX_ITEMS:
            self._close(key)
        else:
            album.timer = asyncio.get_running_loop().call_later(self._wait_s, self._close, key)

    def edit(self, message: Message) -> bool:
        """Take what an item reads now, if its album is still being collected, and say whether it was."""
        album = self._open.get(_key(message))
        if album is None or message.message_id not in album.messages:
            return False
        album.messages[message.message_id] = message
        return True

    def complete_before(self, message: Message) -> None:
        """An album is sent at once: whatever its sender writes next in that chat shows that all of it has come."""
        own_key, sender_id = _key(message), _sender_id(message)
        for key, album in list(self._open.items()):
            if key[0] == message.chat.id and key != own_key and album.sender_id == sender_id:
                self._close(key)

    def discard(self) -> None:
        """Forget what is incomplete; it was not handed over, so the server sends it again."""
        for album in self._open.values():
            if album.timer is not None:
                album.timer.cancel()
        self._open.clear()

    def _close(self, key: tuple[int, str]) -> None:
        album = self._open.pop(key)
        if album.timer is not None:
            album.timer.cancel()
        self._complete([album.messages[number] for number in sorted(album.messages)], album.update_ids)


def _key(message: Message) -> tuple[int, str]:
    return message.chat.id, message.media_group_id or ""


def _sender_id(message: Message) -> int | None:
    sender = message.sender_chat or message.from_user
    return None if sender is None else sender.id
