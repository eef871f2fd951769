"""How many connections the bot needs, and when one may begin.

Owns Discord's rules for it. Does not connect: `adapter.py` does.
"""

import asyncio
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import discord

IDENTIFY_INTERVAL_S = 5.0


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """As many connections as Discord recommends; `num_at_once` of them may begin in the same five seconds."""

    count: int = 1
    num_at_once: int = 1
    num_starts_left: int = 1
    starts_again_in_s: float = 0.0


class StartsExhausted(Exception):
    """Discord lets no more sessions begin for now."""

    def __init__(self, wait_s: float) -> None:
        self.wait_s = wait_s
        at = (datetime.now(UTC) + timedelta(seconds=wait_s)).strftime("%H:%M UTC")
        super().__init__(
            f"Discord lets no more connections begin before {at}: there were too many within a day. "
            "The log says what broke them; another copy of the bot with the same token would do it, too"
        )


async def ask_plan(client: discord.Client) -> ShardPlan:
    """What Discord recommends to a client that is logged in. A server in its place may know nothing of it."""
    try:
        count, _, limits = await client.http.get_bot_gateway()
    except discord.GatewayNotFound as error:
        cause = error.__cause__
        if isinstance(cause, discord.NotFound):
            return ShardPlan()
        raise cause if isinstance(cause, discord.HTTPException) else error from None
    return ShardPlan(
        max(1, count), max(1, limits["max_concurrency"]), limits["remaining"], limits["reset_after"] / 1000
    )


class IdentifyGate:
    """Lets sessions begin as fast as Discord allows: each of `num_at_once` lanes once in five seconds."""

    def __init__(self, plan: ShardPlan) -> None:
        self._plan = plan
        self._lanes = [asyncio.Lock() for _ in range(plan.num_at_once)]
        self._next = [-math.inf] * plan.num_at_once

    async def enter(self, shard_id: int) -> None:
        """Wait until a session of that shard may begin."""
        lane = shard_id % self._plan.num_at_once
        if self._plan.count == 1:
            return
        now = asyncio.get_running_loop().time
        async with self._lanes[lane]:
            await asyncio.sleep(max(0.0, self._next[lane] - now()))
            self._next[lane] = now() + IDENTIFY_INTERVAL_S
