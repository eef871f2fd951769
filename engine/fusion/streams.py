"""What goes into a fusion and what comes out: streams of weighted tokens.

Shapes: `b` batch, `n_s` tokens of stream `s`, `n` fused tokens, `d` width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

STREAMS = ("image", "text", "persona")


@dataclass(frozen=True, slots=True)
class Stream:
    """Tokens of one stream: `tokens: (b, n_s, d)`, `weights: (b, n_s)` in [0, 1], 0 for padding.

    A stream that is missing has no tokens, or only tokens of weight 0.
    """

    tokens: Tensor
    weights: Tensor

    @property
    def is_present(self) -> Tensor:
        """`(b,)`."""
        return (self.weights > 0).any(dim=-1)

    def mean(self) -> Tensor:
        """The weighted mean of the tokens, `(b, d)`: 0 where the stream is missing."""
        total = self.weights.sum(dim=-1, keepdim=True).clamp_min(1e-6)
        return (self.tokens * self.weights[..., None]).sum(dim=1) / total


@dataclass(frozen=True, slots=True)
class Fused:
    """What a fusion hands to the readout.

    `tokens: (b, n, d)`, `weights: (b, n)`; `origins[stream]: (b, n, n_s)` says how much of each stream's token went
    into each fused token; `streams` are the streams themselves, each token knowing of the other streams what the
    fusion let it know.
    """

    tokens: Tensor
    weights: Tensor
    origins: Mapping[str, Tensor]
    streams: Mapping[str, Stream]


class Fusion(Protocol):
    """A way to bring the streams together: one of `engine.fusion.kinds`."""

    def __call__(self, streams: Mapping[str, Stream]) -> Fused:
        """Streams `(b, n_s, d)` → fused tokens `(b, n, d)`."""


def lay_side_by_side(streams: Mapping[str, Stream]) -> Fused:
    """Every token of every stream as a fused token of its own: `n` = `n_image` + `n_text` + `n_persona`."""
    tokens = torch.cat([streams[name].tokens for name in STREAMS], dim=1)
    weights = torch.cat([streams[name].weights for name in STREAMS], dim=1)
    identity = torch.eye(tokens.shape[1], dtype=tokens.dtype, device=tokens.device).expand(len(tokens), -1, -1)
    sizes = [streams[name].tokens.shape[1] for name in STREAMS]
    return Fused(tokens, weights, dict(zip(STREAMS, torch.split(identity, sizes, dim=-1), strict=True)), streams)


def only(streams: Mapping[str, Stream], names: Sequence[str]) -> dict[str, Stream]:
    """The streams with all but `names` missing: their tokens stay, with weight 0."""
    return {
        name: stream if name in names else Stream(stream.tokens, torch.zeros_like(stream.weights))
        for name, stream in streams.items()
    }
