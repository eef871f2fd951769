"""A tiny fusion for the tiny language model (32 wide) and the tiny text encoder (16 wide)."""

from dataclasses import replace

import torch

from engine.encoders.types import ImageFeatures
from engine.fusion.config import FusionConfig
from engine.fusion.model import ConceptVocabulary, FusionModel, TurnFeatures

NAMES = tuple(f"thing {number}" for number in range(1000))
CONFIG = FusionConfig(
    decoder="tiny",
    decoder_width=32,
    embedding_scale=0.15,
    text_width=16,
    width=24,
    num_layers=2,
    num_heads=4,
    num_prefix_tokens=3,
    num_lexical_tokens=2,
    num_quoted_tokens=3,
)
NUM_TOKENS = 260


def tiny_fusion(config: FusionConfig = CONFIG, *, is_trained: bool = True, **changes: object) -> FusionModel:
    """Random weights; a trained one has its gates open."""
    config = replace(config, **changes)
    torch.manual_seed(1)
    vocabulary = ConceptVocabulary(
        meanings=torch.randn(config.num_classes, config.text_width),
        names=torch.randn(config.num_classes, max(1, config.num_lexical_tokens), config.decoder_width),
        is_token=torch.ones(config.num_classes, max(1, config.num_lexical_tokens), dtype=torch.bool),
        table=torch.randn(NUM_TOKENS, config.decoder_width) * config.embedding_scale,
    )
    model = FusionModel(config, vocabulary).eval()
    for mark in model.stream_marks.values():
        torch.nn.init.normal_(mark)
    if is_trained:
        torch.nn.init.constant_(model.readout.gate, 0.7)
        if model.lexical_path is not None:
            torch.nn.init.constant_(model.lexical_path.gate, 0.4)
        if model.quoting_path is not None:
            torch.nn.init.constant_(model.quoting_path.gate, 0.5)
    return model


def an_image(*, seed: int = 0, num_patches: int = 6) -> ImageFeatures:
    """Random features of one picture."""
    chance = torch.Generator().manual_seed(seed)
    weights = torch.rand(10, generator=chance).sort(descending=True).values / 10
    return ImageFeatures(
        torch.randn(num_patches, 1280, generator=chance), torch.randperm(1000, generator=chance)[:10], weights
    )


def a_turn(*, num_images: int = 1, num_words: int = 4, num_facets: int = 3, seed: int = 0) -> TurnFeatures:
    """Random features of one turn."""
    chance = torch.Generator().manual_seed(seed + 100)
    return TurnFeatures(
        images=tuple(an_image(seed=seed + j) for j in range(num_images)),
        text=torch.randn(num_words, 16, generator=chance),
        persona=torch.randn(num_facets, 16, generator=chance),
        facet_ids=torch.randint(0, NUM_TOKENS, (num_facets, 3), generator=chance),
    )
