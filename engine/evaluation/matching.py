"""Which caption belongs to which picture: recall among the set and among a hundred, and pairwise accuracy.

A table of scores `(pictures, captions)` says it all; where it comes from (concept words alone, embeddings, the
cross-encoder) does not matter here. Shapes: `n` pictures, `c` captions of all pictures together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import EngineError
from engine.evaluation.extras import needing_extras
from engine.evaluation.figures import Bootstrap, Curve, Figure, Measured, Values
from engine.evaluation.pictures import SeenPicture
from engine.evaluation.sets import draw
from engine.evaluation.subject import Subject
from engine.fusion.model import FusionModel

GROUP = "matching"
DEPTHS = (1, 5, 10)
NUM_CANDIDATES = 100
CURVE_LENGTH = 50
# Each pair goes through the whole fusion: two hundred pictures are forty thousand pairs.
MAX_CROSS_ENCODED = 200
BATCH_SIZE = 128

Scorer = Callable[[Sequence[SeenPicture], Sequence[str]], Tensor]


@dataclass(frozen=True, slots=True)
class Ranks:
    """How many wrong candidates stand before the right one (ties count against it), out of how many: `(n,)`."""

    num_before: NDArray[np.int64]
    num_wrong: int

    def hits(self, depth: int) -> Values:
        """1 where the right one is among the first `depth`."""
        return (self.num_before < depth).astype(np.float64)

    def hits_among(self, depth: int, num_candidates: int) -> Values:
        """The chance that the right one is among the first `depth`, if `num_candidates` − 1 of the wrong ones are
        drawn: the mean over all such draws."""
        with needing_extras():
            from scipy.stats import hypergeom
        chances = hypergeom.cdf(depth - 1, self.num_wrong, self.num_before, num_candidates - 1)
        return np.asarray(chances, dtype=np.float64)


def ranks(scores: NDArray[np.float64]) -> Ranks:
    """Of each row of `(n, n)`, whose right candidate lies on the diagonal."""
    right = np.diagonal(scores)[:, None]
    before = (scores >= right).sum(axis=1) - 1
    return Ranks(before.astype(np.int64), scores.shape[1] - 1)


def ranks_of_best(scores: NDArray[np.float64], owners: NDArray[np.int64]) -> Ranks:
    """Of each row of `(n, c)`: where the best of its own candidates stands among those of others."""
    is_own = owners[None] == np.arange(len(scores))[:, None]
    best = np.where(is_own, scores, -np.inf).max(axis=1, keepdims=True)
    before = ((scores >= best) & ~is_own).sum(axis=1)
    return Ranks(before.astype(np.int64), int(scores.shape[1] - is_own.sum(axis=1).min()))


def pairwise_accuracy(scores: NDArray[np.float64]) -> Values:
    """For each row the share of other candidates that score less than its own; a tie is half right.

    `(n, n)` → `(n,)`.
    """
    right = np.diagonal(scores)[:, None]
    wins = (scores < right).sum(axis=1) + 0.5 * ((scores == right).sum(axis=1) - 1)
    return np.asarray(wins / (scores.shape[1] - 1), dtype=np.float64)


def measure_matching(subject: Subject, pictures: list[SeenPicture], *, set_name: str, bootstrap: Bootstrap) -> Measured:
    """Every way of scoring that the weights offer."""
    measured = Measured()
    if len(pictures) < 2:
        measured.notes.append(f"{set_name}: matching needs two pictures")
        return measured
    for way, scorer in _scorers(subject).items():
        items = pictures
        if way == CROSS_ENCODER:
            items = draw(pictures, limit=MAX_CROSS_ENCODED, seed=bootstrap.seed)
            if len(items) < len(pictures):
                measured.notes.append(f"{set_name}: the cross-encoder is measured on {len(items)} pictures")
        try:
            measured.add(_measure(scorer, items, way=way, set_name=set_name, bootstrap=bootstrap))
        except EngineError as error:
            measured.notes.append(f"{set_name}: no figures for {way}: {error}")
    return measured


CONCEPT_WORDS = "concept words, untrained"
EMBEDDINGS = "embeddings"
CROSS_ENCODER = "cross-encoder"


def _scorers(subject: Subject) -> dict[str, Scorer]:
    scorers: dict[str, Scorer] = {CONCEPT_WORDS: lambda items, texts: concept_scores(subject, items, texts)}
    if (model := subject.model) is not None:
        scorers[EMBEDDINGS] = lambda items, texts: embedding_scores(model, subject, items, texts)
        scorers[CROSS_ENCODER] = lambda items, texts: cross_scores(model, subject, items, texts)
    return scorers


@torch.no_grad()
def concept_scores(subject: Subject, pictures: Sequence[SeenPicture], texts: Sequence[str]) -> Tensor:
    """Cosine between the weighted meanings of each picture's concept words and each text: what needs no training."""
    meanings = subject.workshop.meanings
    words = [
        (picture.features.concept_weights.to(meanings.device)[:, None] * meanings[picture.features.concept_ids]).sum(0)
        for picture in pictures
    ]
    return torch.nn.functional.normalize(torch.stack(words), dim=-1) @ subject.workshop.text.pool(texts).T


