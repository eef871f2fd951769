"""People on the fakes of Discord and Telegram, and what they get to read.

Owns who writes where, and notes when each message was written and which messages of the bot answer it. Knows no bot: it
gives the addresses that one needs. Every message carries a mark of its own, and so does whatever answers it.
"""

import asyncio
import contextlib
import itertools
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.fakes.discord import Channel, FakeDiscord
from tests.fakes.discord import User as DiscordUser
from tests.fakes.telegram import Chat, FakeTelegram
from tests.fakes.telegram import User as TelegramUser

PLATFORMS = ("discord", "telegram")
_MARK = re.compile(r"\bq\d{7}z\b")


@dataclass(frozen=True, slots=True)
class Written:
    """A message that somebody wrote. Times are `time.perf_counter()`."""

    mark: str
    chat: int
    at: float


@dataclass(slots=True)
class Ledger:
    """What was written, and what of the bot's messages answers it."""

    written: dict[str, Written] = field(default_factory=dict)
    answers: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    latencies: dict[str, float] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    shown_at: dict[str, float] = field(default_factory=dict)
    """When each message of the bot first answered something."""
    _waiting: dict[str, asyncio.Future[None]] = field(default_factory=dict)
    _numbers: Any = field(default_factory=itertools.count)

    def write(self, chat: int) -> Written:
        """A new message; its mark is to be in the text."""
        message = Written(f"q{next(self._numbers):07}z", chat, time.perf_counter())
        self.written[message.mark] = message
        return message

    def shown(self, message_id: str, text: str) -> None:
        """A message of the bot is there, or reads otherwise now."""
        now = time.perf_counter()
        for mark in _MARK.findall(self.texts.get(message_id, "")):
            self.answers[mark].discard(message_id)
        self.texts[message_id] = text
        for mark in _MARK.findall(text):
            self.answers[mark].add(message_id)
            self.shown_at.setdefault(message_id, now)
            if mark in self.written:
                self.latencies.setdefault(mark, now - self.written[mark].at)
            if (waiting := self._waiting.pop(mark, None)) is not None and not waiting.done():
                waiting.set_result(None)

    def gone(self, message_id: str) -> None:
        """A message of the bot was deleted."""
        for mark in _MARK.findall(self.texts.pop(message_id, "")):
            self.answers[mark].discard(message_id)

    async def answer_to(self, message: Written, *, timeout_s: float) -> bool:
        """Wait for the answer, and say whether it came."""
        if not self.answers.get(message.mark):
            waiting = self._waiting.setdefault(message.mark, asyncio.get_running_loop().create_future())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await asyncio.shield(waiting)
        return bool(self.answers.get(message.mark))

    def forget(self) -> None:
        """Take no memory for what is over."""
        for kept in (self.written, self.answers, self.latencies, self.texts, self.shown_at):
            kept.clear()


@dataclass(frozen=True, slots=True)
class Address:
    """Where a bot finds the platform."""

    platform: str
    token: str
    api_url: str
    gateway_url: str = ""


class Crowd(Protocol):
    """People on one platform. Chats from 0 on are direct ones; those below 0 are rooms, where they mention the bot."""

    ledger: Ledger

    @property
    def address(self) -> Address:
        """Where the bot is to connect."""

    @property
    def is_served(self) -> bool:
        """Whether a bot is connected."""

    def write(self, chat: int) -> Written:
        """The person of that chat writes something."""

    def place(self, chat: int) -> str:
        """What the ids of the bot's messages in that chat begin with."""

    def forget(self) -> None:
        """Throw away the records of what is over."""


