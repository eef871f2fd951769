"""What fusion gives to the decoder.

Shapes: `k` prefix tokens, `d_lm` width of the language model, `n_i` image tokens, `n_t` text tokens,
`n_r` persona tokens.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.persona import Persona
from engine.types import Image


@dataclass(frozen=True, slots=True)
class AttentionMaps:
    """How much each of the prefix tokens looked at each token of a stream; a missing stream has width 0.

    `image: (k, n_i)`, `text: (k, n_t)`, `persona: (k, n_r)`; the three together sum to 1 in each row.
    """

    image: Tensor
    text: Tensor
    persona: Tensor


@dataclass(frozen=True, slots=True)
class FusedContext:
    """One turn's fused context: `prefixes[j]: (k, d_lm)` on the decoder's device. Where there are several, the decoder
    reads the prompt with each, and its logits are mixed in the proportion `shares`. `steering[j]: (d_lm,)` is added to
    the decoder's last states while it answers that turn behind `prefixes[j]`; there may be none."""

    prefixes: tuple[Tensor, ...]
    attention: AttentionMaps
    shares: tuple[float, ...] = (1.0,)
    steering: tuple[Tensor, ...] = ()

    @property
    def prefix(self) -> Tensor:
        """The only prefix, or of several the one that counts most."""
        return self.prefixes[self.shares.index(max(self.shares))]

    @property
    def strongest_steering(self) -> Tensor | None:
        """The steering that belongs to `prefix`, if there is any."""
        return self.steering[self.shares.index(max(self.shares))] if self.steering else None


class Writer(Protocol):
    """What fusion asks of a decoder's prompt writer."""

    def tokenise(self, text: str) -> tuple[int, ...]:
        """Token ids of rendered text."""


class Backbone(Protocol):
    """What fusion asks of the decoder that it was trained for: a `LanguageModel`, or the part of one that lies here
    while the rest runs elsewhere."""

    name: str
    adapter: str
    model: Any
    """Has `get_input_embeddings()`."""

    @property
    def prompts(self) -> Writer:
        """Tokenises as the decoder does."""

    @property
    def device(self) -> torch.device:
        """Where prefixes are handed over."""

    @property
    def dtype(self) -> torch.dtype:
        """In which format."""


class TurnFuser(Protocol):
    """Encodes and fuses one user turn. Called on the engine's thread only."""

    num_prefix_tokens: int

    def fuse(self, persona: Persona, text: str, images: tuple[Image, ...]) -> FusedContext | None:
        """The fused context of a turn, or `None` where the turn goes without a prefix. Deterministic, and cached by
        the digests of its inputs."""
