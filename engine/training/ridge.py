"""The matching head's embeddings, fitted in closed form.

Ridge regression (Hoerl and Kennard 1970) of what a photo's captions say beyond its class names, on its features: with
a few hundred photos it beats gradient descent on a contrastive loss, which only overfits them. The strengths were
chosen by cross-validation on the open COCO photos. Shapes: `n` pictures, `c` captions of each, `d_i`, `d_t` widths of
the encoders.
"""

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor

from engine.encoders.types import ImageFeatures
from engine.fusion.matching import mean_meaning, spread
from engine.fusion.model import FusionModel
from engine.training.encoding import SampleEncoder
from engine.training.samples import PictureSource

RIDGE = 15.0
# Words by the thousand, each with one picture: they widen what a few scenes can teach, and count a third as much.
VOCABULARY_SHARE = 1 / 3
MAX_VOCABULARY = 600
WHITENING, WHITENING_FLOOR = 0.5, 0.2
MAX_PICTURES = 20_000


@torch.no_grad()
def fit_embeddings(
    model: FusionModel,
    *,
    scenes: Sequence[PictureSource],
    things: Sequence[PictureSource],
    encoder: SampleEncoder,
    seed: int,
) -> None:
    """Fill the matching head's maps and centres: from scenes, and from sets of things that are a vocabulary (most rows
    name a thing of their own). Without scenes all things stand in for them; without pictures nothing is done."""
    head = model.matching
    if head is None or not (scenes or things):
        return
    main = scenes or things
    images, captions = _rows(main, limit=MAX_PICTURES, seed=seed)
    texts = _texts([text for row in captions for text in row], encoder)
    owners = torch.tensor([row for row, texts_of in enumerate(captions) for _ in texts_of], device=texts.device)
    patches, meanings, weights = _features(images, model, encoder)

    head.text_centre.copy_(texts.mean(dim=0))
    head.concept_centre.copy_(mean_meaning(meanings, weights).mean(dim=0))
    head.patch_centre.copy_(spread(patches).mean(dim=0))
    head.patch_scale.copy_(spread(patches).std(dim=0).mean().clamp_min(1e-6))
    said, known, seen = head.centre_texts(texts), head.centre_concepts(meanings, weights), head.centre_patches(patches)
    meant = _mean_by(said, owners, num_rows=len(images))
    head.concept_share.copy_((meant * known).sum(dim=-1).mean())

    left = meant - head.concept_share * known
    importance = torch.ones(len(images), device=texts.device)
    if scenes:
        for source in filter(_is_vocabulary, things):
            more_seen, more_left = _vocabulary(source, model, encoder, seed=seed)
            seen, left = torch.cat([seen, more_seen]), torch.cat([left, more_left])
            importance = torch.cat(
                [importance, importance.new_full((len(more_seen),), VOCABULARY_SHARE * len(images) / len(more_seen))]
            )
    head.patch_map.copy_(_solve(seen, left, importance, strength=RIDGE * len(images)))
    head.whitening.copy_(_whiten(said))


def _solve(seen: Tensor, left: Tensor, importance: Tensor, *, strength: float) -> Tensor:
    """`argmin_A Σ_j w_j |x_j A - r_j|² + λ |A|²` in its dual form: `Xᵀ (X Xᵀ + λ I)⁻¹ R`, `(d_i, d_t)`."""
    root = importance.sqrt()[:, None].double()
    x, r = seen.double() * root, left.double() * root
    kernel = x @ x.T + strength * torch.eye(len(x), dtype=x.dtype, device=x.device)
    solved: Tensor = torch.linalg.solve(kernel, r)
    return (x.T @ solved).float()


def _whiten(said: Tensor) -> Tensor:
    """`U (Λ / λ_max)^(-w/2) Uᵀ` of the captions' covariance, its small eigenvalues raised: `(d_t, d_t)`."""
    values, vectors = torch.linalg.eigh((said.T @ said / len(said)).double())
    values = values.clamp_min(0) + WHITENING_FLOOR * values.max()
    shrunk: Tensor = vectors * (values / values.max()) ** (-WHITENING / 2)
    return torch.matmul(shrunk, vectors.T).float()


def _vocabulary(
    source: PictureSource, model: FusionModel, encoder: SampleEncoder, *, seed: int
) -> tuple[Tensor, Tensor]:
    """Features and what is left to explain of a part of the set, both about their own mean: drawings are no photos."""
    head = model.matching
    assert head is not None  # noqa: S101 - the caller fits it
    images, captions = _rows([source], limit=MAX_VOCABULARY, seed=seed)
    patches, meanings, weights = _features(images, model, encoder)
    said = head.centre_texts(_texts([row[0] for row in captions], encoder))
    seen = head.centre_patches(patches)
    left = said - head.concept_share * head.centre_concepts(meanings, weights)
    return seen - seen.mean(dim=0), left - left.mean(dim=0)


def _is_vocabulary(source: PictureSource) -> bool:
    first = [source.pictures[row].captions[0] for row in source.rows]
    return len(set(first)) * 2 > len(first)


def _rows(
    sources: Sequence[PictureSource], *, limit: int, seed: int
) -> tuple[list[ImageFeatures], list[tuple[str, ...]]]:
    rows = [(source, row) for source in sources for row in source.rows]
    if len(rows) > limit:
        rows = Random(seed).sample(rows, limit)  # noqa: S311 - chance, not secrecy
    return [source.features.row(row) for source, row in rows], [source.pictures[row].captions for source, row in rows]


def _features(
    images: Sequence[ImageFeatures], model: FusionModel, encoder: SampleEncoder
) -> tuple[Tensor, Tensor, Tensor]:
    moved = [encoder.image(image) for image in images]
    ids = torch.stack([image.concept_ids for image in moved]).long()
    weights = torch.stack([image.concept_weights for image in moved])
    return torch.stack([image.patches.mean(dim=0) for image in moved]), model.meanings[ids], weights


def _texts(texts: Sequence[str], encoder: SampleEncoder) -> Tensor:
    return torch.stack([sentence.pooled for sentence in encoder.sentences(texts)])


def _mean_by(rows: Tensor, owners: Tensor, *, num_rows: int) -> Tensor:
    totals = rows.new_zeros(num_rows, rows.shape[1]).index_add(0, owners, rows)
    return totals / torch.bincount(owners, minlength=num_rows)[:, None]
