"""The closed-form fit against a solver that knows nothing of its dual form, and on a world where it has to work."""

from dataclasses import replace

import torch

from engine.training.ridge import _solve, _whiten, fit_embeddings
from engine.training.samples import PictureSource
from tests.engine.fusion.tiny import tiny_fusion
from tests.engine.training.tiny import a_source, sample_encoder


def test_the_dual_form_equals_weighted_least_squares() -> None:
    torch.manual_seed(0)
    seen, left, importance = torch.randn(12, 20).double(), torch.randn(12, 5).double(), torch.rand(12).double() + 0.1
    strength = 2.0
    # Rows scaled by the roots of their weights, and rows of zeros that ask for small coefficients.
    rows = torch.cat([seen * importance.sqrt()[:, None], strength**0.5 * torch.eye(20).double()])
    wanted = torch.cat([left * importance.sqrt()[:, None], torch.zeros(20, 5).double()])
    expected = torch.linalg.lstsq(rows, wanted).solution
    assert torch.allclose(_solve(seen, left, importance, strength=strength).double(), expected, atol=1e-5)


def test_whitening_evens_out_but_not_fully() -> None:
    torch.manual_seed(0)
    said = torch.randn(4000, 3) * torch.tensor([1.0, 0.5, 0.1])
    spread = (said @ _whiten(said)).std(dim=0)
    assert spread[0] > spread[1] > spread[2]
    assert spread[0] / spread[2] < 0.8 * (said.std(dim=0)[0] / said.std(dim=0)[2])


def a_world(captions: tuple[str, ...]) -> PictureSource:
    """Pictures whose features say which caption they have, while their class names say nothing."""
    source = a_source(*(captions * 6))
    chance = torch.Generator().manual_seed(5)
    looks = torch.rand(len(captions), 1280, generator=chance) ** 4 * 4
    patches = looks.repeat(6, 1)[:, None].expand(-1, 4, -1) + 0.05 * torch.rand(6 * len(captions), 4, 1280)
    return replace(source, features=replace(source.features, patches=patches.half()))


CAPTIONS = ("a dog on a bed", "two men at a table", "a red bus", "snow on a hill", "a plate of food", "a cat")


def right_ones(source: PictureSource, model: object, encoder: object) -> float:
    images = model.embed_images([source.features.row(row) for row in source.rows])
    texts = model.embed_texts(encoder.sentences(CAPTIONS))
    wanted = torch.tensor([CAPTIONS.index(picture.captions[0]) for picture in source.pictures])
    return ((images @ texts.T).argmax(dim=-1) == wanted).float().mean().item()


def test_the_fit_finds_what_class_names_miss() -> None:
    model, encoder, world = tiny_fusion(has_heads=True), sample_encoder(), a_world(CAPTIONS)
    assert right_ones(world, model, encoder) < 0.5
    fit_embeddings(model, scenes=[world], things=[a_source("x", "y", "z")], encoder=encoder, seed=0)
    assert right_ones(world, model, encoder) > 0.9


def test_the_fit_is_the_same_each_time_and_needs_no_scenes() -> None:
    encoder, world = sample_encoder(), a_world(CAPTIONS)
    models = [tiny_fusion(has_heads=True) for _ in range(2)]
    for model in models:
        fit_embeddings(model, scenes=[], things=[world], encoder=encoder, seed=0)
    assert models[0].matching.patch_map.any()
    assert torch.equal(models[0].matching.patch_map, models[1].matching.patch_map)


def test_without_pictures_or_a_head_nothing_happens() -> None:
    fit_embeddings(tiny_fusion(), scenes=[a_world(CAPTIONS)], things=[], encoder=sample_encoder(), seed=0)
    model = tiny_fusion(has_heads=True)
    fit_embeddings(model, scenes=[], things=[], encoder=sample_encoder(), seed=0)
    assert not model.matching.patch_map.any()
