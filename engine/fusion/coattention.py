"""Co-attention: in each layer every stream's queries attend to the other streams' keys and values.

The block of ViLBERT (Lu et al. 2019, figure 2b) for three streams: pre-norm, one softmax for each ordered pair of
streams (`α_IT`, `α_IR`, `α_TR`, …), the pairs summed, residual, own feed-forward. A stream that is missing gives
nothing to the others. Shapes: `b` batch, `n_s` tokens of stream `s`, `d` width.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from engine.fusion.attention import FeedForward, attention_shares, merge_heads, split_heads
from engine.fusion.streams import STREAMS, Fused, Stream, lay_side_by_side


class CoAttentionLayer(nn.Module):
    """One layer over all streams."""

    def __init__(self, width: int, *, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.ModuleDict({name: nn.LayerNorm(width) for name in STREAMS})
        self.query = nn.ModuleDict({name: nn.Linear(width, width) for name in STREAMS})
        self.key = nn.ModuleDict({name: nn.Linear(width, width) for name in STREAMS})
        self.value = nn.ModuleDict({name: nn.Linear(width, width) for name in STREAMS})
        self.output = nn.ModuleDict({name: nn.Linear(width, width, bias=False) for name in STREAMS})
        self.feed_forward_norm = nn.ModuleDict({name: nn.LayerNorm(width) for name in STREAMS})
        self.feed_forward = nn.ModuleDict({name: FeedForward(width) for name in STREAMS})

    def forward(self, streams: Mapping[str, Stream]) -> dict[str, Stream]:
        """Each stream `(b, n_s, d)` → `(b, n_s, d)`; weights stay."""
        normed = {name: self.norm[name](streams[name].tokens) for name in STREAMS}
        keys = {name: split_heads(self.key[name](normed[name]), self.num_heads) for name in STREAMS}
        values = {name: split_heads(self.value[name](normed[name]), self.num_heads) for name in STREAMS}
        return {
            name: Stream(self._update(name, streams, normed[name], keys, values), streams[name].weights)
            for name in STREAMS
        }

    def _update(
        self,
        name: str,
        streams: Mapping[str, Stream],
        normed: Tensor,
        keys: Mapping[str, Tensor],
        values: Mapping[str, Tensor],
    ) -> Tensor:
        queries = split_heads(self.query[name](normed), self.num_heads)
        others = [other for other in STREAMS if other != name]
        seen = [attention_shares(queries, keys[other], streams[other].weights) @ values[other] for other in others]
        tokens: Tensor = streams[name].tokens + self.output[name](merge_heads(seen[0] + seen[1]))
        updated: Tensor = tokens + self.feed_forward[name](self.feed_forward_norm[name](tokens))
        return updated


class CoAttention(nn.Module):
    """A stack of layers."""

    def __init__(self, width: int, *, num_layers: int, num_heads: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CoAttentionLayer(width, num_heads=num_heads) for _ in range(num_layers))

    def forward(self, streams: Mapping[str, Stream]) -> Fused:
        """Each stream's tokens, `n` = `n_image` + `n_text` + `n_persona`, knowing of the other streams."""
        for layer in self.layers:
            streams = layer(streams)
        return lay_side_by_side(streams)
