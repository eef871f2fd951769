"""Embeddings know the weights that made them, and match probabilities are those of the matching head."""

import math
from dataclasses import replace

import pytest
import torch

from engine.errors import DeviceError, NotAvailable
from engine.seeing.eye import EVEN_DEVIATION, MAX_PAIRS_AT_ONCE, STEEPNESS, Eye
from engine.seeing.references import REFERENCES
from engine.seeing.work import finish
from tests.engine.encoders.tiny import tiny_text_encoder
from tests.engine.fusion.tiny import an_image, tiny_fusion
from tests.engine.seeing.tiny import an_eye


def test_embeddings_have_length_one_and_name_their_space() -> None:
    eye = an_eye()
    (picture, other) = eye.embed_images([an_image(seed=1), an_image(seed=2)])
    text = eye.embed_text("a dog")
    for one in (picture, other, text):
        assert math.isclose(sum(value * value for value in one.values), 1.0, rel_tol=1e-4)
        assert one.space == eye.space
    assert picture.values != other.values


def test_the_space_changes_with_the_weights_alone() -> None:
    model = tiny_fusion(has_heads=True)
    before = Eye(model, tiny_text_encoder()).space
    assert Eye(tiny_fusion(has_heads=True), tiny_text_encoder()).space == before
    with torch.no_grad():
        model.readout.gate += 1.0
    assert Eye(model, tiny_text_encoder()).space == before, "the readout has no part in it"
    assert model.matching is not None
    with torch.no_grad():
        next(iter(model.matching.parameters())).add_(0.01)
    assert Eye(model, tiny_text_encoder()).space != before


def test_a_match_is_how_far_a_text_stands_out_among_the_usual_ones() -> None:
    eye, encoder = an_eye(), tiny_text_encoder()
    images, texts = [an_image(seed=1), an_image(seed=2)], ["a dog", "a pizza", "photo of a cat"]
    matches = finish(eye.match(images, texts))
    for image, row in zip(images, matches, strict=True):
        with torch.no_grad():
            usual = [eye.model.match_scores([image], encoder.encode_sentences([text])) for text in REFERENCES]
            scores = [eye.model.match_scores([image], encoder.encode_sentences([text])) for text in texts]
        mean, deviation = torch.cat(usual).double().mean(), torch.cat(usual).double().std()
        expected = ((torch.cat(scores).double() - mean) / deviation - EVEN_DEVIATION) * STEEPNESS
        assert row == pytest.approx(expected.sigmoid().tolist(), abs=1e-3)
    assert len({match for row in matches for match in row}) == 6


def test_what_gives_no_numbers_is_refused() -> None:
    eye, image = an_eye(), an_image()
    broken = replace(image, patches=torch.full_like(image.patches, math.nan))
    with pytest.raises(DeviceError, match="no numbers"):
        eye.embed_images([broken])
    with pytest.raises(DeviceError, match="no numbers"):
        finish(eye.match([broken], ["a dog"]))


def test_matching_is_done_a_few_pairs_a_piece() -> None:
    num_chunks = math.ceil(len(REFERENCES) / MAX_PAIRS_AT_ONCE) + 1
    assert sum(1 for _ in an_eye().match([an_image(), an_image(seed=1)], ["a dog"])) == 1 + 2 * num_chunks


def test_another_scale_of_scores_changes_no_match() -> None:
    eye = an_eye()
    before = finish(eye.match([an_image()], ["a dog"]))
    scores = eye.model.match_scores
    eye.model.match_scores = lambda *pairs: 3 * scores(*pairs) - 7  # type: ignore[method-assign]
    assert finish(eye.match([an_image()], ["a dog"]))[0] == pytest.approx(before[0], abs=1e-3)


def test_without_a_matching_head_nothing_is_compared() -> None:
    eye = an_eye(has_heads=False)
    assert not eye.can_match
    for compare in (
        lambda: eye.embed_text("a"),
        lambda: eye.embed_images([an_image()]),
        lambda: finish(eye.match([], [])),
    ):
        with pytest.raises(NotAvailable, match="train"):
            compare()
