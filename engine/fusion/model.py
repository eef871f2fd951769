"""The fusion model: encoder features in, prefix and attention out. The only part of the engine's default stack that is
trained by this project.

Owns the projections into the common width, the vocabulary of concept words, and how streams are padded into a batch.
Knows no files and no requests. Shapes: `b` batch, `n_p` patches and `n_c` concepts of one picture, `n_i` image
tokens, `n_t` text tokens, `n_r` persona tokens, `k` prefix tokens, `d` width, `d_i`, `d_t`, `d_lm` widths of image
encoder, text encoder and language model, `m` tokens of a class name.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from engine.encoders.types import ImageFeatures
from engine.fusion.coattention import STREAMS, CoAttention, Stream
from engine.fusion.config import FusionConfig
from engine.fusion.readout import LexicalPath, Readout


@dataclass(frozen=True, slots=True)
class TurnFeatures:
    """What the encoders found in one turn. `text: (n_t, d_t)` and `persona: (n_r, d_t)` may have no rows, but one of
    the streams must have some."""

    images: tuple[ImageFeatures, ...]
    text: Tensor
    persona: Tensor


@dataclass(frozen=True, slots=True)
class ConceptVocabulary:
    """The image encoder's classes as the text encoder and the language model know them.

    `meanings: (num_classes, d_t)`, `names: (num_classes, m, d_lm)`, `is_token: (num_classes, m)`.
    """

    meanings: Tensor
    names: Tensor
    is_token: Tensor


@dataclass(frozen=True, slots=True)
class FusedBatch:
    """`prefix: (b, k, d_lm)`; `attention[stream]: (b, k, n_s)`, padded as the batch was."""

    prefix: Tensor
    attention: dict[str, Tensor]


class FusionModel(nn.Module):
    """Projections, co-attention, readout."""

    meanings: Tensor
    names: Tensor
    is_token: Tensor

    def __init__(self, config: FusionConfig, vocabulary: ConceptVocabulary) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("meanings", vocabulary.meanings)
        self.register_buffer("names", vocabulary.names, persistent=False)
        self.register_buffer("is_token", vocabulary.is_token, persistent=False)
        self.patch_projection = nn.Sequential(
            nn.LayerNorm(config.image_width), nn.Linear(config.image_width, config.width)
        )
        self.concept_projection = nn.Linear(config.text_width, config.width)
        self.text_projection = nn.Sequential(
            nn.LayerNorm(config.text_width), nn.Linear(config.text_width, config.width)
        )
        self.persona_projection = nn.Linear(config.text_width, config.width)
        self.stream_marks = nn.ParameterDict({name: torch.zeros(config.width) for name in (*STREAMS, "concept")})
        self.fusion = CoAttention(config.width, num_layers=config.num_layers, num_heads=config.num_heads)
        self.readout = Readout(
            config.width,
            num_heads=config.num_heads,
            num_prefix_tokens=config.num_prefix_tokens,
            decoder_width=config.decoder_width,
        )
        self.lexical_path = (
            LexicalPath(
                config.width,
                num_prefix_tokens=config.num_prefix_tokens,
                num_name_tokens=config.num_lexical_tokens,
            )
            if config.num_lexical_tokens
            else None
        )

    @property
    def is_untrained(self) -> bool:
        """Whether every gate is still shut, so that the prefix would be nothing."""
        gates = [self.readout.gate] + ([self.lexical_path.gate] if self.lexical_path is not None else [])
        return not any(bool(gate.any()) for gate in gates)

    def forward(self, turns: Sequence[TurnFeatures]) -> FusedBatch:
        """Fuse a batch of turns."""
        concept_ids, concept_weights = self._concepts(turns)
        streams = {
            "image": self._image_stream(turns, concept_ids, concept_weights),
            "text": self._stream([turn.text for turn in turns], self.text_projection, mark="text"),
            "persona": self._stream([turn.persona for turn in turns], self.persona_projection, mark="persona"),
        }
        fused = self.fusion(streams)
        tokens = torch.cat([fused[name].tokens for name in STREAMS], dim=1)
        weights = torch.cat([fused[name].weights for name in STREAMS], dim=1)
        prefix, states, attention = self.readout(tokens, weights)
        prefix = prefix * self.config.embedding_scale
        if self.lexical_path is not None and concept_ids.shape[1]:
            concepts = self._concept_tokens(concept_ids)
            names, is_token = self.names[concept_ids], self.is_token[concept_ids]
            prefix = prefix + self.lexical_path(states, concepts, concept_weights, names, is_token)
        sizes = [fused[name].tokens.shape[1] for name in STREAMS]
        return FusedBatch(prefix, dict(zip(STREAMS, attention.split(sizes, dim=-1), strict=True)))

    def _concepts(self, turns: Sequence[TurnFeatures]) -> tuple[Tensor, Tensor]:
        """Concept words of all of a turn's pictures: ids and weights, `(b, pictures · n_c)`."""
        device = self.meanings.device
        ids = [_concatenate([image.concept_ids for image in turn.images], device=device).long() for turn in turns]
        weights = [_concatenate([image.concept_weights for image in turn.images], device=device) for turn in turns]
        return pad_sequence(ids, batch_first=True), pad_sequence(weights, batch_first=True)

    def _concept_tokens(self, ids: Tensor) -> Tensor:
        tokens: Tensor = self.concept_projection(self.meanings[ids]) + self.stream_marks["concept"]
        return tokens

    def _image_stream(self, turns: Sequence[TurnFeatures], concept_ids: Tensor, concept_weights: Tensor) -> Stream:
        """Patches of all pictures, then their concept words: `n_i` = pictures · (`n_p` + `n_c`)."""
        width, device = self.config.image_width, self.meanings.device
        patches = [
            torch.cat([image.patches for image in turn.images]) if turn.images else torch.zeros(0, width, device=device)
            for turn in turns
        ]
        stream = self._stream(patches, self.patch_projection, mark="image")
        return Stream(
            torch.cat([stream.tokens, self._concept_tokens(concept_ids)], dim=1),
            torch.cat([stream.weights, concept_weights], dim=1),
        )

    def _stream(self, rows: Sequence[Tensor], projection: nn.Module, *, mark: str) -> Stream:
        """Pad `(n, d_in)` rows into a batch and project them."""
        weights = [torch.ones(len(row), device=row.device) for row in rows]
        tokens = projection(pad_sequence(list(rows), batch_first=True)) + self.stream_marks[mark]
        return Stream(tokens, pad_sequence(weights, batch_first=True))


def _concatenate(parts: Sequence[Tensor], *, device: torch.device) -> Tensor:
    return torch.cat(list(parts)) if parts else torch.zeros(0, device=device)
