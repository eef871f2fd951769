"""The Discord adapter: `DiscordAdapter` in `adapter.py` is the way in."""

from bot.adapters.discord.adapter import DiscordAdapter

__all__ = ["DiscordAdapter"]
