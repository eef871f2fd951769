"""From fused streams to the prefix that the language model reads.

`Readout`: learned queries look at all tokens of all streams at once. `LexicalPath`: the prefix may also take the
language model's own embeddings of the classes that the picture shows. `QuotingPath`: the same with the words of the
persona's facets. These end in a gate that starts at zero, so that an untrained fusion adds nothing. `Steering`: which
words the reply leans to; it starts at zero by itself. Shapes: `b` batch,
`k` prefix tokens, `n` tokens of all streams together, `n_c` concept words of all pictures, `n_r` facets, `m` tokens of
a class name or a facet, `d` width, `d_lm` width of the language model.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from engine.fusion.attention import FeedForward, attention_shares, merge_heads, split_heads
from engine.fusion.streams import STREAMS, Stream

# Standard deviation of a query's numbers before training; keys have about 0.6, so that the scores have twice that of 1.
SHARPNESS = 3.5


class Readout(nn.Module):
    """`k` learned queries over all streams."""

    def __init__(self, width: int, *, num_heads: int, num_prefix_tokens: int, decoder_width: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.queries = nn.Parameter(torch.randn(num_prefix_tokens, width))
        self.query = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width)
        self.prefix_norm = nn.LayerNorm(width)
        self.prefix = nn.Linear(width, decoder_width)
        self.gate = nn.Parameter(torch.zeros(num_prefix_tokens, 1))

    def forward(self, tokens: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`tokens: (b, n, d)`, `weights: (b, n)` → prefix `(b, k, d_lm)`, states `(b, k, d)`, attention `(b, k, n)`.

        The attention is the mean over the heads; its rows sum to 1.
        """
        queries = self.queries.expand(tokens.shape[0], -1, -1)
        normed = self.norm(tokens)
        shares = attention_shares(
            split_heads(self.query(queries), self.num_heads), split_heads(self.key(normed), self.num_heads), weights
        )
        seen = merge_heads(shares @ split_heads(self.value(normed), self.num_heads))
        states = queries + self.output(seen)
        states = states + self.feed_forward(self.feed_forward_norm(states))
        states = self.prefix_norm(states)
        return self.gate.tanh() * self.prefix(states), states, shares.mean(dim=1)


class LexicalPath(nn.Module):
    """Lets each prefix token take embeddings of class names: which class is chosen by content and probability, which of
    the name's tokens by a learned preference of the prefix token's place. For a fusion that pools (`is_pooling`) it
    pools as well: which class is a matter of probability alone."""

    def __init__(self, width: int, *, num_prefix_tokens: int, num_name_tokens: int, is_pooling: bool = False) -> None:
        super().__init__()
        self.query = None if is_pooling else nn.Linear(width, width)
        self.key = None if is_pooling else nn.Linear(width, width)
        self.place = nn.Parameter(torch.randn(num_prefix_tokens, num_name_tokens) * 0.1)
        self.gate = nn.Parameter(torch.zeros(num_prefix_tokens, 1))

    def forward(self, states: Tensor, concepts: Tensor, weights: Tensor, names: Tensor, is_token: Tensor) -> Tensor:
        """`states: (b, k, d)`, `concepts: (b, n_c, d)`, `weights: (b, n_c)`, `names: (b, n_c, m, d_lm)`,
        `is_token: (b, n_c, m)` → `(b, k, d_lm)`."""
        which = self._which(states, concepts, weights)
        places = self.place[None, :, None, :].masked_fill(~is_token[:, None], torch.finfo(states.dtype).min)
        spelled = which[..., None] * places.softmax(dim=-1)
        return self.gate.tanh() * torch.einsum("bkcm,bcmd->bkd", spelled, names)

    def _which(self, states: Tensor, concepts: Tensor, weights: Tensor) -> Tensor:
        """How much of each class each prefix token takes: `(b, k, n_c)`."""
        if self.query is None or self.key is None:
            total = weights.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
            return (weights / total)[:, None].expand(-1, states.shape[1], -1)
        queries, keys = self.query(states)[:, None], self.key(concepts)[:, None]
        return attention_shares(queries, keys, weights)[:, 0]


