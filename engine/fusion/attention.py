"""Multi-head attention over weighted tokens, the one building block of every fusion.

A token's weight in [0, 1] multiplies its share of the attention: 1 is an ordinary token, 0 a padded or missing one, and
a concept word brings its likelihood. Shapes: `b` batch, `h` heads, `n` queries, `m` keys, `d` width.
"""

import math

import torch
from torch import Tensor, nn


def attention_shares(queries: Tensor, keys: Tensor, weights: Tensor) -> Tensor:
    """`queries: (b, h, n, d/h)`, `keys: (b, h, m, d/h)`, `weights: (b, m)` → `(b, h, n, m)`.

    Each row sums to 1, or to 0 where every key has weight 0: a missing stream gives nothing.
    """
    is_present = weights > 0
    scores = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])
    scores = scores + weights.clamp_min(torch.finfo(scores.dtype).tiny).log()[:, None, None]
    scores = scores.masked_fill(~is_present[:, None, None], torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1) * is_present.any(dim=-1)[:, None, None, None]


def split_heads(tokens: Tensor, num_heads: int) -> Tensor:
    """`(b, n, d)` → `(b, h, n, d/h)`."""
    b, n, width = tokens.shape
    return tokens.view(b, n, num_heads, width // num_heads).transpose(1, 2)


def merge_heads(tokens: Tensor) -> Tensor:
    """`(b, h, n, d/h)` → `(b, n, d)`."""
    return tokens.transpose(1, 2).flatten(2)


class FeedForward(nn.Sequential):
    """Two layers with a GELU between: `(…, d)` → `(…, d)`. `hidden` is the width in between, `2 d` where not given."""

    def __init__(self, width: int, hidden: int | None = None) -> None:
        hidden = hidden or 2 * width
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
