"""When a channel takes the next message or edit.

Owns whose turn it is. discord.py itself keeps the limits of each route and lets calls wait there; a text that is chosen
before that wait is old when it is shown. So the next one chooses only once the call before it has come through.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush

# Whoever was let through calls at once, or has nothing to say after all.
HESITATION_S = 0.02


@dataclass(slots=True)
class _Road:
    num_inside: int = 0
    waiting: list[tuple[bool, int, asyncio.Future[None]]] = field(default_factory=list)


class Traffic:
    """Calls on their way, by channel."""

    def __init__(self) -> None:
        self._roads: dict[int, _Road] = {}
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._roads)

    @contextlib.contextmanager
    def using(self, channel_id: int) -> Iterator[None]:
        """For the length of a call in that channel."""
        road = self._roads.setdefault(channel_id, _Road())
        road.num_inside += 1
        try:
            yield
        finally:
            road.num_inside -= 1
            self._let_on(channel_id)

    async def clear(self, channel_id: int, *, is_urgent: bool = False) -> None:
        """Wait until no call is on its way in that channel; urgent ones wait shorter."""
        road = self._roads.get(channel_id)
        if road is None:
            return
        turn = asyncio.get_running_loop().create_future()
        heappush(road.waiting, (not is_urgent, next(self._numbers), turn))
        await turn

    def _let_on(self, channel_id: int) -> None:
        """Let the next one through, if the road is free."""
        road = self._roads.get(channel_id)
        if road is None or road.num_inside:
            return
        while road.waiting:
            *_, turn = heappop(road.waiting)
            if not turn.done():
                turn.set_result(None)
                asyncio.get_running_loop().call_later(HESITATION_S, self._let_on, channel_id)
                return
        del self._roads[channel_id]
