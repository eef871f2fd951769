"""Telegram for the contract suite: the real adapter on the fake Bot API, with two private chats and a group.

`open_telegram` is its entry in `HARNESSES` of `tests/bot/adapters/test_contract.py`.
"""

import contextlib
from collections.abc import AsyncIterator, Mapping
from itertools import pairwise

from bot.adapters.base import AdapterState, MessageHandler
from bot.adapters.telegram import TelegramAdapter
from bot.commands import CommandTable
from tests.bot.adapters.harness import ALL_TRAITS, Answered, Chat, Shown
from tests.bot.adapters.telegram.harness import FAST, eventually, in_background
from tests.fakes.telegram import FakeTelegram, SentMessage

_SIGNS = {"bold": "**", "italic": "*", "strikethrough": "~~", "spoiler": "||", "code": "`"}


def as_written(sent: SentMessage) -> str:
    """What the bot said, in Markdown again: its formatting is Telegram's, and so are the signs that ring nobody."""
    marks: dict[int, str] = {}
    for entity in sent.entities:
        sign = _SIGNS.get(entity["type"], "")
        for at in (entity["offset"], entity["offset"] + entity["length"]):
            marks[at] = marks.get(at, "") + sign
    units = sent.text.replace("*", "\ue000").encode("utf-16-le")
    borders = sorted({0, len(units) // 2, *marks})
    pieces = (marks.get(start, "") + units[start * 2 : end * 2].decode("utf-16-le") for start, end in pairwise(borders))
    return ("".join(pieces) + marks.get(borders[-1], "")).replace("\ue000", "\\*").replace("\u2060", "")


class TelegramHarness:
    """People on the fake Telegram, and the adapter beside them."""

    traits = ALL_TRAITS - {"deletions"}  # Telegram tells no bot of them

    def __init__(self, telegram: FakeTelegram, adapter: TelegramAdapter, running: contextlib.AsyncExitStack) -> None:
        self.adapter = adapter
        self._telegram = telegram
        self._running = running
        ada, bob = telegram.add_user("Ada"), telegram.add_user("Bob")
        self._stranger = telegram.add_user("Eve")
        self._said: dict[str, dict[str, object]] = {}
        self._chats = {
            "direct": (telegram.private_chat(ada), ada),
            "other": (telegram.private_chat(bob), bob),
            "group": (telegram.add_group("Museum"), ada),
        }

    async def say(
        self,
        text: str,
        *,
        chat: Chat = "direct",
        picture: bytes | None = None,
        reply_to: str | None = None,
        mentions_bot: bool = False,
    ) -> str:
        room, author = self._chats[chat]
        said = self._telegram.say(
            room,
            author,
            f"@{self._telegram.bot.username} {text}" if mentions_bot else text,
            photo=picture,
            reply_to=int(reply_to) if reply_to is not None else None,
        )
        self._said[str(said["message_id"])] = said
        return str(said["message_id"])

    async def shown(self, chat: Chat = "direct") -> list[Shown]:
        room, _ = self._chats[chat]
        return [
            Shown(
                str(sent.message_id),
                as_written(sent),
                str(sent.reply_to) if sent.reply_to is not None else None,
                tuple(button.text for button in sent.buttons),
            )
            for sent in self._telegram.sent_to(room)
            if not sent.is_deleted
        ]

    async def use_command(self, path: tuple[str, ...], arguments: Mapping[str, str]) -> str:
        num_before = len(await self.shown())
        await self.say(" ".join((f"/{path[0]}", *path[1:], *arguments.values())))
        room, _ = self._chats["direct"]
        await self._telegram.wait_for(lambda: len(self._telegram.sent_to(room)) > num_before)
        return (await self.shown())[num_before].text

    async def ask(
        self,
        path: tuple[str, ...],
        arguments: Mapping[str, str],
        *,
        picture: bytes | None = None,
        reply_to: str | None = None,
    ) -> Answered:
        num_before, num_pictures = len(await self.shown()), 1 if picture is None else 2
        typed = " ".join((f"/{path[0]}", *path[1:], *arguments.values()))
        await self.say(typed, picture=picture, reply_to=reply_to)
        room, _ = self._chats["direct"]

        def pictures() -> tuple[bytes, ...]:
            sent = self._telegram.sent_to(room)[num_before:]
            return tuple(one.picture for one in sent if one.picture is not None)

        await self._telegram.wait_for(lambda: len(pictures()) >= num_pictures)
        text = "".join(one.text for one in self._telegram.sent_to(room)[num_before:])
        return Answered(text, pictures())

    async def press(self, message_id: str, label: str, *, chat: Chat = "direct", by_other: bool = False) -> None:
        room, author = self._chats[chat]
        sent = next(sent for sent in self._telegram.sent_to(room) if str(sent.message_id) == message_id)
        button = next(button for button in sent.buttons if button.text == label)
        self._telegram.press(button, self._stranger if by_other else author)

    async def edit_said(self, message_id: str, text: str, *, chat: Chat = "direct") -> None:
        self._telegram.edit(self._chats[chat][0], self._said[message_id], text)

    async def delete_said(self, message_id: str, *, chat: Chat = "direct") -> None:
        raise AssertionError("Telegram tells no bot of deletions")

    async def react(self, message_id: str, emoji: str, *, chat: Chat = "direct") -> None:
        room, author = self._chats[chat]
        self._telegram.put_reaction(room, author, int(message_id), emoji)

    async def stop(self) -> None:
        await self._running.aclose()


@contextlib.asynccontextmanager
async def open_telegram(handler: MessageHandler, commands: CommandTable) -> AsyncIterator[TelegramHarness]:
    """The fake Bot API, with the adapter polling it."""
    async with FakeTelegram() as telegram, contextlib.AsyncExitStack() as running:
        adapter = TelegramAdapter(telegram.token, handler=handler, commands=commands, api_url=telegram.url, timing=FAST)
        await running.enter_async_context(in_background(adapter))
        await eventually(lambda: adapter.status.state is AdapterState.RUNNING)
        yield TelegramHarness(telegram, adapter, running)
