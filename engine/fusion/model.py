"""The fusion model: encoder features in, prefix and attention out. The only part of the engine's default stack that is
trained by this project.

Owns the projections into the common width, the vocabulary of concept words, and how streams are padded into a batch.
Knows no files and no requests. Shapes: `b` batch, `n_p` patches and `n_c` concepts of one picture, `n_i` image
tokens, `n_t` text tokens, `n_r` persona tokens, `n` fused tokens, `k` prefix tokens, `d` width, `d_i`, `d_t`, `d_lm`
widths of image encoder, text encoder and language model, `e` width of embeddings, `m` tokens of a class name
or a facet, `v` tokens that the language model knows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from engine.encoders.types import ImageFeatures, SentenceFeatures
from engine.errors import ConfigurationError
from engine.fusion.config import FusionConfig
from engine.fusion.kinds import POOLING, build_fusion
from engine.fusion.matching import MatchingHead
from engine.fusion.oneway import LateFusion
from engine.fusion.readout import LexicalPath, QuotingPath, Readout, Steering
from engine.fusion.streams import STREAMS, Fused, Stream, only

READOUT_AJAR, WORDS_AJAR = 0.1, 0.8
NO_HEADS = "these fusion weights were trained without a matching head; train them again"


@dataclass(frozen=True, slots=True)
class TurnFeatures:
    """What the encoders found in one turn. `text: (n_t, d_t)` and `persona: (n_r, d_t)` may have no rows, but one of
    the streams must have some. `facet_ids: (n_r, m)` are the language model's tokens of each facet, -1 for none;
    without them the prefix cannot quote the persona."""

    images: tuple[ImageFeatures, ...]
    text: Tensor
    persona: Tensor
    facet_ids: Tensor | None = None


@dataclass(frozen=True, slots=True)
class ConceptVocabulary:
    """The image encoder's classes as the text encoder and the language model know them, and that model's own words.

    `meanings: (num_classes, d_t)`, `names: (num_classes, m, d_lm)`, `is_token: (num_classes, m)`, `table: (v, d_lm)`,
    the input embeddings of all tokens.
    """

    meanings: Tensor
    names: Tensor
    is_token: Tensor
    table: Tensor


@dataclass(frozen=True, slots=True)
class FusedBatch:
    """`prefixes[j]: (b, k, d_lm)`, more than one where the language model's answers to several are to be mixed, and
    `mixture: (b, len(prefixes))` their shares. `steering[j]: (b, d_lm)` is added to the language model's last states
    while it answers behind `prefixes[j]`; there may be none. `attention[stream]: (b, k, n_s)`, padded as the batch
    was."""

    prefixes: tuple[Tensor, ...]
    mixture: Tensor
    attention: dict[str, Tensor]
    steering: tuple[Tensor, ...] = ()

    @property
    def prefix(self) -> Tensor:
        """The only prefix, `(b, k, d_lm)`, or of several the one that counts most."""
        return self.prefixes[self._strongest]

    @property
    def prefix_and_steering(self) -> Tensor:
        """`prefix`, and the steering that belongs to it as one more row, if there is any: `(b, k + 1, d_lm)`."""
        if not self.steering:
            return self.prefix
        return torch.cat([self.prefix, self.steering[self._strongest][:, None]], dim=1)

    @property
    def _strongest(self) -> int:
        return int(self.mixture.mean(dim=0).argmax())


@dataclass(frozen=True, slots=True)
class _Concepts:
    """Concept words of all of a turn's pictures: `ids`, `weights: (b, pictures · n_c)`, `tokens: (b, …, d)`."""

    ids: Tensor
    weights: Tensor
    tokens: Tensor

    def none(self) -> "_Concepts":
        """The same batch without concept words."""
        return _Concepts(self.ids[:, :0], self.weights[:, :0], self.tokens[:, :0])