class DiscordCrowd:
    """People on Discord."""

    def __init__(self, fake: FakeDiscord) -> None:
        self.ledger = Ledger()
        self.fake = fake
        self._chats: dict[int, tuple[Channel, DiscordUser]] = {}
        self._dispatch = fake.gateway.dispatch
        fake.gateway.dispatch = self._overhear  # type: ignore[method-assign]

    @property
    def address(self) -> Address:
        return Address("discord", self.fake.token, self.fake.api_url, self.fake.gateway_url)

    @property
    def is_served(self) -> bool:
        return self.fake.gateway.is_connected

    def chat(self, number: int) -> tuple[Channel, DiscordUser]:
        if number not in self._chats:
            user = self.fake.add_user(f"person{number}")
            self._chats[number] = (self._room(number) if number < 0 else self.fake.add_dm(user), user)
        return self._chats[number]

    def _room(self, number: int) -> Channel:
        guild = self.fake.guilds[0] if self.fake.guilds else self.fake.add_guild("Benchmark")
        return self.fake.add_channel(guild, f"room{number}")

    def write(self, chat: int) -> Written:
        channel, user = self.chat(chat)
        message = self.ledger.write(chat)
        self.fake.say(channel, user, f"{self.fake.bot.mention} {message.mark}" if chat < 0 else message.mark)
        return message

    def place(self, chat: int) -> str:
        return self.chat(chat)[0].id

    def forget(self) -> None:
        self.ledger.forget()
        self.fake.messages.clear()
        self.fake.requests.clear()
        self.fake.typing.clear()

    def _overhear(self, event: str, data: dict[str, Any]) -> None:
        if event in ("MESSAGE_CREATE", "MESSAGE_UPDATE") and data.get("author", {}).get("id") == self.fake.bot.id:
            self.ledger.shown(f"{data['channel_id']}/{data['id']}", data["content"])
        elif event == "MESSAGE_DELETE":
            self.ledger.gone(f"{data['channel_id']}/{data['id']}")
        self._dispatch(event, data)


class OverheardTelegram(FakeTelegram):
    """The fake, with an ear for what the bot does."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()

    async def _call(self, method: str, parameters: dict[str, Any]) -> object:
        result = await super()._call(method, parameters)
        if method in ("sendMessage", "editMessageText") and isinstance(result, dict):
            self.ledger.shown(f"{parameters['chat_id']}/{result['message_id']}", str(parameters["text"]))
        elif method == "deleteMessage":
            self.ledger.gone(f"{parameters['chat_id']}/{parameters['message_id']}")
        return result


class TelegramCrowd:
    """People on Telegram."""

    def __init__(self, fake: OverheardTelegram) -> None:
        self.ledger = fake.ledger
        self.fake = fake
        self._chats: dict[int, tuple[Chat, TelegramUser]] = {}

    @property
    def address(self) -> Address:
        return Address("telegram", self.fake.token, self.fake.url)

    @property
    def is_served(self) -> bool:
        return any(call.method == "getUpdates" for call in self.fake.calls)

    def chat(self, number: int) -> tuple[Chat, TelegramUser]:
        if number not in self._chats:
            user = self.fake.add_user(f"Person{number}")
            place = self.fake.add_group(f"Room{number}", type_="group") if number < 0 else self.fake.private_chat(user)
            self._chats[number] = (place, user)
        return self._chats[number]

    def write(self, chat: int) -> Written:
        place, user = self.chat(chat)
        message = self.ledger.write(chat)
        self.fake.say(place, user, f"@{self.fake.bot.username} {message.mark}" if chat < 0 else message.mark)
        return message

    def place(self, chat: int) -> str:
        return str(self.chat(chat)[0].id)

    def move(self, chat: int) -> None:
        """The room becomes a supergroup under another id, and goes on there."""
        place, user = self.chat(chat)
        moved = self.fake.move(place)
        self._chats[chat] = (moved, user)
        self.fake.announce_move(place, moved)

    def forget(self) -> None:
        self.ledger.forget()
        self.fake.world.messages.clear()
        for records in (self.fake.calls, self.fake.sent, self.fake.chat_actions, self.fake.drafts):
            records.clear()


@contextlib.asynccontextmanager
async def open_crowd(platform: str) -> AsyncIterator[DiscordCrowd | TelegramCrowd]:
    """A platform with nobody on it yet."""
    if platform == "discord":
        async with FakeDiscord() as discord:
            yield DiscordCrowd(discord)
    else:
        async with OverheardTelegram() as telegram:
            yield TelegramCrowd(telegram)
