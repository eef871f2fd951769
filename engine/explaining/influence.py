"""How much each part of a fused turn had to do with a reply.

Owns leaving parts out and what that costs. Knows neither requests nor what the tokens stand for. Shapes: `m` parts left
out, `n_s` tokens of stream `s`, `n_p` patches and `n_c` concept words of a picture, `k` prefix tokens, `d_lm` width of
the language model.

A token is left out by the weight 0, and the turn is fused anew: that is exact, and all parts go through the small
fusion side by side. What the changed prefix does to the reply is scored by the language model for the parts that change
the prefix the most, and taken from the gradient of the reply's log-likelihood for all the others, so that the language
model is not read once a token.
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

TokenWeights = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Influence:
    """How much less likely the reply is without each part, in nats; below 0 where it is likelier without.

    `regions: (pictures · n_p,)`, `concepts: (pictures · n_c,)`, `words: (n_text,)`, `facets: (n_persona,)`, and
    `streams[s]` for each stream as a whole.
    """

    regions: Tensor
    concepts: Tensor
    words: Tensor
    facets: Tensor
    streams: dict[str, float]


def influence_of(
    model: FusionModel, turn: TurnFeatures, likelihood: ReplyLikelihood, *, evidence: Sequence[Tensor]
) -> Influence:
    """See `Influence`. `evidence[j]: (n_p, n_c)` is what each patch of picture `j` says for each of its concepts."""
    with torch.no_grad():
        full = model([turn])
        sizes = sizes_of(full)
        parts = join([without_regions(turn, sizes, evidence), without_tokens(turn, sizes)])
        prefixes = fuse_each(model, turn, parts)
        _, gradient = likelihood.gradient(full.prefix[0])
        changes = (prefixes - full.prefix).float()
        drops = -(changes * gradient).sum(dim=(1, 2))
        largest = changes.norm(dim=(1, 2)).topk(min(NUM_SCORED, len(drops))).indices
        streams = fuse_each(model, turn, without_streams(turn, sizes))
        scores = likelihood.of(torch.cat([full.prefix, streams, prefixes[largest]])).to(drops.dtype)
        drops[largest] = scores[0] - scores[1 + len(streams) :]
        whole = (scores[0] - scores[1 : 1 + len(streams)]).tolist()
    num_regions, num_concepts = num_patches(turn.images), num_concepts_of(turn.images)
    regions, concepts, words, facets = drops.cpu().tensor_split(_ends(num_regions, num_concepts, sizes["text"]))
    return Influence(regions, concepts, words, facets, dict(zip(sizes, whole, strict=True)))


def attention_of(model: FusionModel, turn: TurnFeatures) -> Influence:
    """Where the prefix looked, as the mean over its tokens: quick, and no statement about the reply."""
    with torch.no_grad():
        maps = {stream: shares[0].float().mean(dim=0).cpu() for stream, shares in model([turn]).attention.items()}
    regions, concepts = maps["image"].tensor_split([num_patches(turn.images)])
    streams = {stream: float(shares.sum()) for stream, shares in maps.items()}
    return Influence(regions, concepts, maps["text"], maps["persona"], streams)


# What is left out, as weights of the tokens


def without_tokens(turn: TurnFeatures, sizes: Mapping[str, int]) -> TokenWeights:
    """A row for each concept, word and facet, without it."""
    num_regions, total = num_patches(turn.images), sum(sizes.values())
    kept = 1 - torch.eye(total, device=turn.persona.device)[num_regions:]
    return _by_stream(kept, sizes)


def without_regions(turn: TurnFeatures, sizes: Mapping[str, int], evidence: Sequence[Tensor]) -> TokenWeights:
    """A row for each region of each picture: without its patch, and its concepts weighted as the image encoder would
    weigh them had it not seen that region."""
    num_regions = num_patches(turn.images)
    kept = torch.ones(num_regions, sum(sizes.values()), device=turn.persona.device)
    row, column = 0, num_regions
    for image, seen in zip(turn.images, evidence, strict=True):
        rows = range(row, row + len(image.patches))
        kept[rows, rows] = 0
        kept[row : row + len(rows), column : column + len(image.concept_ids)] = _concepts_without(image, seen)
        row, column = row + len(rows), column + len(image.concept_ids)
    return _by_stream(kept, sizes)


def _concepts_without(image: ImageFeatures, evidence: Tensor) -> Tensor:
    """What the weights of the concepts are multiplied with where one patch is not seen: `(n_p, n_c)`.

    The encoder's classes are a linear function of the mean over the patches.
    """
    changes = (evidence.mean(dim=0) - evidence) / max(1, len(evidence) - 1)
    weights = image.concept_weights * changes.exp()
    return changes.exp() * image.concept_weights.sum() / weights.sum(dim=-1, keepdim=True).clamp_min(1e-9)


def without_streams(turn: TurnFeatures, sizes: Mapping[str, int]) -> TokenWeights:
    """A row for each stream, without all of it."""
    owner = torch.cat([torch.full((size,), number) for number, size in enumerate(sizes.values())])
    kept = (owner[None] != torch.arange(len(sizes))[:, None]).float()
    return _by_stream(kept.to(turn.persona.device), sizes)


def fuse_each(model: FusionModel, turn: TurnFeatures, weights: TokenWeights) -> Tensor:
    """The prefix of `turn` for each row of token weights: `(m, k, d_lm)`."""
    num_rows = len(next(iter(weights.values())))
    prefixes = []
    for start in range(0, num_rows, FUSION_BATCH):
        rows = {stream: kept[start : start + FUSION_BATCH] for stream, kept in weights.items()}
        prefixes.append(model([turn] * len(rows["image"]), token_weights=rows).prefix)
    return torch.cat(prefixes)


def join(parts: Sequence[TokenWeights]) -> TokenWeights:
    """All rows one below another."""
    return {stream: torch.cat([part[stream] for part in parts]) for stream in parts[0]}


def sizes_of(fused: FusedBatch) -> dict[str, int]:
    """How many tokens each stream has."""
    return {stream: shares.shape[-1] for stream, shares in fused.attention.items()}


def num_patches(images: Sequence[ImageFeatures]) -> int:
    """Patches of all pictures."""
    return sum(len(image.patches) for image in images)


def num_concepts_of(images: Sequence[ImageFeatures]) -> int:
    """Concept words of all pictures."""
    return sum(len(image.concept_ids) for image in images)


def _by_stream(kept: Tensor, sizes: Mapping[str, int]) -> TokenWeights:
    parts = kept.tensor_split(_ends(*sizes.values())[:-1], dim=-1)
    return dict(zip(sizes, parts, strict=True))


def _ends(*lengths: int) -> list[int]:
    return [sum(lengths[: number + 1]) for number in range(len(lengths))]


def on_device(turn: TurnFeatures, device: torch.device) -> TurnFeatures:
    """The features on `device`, as plain tensors: what was made in inference mode can have no gradient."""
    images = tuple(
        ImageFeatures(
            image.patches.to(device).clone(),
            image.concept_ids.to(device).clone(),
            image.concept_weights.to(device).clone(),
        )
        for image in turn.images
    )
    return replace(turn, images=images, text=turn.text.to(device).clone(), persona=turn.persona.to(device).clone())
