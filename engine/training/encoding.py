"""Samples into what the fusion and the decoder take. Sentences that repeat are encoded once."""

from collections.abc import Container, Iterable, Sequence

import torch
from torch import Tensor

from engine.encoders.text import TextEncoder
from engine.encoders.types import ImageFeatures, SentenceFeatures
from engine.fusion.model import TurnFeatures
from engine.fusion.vocabulary import facet_ids
from engine.training.decoder import FrozenDecoder, ReplyExample
from engine.training.samples import TrainingSample

MAX_KEPT = 50_000
MAX_QUOTED_TOKENS = 32


class SampleEncoder:
    """Encodes texts with the frozen encoders."""

    def __init__(self, text: TextEncoder, decoder: FrozenDecoder) -> None:
        self._text = text
        self._decoder = decoder
        self._words: dict[str, Tensor] = {}
        self._facets: dict[str, Tensor] = {}
        self._sentences: dict[str, SentenceFeatures] = {}

    def turns(self, samples: Sequence[TrainingSample]) -> list[TurnFeatures]:
        """What the encoders see of each sample's last turn."""
        self._learn(samples)
        empty = self._text.pool([])
        return [
            TurnFeatures(
                images=tuple(self.image(image) for image in sample.images),
                text=self._words[sample.turns[-1].text],
                persona=torch.stack([self._facets[facet] for facet in sample.facets]) if sample.facets else empty,
                facet_ids=facet_ids(sample.facets, tokenize=self._decoder.tokenize, num_tokens=MAX_QUOTED_TOKENS),
            )
            for sample in samples
        ]

    def forget(self) -> None:
        """Drop every encoded sentence."""
        self._words.clear()
        self._facets.clear()
        self._sentences.clear()

    def image(self, image: ImageFeatures) -> ImageFeatures:
        """Features on the device where the fusion is."""
        device = self._decoder.device
        return ImageFeatures(image.patches.to(device), image.concept_ids.to(device), image.concept_weights.to(device))

    def sentences(self, texts: Sequence[str]) -> list[SentenceFeatures]:
        """Texts to be matched with pictures."""
        if len(self._sentences) > MAX_KEPT:
            self._sentences.clear()
        new = _unknown(texts, self._sentences)
        self._sentences.update(zip(new, self._text.encode_sentences(new), strict=True))
        return [self._sentences[text] for text in texts]

    def example(self, sample: TrainingSample, *, focus_weight: float = 1.0) -> ReplyExample:
        """The sample as the decoder reads it."""
        return self._decoder.example(
            sample.system_prompt,
            sample.turns,
            reply=sample.reply,
            has_end=sample.has_end,
            focus=sample.focus,
            focus_weight=focus_weight,
        )

    def _learn(self, samples: Sequence[TrainingSample]) -> None:
        if len(self._words) + len(self._facets) > MAX_KEPT:
            self._words.clear()
            self._facets.clear()
        words = _unknown((sample.turns[-1].text for sample in samples), self._words)
        features = self._text.encode(words)
        self._words.update((text, one.tokens) for text, one in zip(words, features, strict=True))
        facets = _unknown((facet for sample in samples for facet in sample.facets), self._facets)
        self._facets.update(zip(facets, self._text.pool(facets), strict=True))


def _unknown(texts: Iterable[str], known: Container[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if text not in known]
