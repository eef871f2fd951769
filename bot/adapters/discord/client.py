"""discord.py's client, told what this bot needs of it.

Owns the intents, the events that matter, and letting nothing malformed end a connection. Knows neither the bot nor how
to recover: `adapter.py` does.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

import discord

from bot.adapters.base import AdapterState
from bot.adapters.discord.commands import SlashCommands
from bot.adapters.discord.shards import IdentifyGate, ShardPlan
from bot.adapters.discord.troubles import BAD_EVENT, Troubles

logger = logging.getLogger(__name__)

# A streamed reply should hear of a long wait instead of sleeping through it; discord.py allows no less than 30 s.
MAX_RATE_LIMIT_WAIT_S = 30.0
GUILD_READY_TIMEOUT_S = 0.5


def intents(*, message_content: bool = True) -> discord.Intents:
    """What Discord is asked to send. `message_content` is the privileged one."""
    return discord.Intents(
        guilds=True,
        guild_messages=True,
        dm_messages=True,
        guild_reactions=True,
        dm_reactions=True,
        message_content=message_content,
    )


class Ears(Protocol):
    """Who hears: `bot.adapters.discord.listener.Listener`."""

    def hear_session(self, client: discord.Client) -> None:
        """A new session begins."""

    def hear_ready(self, client: discord.Client) -> None:
        """The session has told of its servers and channels."""

    def hear_message(self, client: discord.Client, message: discord.Message) -> None:
        """Somebody wrote something."""

    def hear_edit(self, client: discord.Client, event: discord.RawMessageUpdateEvent) -> None:
        """A message changed."""

    def hear_deletion(self, client: discord.Client, channel_id: int, guild_id: int | None, ids: set[int]) -> None:
        """Messages are gone."""

    def hear_reaction(self, client: discord.Client, event: discord.RawReactionActionEvent) -> None:
        """A reaction came or went."""


class DiscordClient(discord.Client):
    """One connection to Discord: a shard of all servers, or all of them."""

    def __init__(
        self,
        slash_commands: SlashCommands,
        ears: Ears,
        troubles: Troubles,
        *,
        shard_id: int,
        plan: ShardPlan,
        gate: IdentifyGate,
        message_content: bool,
        on_state: Callable[[AdapterState, str], None],
    ) -> None:
        super().__init__(
            intents=intents(message_content=message_content),
            max_messages=None,
            chunk_guilds_at_startup=False,
            guild_ready_timeout=GUILD_READY_TIMEOUT_S,
            max_ratelimit_timeout=MAX_RATE_LIMIT_WAIT_S,
            shard_id=shard_id if plan.count > 1 else None,
            shard_count=plan.count if plan.count > 1 else None,
        )
        self._slash_commands = slash_commands
        self._tree = slash_commands.tree(self)
        self._ears = ears
        self._troubles = troubles
        self._gate = gate
        self._on_state = on_state
        parsers = self._connection.parsers
        for event, parse in list(parsers.items()):
            if event != "READY":
                parsers[event] = partial(self._parse, event, parse)

    def dispatch(self, event: str, /, *args: object, **kwargs: object) -> None:
        """Hand an event on. discord.py goes on after `close()` to announce "ready", and stumbles over its own end."""
        if self.is_closed():
            return
        if event == "connect":
            # Now, before discord.py looks at the next event.
            self._ears.hear_session(self)
        super().dispatch(event, *args, **kwargs)

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
        """Discord lets one session begin every five seconds, and wants a pause before one that was lost is replaced."""
        if not initial:
            await super().before_identify_hook(shard_id, initial=initial)
        await self._gate.enter(shard_id or 0)

    async def on_ready(self) -> None:
        """The gateway has told everything: show the commands."""
        self._on_state(AdapterState.RUNNING, self._presence())
        self._ears.hear_ready(self)
        if not self.shard_id:
            await self._slash_commands.sync(self._tree)

    async def on_resumed(self) -> None:
        """The session goes on after a short break."""
        self._on_state(AdapterState.RUNNING, self._presence())

    async def on_disconnect(self) -> None:
        """The gateway is gone; discord.py tries to resume by itself."""
        self._on_state(AdapterState.RECONNECTING, "Discord let go of the connection; taking it up again")

    async def on_message(self, message: discord.Message) -> None:
        """Somebody wrote something."""
        self._ears.hear_message(self, message)

    async def on_raw_message_edit(self, event: discord.RawMessageUpdateEvent) -> None:
        """A message changed, or what Discord shows beside it."""
        self._ears.hear_edit(self, event)

    async def on_raw_message_delete(self, event: discord.RawMessageDeleteEvent) -> None:
        """A message is gone."""
        self._ears.hear_deletion(self, event.channel_id, event.guild_id, {event.message_id})

    async def on_raw_bulk_message_delete(self, event: discord.RawBulkMessageDeleteEvent) -> None:
        """Many messages are gone."""
        self._ears.hear_deletion(self, event.channel_id, event.guild_id, event.message_ids)

    async def on_raw_reaction_add(self, event: discord.RawReactionActionEvent) -> None:
        """Somebody put an emoji under a message."""
        self._ears.hear_reaction(self, event)

    async def on_raw_reaction_remove(self, event: discord.RawReactionActionEvent) -> None:
        """Somebody took an emoji away."""
        self._ears.hear_reaction(self, event)

    async def on_interaction(self, interaction: discord.Interaction) -> None:
        """Somebody used a command, which the tree answers, or pressed or filled something."""
        if interaction.type in (discord.InteractionType.component, discord.InteractionType.modal_submit):
            self._slash_commands.press(interaction)

    def _presence(self) -> str:
        return f"online as {self.user}; servers: {len(self.guilds)}"

    def _parse(self, event: str, parse: Callable[[object], object], data: object) -> None:
        """Take one event in. discord.py would let a malformed one end the connection, each time that it comes."""
        try:
            parse(data)
        except Exception as error:  # noqa: BLE001 - whatever its parsers stumble over, the next event is another one
            # Not the error's text: it may repeat what somebody wrote.
            kind = type(error).__name__
            self._troubles.note(BAD_EVENT, f"Discord sent something unexpected: a malformed {event} ({kind}), left out")

    async def on_error(self, event_method: str, /, *_args: object, **_kwargs: object) -> None:
        """An event could not be taken in; the next one can."""
        logger.exception("Discord event %s could not be handled", event_method)
