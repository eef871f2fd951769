"""discord.py's client, told what this bot needs of it.

Owns the intents and the events that matter. Knows neither the bot nor how to recover: `adapter.py` does.
"""

import logging
from collections.abc import Callable

import discord

from bot.adapters.base import AdapterState
from bot.adapters.discord.commands import SlashCommands

logger = logging.getLogger(__name__)

# A streamed reply should hear of a long wait instead of sleeping through it; discord.py allows no less than 30 s.
MAX_RATE_LIMIT_WAIT_S = 30.0
GUILD_READY_TIMEOUT_S = 0.5


def intents() -> discord.Intents:
    """What Discord is asked to send. `message_content` is the privileged one."""
    return discord.Intents(guilds=True, guild_messages=True, dm_messages=True, message_content=True)


class DiscordClient(discord.Client):
    """One connection to Discord."""

    def __init__(
        self,
        slash_commands: SlashCommands,
        *,
        on_conversation: Callable[[discord.Client, discord.Message], None],
        on_state: Callable[[AdapterState, str], None],
    ) -> None:
        super().__init__(
            intents=intents(),
            max_messages=None,
            chunk_guilds_at_startup=False,
            guild_ready_timeout=GUILD_READY_TIMEOUT_S,
            max_ratelimit_timeout=MAX_RATE_LIMIT_WAIT_S,
        )
        self._slash_commands = slash_commands
        self._tree = slash_commands.tree(self)
        self._on_conversation = on_conversation
        self._on_state = on_state

    def dispatch(self, event: str, /, *args: object, **kwargs: object) -> None:
        """Hand an event on. discord.py goes on after `close()` to announce "ready", and stumbles over its own end."""
        if not self.is_closed():
            super().dispatch(event, *args, **kwargs)

    async def on_ready(self) -> None:
        """The gateway has told everything: show the commands."""
        self._on_state(AdapterState.RUNNING, self._presence())
        await self._slash_commands.sync(self._tree)

    async def on_resumed(self) -> None:
        """The session goes on after a short break."""
        self._on_state(AdapterState.RUNNING, self._presence())

    async def on_disconnect(self) -> None:
        """The gateway is gone; discord.py tries to resume by itself."""
        self._on_state(AdapterState.RECONNECTING, "Discord let go of the connection; taking it up again")

    async def on_message(self, message: discord.Message) -> None:
        """Somebody wrote something."""
        self._on_conversation(self, message)

    async def on_interaction(self, interaction: discord.Interaction) -> None:
        """Somebody used a command, which the tree answers, or pressed something."""
        if interaction.type is discord.InteractionType.component:
            self._slash_commands.press(interaction)

    def _presence(self) -> str:
        return f"online as {self.user}; servers: {len(self.guilds)}"

    async def on_error(self, event_method: str, /, *_args: object, **_kwargs: object) -> None:
        """An event could not be taken in; the next one can."""
        logger.exception("Discord event %s could not be handled", event_method)