@torch.no_grad()
def embedding_scores(
    model: FusionModel, subject: Subject, pictures: Sequence[SeenPicture], texts: Sequence[str]
) -> Tensor:
    """Cosine of the matching head's embeddings."""
    sentences = subject.workshop.text.encode_sentences(texts)
    embedded_images = [
        model.embed_images([subject.on_device(one.features) for one in pictures[j : j + BATCH_SIZE]])
        for j in range(0, len(pictures), BATCH_SIZE)
    ]
    embedded_texts = [model.embed_texts(sentences[j : j + BATCH_SIZE]) for j in range(0, len(sentences), BATCH_SIZE)]
    return torch.cat(embedded_images) @ torch.cat(embedded_texts).T


@torch.no_grad()
def cross_scores(model: FusionModel, subject: Subject, pictures: Sequence[SeenPicture], texts: Sequence[str]) -> Tensor:
    """The matching head's opinion of every pair, each fused anew."""
    images = [subject.on_device(one.features) for one in pictures]
    sentences = subject.workshop.text.encode_sentences(texts)
    rows = []
    for image in images:
        parts = [sentences[j : j + BATCH_SIZE] for j in range(0, len(sentences), BATCH_SIZE)]
        rows.append(torch.cat([model.match_scores([image] * len(part), part) for part in parts]))
    return torch.stack(rows)


def _measure(
    scorer: Scorer, pictures: Sequence[SeenPicture], *, way: str, set_name: str, bootstrap: Bootstrap
) -> Measured:
    texts, owners = _captions(pictures, is_first_only=way == CROSS_ENCODER)
    scores = scorer(pictures, texts).cpu().double().numpy()
    first = np.searchsorted(owners, np.arange(len(pictures)))
    square = scores[:, first]
    to_captions, to_pictures = ranks(square), ranks(square.T.copy())
    values = {f"matching accuracy, {way}": pairwise_accuracy(square)}
    for direction, found in (("image→caption", to_captions), ("caption→image", to_pictures)):
        for depth in DEPTHS:
            values[f"{direction} recall@{depth} among {len(pictures)}, {way}"] = found.hits(depth)
            if len(pictures) > NUM_CANDIDATES:
                chances = found.hits_among(depth, NUM_CANDIDATES)
                values[f"{direction} recall@{depth} among {NUM_CANDIDATES}, {way}"] = chances
    if len(texts) > len(pictures):
        best = ranks_of_best(scores, owners)
        for depth in DEPTHS:
            values[f"image→any of its captions recall@{depth} among {len(texts)}, {way}"] = best.hits(depth)
    curves = [
        Curve(
            set_name,
            f"{direction}, {way}",
            tuple(float(found.hits(k).mean()) for k in range(1, min(CURVE_LENGTH, len(pictures)) + 1)),
        )
        for direction, found in (("image→caption", to_captions), ("caption→image", to_pictures))
    ]
    return Measured([Figure(GROUP, set_name, name, bootstrap.mean(items)) for name, items in values.items()], curves)


def _captions(pictures: Sequence[SeenPicture], *, is_first_only: bool) -> tuple[list[str], NDArray[np.int64]]:
    """The captions, and whose each is."""
    captions = [picture.captions[:1] if is_first_only else picture.captions for picture in pictures]
    texts = [caption for one in captions for caption in one]
    return texts, np.repeat(np.arange(len(pictures)), [len(one) for one in captions])