class QuotingPath(nn.Module):
    """Lets each prefix token take embeddings of words that the persona's facets are told in: which facet is chosen in
    the light of the other streams, which word by its own embedding. Turns with and without a picture have gates of
    their own: where there is something to see, the prefix has other things to say. For a fusion that pools
    (`is_pooling`) all facets count alike, and the choice of words knows nothing of the turn."""

    def __init__(
        self,
        width: int,
        *,
        num_prefix_tokens: int,
        decoder_width: int,
        embedding_scale: float,
        is_pooling: bool = False,
    ) -> None:
        super().__init__()
        self.embedding_scale = embedding_scale
        self.facet_query = None if is_pooling else nn.Linear(width, width)
        self.facet_key = None if is_pooling else nn.Linear(width, width)
        self.word_query = nn.Parameter(torch.empty(num_prefix_tokens, width)) if is_pooling else nn.Linear(width, width)
        self.word_key = nn.Linear(decoder_width, width)
        self.gate = nn.Parameter(torch.zeros(2, num_prefix_tokens, 1))
        # Each prefix token begins with words of its own: the mean of all words means nothing.
        if isinstance(self.word_query, nn.Linear):
            nn.init.normal_(self.word_query.weight, std=SHARPNESS / width**0.5)
        else:
            nn.init.normal_(self.word_query, std=SHARPNESS)

    def forward(
        self, states: Tensor, persona: Stream, words: Tensor, is_word: Tensor, *, has_picture: Tensor
    ) -> Tensor:
        """`states: (b, k, d)`, `persona` with `n_r` facets, `words: (b, n_r, m, d_lm)`, `is_word: (b, n_r, m)`,
        `has_picture: (b,)` → `(b, k, d_lm)`; zeros where there is no facet."""
        which = self._which_facet(states, persona.tokens, persona.weights * is_word.any(dim=-1))
        keys = self.word_key(words / self.embedding_scale)
        queries = self.word_query(states) if isinstance(self.word_query, nn.Linear) else self.word_query[None]
        scores = torch.einsum("bkd,brmd->bkrm", queries.expand(len(keys), -1, -1), keys) / keys.shape[-1] ** 0.5
        lowest = torch.finfo(scores.dtype).min
        shares = which[..., None] * scores.masked_fill(~is_word[:, None], lowest).softmax(dim=-1)
        return self.gate[has_picture.long()].tanh() * torch.einsum("bkrm,brmd->bkd", shares, words)

    def _which_facet(self, states: Tensor, facets: Tensor, weights: Tensor) -> Tensor:
        """How much of each facet each prefix token takes: `(b, k, n_r)`."""
        if self.facet_query is None or self.facet_key is None:
            total = weights.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
            return (weights / total)[:, None].expand(-1, states.shape[1], -1)
        queries, keys = self.facet_query(states)[:, None], self.facet_key(facets)[:, None]
        return attention_shares(queries, keys, weights)[:, 0]


class Steering(nn.Module):
    """A vector that the language model's head turns into a bias on its vocabulary: from what the readout found, and
    from each stream directly, since what a persona is like need not be searched for."""

    def __init__(self, width: int, *, decoder_width: int) -> None:
        super().__init__()
        num_parts = 1 + len(STREAMS)
        self.norm = nn.LayerNorm(num_parts * width)
        self.output = nn.Linear(num_parts * width, decoder_width, bias=False)
        nn.init.zeros_(self.output.weight)

    def forward(self, states: Tensor, streams: Mapping[str, Stream]) -> Tensor:
        """`states: (b, k, d)`, streams `(b, n_s, d)` → `(b, d_lm)`."""
        parts = [states.mean(dim=1), *(streams[name].mean() for name in STREAMS)]
        # Scaled, so that one step of the optimiser, which moves every weight alike, moves the sum but a little.
        found = self.norm(torch.cat(parts, dim=-1)) / self.norm.normalized_shape[0] ** 0.5
        steering: Tensor = self.output(found)
        return steering
