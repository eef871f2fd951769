"""What the encoders answer.

Shapes: `n_p` patch tokens of a picture, `n_c` concept words of a picture, `n_t` text tokens, `n_r` persona tokens,
`d_i`, `d_t` widths of the image and the text encoder. All on the encoder's device, without gradient.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """One picture: a square map of patches, row by row, and the classes it most likely shows.

    `patches: (n_p, d_i)`, `concept_ids: (n_c,)` indices of the encoder's own classes, the likeliest first,
    `concept_weights: (n_c,)` how likely each is among these, together 1.
    """

    patches: Tensor
    concept_ids: Tensor
    concept_weights: Tensor


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """One text. `tokens: (n_t, d_t)`; an empty text has `n_t` = 0. `words[j]` is what token `j` stands for."""

    tokens: Tensor
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SentenceFeatures:
    """One text for matching. `tokens: (n_t, d_t)`, `pooled: (d_t,)` of length 1."""

    tokens: Tensor
    pooled: Tensor


@dataclass(frozen=True, slots=True)
class PersonaFeatures:
    """One persona. `tokens: (n_r, d_t)`, one a facet; `kinds[j]` is the facet's kind, `texts[j]` what it says."""

    tokens: Tensor
    kinds: tuple[str, ...]
    texts: tuple[str, ...]
