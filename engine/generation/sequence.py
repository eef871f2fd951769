"""One running generation as the scheduler and the service see it. Knows no tensor."""

from collections.abc import Callable
from dataclasses import dataclass, field

from engine.errors import EngineError
from engine.generation.blocks import Lane
from engine.types import FinishReason, GenerationRequest, ReplyChunk, ReplyStats

Emit = Callable[[ReplyChunk | EngineError], None]


@dataclass(eq=False, slots=True)
class Sequence:
    """A request on its way. `emit` takes chunks and, as the last thing, either a finished chunk or an error.

    Its prompt is read in one lane, or in several that differ in their prefix and whose logits are mixed. All lanes are
    equally long. `is_cancelled` may be set from any thread; everything else belongs to the engine's thread.
    """

    request: GenerationRequest
    emit: Emit
    accepted_at: float
    is_cancelled: bool = False
    lanes: list[Lane] = field(default_factory=list)
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_new_tokens: int = 0
    num_dropped_turns: int = 0
    has_fused_prefix: bool = False
    started_at: float | None = None
    first_token_at: float | None = None

    @property
    def num_unread(self) -> int:
        """Positions that stand there and are not computed yet, in its lane that has most of them: 1 while decoding."""
        return max((len(lane.keys) - lane.num_computed for lane in self.lanes), default=0)

    @property
    def is_prefilling(self) -> bool:
        """Whether its prompt is not read yet."""
        return self.num_new_tokens == 0

    @property
    def is_alone(self) -> bool:
        """Whether it has to be computed in calls of its own: in company numbers round differently, enough now and then
        for another token, and a seed promises the same one."""
        return self.request.sampling.seed is not None

    def finish(self, reason: FinishReason, text: str, *, now: float) -> None:
        """Tell the caller that the reply has ended with `text`."""
        self.emit(ReplyChunk(text, reason, self.stats(now)))

    def stats(self, now: float) -> ReplyStats:
        """What it has cost until `now`."""
        first = self.first_token_at if self.first_token_at is not None else now
        started = self.started_at if self.started_at is not None else now
        return ReplyStats(
            num_prompt_tokens=self.num_prompt_tokens,
            num_new_tokens=self.num_new_tokens,
            time_to_first_token_s=first - self.accepted_at,
            duration_s=now - self.accepted_at,
            num_dropped_turns=self.num_dropped_turns,
            has_fused_prefix=self.has_fused_prefix,
            num_cached_tokens=self.num_cached_tokens,
            queue_s=started - self.accepted_at,
        )
