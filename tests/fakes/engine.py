"""An engine that says what a test tells it to. Owns no model; records every request."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from engine.tokens import EstimatedTokens
from engine.types import EngineLoad, FinishReason, GenerationRequest, QueuePlace, ReplyChunk

Step = str | Exception | float | asyncio.Event | QueuePlace | FinishReason
"""A text to say, an error to raise, seconds to wait, an event to wait for, a place in a queue to tell, or why the reply
ends here."""


@dataclass
class ScriptedEngine(EstimatedTokens):
    """A `ReplyEngine`. `script` gives the steps of each reply; the default answers with the request's last text."""

    script: Callable[[GenerationRequest], Sequence[Step]] = lambda request: (f"You said: {request.turns[-1].text}",)
    requests: list[GenerationRequest] = field(default_factory=list)
    num_running: int = 0
    num_closed_early: int = 0
    drained_s: float | None = None

    async def start(self) -> None:
        """Nothing to load."""

    async def generate(self, request: GenerationRequest) -> AsyncIterator[ReplyChunk]:
        """Follow the script."""
        self.requests.append(request)
        self.num_running += 1
        is_whole, reason = False, FinishReason.STOP
        try:
            for step in self.script(request):
                if isinstance(step, FinishReason):  # it is a text, too
                    reason = step
                    break
                elif isinstance(step, str):
                    yield ReplyChunk(step)
                elif isinstance(step, Exception):
                    raise step
                elif isinstance(step, asyncio.Event):
                    await step.wait()
                elif isinstance(step, QueuePlace):
                    yield ReplyChunk("", queue=step)
                else:
                    await asyncio.sleep(step)
            is_whole = True
            yield ReplyChunk("", reason)
        finally:
            self.num_running -= 1
            self.num_closed_early += not is_whole

    def load(self) -> EngineLoad:
        """How many replies run, and how many there were."""
        return EngineLoad(num_running=self.num_running, num_replies=len(self.requests) - self.num_running)

    async def aclose(self, *, drain_s: float = 0.0) -> None:
        """Nothing to release."""
        self.drained_s = drain_s
