"""Tiny data and models to train: everything real but the sizes."""

import torch

from engine.training.datasets import CaptionedPicture, Conversation, PersonaDialogue, StyledAnswers
from engine.training.decoder import FrozenDecoder
from engine.training.encoding import SampleEncoder
from engine.training.features import FeatureSet
from engine.training.samples import ConceptSource, PersonaSamples, PictureSamples, PictureSource
from engine.types import Role, Turn
from tests.engine.encoders.tiny import tiny_text_encoder
from tests.engine.fusion.tiny import NAMES
from tests.engine.tiny import tiny_llama, tiny_tokenizer

SHARES = {"concepts": 0.5, "things": 0.3, "scenes": 0.2}
TURNS = ((0, "Hi!"), (1, "Hello, do you ski?"), (0, "I do."))


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


def picture_samples(
    *, seed: int = 0, shares: dict[str, float] | None = None, patch_dropout: float = 0.3
) -> PictureSamples:
    """Two pictures of things, one scene."""
    meanings = torch.randn(1000, 16, generator=torch.Generator().manual_seed(0))
    return PictureSamples(
        seed=seed,
        concepts=ConceptSource(NAMES, meanings, class_ids=range(300, 1000)),
        things=[a_source("a photo of a dog", "a photo of an apple")],
        scenes=[a_source("A dog on a bed.")],
        shares=shares or SHARES,
        patch_dropout=patch_dropout,
    )


def persona_samples(*, seed: int = 0, share_styled: float = 0.5, has_conversations: bool = False) -> PersonaSamples:
    """A line in three styles, a dialogue, and perhaps a conversation."""
    said = (Turn(Role.USER, "Who are you?"), Turn(Role.ASSISTANT, "A cook."))
    return PersonaSamples(
        seed=seed,
        answers=[StyledAnswers("hi", {"witty": "Ha", "friendly": "Hello", "professional": "Good day"})],
        dialogues=[PersonaDialogue((("I ski.", "I am six."), ("I cook.",)), TURNS)],
        conversations=[Conversation(("I cook well.",), said)] if has_conversations else [],
        share_styled=share_styled,
    )


def frozen_decoder() -> FrozenDecoder:
    """A decoder with random weights."""
    model = tiny_llama()
    model.config._attn_implementation = "eager"
    return FrozenDecoder(model, tiny_tokenizer(), name="tiny")


def sample_encoder(decoder: FrozenDecoder | None = None) -> SampleEncoder:
    """Tiny encoders with random weights."""
    return SampleEncoder(tiny_text_encoder(), decoder or frozen_decoder())
