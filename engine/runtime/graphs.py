"""Replays decode steps as CUDA graphs: for one token a sequence, launching kernels takes longer than computing them.

Owns the fixed sizes that a graph needs, and what pads a step to one of them. Shapes: `s` rows, `c` positions of
context, `d_lm` width, `v` vocabulary.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from engine.runtime.types import Span

logger = logging.getLogger(__name__)

NUM_ROWS = (1, 2, 4, 8, 16, 32)
MIN_CONTEXT = 256
# How often a step is run before it is recorded, as torch's documentation asks for, so that lazy set-up is over.
NUM_WARM_UPS = 2


@dataclass(frozen=True, slots=True)
class DecodeInputs:
    """A step of one token a sequence, padded. `places: (s,)` are where keys and values go, `context: (s, c)` where they
    are read, `distances: (s, c)` how far back that is, below 0 for what is not to be seen."""

    embeddings: Tensor
    positions: Tensor
    places: Tensor
    context: Tensor
    distances: Tensor
    steering: Tensor

    def copy_from(self, other: "DecodeInputs") -> None:
        """Take over the numbers of `other`, which has the same shapes."""
        for name in self.__slots__:
            getattr(self, name).copy_(getattr(other, name), non_blocking=True)


Compute = Callable[[DecodeInputs], Tensor]


class DecodeGraphs:
    """A graph for each size of step that has come up. `compute` runs a step, `(s, v)` logits, and is what is recorded.

    On a device without graphs it is called every time: that is how the padding is tested.
    """

    def __init__(self, compute: Compute, device: torch.device) -> None:
        self._compute = compute
        self._device = device
        self._recorded: dict[tuple[int, ...], tuple[DecodeInputs, Tensor, torch.cuda.CUDAGraph]] = {}
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    def run(self, inputs: DecodeInputs) -> Tensor:
        """The logits `(s, v)` of a padded step."""
        if self._device.type != "cuda":
            return self._compute(inputs)
        size = (*inputs.positions.shape[:-2], *inputs.context.shape)
        if size not in self._recorded:
            self._recorded[size] = self._record(inputs)
        static, logits, graph = self._recorded[size]
        static.copy_from(inputs)
        graph.replay()
        return logits.clone()

    def _record(self, inputs: DecodeInputs) -> tuple[DecodeInputs, Tensor, torch.cuda.CUDAGraph]:
        logger.info("recording a decode step of %d rows and %d positions", *inputs.context.shape)
        static = DecodeInputs(*(getattr(inputs, name).to(self._device, copy=True) for name in inputs.__slots__))
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(NUM_WARM_UPS):
                self._compute(static)
        torch.cuda.current_stream(self._device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            logits = self._compute(static)
        return static, logits, graph


def is_decode_step(spans: Sequence[Span]) -> bool:
    """Whether a graph could do it."""
    return len(spans) <= NUM_ROWS[-1] and all(span.num_tokens == 1 and span.has_logits for span in spans)


def padded_inputs(
    spans: Sequence[Span], places: Sequence[Tensor], positions: Tensor, *, scratch: int, width: int
) -> DecodeInputs:
    """The step of `spans`, whose contexts lie at `places`, padded to a size that graphs are kept for.

    Rows that pad write to the place `scratch`, and see nothing else. `positions: (…, 1, s)`.
    """
    num_rows = next(size for size in NUM_ROWS if size >= len(spans))
    longest = max(map(len, places))
    length = max(MIN_CONTEXT, 1 << (longest - 1).bit_length())
    num_more = num_rows - len(spans)
    context = [functional.pad(one, (0, length - len(one)), value=scratch) for one in places]
    context += [torch.full((length,), scratch)] * num_more
    starts = torch.tensor([span.start for span in spans] + [0] * num_more)
    steering = torch.zeros(num_rows, width)
    for row, span in enumerate(spans):
        if span.steering is not None:
            steering[row] = span.steering.float().cpu()
    return DecodeInputs(
        embeddings=functional.pad(torch.cat([span.embeddings for span in spans]), (0, 0, 0, num_more)),
        positions=functional.pad(positions, (0, num_more)),
        places=torch.tensor([int(one[-1]) for one in places] + [scratch] * num_more),
        context=torch.stack(context),
        distances=starts[:, None] - torch.arange(length),
        steering=steering,
    )
