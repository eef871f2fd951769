"""What a trained fusion is worth, on data that it has not seen: figures per reply token, lower is better for a loss.

For pictures: the loss of a human caption with the picture, with another picture, and without a prefix. For turns
without a picture: the loss of a persona's reply with and without the prefix, which says whether such turns should get
one.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from engine.encoders.types import ImageFeatures
from engine.fusion.config import FusionConfig
from engine.fusion.model import FusionModel
from engine.fusion.weights import bind, read_fusion
from engine.training.characters import characters, describe
from engine.training.datasets import read_dialogues, read_styled_answers
from engine.training.samples import TrainingSample, dialogue_sample, styled_sample
from engine.training.workshop import Advance, Workshop
from engine.types import Role, Turn

BATCH_SIZE = 32
SEED = 0
QUESTION = "What do you see?"


def decoder_of(weights: Path) -> str:
    """The decoder that the weights were trained for."""
    return FusionConfig.load(weights).decoder


def load_model(weights: Path, workshop: Workshop) -> FusionModel:
    """Trained weights, ready to measure."""
    return bind(
        read_fusion(weights),
        tokenize=workshop.decoder.tokenize,
        embeddings=workshop.decoder.embeddings,
        device=torch.device(workshop.device),
    )


def measure(
    model: FusionModel, workshop: Workshop, data: Path, *, pictures: Sequence[str], limit: int, advance: Advance
) -> dict[str, float]:
    """All figures."""
    figures: dict[str, float] = {}
    for name in pictures:
        captioned, features = workshop.picture_set(data, name, advance, max_per_caption=10**9)
        captions = [picture.captions[0] for picture in captioned[:limit]]
        images = [features.row(row) for row in range(len(captions))]
        figures |= {
            f"{name}: {what}": value for what, value in _picture_figures(model, workshop, captions, images).items()
        }
    figures |= _dialogue_figures(model, workshop, data, limit=limit)
    return figures


def _picture_figures(
    model: FusionModel, workshop: Workshop, captions: list[str], images: list[ImageFeatures]
) -> dict[str, float]:
    samples = [_caption_sample(caption, image) for caption, image in zip(captions, images, strict=True)]
    others = [replace(sample, images=samples[j - 1].images) for j, sample in enumerate(samples)]
    right, wrong, without = (
        losses(model, workshop, samples), losses(model, workshop, others), losses(None, workshop, samples)
    )  # fmt: skip
    return {
        "loss with its picture": right.mean().item(),
        "loss with another picture": wrong.mean().item(),
        "loss without a prefix": without.mean().item(),
        "share where its picture is better": (right < wrong).float().mean().item(),
    }


def _caption_sample(caption: str, image: ImageFeatures) -> TrainingSample:
    persona = characters()[1].persona
    facets = tuple(facet.text for facet in persona.facets())
    return TrainingSample("scenes", describe(persona), facets, (Turn(Role.USER, QUESTION),), (image,), caption)


def _dialogue_figures(model: FusionModel, workshop: Workshop, data: Path, *, limit: int) -> dict[str, float]:
    chance = Random(SEED)  # noqa: S311 - chance, not secrecy
    answers = read_styled_answers(data / "personality_chat.jsonl")[:limit]
    dialogues = read_dialogues(data / "synthetic_persona_chat.jsonl")[:limit]
    sets = {
        "personality_chat": [styled_sample(answer, chance) for answer in answers],
        "synthetic_persona_chat": [dialogue_sample(dialogue, chance, num_told=2) for dialogue in dialogues],
    }
    figures = {}
    for name, samples in sets.items():
        figures[f"{name}: loss with a prefix"] = losses(model, workshop, samples).mean().item()
        figures[f"{name}: loss without a prefix"] = losses(None, workshop, samples).mean().item()
    return figures


@torch.no_grad()
def losses(model: FusionModel | None, workshop: Workshop, samples: Sequence[TrainingSample]) -> Tensor:
    """Mean loss over each sample's reply, `(len(samples),)`; without a model there is no prefix."""
    parts = [_batch_losses(model, workshop, samples[j : j + BATCH_SIZE]) for j in range(0, len(samples), BATCH_SIZE)]
    return torch.cat(parts)


def _batch_losses(model: FusionModel | None, workshop: Workshop, samples: Sequence[TrainingSample]) -> Tensor:
    prefix = None if model is None else model(workshop.encoder.turns(samples)).prefix
    examples = [workshop.encoder.example(sample) for sample in samples]
    token_losses, rows = workshop.decoder.reply_losses(examples, prefix)
    totals = torch.zeros(len(samples), device=rows.device).index_add(0, rows, token_losses)
    return totals / torch.bincount(rows, minlength=len(samples))
