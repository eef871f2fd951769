"""An engine that answers as a function says, with the refusals of one that sees nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from engine.backends.sightless import Sightless
from engine.errors import EngineError
from engine.tokens import EstimatedTokens
from engine.types import EngineLoad, FinishReason, GenerationRequest, ReplyChunk


@dataclass
class AnsweringEngine(EstimatedTokens, Sightless):
    """An `Engine`. An answer that is an error is raised."""

    answer: Callable[[GenerationRequest], str | EngineError] = lambda request: request.turns[-1].text
    requests: list[GenerationRequest] = field(default_factory=list)
    num_running: int = 0
    most_running: int = 0
    is_closed: bool = False

    async def start(self) -> None:
        """Nothing to load."""

    async def generate(self, request: GenerationRequest) -> AsyncIterator[ReplyChunk]:
        """The answer, in one piece."""
        self.requests.append(request)
        self.num_running += 1
        self.most_running = max(self.most_running, self.num_running)
        try:
            await asyncio.sleep(0)
            answer = self.answer(request)
            if isinstance(answer, EngineError):
                raise answer
            yield ReplyChunk(answer)
            yield ReplyChunk("", FinishReason.STOP)
        finally:
            self.num_running -= 1

    def load(self) -> EngineLoad:
        """What it is."""
        return EngineLoad(device="none", num_replies=len(self.requests))

    async def aclose(self, *, drain_s: float = 0.0) -> None:
        """Note it."""
        self.is_closed = True
