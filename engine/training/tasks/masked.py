"""Masked language modelling of the text stream: hidden words of a caption, guessed from the picture and from the words
around them (Devlin et al. 2019, section 3.1, with a picture as in Lu et al. 2019, section 3.1).

The frozen text encoder reads the caption with some of its tokens hidden; the fusion tells each of them about the
picture; the guess is compared with the encoder's own table of token embeddings.
"""

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor
from torch.nn import functional

from engine.encoders.text import TextEncoder
from engine.fusion.model import FusionModel, TurnFeatures
from engine.training.encoding import SampleEncoder
from engine.training.tasks.base import TaskLoss
from engine.training.tasks.matching import PairSamples

SHARE_HIDDEN = 0.25


class MaskedTask:
    """Guess hidden words."""

    name = "masked"

    def __init__(
        self,
        model: FusionModel,
        samples: PairSamples,
        *,
        encoder: SampleEncoder,
        text: TextEncoder,
        seed: int,
        batch_size: int,
    ) -> None:
        self._model = model
        self._samples = samples
        self._encoder = encoder
        self._text = text
        self._seed = seed
        self._batch_size = batch_size

    def loss(self, step: int, *, part: int = 0, num_parts: int = 1) -> TaskLoss:
        """See `Task`. The part is the share of hidden words that are guessed."""
        first = step * self._batch_size
        numbers = [first + j for j in range(self._batch_size)[part::num_parts]]
        pairs = [self._samples.draw(number) for number in numbers]
        texts, places, targets = self._hide([caption for _, caption in pairs], numbers)
        none = self._text.pool([])
        turns = [
            TurnFeatures((self._encoder.image(image),), text, none)
            for (image, _), text in zip(pairs, texts, strict=True)
        ]
        states = self._model.fuse_streams(turns).streams["text"].tokens
        rows = torch.tensor([row for row, hidden in enumerate(places) for _ in hidden], device=states.device)
        columns = torch.tensor([place for hidden in places for place in hidden], device=states.device)
        logits = self._model.guess(states[rows, columns], self._text.embeddings)
        loss = functional.cross_entropy(logits, targets)
        return TaskLoss(loss, {"guessed": (logits.argmax(dim=-1) == targets).float().mean().item()})

    def _hide(self, captions: Sequence[str], numbers: Sequence[int]) -> tuple[list[Tensor], list[list[int]], Tensor]:
        """Token states of each caption with some tokens hidden, which ones, and what they were."""
        ids = self._text.token_ids(captions)
        places = [_choose(len(row), Random(f"{self._seed}/mask/{n}")) for row, n in zip(ids, numbers, strict=True)]  # noqa: S311 - chance, not secrecy
        targets = [row[place] for row, hidden in zip(ids, places, strict=True) for place in hidden]
        masked = [
            [self._text.mask_id if place in hidden else token for place, token in enumerate(row)]
            for row, hidden in zip(ids, places, strict=True)
        ]
        states = self._text.encode_ids(masked)
        return states, places, torch.tensor(targets, device=states[0].device)


def _choose(num_tokens: int, chance: Random) -> list[int]:
    """At least one place, of a text that has any."""
    if not num_tokens:
        return []
    return sorted(chance.sample(range(num_tokens), max(1, round(SHARE_HIDDEN * num_tokens))))
