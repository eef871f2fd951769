"""The matching head: does this text say what this picture shows?

Two ways. *Embeddings*, one a picture and one a text, which can be kept and compared by the thousand: they start as what
the encoders know without training (the picture's class names, and the text, both as the text encoder sees them), and
a gated residual is learned on top. *Scores* of single pairs, which add what the fusion sees of each in the light of
the other. Shapes: `b` batch, `n_c` concepts, `d` width, `d_i`, `d_t` widths of the encoders, `e` = `d_t`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.fusion.config import FusionConfig
from engine.fusion.streams import Fused, Stream

HIDDEN = 512
INITIAL_SCALE = 20.0


class MatchingHead(nn.Module):
    """Embeddings and scores."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.picture_norm = nn.LayerNorm(config.image_width)
        self.picture = nn.Sequential(
            nn.Linear(config.image_width, HIDDEN), nn.GELU(), nn.Dropout(0.3), nn.Linear(HIDDEN, config.text_width)
        )
        self.concept_scale = nn.Parameter(torch.ones(()))
        self.text = nn.Linear(config.text_width, config.text_width, bias=False)
        self.picture_gate = nn.Parameter(torch.zeros(config.text_width))
        self.text_gate = nn.Parameter(torch.zeros(config.text_width))
        self.log_scale = nn.Parameter(torch.tensor(INITIAL_SCALE).log())
        self.bias = nn.Parameter(torch.zeros(()))
        self.pair = nn.Sequential(nn.LayerNorm(3 * config.width), nn.Linear(3 * config.width, config.width), nn.GELU())
        self.pair_score = nn.Linear(config.width, 1)
        nn.init.zeros_(self.pair_score.weight)
        nn.init.zeros_(self.pair_score.bias)

    @property
    def scale(self) -> Tensor:
        """The inverse temperature of the contrastive loss."""
        return self.log_scale.clamp(max=4.6).exp()

    def embed_images(self, patches: Tensor, meanings: Tensor, weights: Tensor) -> Tensor:
        """`patches: (b, d_i)`, their mean; `meanings: (b, n_c, d_t)`, `weights: (b, n_c)` → `(b, e)` of length 1."""
        known = functional.normalize((meanings * weights[..., None]).sum(dim=1), dim=-1)
        learned = functional.normalize(self.picture(self.picture_norm(patches)), dim=-1)
        return functional.normalize(known * self.concept_scale + self.picture_gate.tanh() * learned, dim=-1)

    def embed_texts(self, pooled: Tensor) -> Tensor:
        """`pooled: (b, d_t)` → `(b, e)` of length 1."""
        return functional.normalize(pooled + self.text_gate.tanh() * self.text(pooled), dim=-1)

    def score(self, alike: Tensor, fused: Fused) -> Tensor:
        """`alike: (b,)`, the embeddings' dot products, and the fused pair → `(b,)` logits."""
        picture, text = _mean(fused.streams["image"]), _mean(fused.streams["text"])
        pair = self.pair(torch.cat([picture, text, picture * text], dim=-1))
        scores: Tensor = self.scale * alike + self.bias + self.pair_score(pair)[:, 0]
        return scores


def _mean(stream: Stream) -> Tensor:
    """The weighted mean of a stream's tokens: `(b, d)`."""
    total = stream.weights.sum(dim=-1, keepdim=True).clamp_min(1e-6)
    return (stream.tokens * stream.weights[..., None]).sum(dim=1) / total
