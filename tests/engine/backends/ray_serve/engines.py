"""Engines for replicas under test. Replicas import this module by its name, in processes of their own."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import cast

from engine.backends.echo import EchoEngine
from engine.config import EngineConfig
from engine.errors import PromptTooLong, WeightsError
from engine.types import Engine, EngineLoad, FinishReason, GenerationRequest, ReplyChunk, ReplyStats


class ObedientEngine(EchoEngine):
    """Does what the last turn says. "who" tells the process, "count" goes on without an end, "die" ends the process
    after a word, "refuse" and "break" fail; anything else is echoed."""

    def __init__(self) -> None:
        super().__init__()
        self.num_running = 0
        self.num_replies = 0

    async def generate(self, request: GenerationRequest) -> AsyncIterator[ReplyChunk]:
        self.num_running += 1
        try:
            async for chunk in self._obey(request):
                yield chunk
            self.num_replies += 1
        finally:
            self.num_running -= 1

    async def _obey(self, request: GenerationRequest) -> AsyncIterator[ReplyChunk]:
        match request.turns[-1].text:
            case "who":
                yield ReplyChunk(str(os.getpid()))
                yield ReplyChunk("", FinishReason.STOP, ReplyStats(1, 1, 0.0, 0.0))
            case "count":
                number = 0
                while True:
                    yield ReplyChunk(f"{number} ")
                    number += 1
                    await asyncio.sleep(0.005)
            case "die":
                yield ReplyChunk("I ")
                await asyncio.sleep(0.2)
                os._exit(1)
            case "refuse":
                raise PromptTooLong("too long by 7 tokens: shorten it") from ValueError("a cause")
            case "break":
                raise KeyError("a bug")
            case _:
                async for chunk in super().generate(request):
                    yield chunk

    def load(self) -> EngineLoad:
        return EngineLoad(num_running=self.num_running, num_replies=self.num_replies, device="cpu")


class UnstartableEngine(EchoEngine):
    """Has no weights."""

    async def start(self) -> None:
        raise WeightsError('the weights are gone: fetch them with "commedia models fetch"\nor name a folder')


def build_obedient(config: EngineConfig) -> Engine:
    return cast(Engine, ObedientEngine())


def build_unstartable(config: EngineConfig) -> Engine:
    return cast(Engine, UnstartableEngine())


def build_instant(config: EngineConfig) -> Engine:
    return cast(Engine, EchoEngine())
