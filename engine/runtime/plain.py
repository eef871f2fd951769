"""Runs one sequence after the other, as transformers does by itself: for models whose attention cannot be packed, and
as the reference for those that can.

Owns each lane's own memory. A prompt is read whole, from token ids where nothing is fused.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.decoder.language_model import DecoderState, LanguageModel
from engine.generation.blocks import Lane
from engine.runtime.types import Span

BLOCK_SIZE = 32


class PlainRuntime:
    """A `Runtime` of `LanguageModel.prefill` and `decode`."""

    name = "plain"
    is_paged = False
    block_size = BLOCK_SIZE

    def __init__(self, language_model: LanguageModel, *, num_blocks: int) -> None:
        self._language_model = language_model
        self.num_blocks = num_blocks
        self._states: dict[int, DecoderState] = {}

    def run(self, spans: Sequence[Span]) -> Tensor:
        """See `Runtime`."""
        logits = [self._read(span) for span in spans]
        return torch.stack(logits)

    def copy_block(self, source: int, target: int) -> None:
        """Nothing is shared, so nothing is ever copied."""

    def release(self, lane: Lane) -> None:
        """See `Runtime`."""
        self._states.pop(id(lane), None)

    def _read(self, span: Span) -> Tensor:
        model = self._language_model
        if span.prompt is not None:
            # Also where a prompt is read again after a failed step: what was half written is gone.
            self._states[id(span.lane)] = state = model.new_state()
            return model.prefill(span.prompt, state)
        assert span.token_id is not None  # noqa: S101 - a span is a prompt or a token
        return model.decode(span.token_id, self._states[id(span.lane)])


def plain_runtime(language_model: LanguageModel, *, max_running: int = 1) -> PlainRuntime:
    """One with room for so many conversations. Each has a memory of its own here; blocks only count how much of it
    there may be."""
    num_blocks = -(-language_model.max_context_tokens // BLOCK_SIZE) * max_running
    return PlainRuntime(language_model, num_blocks=num_blocks)
