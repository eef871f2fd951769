"""What may change a sequence's logits before a token is chosen: the seam for a persona's lexicon and a guard."""

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from engine.types import GenerationRequest


class LogitsProcessor(Protocol):
    """Belongs to one sequence, and may remember what it has seen of it. One that fails ends that sequence alone."""

    def __call__(self, logits: Tensor, new_tokens: Sequence[int]) -> Tensor:
        """The logits `(v,)` to choose from, where `new_tokens` have been chosen so far. Leaves `logits` as they are."""


MakeProcessors = Callable[[GenerationRequest], Sequence[LogitsProcessor]]


def no_processors(request: GenerationRequest) -> Sequence[LogitsProcessor]:  # noqa: ARG001 - the seam's signature
    """Choose from what the model says."""
    return ()
