"""Fusions that keep every token but let streams know less of each other than co-attention does.

`CrossAttention`: words and persona look at the picture, the picture looks at nothing. `LateFusion`: no stream knows of
another; each has a prefix of its own, and the language model's answers to them are mixed. Shapes: `b` batch, `n_s`
tokens of stream `s`, `d` width.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from engine.fusion.attention import FeedForward, attention_shares, merge_heads, split_heads
from engine.fusion.streams import STREAMS, Fused, Stream, lay_side_by_side

SOURCE = "image"
READERS = tuple(name for name in STREAMS if name != SOURCE)


class FeedForwards(nn.Module):
    """One residual feed-forward layer for each stream."""

    def __init__(self, width: int, *, num_parameters: int) -> None:
        super().__init__()
        # For each stream a norm (2 d) and two linear layers (2 d h + h + d).
        hidden = max(1, (num_parameters // len(STREAMS) - 3 * width) // (2 * width + 1))
        self.norm = nn.ModuleDict({name: nn.LayerNorm(width) for name in STREAMS})
        self.layer = nn.ModuleDict({name: FeedForward(width, hidden) for name in STREAMS})

    def forward(self, streams: Mapping[str, Stream]) -> dict[str, Stream]:
        """Each stream `(b, n_s, d)` → `(b, n_s, d)`."""
        return {
            name: Stream(stream.tokens + self.layer[name](self.norm[name](stream.tokens)), stream.weights)
            for name, stream in streams.items()
        }


class CrossAttentionLayer(nn.Module):
    """Words and persona attend to the picture; every stream has its own feed-forward."""

    def __init__(self, width: int, *, num_heads: int, num_parameters: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.ModuleDict({name: nn.LayerNorm(width) for name in STREAMS})
        self.query = nn.ModuleDict({name: nn.Linear(width, width) for name in READERS})
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.ModuleDict({name: nn.Linear(width, width, bias=False) for name in READERS})
        used = sum(parameter.numel() for parameter in self.parameters())
        self.feed_forwards = FeedForwards(width, num_parameters=num_parameters - used)

    def forward(self, streams: Mapping[str, Stream]) -> dict[str, Stream]:
        """Each stream `(b, n_s, d)` → `(b, n_s, d)`."""
        source = self.norm[SOURCE](streams[SOURCE].tokens)
        keys, values = split_heads(self.key(source), self.num_heads), split_heads(self.value(source), self.num_heads)
        told = {name: self._tell(name, streams[name], keys, values, streams[SOURCE].weights) for name in READERS}
        updated: dict[str, Stream] = self.feed_forwards({**streams, **told})
        return updated

    def _tell(self, name: str, stream: Stream, keys: Tensor, values: Tensor, weights: Tensor) -> Stream:
        queries = split_heads(self.query[name](self.norm[name](stream.tokens)), self.num_heads)
        seen = merge_heads(attention_shares(queries, keys, weights) @ values)
        return Stream(stream.tokens + self.output[name](seen), stream.weights)


class CrossAttention(nn.Module):
    """A stack of layers."""

    def __init__(self, width: int, *, num_layers: int, num_heads: int, num_parameters: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            CrossAttentionLayer(width, num_heads=num_heads, num_parameters=num_parameters // num_layers)
            for _ in range(num_layers)
        )

    def forward(self, streams: Mapping[str, Stream]) -> Fused:
        """Each stream's tokens, `n` = `n_image` + `n_text` + `n_persona`."""
        for layer in self.layers:
            streams = layer(streams)
        return lay_side_by_side(streams)


class LateFusion(nn.Module):
    """Each stream for itself, until its prefix has spoken: `logits = Σ_s softmax(a)_s logits_s`."""

    def __init__(self, width: int, *, num_layers: int, num_parameters: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(len(STREAMS)))
        self.layers = nn.ModuleList(
            FeedForwards(width, num_parameters=num_parameters // num_layers) for _ in range(num_layers)
        )

    def forward(self, streams: Mapping[str, Stream]) -> Fused:
        """Each stream's tokens, `n` = `n_image` + `n_text` + `n_persona`."""
        for layer in self.layers:
            streams = layer(streams)
        return lay_side_by_side(streams)

    def mixture(self, streams: Mapping[str, Stream]) -> Tensor:
        """The share of each stream's logits, `(b, 3)`: 0 where it is missing, else summing to 1."""
        is_present = torch.stack([streams[name].is_present for name in STREAMS], dim=1)
        return self.scores.masked_fill(~is_present, torch.finfo(self.scores.dtype).min).softmax(dim=-1) * is_present
