"""A tiny training run: everything real but the sizes."""

from pathlib import Path

import torch

from engine.training.datasets import CaptionedPicture, PersonaDialogue, StyledAnswers
from engine.training.decoder import FrozenDecoder
from engine.training.encoding import SampleEncoder
from engine.training.features import FeatureSet
from engine.training.run import TrainingOptions, TrainingRun
from engine.training.samples import ConceptSource, PictureSource, SampleMix
from tests.engine.encoders.tiny import tiny_text_encoder
from tests.engine.fusion.tiny import NAMES, tiny_fusion
from tests.engine.tiny import tiny_llama, tiny_tokenizer

OPTIONS = TrainingOptions(num_steps=6, batch_size=4, num_warmup_steps=1, log_every=1, checkpoint_every=2)


def a_source(*captions: str, share: float = 1.0) -> PictureSource:
    """One picture a caption, with random features."""
    chance = torch.Generator().manual_seed(len(captions))
    num = len(captions)
    weights = torch.rand(num, 10, generator=chance).sort(dim=-1, descending=True).values
    features = FeatureSet(
        images=tuple(f"{j}.jpg" for j in range(num)),
        skipped=(),
        patches=torch.randn(num, 4, 1280, generator=chance).half(),
        concept_ids=torch.randint(0, 1000, (num, 10), generator=chance),
        concept_weights=(weights / weights.sum(dim=-1, keepdim=True)).half(),
    )
    pictures = tuple(CaptionedPicture(f"{j}.jpg", (caption,)) for j, caption in enumerate(captions))
    return PictureSource(pictures, features, tuple(range(num)), share)


def a_mix(*, seed: int = 0, shares: dict[str, float] | None = None, patch_dropout: float = 0.3) -> SampleMix:
    """Two pictures, one scene, one line, one dialogue."""
    meanings = torch.randn(1000, 16, generator=torch.Generator().manual_seed(0))
    turns = ((0, "Hi!"), (1, "Hello, do you ski?"), (0, "I do."))
    return SampleMix(
        seed=seed,
        concepts=ConceptSource(NAMES, meanings, class_ids=range(300, 1000)),
        things=[a_source("a photo of a dog", "a photo of an apple")],
        scenes=a_source("A dog on a bed."),
        answers=[StyledAnswers("hi", {"witty": "Ha", "friendly": "Hello"})],
        dialogues=[PersonaDialogue((("I ski.", "I am six."), ("I cook.",)), turns)],
        shares=shares or OPTIONS.shares(),
        patch_dropout=patch_dropout,
    )


def a_run(folder: Path, options: TrainingOptions = OPTIONS, **sizes: object) -> TrainingRun:
    """A run over the tiny decoder."""
    model = tiny_llama()
    model.config._attn_implementation = "eager"
    decoder = FrozenDecoder(model, tiny_tokenizer(), name="tiny")
    return TrainingRun(
        folder,
        options=options,
        model=tiny_fusion(is_trained=False, **sizes),
        class_names=NAMES,
        decoder=decoder,
        encoder=SampleEncoder(tiny_text_encoder(), decoder),
        mix=a_mix(),
    )
