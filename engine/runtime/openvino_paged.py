"""Runs the spans of a step by OpenVINO, over a KV cache in blocks: the fastest way that was measured on a CPU.

Owns the compiled model and the cache's memory. `engine.runtime.openvino_export` writes what it runs. Shapes: `t` packed
positions, `s` sequences that want logits, `d_lm` width, `v` vocabulary.
"""

from collections.abc import Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from torch import Tensor

from engine.generation.blocks import Lane
from engine.runtime.openvino_export import INPUTS
from engine.runtime.paged import BLOCK_SIZE, packed_positions
from engine.runtime.types import Span

# Numbers of so many bytes, as numpy may carry them: it does not compute with them.
CARRIED_AS = {1: np.uint8, 2: np.uint16, 4: np.float32}

# A call is padded to a multiple of this, from so many positions on.
TILE, MIN_TILED = 32, 17


class OpenVINORuntime:
    """A `Runtime` on the CPU. `dtype` is what it computes with, bfloat16 or float32."""

    name = "openvino"
    is_paged = True
    block_size = BLOCK_SIZE

    def __init__(
        self, model: ov.Model | Path, *, num_blocks: int, dtype: torch.dtype, num_threads: int, width: int
    ) -> None:
        self.num_blocks = num_blocks
        # One block more than anybody has, for what pads a call.
        self._padding = Lane([], [num_blocks])
        self._width = width
        hint = "bf16" if dtype is torch.bfloat16 else "f32"
        self._compiled = ov.Core().compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": hint,
                "KV_CACHE_PRECISION": hint,
                "INFERENCE_NUM_THREADS": num_threads,
                "PERFORMANCE_HINT": "LATENCY",
                "NUM_STREAMS": 1,
            },
        )
        self._request = self._compiled.create_infer_request()
        self._ports = {port.get_any_name(): port for port in self._compiled.inputs[: len(INPUTS)]}
        self._caches = [self._new_cache(port) for port in self._compiled.inputs[len(INPUTS) :]]

    def run(self, spans: Sequence[Span]) -> Tensor:
        """See `Runtime`."""
        spans = self._padded(spans)
        ends = list(accumulate(span.num_tokens for span in spans))
        contexts = [span.start + span.num_tokens for span in spans]
        blocks = [span.lane.blocks[: -(-length // BLOCK_SIZE)] for span, length in zip(spans, contexts, strict=True)]
        wanted = [(span, end - 1) for span, end in zip(spans, ends, strict=True) if span.has_logits]
        steering = np.zeros((len(wanted), self._width), dtype=np.float32)
        for row, (span, _) in enumerate(wanted):
            if span.steering is not None:
                steering[row] = span.steering.float().numpy()
        self._set("embeddings", torch.cat([span.embeddings for span in spans]).float().numpy())
        self._set("positions", packed_positions(spans)[0].numpy())
        self._set("rows", np.array([end for _, end in wanted], dtype=np.int64))
        self._set("steering", steering)
        self._set("past_lens", _counts([span.start for span in spans]))
        self._set("subsequence_begins", _counts([0, *ends]))
        self._set("block_indices", _counts(list(chain.from_iterable(blocks))))
        self._set("block_indices_begins", _counts([0, *accumulate(map(len, blocks))]))
        self._set("max_context_len", _counts(max(contexts)))
        self._request.infer()
        return torch.from_numpy(self._request.get_output_tensor(0).data)

    def copy_block(self, source: int, target: int) -> None:
        """See `Runtime`."""
        for cache in self._caches:
            cache[target] = cache[source]

    def release(self, lane: Lane) -> None:
        """Blocks stay as they are until somebody else writes into them."""

    def _padded(self, spans: Sequence[Span]) -> Sequence[Span]:
        """What reads is computed in tiles, and a tile that is not full takes longer than a full one."""
        num_tokens = sum(span.num_tokens for span in spans)
        num_missing = -num_tokens % TILE
        if num_missing == 0 or num_tokens < MIN_TILED:
            return spans
        return [*spans, Span(self._padding, 0, torch.zeros(num_missing, self._width), has_logits=False)]

    def _set(self, name: str, values: Any) -> None:  # noqa: ANN401 - numpy's arrays
        self._request.set_tensor(self._ports[name], ov.Tensor(np.asarray(values, order="C")))

    def _new_cache(self, port: Any) -> Any:  # noqa: ANN401 - OpenVINO's and numpy's own
        """Zeroed memory for one layer's keys or values, in the layout that the device has chosen.

        It is written to here and now, for memory that is first touched in the middle of a reply holds that up.
        """
        size = [self.num_blocks + 1, *(dimension.get_length() for dimension in list(port.get_partial_shape())[1:])]
        element_type = port.get_element_type()
        memory = np.full(size, 0, dtype=CARRIED_AS[element_type.size])
        self._request.set_tensor(port, ov.Tensor(memory, size, element_type))
        return memory


def _counts(values: Any) -> Any:  # noqa: ANN401 - numpy's arrays
    return np.asarray(values, dtype=np.int32)
