"""Embeddings know the weights that made them, and match probabilities are those of the matching head."""

import math

import pytest
import torch

from engine.errors import NotAvailable
from engine.seeing.eye import MAX_PAIRS_AT_ONCE, Eye
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


def test_match_gives_the_heads_probabilities_in_order() -> None:
    eye, encoder = an_eye(), tiny_text_encoder()
    pairs = [(an_image(seed=number), "a dog" if number % 2 else "a pizza") for number in range(MAX_PAIRS_AT_ONCE + 3)]
    work = eye.match(pairs)
    assert next(work) is None, "a few pairs a piece"
    matches = finish(eye.match(pairs))
    for (image, text), match in zip(pairs, matches, strict=True):
        with torch.no_grad():
            logit = eye.model.match_scores([image], encoder.encode_sentences([text]))
        assert match == pytest.approx(float(logit.sigmoid()), abs=1e-5)


def test_without_a_matching_head_nothing_is_compared() -> None:
    eye = an_eye(has_heads=False)
    assert not eye.can_match
    for compare in (lambda: eye.embed_text("a"), lambda: eye.embed_images([an_image()]), lambda: finish(eye.match([]))):
        with pytest.raises(NotAvailable, match="train"):
            compare()
