"""Discord for the contract suite: the real adapter on the fake, with two direct chats and a channel.

`open_discord` is its entry in `HARNESSES` of `tests/bot/adapters/test_contract.py`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping

import pytest
from discord.gateway import DiscordWebSocket
from discord.http import Route

from bot.adapters.base import AdapterState, MessageHandler
from bot.adapters.discord.adapter import Backoff, DiscordAdapter
from bot.commands import CommandTable
from tests.bot.adapters.harness import ALL_TRAITS, Answered, Chat, Shown
from tests.fakes.discord import Channel, FakeDiscord, User

QUICK = Backoff(first_s=0.05, max_s=0.2)


class DiscordHarness:
    """People on the fake Discord, and the adapter beside them."""

    traits = ALL_TRAITS

    def __init__(self, discord: FakeDiscord, handler: MessageHandler, commands: CommandTable) -> None:
        self._discord = discord
        self.adapter = DiscordAdapter(
            discord.token,
            handler=handler,
            commands=commands,
            api_url=discord.api_url,
            gateway_url=discord.gateway_url,
            backoff=QUICK,
        )
        ada, bob = discord.add_user("ada"), discord.add_user("bob")
        self._stranger = discord.add_user("eve")
        channel = discord.add_channel(discord.add_guild("Museum"), "paintings")
        self._chats: dict[Chat, tuple[Channel, User]] = {
            "direct": (discord.add_dm(ada), ada),
            "other": (discord.add_dm(bob), bob),
            "group": (channel, ada),
        }
        self._running = asyncio.create_task(self.adapter.run())

    async def wait_until_running(self) -> None:
        await self._discord.wait_for(lambda: self.adapter.status.state is AdapterState.RUNNING)
        await self._discord.wait_for(lambda: self._discord.commands)

    async def say(
        self,
        text: str,
        *,
        chat: Chat = "direct",
        picture: bytes | None = None,
        reply_to: str | None = None,
        mentions_bot: bool = False,
    ) -> str:
        channel, author = self._chats[chat]
        said = self._discord.say(
            channel,
            author,
            f"{self._discord.bot.mention} {text}" if mentions_bot else text,
            files=[("picture.png", "image/png", picture)] if picture is not None else (),
            reply_to=self._discord.messages[reply_to] if reply_to is not None else None,
        )
        return said.id

    async def shown(self, chat: Chat = "direct") -> list[Shown]:
        channel, _ = self._chats[chat]
        return [
            Shown(
                message.id,
                message.content,
                message.reply_to.id if message.reply_to else None,
                tuple(part["label"] for row in message.components for part in row["components"]),
            )
            for message in self._discord.bot_messages(channel)
        ]

    async def use_command(self, path: tuple[str, ...], arguments: Mapping[str, str]) -> str:
        channel, user = self._chats["direct"]
        used = self._discord.use_command(channel, user, *path, **arguments)
        await self._discord.wait_for(lambda: used.messages)
        return used.text

    async def ask(
        self,
        path: tuple[str, ...],
        arguments: Mapping[str, str],
        *,
        picture: bytes | None = None,
        reply_to: str | None = None,
    ) -> Answered:
        channel, user = self._chats["direct"]
        if reply_to is not None:
            used = self._discord.use_on(self._discord.messages[reply_to], user, path[-1].capitalize())
        else:
            given: dict[str, str | bytes] = dict(arguments)
            if picture is not None:
                given["picture"] = picture
            used = self._discord.use_command(channel, user, *path, **given)
        await self._discord.wait_for(lambda: used.pictures)
        return Answered(used.text, used.pictures)

    async def press(self, message_id: str, label: str, *, chat: Chat = "direct", by_other: bool = False) -> None:
        _, author = self._chats[chat]
        self._discord.press(self._discord.messages[message_id], self._stranger if by_other else author, label)

    async def edit_said(self, message_id: str, text: str, *, chat: Chat = "direct") -> None:
        self._discord.edit(self._discord.messages[message_id], text)

    async def delete_said(self, message_id: str, *, chat: Chat = "direct") -> None:
        self._discord.delete(self._discord.messages[message_id])

    async def react(self, message_id: str, emoji: str, *, chat: Chat = "direct") -> None:
        self._discord.react(self._discord.messages[message_id], self._chats[chat][1], emoji)

    async def stop(self) -> None:
        self._running.cancel()
        await asyncio.wait({self._running})


@contextlib.contextmanager
def library_put_back() -> Iterator[None]:
    """Undo what an adapter tells discord.py about addresses, and shorten what it waits for by default."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Route, "BASE", Route.BASE)
        patch.setattr(DiscordWebSocket, "DEFAULT_GATEWAY", DiscordWebSocket.DEFAULT_GATEWAY)
        patch.setattr("bot.adapters.discord.client.GUILD_READY_TIMEOUT_S", 0.05)
        yield


@contextlib.asynccontextmanager
async def open_discord(handler: MessageHandler, commands: CommandTable) -> AsyncIterator[DiscordHarness]:
    """The fake Discord, with the adapter online."""
    with library_put_back():
        async with FakeDiscord() as discord:
            harness = DiscordHarness(discord, handler, commands)
            try:
                await harness.wait_until_running()
                yield harness
            finally:
                await harness.stop()
