"""How much each part of a fused turn had to do with a reply.

Owns leaving parts out and what that costs. Knows neither requests nor what the tokens stand for. Shapes: `m` parts left
out, `n_s` tokens of stream `s`, `k` prefix tokens, `d_lm` width of the language model.

A concept, word piece or facet is left out by the weight 0 of its token; for a region, its picture is encoded anew
without it (`engine.explaining.occlusion`). The turn is then fused anew, all parts side by side: that is exact. What the
changed prefix does to the reply is scored by the language model for the parts that change the prefix the most, and
taken from the gradient of the reply's log-likelihood for all the others, so that the language model is not read once a
part.

Concept words stand in for each other: without "brown bear", "polar bear" says as much. So each also gets credit for
what it does alone, and its influence is the mean of what is lost without it and what is gained by it where there is no
other (the two ends of its Shapley value).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.encoders.types import ImageFeatures
from engine.explaining.likelihood import ReplyLikelihood
from engine.fusion.model import FusedBatch, FusionModel, TurnFeatures

FUSION_BATCH = 64
# So many parts are scored by the language model itself. Small changes are told by the gradient as well, concept words
# are not: without the likeliest one a reply loses several nats.
NUM_SCORED = 16
PARTS = ("regions", "concepts", "words", "facets")


@dataclass(frozen=True, slots=True)
class Prefixes:
    """A turn's prefix as it was, `full: (1, k, d_lm)`, and without each part: `without[kind]: (m, k, d_lm)` for each of
    `PARTS`, `without_stream[s]: (1, k, d_lm)`. `lone_concepts: (1 + m, k, d_lm)` is the prefix without any concept,
    then with each as the only one."""

    full: Tensor
    without: dict[str, Tensor]
    without_stream: dict[str, Tensor]
    lone_concepts: Tensor


@dataclass(frozen=True, slots=True)
class Influence:
    """How much less likely the reply is without each part, in nats; below 0 where it is likelier without.

    `parts[kind]: (m,)` for each of `PARTS`, and `streams[s]` for each stream as a whole.
    """

    parts: dict[str, Tensor]
    streams: dict[str, float]


def prefixes_of(
    model: FusionModel,
    turn: TurnFeatures,
    *,
    occluded: Sequence[Sequence[ImageFeatures]],
    has_steering: bool = False,
) -> Prefixes:
    """Fuse the turn whole and without each part. `occluded[j][r]` is picture `j` without its region `r`. With
    `has_steering` the last row is the turn's steering, which is at work only while that very turn is answered."""
    fuse = _Fuse(model, has_steering=has_steering)
    with torch.no_grad():
        sizes = _sizes(model([turn]))
        full = fuse.masked(turn, torch.ones(1, sum(sizes.values()), device=turn.persona.device), sizes)
        regions = fuse(_without_regions(turn, occluded))
        tokens = fuse.masked(turn, _without_tokens(turn, sizes), sizes)
        concepts, words, facets = tokens.tensor_split(_ends(_num_concepts(turn), sizes["text"]))
        streams = fuse.masked(turn, _without_streams(turn, sizes), sizes)
        lone = fuse.masked(turn, _with_lone_concepts(turn, sizes), sizes)
    parts = (full[:0] if regions is None else regions, concepts, words, facets)
    return Prefixes(
        full,
        dict(zip(PARTS, parts, strict=True)),
        dict(zip(sizes, streams.split_with_sizes([1] * len(sizes)), strict=True)),
        lone,
    )


def influence_of(prefixes: Prefixes, likelihood: ReplyLikelihood) -> Influence:
    """See `Influence`."""
    _, gradient = likelihood.gradient(prefixes.full[0])
    with torch.no_grad():
        every = torch.cat(list(prefixes.without.values()))
        changes = (every - prefixes.full).float()
        drops = -(changes * gradient).sum(dim=(1, 2))
        largest = changes.norm(dim=(1, 2)).topk(min(NUM_SCORED, len(drops))).indices
        streams = torch.cat(list(prefixes.without_stream.values()))
        scores = likelihood.of(torch.cat([prefixes.full, streams, every[largest], prefixes.lone_concepts]))
        lost, lone = (scores[0] - scores[1:]).split_with_sizes(
            [len(streams) + len(largest), len(prefixes.lone_concepts)]
        )
        drops[largest] = lost[len(streams) :].to(drops.dtype)
    ends = _ends(*map(len, prefixes.without.values()))[:-1]
    parts = dict(zip(PARTS, drops.cpu().tensor_split(ends), strict=True))
    parts["concepts"] = (parts["concepts"] + (lone[0] - lone[1:]).to(drops.dtype).cpu()) / 2
    return Influence(parts, dict(zip(prefixes.without_stream, lost[: len(streams)].tolist(), strict=True)))


