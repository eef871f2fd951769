"""The simple fusions: every stream becomes one vector, and the vectors are brought together.

`sum`, `weighted`, `concat` and `gated` differ in how; what comes before (each stream is pooled by a learned query) and
after (feed-forward layers, as wide as the parameter budget allows) is the same. They see no token of one stream in
the light of another: that is what co-attention has to be worth. A missing stream adds nothing. Shapes: `b` batch,
`n_s` tokens of stream `s`, `d` width.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from engine.fusion.attention import FeedForward, attention_shares
from engine.fusion.streams import STREAMS, Fused, Stream


class Pool(nn.Module):
    """One stream as one vector, by a learned query."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query = nn.Parameter(torch.zeros(1, 1, 1, width))
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, stream: Stream) -> tuple[Tensor, Tensor]:
        """`(b, n_s, d)` → `(b, d)` and the share of each token, `(b, n_s)`; both 0 where the stream is missing."""
        normed = self.norm(stream.tokens)
        shares = attention_shares(self.query, self.key(normed)[:, None], stream.weights)[:, 0]
        return (shares @ self.value(normed))[:, 0], shares[:, 0]


class PoolingFusion(nn.Module):
    """Pool, mix, and think about it: one fused token."""

    def __init__(self, width: int, *, num_layers: int, num_parameters: int) -> None:
        super().__init__()
        self.pools = nn.ModuleDict({name: Pool(width) for name in STREAMS})
        self.build_mixer(width)
        # A layer is a norm (2 d) and two linear layers (2 d h + h + d).
        left = num_parameters - sum(parameter.numel() for parameter in self.parameters())
        hidden = max(1, (left // num_layers - 3 * width) // (2 * width + 1))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(num_layers))
        self.layers = nn.ModuleList(FeedForward(width, hidden) for _ in range(num_layers))

    def build_mixer(self, width: int) -> None:
        """Make what `mix` needs."""

    def mix(self, vectors: Tensor, is_present: Tensor) -> tuple[Tensor, Tensor]:
        """`vectors: (b, 3, d)`, 0 where missing, `is_present: (b, 3)` → `(b, d)`, and each stream's share `(b, 3)`."""
        raise NotImplementedError

    def forward(self, streams: Mapping[str, Stream]) -> Fused:
        """One token, `n` = 1, which every token of every stream gets to know."""
        pooled = {name: self.pools[name](streams[name]) for name in STREAMS}
        is_present = torch.stack([streams[name].is_present for name in STREAMS], dim=1)
        vector, stream_shares = self.mix(torch.stack([pooled[name][0] for name in STREAMS], dim=1), is_present)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            vector = vector + layer(norm(vector))
        token = vector[:, None]
        origins = {name: (pooled[name][1] * stream_shares[:, j, None])[:, None] for j, name in enumerate(STREAMS)}
        told = {name: Stream(stream.tokens + token, stream.weights) for name, stream in streams.items()}
        return Fused(token, is_present.any(dim=-1, keepdim=True).to(token.dtype), origins, told)


class Sum(PoolingFusion):
    """`v = Σ_s v_s`."""

    def mix(self, vectors: Tensor, is_present: Tensor) -> tuple[Tensor, Tensor]:
        """See `PoolingFusion`."""
        return vectors.sum(dim=1), _shares(is_present.to(vectors.dtype))


class Weighted(PoolingFusion):
    """`v = Σ_s softmax(a)_s v_s`, the softmax over the streams that are there."""

    def build_mixer(self, width: int) -> None:  # noqa: ARG002 - a weight a stream, whatever the width
        """See `PoolingFusion`."""
        self.scores = nn.Parameter(torch.zeros(len(STREAMS)))

    def mix(self, vectors: Tensor, is_present: Tensor) -> tuple[Tensor, Tensor]:
        """See `PoolingFusion`."""
        shares = _shares(self.scores.exp() * is_present)
        return (vectors * shares[..., None]).sum(dim=1), shares


class Concat(PoolingFusion):
    """`v = W [v_image; v_text; v_persona]`, zeros for a missing stream."""

    def build_mixer(self, width: int) -> None:
        """See `PoolingFusion`."""
        self.projection = nn.Linear(len(STREAMS) * width, width)

    def mix(self, vectors: Tensor, is_present: Tensor) -> tuple[Tensor, Tensor]:
        """See `PoolingFusion`."""
        return self.projection(vectors.flatten(1)), _shares(is_present.to(vectors.dtype))


class Gated(PoolingFusion):
    """`v = Σ_s z_s ⊙ tanh(W_s v_s)` with `z_s = σ(U_s [v_image; v_text; v_persona])`.

    The gated multimodal unit (Arevalo et al. 2017, equations 1-4) for more than two streams.
    """

    def build_mixer(self, width: int) -> None:
        """See `PoolingFusion`."""
        self.contents = nn.ModuleList(nn.Linear(width, width) for _ in STREAMS)
        self.gates = nn.Linear(len(STREAMS) * width, len(STREAMS) * width)

    def mix(self, vectors: Tensor, is_present: Tensor) -> tuple[Tensor, Tensor]:
        """See `PoolingFusion`."""
        contents = torch.stack([layer(vectors[:, j]).tanh() for j, layer in enumerate(self.contents)], dim=1)
        gates = self.gates(vectors.flatten(1)).sigmoid().view_as(contents) * is_present[..., None]
        return (gates * contents).sum(dim=1), _shares(gates.mean(dim=-1))


def _shares(amounts: Tensor) -> Tensor:
    """Rows that sum to 1, or to 0 where there is nothing."""
    return amounts / amounts.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(amounts.dtype).tiny)
