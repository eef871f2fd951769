"""One running generation as the scheduler and the service see it. Knows no tensor."""

from collections.abc import Callable
from dataclasses import dataclass

from engine.errors import EngineError
from engine.types import FinishReason, GenerationRequest, ReplyChunk, ReplyStats

Emit = Callable[[ReplyChunk | EngineError], None]


@dataclass(eq=False, slots=True)
class Sequence:
    """A request on its way. `emit` takes chunks and, as the last thing, either a finished chunk or an error.

    `is_cancelled` may be set from any thread; everything else belongs to the engine's thread.
    """

    request: GenerationRequest
    emit: Emit
    accepted_at: float
    is_cancelled: bool = False
    num_prompt_tokens: int = 0
    num_new_tokens: int = 0
    num_dropped_turns: int = 0
    has_fused_prefix: bool = False
    first_token_at: float | None = None

    def finish(self, reason: FinishReason, text: str, *, now: float) -> None:
        """Tell the caller that the reply has ended with `text`."""
        self.emit(ReplyChunk(text, reason, self.stats(now)))

    def stats(self, now: float) -> ReplyStats:
        """What it has cost until `now`."""
        first = self.first_token_at if self.first_token_at is not None else now
        return ReplyStats(
            num_prompt_tokens=self.num_prompt_tokens,
            num_new_tokens=self.num_new_tokens,
            time_to_first_token_s=first - self.accepted_at,
            duration_s=now - self.accepted_at,
            num_dropped_turns=self.num_dropped_turns,
            has_fused_prefix=self.has_fused_prefix,
        )
