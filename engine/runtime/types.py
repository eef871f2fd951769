"""What a step asks of a runtime. Shapes: `n` positions, `s` sequences that want logits, `d_lm` width, `v` vocabulary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from engine.generation.blocks import Lane


class Unsupported(Exception):
    """This runtime cannot compute this model; another one can."""


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive positions of one lane, which begin at `start`; everything before is in the cache.

    `embeddings: (n, d_lm)` is what is read there. The last position's logits are wanted with `has_logits`, with
    `steering: (d_lm,)` added to the state before the head. `positions: (n,)`, or `(3, n)` for models that tell time,
    height and width apart, are what the model is told of where it is; `None` is `start` and what follows.
    """

    lane: Lane
    start: int
    embeddings: Tensor
    has_logits: bool
    steering: Tensor | None = None
    positions: Tensor | None = None
    pictures: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def num_tokens(self) -> int:
        """Positions to compute."""
        return len(self.embeddings)


class Runtime(Protocol):
    """Computes spans of several sequences over one KV cache of `num_blocks` blocks.

    `remembers` says whether blocks can be shared and kept for later prompts.
    """

    name: str
    num_blocks: int
    block_size: int
    remembers: bool

    def run(self, spans: Sequence[Span]) -> Tensor:
        """The logits `(s, v)` in float32 of those spans that want them, in their order.

        What a call wrote may be written again: a step that failed can be repeated in parts.
        """

    def copy_block(self, source: int, target: int) -> None:
        """Make block `target` equal to block `source`."""

    def release(self, lane: Lane) -> None:
        """`lane` has ended."""