class FusionModel(nn.Module):
    """Projections, fusion, readout, and the heads that learn to match and to fill in."""

    meanings: Tensor
    names: Tensor
    is_token: Tensor
    table: Tensor

    def __init__(self, config: FusionConfig, vocabulary: ConceptVocabulary) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("meanings", vocabulary.meanings)
        self.register_buffer("names", vocabulary.names, persistent=False)
        self.register_buffer("is_token", vocabulary.is_token, persistent=False)
        self.register_buffer("table", vocabulary.table, persistent=False)
        self.patch_projection = nn.Sequential(
            nn.LayerNorm(config.image_width), nn.Linear(config.image_width, config.width)
        )
        self.concept_projection = nn.Linear(config.text_width, config.width)
        self.text_projection = nn.Sequential(
            nn.LayerNorm(config.text_width), nn.Linear(config.text_width, config.width)
        )
        self.persona_projection = nn.Linear(config.text_width, config.width)
        self.stream_marks = nn.ParameterDict({name: torch.zeros(config.width) for name in (*STREAMS, "concept")})
        self.fusion = build_fusion(
            config.kind,
            config.width,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            num_paths=bool(config.num_lexical_tokens) + bool(config.num_quoted_tokens),
        )
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
                is_pooling=config.kind in POOLING,
            )
            if config.num_lexical_tokens
            else None
        )
        self.quoting_path = (
            QuotingPath(
                config.width,
                num_prefix_tokens=config.num_prefix_tokens,
                decoder_width=config.decoder_width,
                embedding_scale=config.embedding_scale,
                is_pooling=config.kind in POOLING,
            )
            if config.num_quoted_tokens
            else None
        )
        self.steering = Steering(config.width, decoder_width=config.decoder_width) if config.has_steering else None
        self.matching = MatchingHead(config) if config.has_heads else None
        # Masked language modelling: back from the common width to the text encoder's.
        self.unmask = nn.Linear(config.width, config.text_width) if config.has_heads else None

    @property
    def is_untrained(self) -> bool:
        """Whether every gate is still shut, so that the prefix would be nothing."""
        return not any(bool(gate.any()) for gate in self.gates.values())

    @property
    def gates(self) -> dict[str, Tensor]:
        """What each part of the prefix is multiplied with, before its hyperbolic tangent: `(…, k, 1)` each."""
        parts = {"readout": self.readout, "lexical": self.lexical_path, "quoting": self.quoting_path}
        return {name: part.gate for name, part in parts.items() if part is not None}

    @torch.no_grad()
    def open_gates(self) -> None:
        """Before training: words that are spelled and quoted mean something to the language model from the first step
        on, the readout's own vectors do not yet. Behind shut gates all would be noise, as the language model scales a
        vector of almost nothing up to the size of a word."""
        for name, gate in self.gates.items():
            gate.fill_(READOUT_AJAR if name == "readout" else WORDS_AJAR)
        if self.quoting_path is not None:
            self.quoting_path.gate[1].fill_(READOUT_AJAR)

    def forward(
        self, turns: Sequence[TurnFeatures], *, token_weights: Mapping[str, Tensor] | None = None
    ) -> FusedBatch:
        """Fuse a batch of turns. `token_weights[stream]: (b, n_s)` multiply the tokens' weights: 0 masks a token."""
        concepts = self._concepts([turn.images for turn in turns])
        streams = self._streams(turns, concepts)
        facets = self._facet_ids(turns)
        if token_weights is not None:
            streams = {
                name: Stream(stream.tokens, stream.weights * token_weights[name]) if name in token_weights else stream
                for name, stream in streams.items()
            }
            num_concepts = concepts.weights.shape[1]
            if num_concepts:
                concepts = _Concepts(concepts.ids, streams["image"].weights[:, -num_concepts:], concepts.tokens)
        fused = self.fusion(streams)
        if not isinstance(self.fusion, LateFusion):
            prefix, shares, steering = self._read(fused, concepts, facets)
            attention = {name: shares @ fused.origins[name] for name in STREAMS}
            return FusedBatch((prefix,), prefix.new_ones(len(turns), 1), attention, steering)
        return self._read_each(self.fusion, fused, concepts, facets)

    def fuse_streams(self, turns: Sequence[TurnFeatures]) -> Fused:
        """The streams after the fusion, before the readout."""
        fused: Fused = self.fusion(self._streams(turns, self._concepts([turn.images for turn in turns])))
        return fused

    def embed_images(self, images: Sequence[ImageFeatures]) -> Tensor:
        """Each picture's embedding, of length 1: `(b, e)`. It is the nearer to a text's the better they fit."""
        return self._matching().embed_images(
            torch.stack([image.patches.mean(dim=0) for image in images]),
            self.meanings[torch.stack([image.concept_ids for image in images]).long()],
            torch.stack([image.concept_weights for image in images]),
        )

    def embed_texts(self, texts: Sequence[SentenceFeatures]) -> Tensor:
        """Each text's embedding, of length 1: `(b, e)`."""
        return self._matching().embed_texts(torch.stack([text.pooled for text in texts]))

    def match_scores(self, images: Sequence[ImageFeatures], texts: Sequence[SentenceFeatures]) -> Tensor:
        """How well picture `j` and text `j` fit, `(b,)`: a logit, from both seen in each other's light."""
        alike = (self.embed_images(images) * self.embed_texts(texts)).sum(dim=-1)
        none = self.meanings[:0]
        turns = [TurnFeatures((image,), text.tokens, none) for image, text in zip(images, texts, strict=True)]
        return self._matching().score(alike, self.fuse_streams(turns))

    def contrast(self, images: Sequence[ImageFeatures], texts: Sequence[SentenceFeatures]) -> Tensor:
        """How alike the fusion finds each picture and each text, seen alone: `(b, b)`, scaled for a softmax."""
        none = self.meanings[:0]
        pictures = self.fuse_streams([TurnFeatures((image,), none, none) for image in images])
        words = self.fuse_streams([TurnFeatures((), text.tokens, none) for text in texts])
        return self._matching().contrast(pictures, words)

    def guess(self, states: Tensor, table: Tensor) -> Tensor:
        """Hidden words: fused text tokens `(n, d)` and the text encoder's embeddings `(v, d_t)` → logits `(n, v)`."""
        if self.unmask is None:
            raise ConfigurationError(NO_HEADS)
        logits: Tensor = self.unmask(states) @ table.T
        return logits

    def _matching(self) -> MatchingHead:
        if self.matching is None:
            raise ConfigurationError(NO_HEADS)
        return self.matching

    def _read(self, fused: Fused, concepts: _Concepts, facet_ids: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """The prefix `(b, k, d_lm)`, the readout's attention `(b, k, n)`, and the steering `(b, d_lm)`, if any."""
        prefix, states, shares = self.readout(fused.tokens, fused.weights)
        prefix = prefix * self.config.embedding_scale
        if self.lexical_path is not None and concepts.ids.shape[1]:
            names, is_token = self.names[concepts.ids], self.is_token[concepts.ids]
            prefix = prefix + self.lexical_path(states, concepts.tokens, concepts.weights, names, is_token)
        if self.quoting_path is not None and facet_ids.numel():
            persona, is_word = fused.streams["persona"], facet_ids >= 0
            words = functional.embedding(facet_ids.clamp_min(0), self.table).float()
            has_picture = fused.streams["image"].is_present
            prefix = prefix + self.quoting_path(states, persona, words, is_word, has_picture=has_picture)
        return prefix, shares, () if self.steering is None else (self.steering(states, fused.streams),)

    def _read_each(self, fusion: LateFusion, fused: Fused, concepts: _Concepts, facet_ids: Tensor) -> FusedBatch:
        """A prefix for each stream alone."""
        mixture = fusion.mixture(fused.streams)
        prefixes: list[Tensor] = []
        steering: list[Tensor] = []
        attention: dict[str, Tensor] = {}
        for j, name in enumerate(STREAMS):
            alone = only(fused.streams, [name])
            weights = torch.cat([alone[other].weights for other in STREAMS], dim=1)
            seen = concepts if name == "image" else concepts.none()
            quoted = facet_ids if name == "persona" else facet_ids[:, :0]
            prefix, shares, steered = self._read(Fused(fused.tokens, weights, fused.origins, alone), seen, quoted)
            prefixes.append(prefix)
            steering += steered
            attention[name] = mixture[:, j, None, None] * (shares @ fused.origins[name])
        return FusedBatch(tuple(prefixes), mixture, attention, tuple(steering))

    def _facet_ids(self, turns: Sequence[TurnFeatures]) -> Tensor:
        """The language model's tokens of each facet, `(b, n_r, m)`, -1 for none."""
        width = self.config.num_quoted_tokens
        none = torch.full((0, width), -1, dtype=torch.long)
        rows = [
            (none.expand(0, -1) if turn.facet_ids is None else turn.facet_ids[:, :width]).to(self.meanings.device)
            for turn in turns
        ]
        longest = max(len(turn.persona) for turn in turns)
        return torch.stack(
            [functional.pad(row, (0, width - row.shape[1], 0, longest - len(row)), value=-1) for row in rows]
        )

    def _streams(self, turns: Sequence[TurnFeatures], concepts: _Concepts) -> dict[str, Stream]:
        return {
            "image": self._image_stream(turns, concepts),
            "text": self._stream([turn.text for turn in turns], self.text_projection, mark="text"),
            "persona": self._stream([turn.persona for turn in turns], self.persona_projection, mark="persona"),
        }

    def _concepts(self, images: Sequence[Sequence[ImageFeatures]]) -> _Concepts:
        device = self.meanings.device
        ids = [_concatenate([image.concept_ids for image in row], device=device).long() for row in images]
        weights = [_concatenate([image.concept_weights for image in row], device=device) for row in images]
        padded = pad_sequence(ids, batch_first=True)
        tokens = self.concept_projection(self.meanings[padded]) + self.stream_marks["concept"]
        return _Concepts(padded, pad_sequence(weights, batch_first=True), tokens)

    def _image_stream(self, turns: Sequence[TurnFeatures], concepts: _Concepts) -> Stream:
        """Patches of all pictures, then their concept words: `n_i` = pictures · (`n_p` + `n_c`)."""
        width, device = self.config.image_width, self.meanings.device
        patches = [
            torch.cat([image.patches for image in turn.images]) if turn.images else torch.zeros(0, width, device=device)
            for turn in turns
        ]
        stream = self._stream(patches, self.patch_projection, mark="image")
        return Stream(
            torch.cat([stream.tokens, concepts.tokens], dim=1), torch.cat([stream.weights, concepts.weights], dim=1)
        )

    def _stream(self, rows: Sequence[Tensor], projection: nn.Module, *, mark: str) -> Stream:
        """Pad `(n, d_in)` rows into a batch and project them."""
        weights = [torch.ones(len(row), device=row.device) for row in rows]
        tokens = projection(pad_sequence(list(rows), batch_first=True)) + self.stream_marks[mark]
        return Stream(tokens, pad_sequence(weights, batch_first=True))


def _concatenate(parts: Sequence[Tensor], *, device: torch.device) -> Tensor:
    return torch.cat(list(parts)) if parts else torch.zeros(0, device=device)
