"""Which clients are logged in right now: one a shard.

Owns that one fact. A reply outlives the client on which its question came, so whoever sends asks here each time. Any
client may write anywhere; only what it knows of servers differs.
"""

import asyncio

import discord


class Connection:
    """The clients that can be used now, or a wait for the next one."""

    def __init__(self) -> None:
        self._clients: dict[int, discord.Client] = {}
        self._is_open = asyncio.Event()

    def open(self, client: discord.Client) -> None:
        """From now on `client` is logged in."""
        self._clients[client.shard_id or 0] = client
        self._is_open.set()

    def close(self, client: discord.Client) -> None:
        """From now on `client` is not logged in."""
        shard_id = client.shard_id or 0
        if self._clients.get(shard_id) is client:
            del self._clients[shard_id]
        if not self._clients:
            self._is_open.clear()

    def clients(self) -> tuple[discord.Client, ...]:
        """All clients that are logged in, by shard."""
        return tuple(self._clients[shard_id] for shard_id in sorted(self._clients))

    async def client(self, channel_id: int | None = None) -> discord.Client:
        """A client that is logged in, as soon as there is one: rather that which knows the channel."""
        while not self._clients:
            await self._is_open.wait()
        clients = self.clients()
        knowing = (client for client in clients if channel_id is not None and client.get_channel(channel_id))
        return next(knowing, clients[0])
