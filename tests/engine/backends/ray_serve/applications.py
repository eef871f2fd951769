"""Replicas in this process, without Ray: everything that crosses is pickled, as Ray does."""

import asyncio
import pickle
from collections.abc import AsyncIterator
from typing import TypeVar, cast

from engine.backends.ray_serve.application import Answers
from engine.backends.ray_serve.deployment import Share, config_of_replica
from engine.backends.ray_serve.replica import BuildEngine, EngineReplica, Item
from engine.backends.ray_serve.routing import home_of
from engine.config import EngineConfig
from engine.types import Engine, EngineLoad, GenerationRequest

T = TypeVar("T")


class NearbyApplication:
    """An `Application` of as many replicas as the fewest. `has_room` is cleared to let requests wait."""

    def __init__(self, config: EngineConfig, build: BuildEngine) -> None:
        self.config = config_of_replica(config, Share(num_cpus=1, num_gpus=0))
        self.engines: list[Engine] = []
        self.replicas: dict[str, EngineReplica] = {}
        self.answers: list[NearbyAnswers] = []
        self.has_room = asyncio.Event()
        self.has_room.set()
        self.num_closed = 0
        self._build = build

    async def open(self) -> None:
        for number in range(self.config.num_replicas[0]):
            replica = EngineReplica.__new__(EngineReplica)
            await replica.__init__(self.config, self._build_engine)  # type: ignore[misc, func-returns-value]
            self.replicas[f"r{number}"] = replica

    def stream(self, request: GenerationRequest, *, session: str) -> Answers:
        replica = self.replicas[home_of(session, self.replicas)]
        self.answers.append(NearbyAnswers(replica.generate(_crossed(request)), self.has_room))
        return self.answers[-1]

    async def ask(self, name: str, *arguments: object, session: str = "", **named: object) -> object:
        replica = self.replicas[home_of(session, self.replicas)]
        return _crossed(await replica.ask(name, *arguments, **named))

    async def loads(self) -> dict[str, EngineLoad]:
        return dict([await replica.load() for replica in self.replicas.values()])

    async def close(self) -> None:
        """Ray ends the replicas' processes; here each engine has a thread in this one."""
        self.num_closed += 1
        for engine in self.engines:
            await engine.aclose()

    def _build_engine(self, config: EngineConfig) -> Engine:
        self.engines.append(self._build(config))
        return self.engines[-1]


class NearbyAnswers:
    """`break_with` ends it as a lost replica would."""

    def __init__(self, items: AsyncIterator[Item], has_room: asyncio.Event) -> None:
        self._items = items
        self._has_room = has_room
        self._broken: BaseException | None = None
        self.num_cancelled = 0

    def __aiter__(self) -> AsyncIterator[Item]:
        return self

    async def __anext__(self) -> Item:
        await self._has_room.wait()
        if self._broken is not None:
            raise self._broken
        return _crossed(await anext(self._items))

    def break_with(self, error: BaseException) -> None:
        self._broken = error

    def cancel(self) -> None:
        self.num_cancelled += 1
        self._closing = asyncio.create_task(self._close())

    async def _close(self) -> None:
        async with asyncio.timeout(20):
            while True:
                try:
                    await self._items.aclose()  # type: ignore[attr-defined]
                except RuntimeError:
                    # Whoever reads has been cancelled too, but has not left the generator yet.
                    await asyncio.sleep(0.001)
                else:
                    return


def _crossed(value: T) -> T:
    return cast(T, pickle.loads(pickle.dumps(value)))
