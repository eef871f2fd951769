"""The matching head: does this text say what this picture shows?

Two ways. *Embeddings*, one a picture and one a text, which can be kept and compared by the thousand. They build on what
the encoders know without training, the picture's class names and the text as the text encoder sees them, both centred
(most of a caption's vector says only that it is a caption); a linear map from the picture's features adds what the
class names miss, and a mild whitening makes rare directions count. Maps and centres are fitted in closed form
(`engine.training.ridge`), not by gradient. *Scores* of single pairs add what the fusion sees of each in the light of
the other. Shapes: `b` batch, `n_c` concepts, `d` width, `d_i`, `d_t` widths of the encoders, `e` = `d_t`.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.fusion.config import FusionConfig
from engine.fusion.streams import Fused, Stream

# A logistic fit of out-of-fold cosines of the open COCO photos, as many right pairs as wrong ones.
INITIAL_SCALE, INITIAL_BIAS = 14.2, -2.26
INITIAL_CONTRAST_SCALE = 10.0


class MatchingHead(nn.Module):
    """Embeddings and scores."""

    concept_centre: Tensor
    text_centre: Tensor
    patch_centre: Tensor
    patch_scale: Tensor
    concept_share: Tensor
    patch_map: Tensor
    whitening: Tensor

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.register_buffer("concept_centre", torch.zeros(config.text_width))
        self.register_buffer("text_centre", torch.zeros(config.text_width))
        self.register_buffer("patch_centre", torch.zeros(config.image_width))
        self.register_buffer("patch_scale", torch.ones(()))
        self.register_buffer("concept_share", torch.ones(()))
        self.register_buffer("patch_map", torch.zeros(config.image_width, config.text_width))
        self.register_buffer("whitening", torch.eye(config.text_width))
        self.log_scale = nn.Parameter(torch.tensor(math.log(INITIAL_SCALE)))
        self.bias = nn.Parameter(torch.tensor(INITIAL_BIAS))
        self.pair = nn.Sequential(nn.LayerNorm(3 * config.width), nn.Linear(3 * config.width, config.width), nn.GELU())
        self.pair_score = nn.Linear(config.width, 1, bias=False)
        nn.init.zeros_(self.pair_score.weight)
        self.picture_side = nn.Linear(config.width, config.width)
        self.text_side = nn.Linear(config.width, config.width)
        self.log_contrast_scale = nn.Parameter(torch.tensor(math.log(INITIAL_CONTRAST_SCALE)))

    def centre_concepts(self, meanings: Tensor, weights: Tensor) -> Tensor:
        """Class names of pictures, `meanings: (b, n_c, d_t)`, `weights: (b, n_c)` → `(b, d_t)` of length 1."""
        return functional.normalize(mean_meaning(meanings, weights) - self.concept_centre, dim=-1)

    def centre_patches(self, patches: Tensor) -> Tensor:
        """Mean patches `(b, d_i)` → `(b, d_i)` about zero."""
        return (spread(patches) - self.patch_centre) / self.patch_scale

    def centre_texts(self, pooled: Tensor) -> Tensor:
        """Texts `(b, d_t)` → `(b, d_t)` of length 1."""
        return functional.normalize(pooled - self.text_centre, dim=-1)

    def embed_images(self, patches: Tensor, meanings: Tensor, weights: Tensor) -> Tensor:
        """`patches: (b, d_i)`, their mean; `meanings: (b, n_c, d_t)`, `weights: (b, n_c)` → `(b, e)` of length 1."""
        known = self.concept_share * self.centre_concepts(meanings, weights)
        found = functional.normalize(known + self.centre_patches(patches) @ self.patch_map, dim=-1)
        return functional.normalize(found @ self.whitening, dim=-1)

    def embed_texts(self, pooled: Tensor) -> Tensor:
        """`pooled: (b, d_t)` → `(b, e)` of length 1."""
        return functional.normalize(self.centre_texts(pooled) @ self.whitening, dim=-1)

    def score(self, alike: Tensor, fused: Fused) -> Tensor:
        """`alike: (b,)`, the embeddings' dot products, and the fused pair → `(b,)` logits."""
        picture, text = fused.streams["image"].mean(), fused.streams["text"].mean()
        pair = self.pair(torch.cat([picture, text, picture * text], dim=-1))
        scores: Tensor = self.log_scale.exp() * alike + self.bias + self.pair_score(pair)[:, 0]
        return scores

    def contrast(self, pictures: Fused, texts: Fused) -> Tensor:
        """How alike the fusion finds pictures and texts that it has seen alone: `(b, b)`, scaled."""
        images = functional.normalize(self.picture_side(Stream(pictures.tokens, pictures.weights).mean()), dim=-1)
        words = functional.normalize(self.text_side(Stream(texts.tokens, texts.weights).mean()), dim=-1)
        alike: Tensor = self.log_contrast_scale.clamp(max=4.6).exp() * images @ words.T
        return alike


def mean_meaning(meanings: Tensor, weights: Tensor) -> Tensor:
    """`(b, n_c, d_t)`, `(b, n_c)` → `(b, d_t)` of length 1. The roots of the weights, which is the softmax at twice the
    temperature: of a busy photo the second and third guess are worth something."""
    shares = weights.clamp_min(0).sqrt()
    return functional.normalize((shares[..., None] * meanings).sum(dim=1), dim=-1)


def spread(patches: Tensor) -> Tensor:
    """Roots, which tame the few large values of features behind a ReLU."""
    return patches.clamp_min(0).sqrt()
