"""Keeps the bot on Discord: one client after another, until cancelled.

Owns connecting, giving up on a broken client, waiting, and the adapter's status. Does not know what a message or a
command means: `messages.py`, `channel.py` and `commands.py` translate those.

A malformed event, or a gateway that refuses the first connection, ends discord.py's `start()` with any kind of error
and leaves the client half alive. So a client is used until something escapes from it, and then a new one is built.
Messages that are being answered meanwhile belong to the adapter, not to the client, and go on.
"""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import discord
import yarl
from discord.gateway import DiscordWebSocket
from discord.http import Route

from bot.adapters.base import Adapter, AdapterState, AdapterStatus, MessageHandler, retry_delays
from bot.adapters.discord.channel import DiscordChannel
from bot.adapters.discord.client import DiscordClient
from bot.adapters.discord.commands import SlashCommands
from bot.adapters.discord.connection import Connection
from bot.adapters.discord.errors import describe, fatal_cause, is_expected
from bot.adapters.discord.files import Downloads
from bot.adapters.discord.inbox import Inbox
from bot.adapters.discord.messages import MessageTranslator, is_conversation
from bot.adapters.discord.tasks import TaskSet
from bot.commands import CommandTable
from bot.errors import PlatformFatal

logger = logging.getLogger(__name__)

LOGIN_TIMEOUT_S = 60.0
CLOSE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next client: doubling from `first_s` to `max_s`, each time by a random share.

    A client that served for `reset_after_s` starts the doubling anew; one that keeps breaking at once does not.
    """

    first_s: float = 1.0
    max_s: float = 60.0
    reset_after_s: float = 60.0

    def delays(self) -> Iterator[float]:
        """The waits, one after another, without end."""
        return retry_delays(first_s=self.first_s, max_s=self.max_s)


class DiscordAdapter(Adapter):
    """Discord, as `bot.adapters.base.Adapter`.

    `api_url` (such as `https://discord.com/api/v10`) and `gateway_url` name another server: a proxy, or the fake of the
    tests. discord.py keeps both addresses in class attributes, so they hold for the whole process from here on; left
    out, they stay as they are.
    """

    name = "discord"

    def __init__(
        self,
        token: str,
        *,
        handler: MessageHandler,
        commands: CommandTable,
        api_url: str | None = None,
        gateway_url: str | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        _prepare_library(api_url, gateway_url)
        self._token = token
        self._backoff = backoff or Backoff()
        self._status = AdapterStatus(AdapterState.STARTING)
        self._tasks = TaskSet()
        self._connection = Connection()
        self._downloads = Downloads()
        self._translator = MessageTranslator(self._downloads)
        self._inbox = Inbox(handler, self._tasks)
        self._slash_commands = SlashCommands(commands, self._tasks, self._translator)

    @property
    def status(self) -> AdapterStatus:
        """How it is doing right now."""
        return self._status

    async def run(self) -> None:
        """Serve Discord until cancelled. Raises `PlatformFatal` for a refused token or a missing intent."""
        self._status = AdapterStatus(AdapterState.STARTING)
        try:
            await self._supervise()
        except PlatformFatal as error:
            self._status = AdapterStatus(AdapterState.FAILED, str(error))
            raise
        except asyncio.CancelledError:
            self._status = AdapterStatus(AdapterState.STOPPED)
            raise
        finally:
            await self._tasks.aclose()
            await self._downloads.aclose()

    async def _supervise(self) -> None:
        delays = self._backoff.delays()
        clock = asyncio.get_running_loop().time
        while True:
            started = clock()
            cause = await self._serve_with_one_client()
            if clock() - started >= self._backoff.reset_after_s:
                delays = self._backoff.delays()
            delay = next(delays)
            self._status = AdapterStatus(AdapterState.RECONNECTING, f"{cause}; trying again in {delay:.0f} s")
            await asyncio.sleep(delay)

    async def _serve_with_one_client(self) -> str:
        """Serve until the client breaks, and say why it did."""
        client = DiscordClient(self._slash_commands, on_conversation=self._accept, on_state=self._set_state)
        # A task of its own: where discord.py lets go of a cancellation, the adapter itself still ends.
        serving = asyncio.create_task(self._serve(client))
        try:
            await asyncio.wait({serving})
            serving.result()
        except asyncio.CancelledError:
            # What is being answered ends first, while it can still be said on Discord.
            await self._tasks.aclose()
            raise
        except Exception as error:
            # Anything escapes from discord.py, and all of it asks for a new client.
            if (fatal := fatal_cause(error)) is not None:
                raise PlatformFatal(fatal) from None
            cause = self._without_token(describe(error))
            logger.warning("Discord connection lost: %s", cause, exc_info=None if is_expected(error) else error)
            return cause
        finally:
            self._connection.close()
            await _close(client, serving)
        return "the connection ended"

    async def _serve(self, client: DiscordClient) -> None:
        async with asyncio.timeout(LOGIN_TIMEOUT_S):
            await client.login(self._token)
        self._connection.open(client)
        await client.connect()

    def _accept(self, client: discord.Client, message: discord.Message) -> None:
        if is_conversation(message):
            channel = DiscordChannel(self._connection, message.channel.id)
            self._inbox.accept(message.channel.id, partial(self._translator.translate, client, message), channel)

    def _set_state(self, state: AdapterState, detail: str) -> None:
        self._status = AdapterStatus(state, detail)

    def _without_token(self, text: str) -> str:
        return text.replace(self._token, "(token)") if self._token else text


def _prepare_library(api_url: str | None, gateway_url: str | None) -> None:
    # The bot speaks in no voice channel, so nobody needs to hear which libraries that would take.
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False
    if api_url is not None:
        Route.BASE = api_url.rstrip("/")
    if gateway_url is not None:
        DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(gateway_url)


async def _close(client: discord.Client, serving: asyncio.Task[None]) -> None:
    """Close a client that may be half alive; a gateway that does not answer the farewell is left after a while."""
    closing = asyncio.create_task(client.close())
    await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT_S)
    closing.cancel()
    serving.cancel()
    await asyncio.wait({closing, serving}, timeout=CLOSE_TIMEOUT_S)
    await client.http.close()
    for task in (closing, serving):
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            logger.debug("Discord client ended with %s", describe(error))
