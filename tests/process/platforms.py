"""One way to talk to `commedia run` on either platform's fake, so that each test is written once."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from tests.fakes.discord import FakeDiscord
from tests.fakes.telegram.server import FakeTelegram

TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Said:
    """A message of the bot: every text it had, the first one first, and the labels of its buttons."""

    versions: tuple[str, ...]

    @property
    def text(self) -> str:
        return self.versions[-1]


class Person(Protocol):
    """Somebody in a direct chat with the bot."""

    def say(self, text: str, *, photo: bytes | None = None, reply_to: Any = None) -> Any:
        """Write; what comes back can be replied to."""

    def command(self, *path: str, **arguments: str) -> None:
        """Use a command."""

    def heard(self) -> list[Said]:
        """All messages of the bot in this chat."""

    async def wait_for(self, text: str) -> Said:
        """A message of the bot that contains `text`, now or later."""


class Platform(Protocol):
    """A fake, and what `commedia run` must be told to use it."""

    name: str
    token: str
    environment: dict[str, str]

    def person(self, name: str) -> Person:
        """Somebody new."""

    def num_commands(self) -> int:
        """How many commands the menu has."""

    async def wait_until_connected(self) -> None:
        """What is said from here on reaches the bot."""


class DiscordPerson:
    def __init__(self, fake: FakeDiscord, name: str) -> None:
        self._fake = fake
        self._user = fake.add_user(name)
        self._channel = fake.add_dm(self._user)

    def say(self, text: str, *, photo: bytes | None = None, reply_to: Any = None) -> Any:
        files = [("photo.jpg", "image/jpeg", photo)] if photo else []
        return self._fake.say(self._channel, self._user, text, files=files, reply_to=reply_to)

    def command(self, *path: str, **arguments: str) -> None:
        self._fake.use_command(self._channel, self._user, *path, **arguments)

    def heard(self) -> list[Said]:
        return [Said(tuple(message.versions)) for message in self._fake.bot_messages(self._channel)]

    async def wait_for(self, text: str) -> Said:
        return await self._fake.wait_for(lambda: _find(self.heard(), text), TIMEOUT_S)


class DiscordPlatform:
    name = "discord"

    def __init__(self, fake: FakeDiscord) -> None:
        self._fake = fake
        self.token = fake.token
        self.environment = {
            "DISCORD_TOKEN": fake.token,
            "COMMEDIA_DISCORD__API_URL": fake.api_url,
            "COMMEDIA_DISCORD__GATEWAY_URL": fake.gateway_url,
        }

    def person(self, name: str) -> Person:
        return DiscordPerson(self._fake, name)

    def num_commands(self) -> int:
        return len(self._fake.commands)

    async def wait_until_connected(self) -> None:
        await self._fake.wait_until_connected(60)
        await self._fake.wait_for(self.num_commands, TIMEOUT_S)


class TelegramPerson:
    def __init__(self, fake: FakeTelegram, name: str) -> None:
        self._fake = fake
        self._user = fake.add_user(name)
        self._chat = fake.private_chat(self._user)

    def say(self, text: str, *, photo: bytes | None = None, reply_to: Any = None) -> Any:
        message = self._fake.say(self._chat, self._user, text, photo=photo, reply_to=reply_to)
        return message["message_id"]

    def command(self, *path: str, **arguments: str) -> None:
        self.say("/" + " ".join([*path, *arguments.values()]))

    def heard(self) -> list[Said]:
        """The messages, each after the drafts that grew to it, and a draft that still grows."""
        drafts: dict[int, tuple[str, ...]] = {}
        for draft in self._fake.drafts:
            if draft.chat_id == self._chat.id:
                drafts[draft.draft_id] = (*drafts.get(draft.draft_id, ()), draft.text)
        heard = []
        for message in self._fake.sent_to(self._chat):
            versions = tuple(version.text for version in message.versions)
            grown = next((key for key, texts in drafts.items() if versions[0].startswith(texts[-1])), None)
            heard.append(Said((drafts.pop(grown) if grown is not None else ()) + versions))
        return [*heard, *map(Said, drafts.values())]

    async def wait_for(self, text: str) -> Said:
        return await self._fake.wait_for(lambda: _find(self.heard(), text), TIMEOUT_S)


class TelegramPlatform:
    name = "telegram"

    def __init__(self, fake: FakeTelegram) -> None:
        self._fake = fake
        self.token = fake.token
        self.environment = {"TELEGRAM_TOKEN": fake.token, "COMMEDIA_TELEGRAM__API_URL": fake.url}

    def person(self, name: str) -> Person:
        return TelegramPerson(self._fake, name)

    def num_commands(self) -> int:
        return len(self._fake.my_commands)

    async def wait_until_connected(self) -> None:
        await self._fake.wait_for(lambda: self._fake.num_calls("getUpdates"), 60)
        await self._fake.wait_for(self.num_commands, TIMEOUT_S)


@contextlib.asynccontextmanager
async def fake_platform(name: str) -> AsyncIterator[Platform]:
    """The fake of that platform, running."""
    if name == "discord":
        async with FakeDiscord() as discord:
            yield DiscordPlatform(discord)
    else:
        async with FakeTelegram() as telegram:
            yield TelegramPlatform(telegram)


def _find(heard: list[Said], text: str) -> Said | None:
    return next((said for said in heard if text in said.text), None)