def attention_of(model: FusionModel, turn: TurnFeatures) -> Influence:
    """Where the prefix looked, as the mean over its tokens: quick, and no statement about the reply."""
    with torch.no_grad():
        maps = {stream: shares[0].float().mean(dim=0).cpu() for stream, shares in model([turn]).attention.items()}
    regions, concepts = maps["image"].tensor_split([len(maps["image"]) - _num_concepts(turn)])
    parts = (regions, concepts, maps["text"], maps["persona"])
    return Influence(
        dict(zip(PARTS, parts, strict=True)), {stream: float(shares.sum()) for stream, shares in maps.items()}
    )


def _without_regions(turn: TurnFeatures, occluded: Sequence[Sequence[ImageFeatures]]) -> list[TurnFeatures]:
    """The turn once a region of each picture, without it."""
    return [
        replace(turn, images=(*turn.images[:number], version, *turn.images[number + 1 :]))
        for number, versions in enumerate(occluded)
        for version in versions
    ]


def _without_tokens(turn: TurnFeatures, sizes: Mapping[str, int]) -> Tensor:
    """Weights of all tokens, a row for each concept, word piece and facet, without it."""
    num_patches = sizes["image"] - _num_concepts(turn)
    return 1 - torch.eye(sum(sizes.values()), device=turn.persona.device)[num_patches:]


def _with_lone_concepts(turn: TurnFeatures, sizes: Mapping[str, int]) -> Tensor:
    """Weights of all tokens: without any concept, then a row for each concept, without the others."""
    count = _num_concepts(turn)
    weights = torch.ones(1 + count, sum(sizes.values()), device=turn.persona.device)
    alone = torch.cat([torch.zeros(1, count), torch.eye(count)])
    weights[:, sizes["image"] - count : sizes["image"]] = alone.to(weights.device)
    return weights


def _without_streams(turn: TurnFeatures, sizes: Mapping[str, int]) -> Tensor:
    """Weights of all tokens, a row for each stream, without it."""
    stream_of = torch.cat([torch.full((size,), number) for number, size in enumerate(sizes.values())])
    return (stream_of[None] != torch.arange(len(sizes))[:, None]).float().to(turn.persona.device)


class _Fuse:
    """Fuses turns into prefixes, with the steering as a last row or without it."""

    def __init__(self, model: FusionModel, *, has_steering: bool) -> None:
        self._model = model
        self._has_steering = has_steering

    def __call__(self, turns: Sequence[TurnFeatures]) -> Tensor | None:
        """The prefixes of `turns`, `(m, k, d_lm)`."""
        batches = [turns[start : start + FUSION_BATCH] for start in range(0, len(turns), FUSION_BATCH)]
        return torch.cat([self._rows(self._model(batch)) for batch in batches]) if batches else None

    def masked(self, turn: TurnFeatures, weights: Tensor, sizes: Mapping[str, int]) -> Tensor:
        """The prefix of `turn` for each row of `weights: (m, tokens of all streams)`: `(m, k, d_lm)`."""
        prefixes = [self._rows(self._model([turn]))[:0]]
        for start in range(0, len(weights), FUSION_BATCH):
            rows = weights[start : start + FUSION_BATCH]
            by_stream = dict(zip(sizes, rows.tensor_split(_ends(*sizes.values())[:-1], dim=-1), strict=True))
            prefixes.append(self._rows(self._model([turn] * len(rows), token_weights=by_stream)))
        return torch.cat(prefixes)

    def _rows(self, fused: FusedBatch) -> Tensor:
        return fused.prefix_and_steering if self._has_steering else fused.prefix


def _sizes(fused: FusedBatch) -> dict[str, int]:
    """How many tokens each stream has."""
    return {stream: shares.shape[-1] for stream, shares in fused.attention.items()}


def _num_concepts(turn: TurnFeatures) -> int:
    """Concept words of all pictures."""
    return sum(len(image.concept_ids) for image in turn.images)


def _ends(*lengths: int) -> list[int]:
    return [sum(lengths[: number + 1]) for number in range(len(lengths))]


def as_plain(turn: TurnFeatures, device: torch.device) -> TurnFeatures:
    """The features on `device`, copied: tensors that were made in inference mode can have no gradient."""
    images = tuple(
        ImageFeatures(
            image.patches.to(device).clone(),
            image.concept_ids.to(device).clone(),
            image.concept_weights.to(device).clone(),
        )
        for image in turn.images
    )
    return replace(turn, images=images, text=turn.text.to(device).clone(), persona=turn.persona.to(device).clone())
