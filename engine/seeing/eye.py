"""What sees in the default stack: the trained fusion with its encoders, and what a picture and a text have in common.

Owns embeddings, match probabilities and the name of the space that embeddings live in. Knows neither the language model
nor conversations.
"""

import hashlib
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from engine.encoders.text import TextEncoder
from engine.encoders.types import ImageFeatures, SentenceFeatures
from engine.errors import DeviceError, NotAvailable
from engine.fusion.model import FusionModel
from engine.seeing.references import REFERENCES
from engine.seeing.work import Pieces
from engine.types import Embedding, Image

NO_MATCHING = (
    "These weights cannot compare pictures with words: whoever runs me can train fusion weights with a matching task "
    "(docs/training.md), or go back to the decoder that such weights ship for."
)
MAX_PAIRS_AT_ONCE = 16
# Where a description is as likely right as wrong, and how fast that changes: a logistic fit of right and wrong names
# and captions of pictures that were kept back from training (docs/seeing.md).
EVEN_DEVIATION = 1.8
STEEPNESS = 1.2
MIN_DEVIATION = 1e-3


class Fuser(Protocol):
    """What is needed of `engine.fusion.pipeline.FusionPipeline`."""

    @property
    def model(self) -> FusionModel: ...
    @property
    def text_encoder(self) -> TextEncoder: ...
    def encode_images(self, images: tuple[Image, ...]) -> tuple[ImageFeatures, ...]: ...


class Eye:
    """Compares pictures with texts. Raises `NotAvailable` where the weights have no matching head."""

    def __init__(self, model: FusionModel, text_encoder: TextEncoder) -> None:
        self.model = model
        self._text_encoder = text_encoder
        self._space: str | None = None
        self._references: list[SentenceFeatures] | None = None

    @property
    def can_match(self) -> bool:
        """Whether the weights have learned to match."""
        return self.model.matching is not None

    @property
    def space(self) -> str:
        """Names the weights that embeddings depend on."""
        if self._space is None:
            self._space = self._digest()
        return self._space

    def embed_images(self, features: Sequence[ImageFeatures]) -> tuple[Embedding, ...]:
        """Each picture's embedding."""
        self.require_matching()
        with torch.inference_mode():
            vectors = self.model.embed_images(features)
        return self._embeddings(vectors)

    def embed_text(self, text: str) -> Embedding:
        """A description's embedding."""
        self.require_matching()
        with torch.inference_mode():
            vectors = self.model.embed_texts(self._text_encoder.encode_sentences([text]))
        return self._embeddings(vectors)[0]

    def read(self, words: str) -> Tensor:
        """The tokens of a turn's words, `(n_t, d_t)`."""
        return self._text_encoder.encode([words])[0].tokens

    def match(self, images: Sequence[ImageFeatures], texts: Sequence[str]) -> Pieces[list[list[float]]]:
        """How likely each picture is to fit each text, a row a picture, a few pairs a piece.

        A text's score is taken in deviations from those of `REFERENCES` with the same picture.
        """
        self.require_matching()
        with torch.inference_mode():
            if self._references is None:
                self._references = self._text_encoder.encode_sentences(REFERENCES)
            sentences = self._text_encoder.encode_sentences(texts)
        yield
        matches = []
        for image in images:
            usual = yield from self._scores(image, self._references)
            scores = yield from self._scores(image, sentences)
            deviations = (scores - usual.mean()) / usual.std().clamp_min(MIN_DEVIATION)
            matches.append((STEEPNESS * (deviations - EVEN_DEVIATION)).sigmoid().tolist())
        return matches

    def _scores(self, image: ImageFeatures, sentences: Sequence[SentenceFeatures]) -> Pieces[Tensor]:
        scores = [torch.zeros(0, dtype=torch.float64)]
        for start in range(0, len(sentences), MAX_PAIRS_AT_ONCE):
            some = sentences[start : start + MAX_PAIRS_AT_ONCE]
            with torch.inference_mode():
                scores.append(self.model.match_scores([image] * len(some), some).double().cpu())
            yield
        return _numbers(torch.cat(scores))

    def require_matching(self) -> None:
        """Raise `NotAvailable` where nothing can be matched."""
        if not self.can_match:
            raise NotAvailable(NO_MATCHING)

    def _embeddings(self, vectors: Tensor) -> tuple[Embedding, ...]:
        return tuple(Embedding(self.space, tuple(values)) for values in _numbers(vectors).float().tolist())

    def _digest(self) -> str:
        digest = hashlib.sha256(f"{self.model.config.image_encoder}/{self.model.config.text_encoder}".encode())
        tensors = {"meanings": self.model.meanings}
        if self.model.matching is not None:
            tensors |= self.model.matching.state_dict()
        for name, tensor in sorted(tensors.items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]


def _numbers(values: Tensor) -> Tensor:
    """`values`, checked: what is no number compares as neither more nor less, and would pass for a sure match."""
    if not bool(values.isfinite().all()):
        raise DeviceError("a picture and its words gave no numbers: the picture or the fusion weights are out of range")
    return values
