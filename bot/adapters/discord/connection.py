"""Which client is logged in right now.

Owns that one fact. A reply outlives the client on which its question came, so whoever sends asks here each time.
"""

import asyncio

import discord


class Connection:
    """The client that can be used now, or a wait for the next one."""

    def __init__(self) -> None:
        self._client: discord.Client | None = None
        self._is_open = asyncio.Event()

    def open(self, client: discord.Client) -> None:
        """From now on `client` is logged in."""
        self._client = client
        self._is_open.set()

    def close(self) -> None:
        """From now on no client is logged in."""
        self._client = None
        self._is_open.clear()

    async def client(self) -> discord.Client:
        """The client that is logged in, as soon as there is one."""
        while self._client is None:
            await self._is_open.wait()
        return self._client
