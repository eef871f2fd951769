"""An engine that says what a test tells it to. Owns no model; records every request."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from engine.types import FinishReason, GenerationRequest, ReplyChunk

Step = str | Exception | float | asyncio.Event
"""A text to say, an error to raise, seconds to wait, or an event to wait for."""


@dataclass
class ScriptedEngine:
    """A `ReplyEngine`. `script` gives the steps of each reply; the default answers with the request's last text."""

    script: Callable[[GenerationRequest], Sequence[Step]] = lambda request: (f"You said: {request.turns[-1].text}",)
    requests: list[GenerationRequest] = field(default_factory=list)
    num_running: int = 0
    num_closed_early: int = 0

    async def start(self) -> None:
        """Nothing to load."""

    async def generate(self, request: GenerationRequest) -> AsyncIterator[ReplyChunk]:
        """Follow the script."""
        self.requests.append(request)
        self.num_running += 1
        is_whole = False
        try:
            for step in self.script(request):
                if isinstance(step, str):
                    yield ReplyChunk(step)
                elif isinstance(step, Exception):
                    raise step
                elif isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    await asyncio.sleep(step)
            is_whole = True
            yield ReplyChunk("", FinishReason.STOP)
        finally:
            self.num_running -= 1
            self.num_closed_early += not is_whole

    async def aclose(self) -> None:
        """Nothing to release."""
