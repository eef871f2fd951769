"""What a step asks of a runtime.

Shapes: `n` positions, `s` sequences that want logits, `d_lm` width, `v` vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from engine.decoder.language_model import EncodedPrompt
from engine.generation.blocks import Lane


class Unsupported(Exception):
    """This runtime cannot compute this model; another one can."""


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive positions of one lane, which begin at `start`; everything before is in the cache.

    `embeddings: (n, d_lm)` is what is read there: a part of `prompt`, or the token `token_id`. The last position's
    logits are wanted with `has_logits`, with `steering: (d_lm,)` added to the state before the head. `positions: (n,)`,
    or `(3, n)` for models that tell time, height and width apart, are what the model is told of where it is; `None` is
    `start` and what follows.
    """

    lane: Lane
    start: int
    embeddings: Tensor
    has_logits: bool
    steering: Tensor | None = None
    positions: Tensor | None = None
    prompt: EncodedPrompt | None = None
    token_id: int | None = None

    @property
    def num_tokens(self) -> int:
        """Positions to compute."""
        return len(self.embeddings)


class Runtime(Protocol):
    """Computes spans of several sequences over one KV cache of `num_blocks` blocks.

    `is_paged` says whether blocks are more than a count: then they can be shared and kept for later prompts, and a
    prompt can be read in parts.
    """

    name: str
    num_blocks: int
    block_size: int
    is_paged: bool

    def run(self, spans: Sequence[Span]) -> Tensor:
        """The logits `(s, v)` in float32 of those spans that want them, in their order. They are the caller's until the
        next call, to change as well.

        What a call wrote may be written again: a step that failed can be repeated in parts.
        """

    def copy_block(self, source: int, target: int) -> None:
        """Make block `target` equal to block `source`."""

    def release(self, lane: Lane) -> None:
        """`lane` has ended."""
