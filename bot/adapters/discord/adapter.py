"""Keeps the bot on Discord: for each shard one client after another, until cancelled.

Owns connecting, giving up on a broken client, waiting, and the adapter's status. Does not know what a message or a
command means: `listener.py`, `channel.py` and `commands.py` translate those.

A broken frame, or a gateway that refuses the first connection, ends discord.py's `start()` with any kind of error and
leaves the client half alive. So a client is used until something escapes from it, and then a new one is built; each
shard has one of its own, and its trouble costs the others nothing. Messages that are being answered meanwhile belong to
the adapter, not to the client, and go on.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import discord
import yarl
from discord.gateway import DiscordWebSocket
from discord.http import Route

from bot.adapters.base import (
    Adapter,
    AdapterState,
    AdapterStatus,
    IncidentLog,
    MessageHandler,
    ReplyChannel,
    SeenEvents,
    retry_delays,
)
from bot.adapters.discord.catch_up import CatchUp
from bot.adapters.discord.channel import Channels
from bot.adapters.discord.client import DiscordClient
from bot.adapters.discord.commands import SlashCommands
from bot.adapters.discord.connection import Connection
from bot.adapters.discord.errors import REQUEST_ERRORS, describe, fatal_cause, is_expected, needs_sharding
from bot.adapters.discord.faces import FaceMode, Faces
from bot.adapters.discord.files import Downloads
from bot.adapters.discord.inbox import Inbox
from bot.adapters.discord.listener import Listener
from bot.adapters.discord.messages import MessageTranslator
from bot.adapters.discord.places import Places, place_of
from bot.adapters.discord.shards import IdentifyGate, ShardPlan, StartsExhausted, ask_plan
from bot.adapters.discord.summons import SummonedChannel
from bot.adapters.discord.tasks import TaskSet
from bot.adapters.discord.traffic import Traffic
from bot.adapters.discord.troubles import RECONNECT, Troubles
from bot.commands import CommandTable
from bot.errors import DeliveryError, PlatformFatal
from bot.types import ChatKind, Room

logger = logging.getLogger(__name__)

_SetStatus = Callable[[AdapterStatus], None]

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
    out, they stay as they are. `seen` remembers what was heard, so that up to `catch_up_s` seconds of a gap are looked
    up; `avatars_url` is where Discord finds the personas' pictures, if anywhere.
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
        message_content: bool = True,
        faces: FaceMode = "several",
        avatars_url: str | None = None,
        catch_up_s: float = 900.0,
        seen: SeenEvents | None = None,
        incidents: IncidentLog | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        _prepare_library(api_url, gateway_url)
        self._token = token
        self._handler = handler
        self._backoff = backoff or Backoff()
        self._message_content = message_content
        self._status = AdapterStatus(AdapterState.STARTING)
        self._tasks = TaskSet()
        self._troubles = Troubles(incidents)
        self._connection = Connection()
        self._downloads = Downloads()
        places = Places()
        persona_faces = Faces(self._troubles, mode=faces, avatars_url=avatars_url)
        self._channels = Channels(self._connection, persona_faces, self._troubles, Traffic())
        self._translator = MessageTranslator(self._downloads, places)
        catch_up = CatchUp(seen, self._tasks, self._troubles, max_age_s=catch_up_s)
        self._listener = Listener(handler, Inbox(self._tasks), self._channels, self._translator, places, catch_up)
        self._slash_commands = SlashCommands(
            commands, self._tasks, self._translator, self._channels, summon=self._summon
        )

    @property
    def status(self) -> AdapterStatus:
        """How it is doing right now."""
        return self._status

    def channel(self, room: Room, kind: ChatKind) -> ReplyChannel | None:  # noqa: ARG002
        """Where to write to `room` without being asked."""
        channel_id = room.thread_id or room.chat_id
        return self._channels.open(int(channel_id)) if channel_id.isdecimal() else None

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
        """Serve with as many shards as Discord recommends, and with more once it demands them."""
        while True:
            plan = await self._plan()
            shards = _Shards(plan, self._set_status, self._presence)
            gate = IdentifyGate(plan)
            serving = [asyncio.create_task(self._keep(shard_id, shards, gate)) for shard_id in range(plan.count)]
            try:
                # A shard that ends takes the others along: what ends it, they would meet as well.
                done, _ = await asyncio.wait(serving, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            except asyncio.CancelledError:
                # What is being answered ends first, while it can still be said on Discord.
                await self._tasks.aclose()
                raise
            finally:
                for task in serving:
                    task.cancel()
                await asyncio.gather(*serving, return_exceptions=True)
            self._troubles.note(RECONNECT, "Discord demands more connections for the bot's servers; asking how many")

    async def _plan(self) -> ShardPlan:
        """Ask how many shards there should be, until Discord answers."""
        delays = self._backoff.delays()
        while True:
            try:
                async with (
                    asyncio.timeout(LOGIN_TIMEOUT_S),
                    discord.Client(intents=discord.Intents(guilds=True)) as client,
                ):
                    await client.login(self._token)
                    return await ask_plan(client)
            except Exception as error:  # noqa: BLE001 - as with a client that serves: it asks for another try
                cause = self._cause(error)
            await self._pause(cause, next(delays), self._set_status)

    async def _keep(self, shard_id: int, shards: "_Shards", gate: IdentifyGate) -> None:
        """Serve one shard, with one client after another, until Discord demands more shards."""
        delays = self._backoff.delays()
        clock = asyncio.get_running_loop().time
        set_status = partial(shards.set, shard_id)
        while True:
            started = clock()
            client = self._client(shard_id, shards.plan, gate, set_status)
            wait_s = 0.0
            try:
                await self._serve_with(client)
                cause = "the connection ended"
            except StartsExhausted as error:
                cause, wait_s = str(error), error.wait_s
            except Exception as error:  # noqa: BLE001 - anything escapes, and all of it asks for a new client
                if needs_sharding(error):
                    return
                cause = self._cause(error)
            if clock() - started >= self._backoff.reset_after_s:
                delays = self._backoff.delays()
            await self._pause(cause, max(wait_s, next(delays)), set_status)

    def _client(self, shard_id: int, plan: ShardPlan, gate: IdentifyGate, set_status: _SetStatus) -> DiscordClient:
        return DiscordClient(
            self._slash_commands,
            self._listener,
            self._troubles,
            shard_id=shard_id,
            plan=plan,
            gate=gate,
            message_content=self._message_content,
            on_state=lambda state, detail: set_status(AdapterStatus(state, detail)),
        )

    async def _serve_with(self, client: DiscordClient) -> None:
        """Serve until the client breaks, and raise what broke it."""
        # A task of its own: where discord.py lets go of a cancellation, the adapter itself still ends.
        serving = asyncio.create_task(self._serve(client))
        try:
            await asyncio.wait({serving})
            serving.result()
        finally:
            self._connection.close(client)
            await _close(client, serving)

    async def _serve(self, client: DiscordClient) -> None:
        async with asyncio.timeout(LOGIN_TIMEOUT_S):
            await client.login(self._token)
            plan = await ask_plan(client)
        if plan.num_starts_left <= 0:
            raise StartsExhausted(plan.starts_again_in_s)
        self._connection.open(client)
        await client.connect()

    def _cause(self, error: Exception) -> str:
        """What broke a client, noted. Raises `PlatformFatal` where only an admin can help."""
        if (fatal := fatal_cause(error)) is not None:
            raise PlatformFatal(fatal) from None
        cause = self._without_token(describe(error))
        if not is_expected(error):
            logger.warning("Discord's client broke: %s", cause, exc_info=error)
        return cause

    async def _pause(self, cause: str, delay_s: float, set_status: _SetStatus) -> None:
        set_status(AdapterStatus(AdapterState.RECONNECTING, f"{cause}; trying again in {delay_s:.0f} s"))
        self._troubles.note(RECONNECT, f"connection lost: {cause}")
        await asyncio.sleep(delay_s)

    async def _summon(self, interaction: discord.Interaction, target: discord.Message) -> None:
        """Somebody wants an answer to `target`."""
        try:
            await interaction.response.defer(thinking=True)
        except REQUEST_ERRORS as error:
            logger.warning("An answer that was asked for cannot be given: %s", describe(error))
            return
        place = place_of(interaction.channel, interaction.channel_id or 0, interaction.guild_id)
        channel = SummonedChannel.of(self._channels, interaction)
        await self._handler.handle(self._translator.summons(interaction, target, place), channel)
        try:
            await channel.withdraw()
        except DeliveryError as error:
            logger.debug("the sign of an answer that did not come stays: %s", error)

    def _presence(self) -> str:
        """Who is online, over all shards."""
        clients = self._connection.clients()
        servers = sum(len(client.guilds) for client in clients)
        names = {str(client.user) for client in clients}
        return f"online as {', '.join(names)}; servers: {servers}; shards: {len(clients)}"

    def _set_status(self, status: AdapterStatus) -> None:
        self._status = status

    def _without_token(self, text: str) -> str:
        return text.replace(self._token, "(token)") if self._token else text


class _Shards:
    """How each shard is doing, and what that makes of all."""

    def __init__(self, plan: ShardPlan, set_status: _SetStatus, presence: Callable[[], str]) -> None:
        self.plan = plan
        self._set_status = set_status
        self._presence = presence
        self._states = [AdapterStatus(AdapterState.STARTING)] * plan.count

    def set(self, shard_id: int, status: AdapterStatus) -> None:
        """That is how one shard is doing. The worst of them tells."""
        self._states[shard_id] = status
        if len(self._states) == 1:
            self._set_status(status)
            return
        worst = next((other for other in self._states if other.state is not AdapterState.RUNNING), None)
        if worst is None:
            self._set_status(AdapterStatus(AdapterState.RUNNING, self._presence()))
        else:
            number = self._states.index(worst) + 1
            self._set_status(replace(worst, detail=f"shard {number} of {len(self._states)}: {worst.detail}"))


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
