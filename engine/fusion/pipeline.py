"""One user turn through encoders and fusion: what the engine's thread calls.

Owns the caches: image features by the picture's digest, persona features by the persona's, fused contexts by both and
the words. Knows neither requests nor scheduling nor the language model's inside.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from engine.encoders.image import ImageEncoder
from engine.encoders.persona import PersonaEncoder
from engine.encoders.text import TextEncoder
from engine.encoders.types import ImageFeatures
from engine.fusion.model import FusionModel, TurnFeatures
from engine.fusion.types import AttentionMaps, FusedContext
from engine.fusion.vocabulary import facet_ids
from engine.persona import Persona
from engine.types import Image

MAX_KEPT_PICTURES = 256
MAX_KEPT_CONTEXTS = 512

Key = TypeVar("Key")
Value = TypeVar("Value")


class _Recent(Generic[Key, Value]):
    """Keeps the values used last."""

    def __init__(self, max_values: int) -> None:
        self._max_values = max_values
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: Key, value: Value) -> None:
        self._values[key] = value
        while len(self._values) > self._max_values:
            self._values.popitem(last=False)


class FusionPipeline:
    """Encodes and fuses user turns; the `TurnFuser` of trained weights."""

    def __init__(
        self,
        model: FusionModel,
        *,
        image: ImageEncoder,
        text: TextEncoder,
        device: torch.device,
        dtype: torch.dtype,
        class_names: Sequence[str] = (),
        tokenize: Callable[[str], list[int]] | None = None,
    ) -> None:
        """`device` and `dtype` are the language model's, in which the prefix is handed over; `class_names` are what
        the image encoder's classes are called. `tokenize` is the language model's, without which no persona is
        quoted."""
        self.model = model
        self.text_encoder = text
        self.class_names = tuple(class_names)
        self.num_prefix_tokens = model.config.num_prefix_tokens
        self._image = image
        self._persona = PersonaEncoder(text)
        self._tokenize = tokenize
        self._device = device
        self._dtype = dtype
        self._pictures: _Recent[str, ImageFeatures] = _Recent(MAX_KEPT_PICTURES)
        self._facets: _Recent[str, Tensor] = _Recent(MAX_KEPT_CONTEXTS)
        self._contexts: _Recent[tuple[str, str, tuple[str, ...]], FusedContext] = _Recent(MAX_KEPT_CONTEXTS)

    @property
    def image_encoder(self) -> ImageEncoder:
        """What pictures are encoded with."""
        return self._image

    def encode_images(self, images: tuple[Image, ...]) -> tuple[ImageFeatures, ...]:
        """Features of each picture, from the cache where they are known."""
        return self._encode(images)

    def fuse(self, persona: Persona, text: str, images: tuple[Image, ...]) -> FusedContext | None:
        """The fused context of a turn.

        `None`, so that the backbone runs untouched, while the gates are shut, and for a turn without pictures where the
        weights were found to help only with pictures.
        """
        if self.model.is_untrained or (not images and self.model.config.policy == "pictures"):
            return None
        images = images[: self.model.config.max_images]
        key = (persona.digest(), text, tuple(image.digest for image in images))
        context = self._contexts.get(key)
        if context is None:
            context = self._fuse(persona, text, images)
            self._contexts.put(key, context)
        return context

    @torch.no_grad()
    def _fuse(self, persona: Persona, text: str, images: tuple[Image, ...]) -> FusedContext:
        fused = self.model([self.features(persona, text, images)])
        attention = AttentionMaps(**{stream: shares[0] for stream, shares in fused.attention.items()})
        prefixes = tuple(self._hand_over(prefix[0]) for prefix in fused.prefixes)
        steering = tuple(self._hand_over(steered[0]) for steered in fused.steering)
        return FusedContext(prefixes, attention, tuple(fused.mixture[0].tolist()), steering)

    def features(self, persona: Persona, text: str, images: tuple[Image, ...]) -> TurnFeatures:
        """What the encoders find in a turn, of at most as many pictures as the model takes."""
        told = self._persona.encode(persona)
        return TurnFeatures(
            images=self._encode(images[: self.model.config.max_images]),
            text=self.text_encoder.encode([text])[0].tokens,
            persona=told.tokens,
            facet_ids=self._quotable(persona.digest(), told.texts),
        )

    def _quotable(self, digest: str, facets: Sequence[str]) -> Tensor | None:
        """The language model's tokens of each facet, where the fusion can quote them."""
        if self._tokenize is None or not self.model.config.num_quoted_tokens:
            return None
        ids = self._facets.get(digest)
        if ids is None:
            ids = facet_ids(facets, tokenize=self._tokenize, num_tokens=self.model.config.num_quoted_tokens)
            self._facets.put(digest, ids)
        return ids

    def _encode(self, images: tuple[Image, ...]) -> tuple[ImageFeatures, ...]:
        """Features of each picture; those met before are not encoded again."""
        known = {image.digest: self._pictures.get(image.digest) for image in images}
        new = list({image.digest: image for image in images if known[image.digest] is None}.values())
        for image, features in zip(new, self._image.encode([image.data for image in new]), strict=True):
            self._pictures.put(image.digest, features)
            known[image.digest] = features
        return tuple(found for image in images if (found := known[image.digest]) is not None)

    def _hand_over(self, prefix: Tensor) -> Tensor:
        return prefix.to(self._device, self._dtype)
