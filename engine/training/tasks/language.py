"""Tasks that are learnt through the language model's own loss: what a picture shows, and how a persona talks.

Shapes: `b` samples of a batch, `k` prefix tokens, `d_lm` width of the language model.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from engine.fusion.model import FusedBatch, FusionModel
from engine.training.decoder import FrozenDecoder, ReplyExample
from engine.training.encoding import SampleEncoder
from engine.training.samples import PersonaSamples, PictureSamples, TrainingSample
from engine.training.tasks.base import TaskLoss


class CaptioningTask:
    """Say what the picture shows: the mean over the samples of the weighted mean over each reply's tokens."""

    name = "captioning"

    def __init__(
        self,
        model: FusionModel,
        samples: PictureSamples,
        *,
        encoder: SampleEncoder,
        decoder: FrozenDecoder,
        batch_size: int,
        focus_weight: float,
    ) -> None:
        """`focus_weight` is what tokens that name the thing count, beside 1 of all others."""
        self._model = model
        self._samples = samples
        self._encoder = encoder
        self._decoder = decoder
        self._batch_size = batch_size
        self._focus_weight = focus_weight

    def loss(self, step: int, *, part: int = 0, num_parts: int = 1) -> TaskLoss:
        """See `Task`. The parts are the losses of each kind of sample."""
        first = step * self._batch_size
        samples = [self._samples.draw(first + j) for j in range(self._batch_size)[part::num_parts]]
        examples = [self._encoder.example(sample, focus_weight=self._focus_weight) for sample in samples]
        means = reply_means(self._decoder, examples, self._model(self._encoder.turns(samples)))
        return TaskLoss(means.mean(), means_by_kind(samples, means))


class PersonaTask:
    """Answer as this persona, and as no other: the reply's loss, and how surely the reply tells who gave it.

    The contrast is `-log p(persona | reply)` for equal priors, from the log-likelihoods of the whole reply.
    """

    name = "persona"

    def __init__(
        self,
        model: FusionModel,
        samples: PersonaSamples,
        *,
        encoder: SampleEncoder,
        decoder: FrozenDecoder,
        batch_size: int,
        contrast_weight: float,
    ) -> None:
        """`batch_size` counts replies; each is read once for every persona it is compared with."""
        self._model = model
        self._samples = samples
        self._encoder = encoder
        self._decoder = decoder
        self._batch_size = batch_size
        self._contrast_weight = contrast_weight

    def loss(self, step: int, *, part: int = 0, num_parts: int = 1) -> TaskLoss:
        """See `Task`. The parts are the loss of the reply, the contrast, and how often the right persona wins."""
        first = step * self._batch_size
        groups = [self._samples.draw(first + j) for j in range(self._batch_size)[part::num_parts]]
        samples = [sample for group in groups for sample in group]
        examples = [self._encoder.example(sample) for sample in samples]
        means = reply_means(self._decoder, examples, self._model(self._encoder.turns(samples)))
        totals = means * torch.tensor([len(one.reply_ids) for one in examples], device=means.device)
        sizes = [len(group) for group in groups]
        right = torch.stack([group[0] for group in means.split(sizes)])  # type: ignore[no-untyped-call]
        compared = [-group for group in totals.split(sizes) if len(group) > 1]  # type: ignore[no-untyped-call]
        parts = means_by_kind([group[0] for group in groups], right)
        if not compared:
            return TaskLoss(right.mean(), parts)
        contrast = torch.stack([-group.log_softmax(dim=0)[0] for group in compared]).mean()
        wins = sum(int(group.argmax()) == 0 for group in compared) / len(compared)
        return TaskLoss(
            right.mean() + self._contrast_weight * contrast, {**parts, "contrast": contrast.item(), "wins": wins}
        )


def reply_means(decoder: FrozenDecoder, examples: Sequence[ReplyExample], fused: FusedBatch) -> Tensor:
    """The weighted mean loss over the tokens of each reply, `(b,)`. Short and long replies are run apart, so that
    little is padded."""
    order: list[int] = []
    means = []
    for rows in _by_length(examples):
        token_losses, places = decoder.fused_reply_losses([examples[row] for row in rows], fused, rows=rows)
        weights = torch.tensor([weight for row in rows for weight in examples[row].reply_weights], device=places.device)
        totals = torch.zeros(len(rows), device=places.device)
        means.append(totals.index_add(0, places, token_losses * weights) / totals.index_add(0, places, weights))
        order += rows
    return torch.cat(means)[torch.tensor(order).argsort()]


def means_by_kind(samples: Sequence[TrainingSample], means: Tensor) -> dict[str, float]:
    """The mean of each kind of sample among `samples`, for the log."""
    kinds = sorted({sample.kind for sample in samples})
    return {kind: means[[j for j, sample in enumerate(samples) if sample.kind == kind]].mean().item() for kind in kinds}


def _by_length(examples: Sequence[ReplyExample]) -> Iterable[list[int]]:
    order = sorted(range(len(examples)), key=lambda row: len(examples[row].tail_ids) + len(examples[row].reply_ids))
    half = (len(order) + 1) // 2
    return [rows for rows in (order[:half], order[half:]) if rows]
