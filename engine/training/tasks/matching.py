"""Which words belong to which picture: contrast over a batch, and single pairs against the hardest wrong ones.

The contrast is symmetric InfoNCE (Radford et al. 2021, figure 3) on what the fusion makes of pictures and texts alone;
the pairs are told apart by the cross-encoder, with the wrong pairs that the embeddings take for right ones (Li et al.
2021, section 3.2). Shapes: `b` pairs of a batch.
"""

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor
from torch.nn import functional

from engine.encoders.types import ImageFeatures, SentenceFeatures
from engine.errors import ConfigurationError
from engine.fusion.model import FusionModel
from engine.training.encoding import SampleEncoder
from engine.training.samples import PictureSource, draw_row
from engine.training.tasks.base import TaskLoss

SHARE_SCENES = 0.5


class PairSamples:
    """Draws pictures with one of their captions."""

    def __init__(self, *, seed: int, things: Sequence[PictureSource], scenes: Sequence[PictureSource]) -> None:
        self._seed = seed
        self._things = tuple(things)
        self._scenes = tuple(scenes)
        if not (self._things or self._scenes):
            raise ConfigurationError("there is nothing to match: the data needs pictures with captions")

    def draw(self, index: int) -> tuple[ImageFeatures, str]:
        """Pair number `index` of this seed."""
        chance = Random(f"{self._seed}/pair/{index}")  # noqa: S311 - chance, not secrecy
        is_scene = bool(self._scenes) and (not self._things or chance.random() < SHARE_SCENES)
        source, row = draw_row(self._scenes if is_scene else self._things, chance)
        return source.features.row(row), chance.choice(source.pictures[row].captions)


class MatchingTask:
    """Contrast and matching."""

    name = "matching"

    def __init__(
        self, model: FusionModel, samples: PairSamples, *, encoder: SampleEncoder, seed: int, batch_size: int
    ) -> None:
        self._model = model
        self._samples = samples
        self._encoder = encoder
        self._seed = seed
        self._batch_size = batch_size

    def loss(self, step: int, *, part: int = 0, num_parts: int = 1) -> TaskLoss:
        """See `Task`. The parts are the contrast, the loss of matching, and the share of pairs told right."""
        first = step * self._batch_size
        pairs = [self._samples.draw(first + j) for j in range(self._batch_size)[part::num_parts]]
        images = [self._encoder.image(image) for image, _ in pairs]
        captions = [caption for _, caption in pairs]
        texts = self._encoder.sentences(captions)
        is_other = _is_other(captions, device=texts[0].pooled.device)
        contrast = contrastive_loss(self._model.contrast(images, texts), is_other)
        alike = (self._model.embed_images(images) @ self._model.embed_texts(texts).T).detach()
        matching, share_right = self._match(images, texts, alike.masked_fill(~is_other, float("-inf")))
        return TaskLoss(
            contrast + matching,
            {"contrast": contrast.item(), "matching": matching.item(), "right": share_right},
        )

    def _match(
        self, images: Sequence[ImageFeatures], texts: Sequence[SentenceFeatures], wrong: Tensor
    ) -> tuple[Tensor, float]:
        """Every pair, every picture with its hardest wrong text, every text with its hardest wrong picture."""
        rows = range(len(images))
        hardest_texts, hardest_images = wrong.argmax(dim=1).tolist(), wrong.argmax(dim=0).tolist()
        has_wrong = wrong.isfinite().any(dim=1).tolist()
        pairs = [(j, j, 1.0) for j in rows]
        pairs += [(j, hardest_texts[j], 0.0) for j in rows if has_wrong[j]]
        pairs += [(hardest_images[j], j, 0.0) for j in rows if has_wrong[j]]
        scores = self._model.match_scores([images[j] for j, _, _ in pairs], [texts[j] for _, j, _ in pairs])
        targets = torch.tensor([target for _, _, target in pairs], device=scores.device)
        right = ((scores > 0) == (targets > 0)).float().mean().item()
        return functional.binary_cross_entropy_with_logits(scores, targets), right


def contrastive_loss(alike: Tensor, is_other: Tensor) -> Tensor:
    """Symmetric InfoNCE of `alike: (b, b)`. Where `is_other` is false off the diagonal, the caption is the same:
    that pair is neither right nor wrong, and left out."""
    is_pair = torch.eye(len(alike), dtype=torch.bool, device=alike.device)
    told = alike.masked_fill(~is_other & ~is_pair, torch.finfo(alike.dtype).min)
    targets = torch.arange(len(alike), device=alike.device)
    return (functional.cross_entropy(told, targets) + functional.cross_entropy(told.T, targets)) / 2


def _is_other(captions: Sequence[str], *, device: torch.device) -> Tensor:
    """Which captions differ: `(b, b)`."""
    numbers = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
    ids = torch.tensor([numbers[caption] for caption in captions], device=device)
    return ids[:, None] != ids[None]
