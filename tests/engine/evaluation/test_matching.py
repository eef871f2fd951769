from itertools import combinations

import numpy as np
import pytest
import torch

from engine.evaluation.figures import Bootstrap, Measured
from engine.evaluation.matching import (
    CONCEPT_WORDS,
    CROSS_ENCODER,
    EMBEDDINGS,
    cross_scores,
    embedding_scores,
    measure_matching,
    pairwise_accuracy,
    ranks,
    ranks_of_best,
)
from tests.engine.evaluation.tiny import seen_pictures, tiny_subject


def value(measured: Measured, name: str) -> float:
    return next(figure.estimate.value for figure in measured.figures if figure.name == name)


def test_ranks_count_who_stands_before() -> None:
    scores = np.array([[0.9, 0.1, 0.2], [0.5, 0.4, 0.3], [0.3, 0.3, 0.3]])
    found = ranks(scores)
    assert found.num_before.tolist() == [0, 1, 2]  # ties count against the right one
    assert found.hits(1).tolist() == [1, 0, 0]
    assert found.hits(2).tolist() == [1, 1, 0]


def test_recall_among_fewer_is_the_mean_over_all_choices_of_candidates() -> None:
    scores = np.random.default_rng(0).normal(size=(7, 7))
    expected = []
    for row in range(7):
        others = [j for j in range(7) if j != row]
        before = [sum(scores[row, j] >= scores[row, row] for j in chosen) for chosen in combinations(others, 3)]
        expected.append(np.mean([count < 2 for count in before]))
    assert ranks(scores).hits_among(2, 4) == pytest.approx(expected)
    assert ranks(scores).hits_among(2, 7) == pytest.approx(ranks(scores).hits(2))


def test_accuracy_compares_with_every_other_caption_and_halves_ties() -> None:
    scores = np.array([[0.9, 0.1, 0.2], [0.5, 0.4, 0.3], [0.3, 0.3, 0.3]])
    assert pairwise_accuracy(scores).tolist() == [1.0, 0.5, 0.5]


def test_the_best_of_several_captions_counts() -> None:
    scores = np.array([[0.1, 0.8, 0.7, 0.2], [0.1, 0.9, 0.3, 0.4]])
    found = ranks_of_best(scores, np.array([0, 0, 1, 1]))
    assert found.num_before.tolist() == [0, 1]
    assert found.num_wrong == 2


def test_scores_come_by_picture_and_caption() -> None:
    subject, pictures = tiny_subject(has_heads=True), seen_pictures(3)
    assert subject.model is not None
    torch.nn.init.normal_(subject.model.matching.pair_score.weight)
    texts = ["a dog", "a cat", "a photo of a pizza", "my name"]
    sentences = subject.workshop.text.encode_sentences(texts)
    dual = embedding_scores(subject.model, subject, pictures, texts)
    cross = cross_scores(subject.model, subject, pictures, texts)
    assert dual.shape == cross.shape == (3, 4)
    with torch.no_grad():
        one = subject.model.match_scores([pictures[2].features], [sentences[1]])
        alike = subject.model.embed_images([pictures[2].features]) @ subject.model.embed_texts([sentences[1]]).T
    assert cross[2, 1] == pytest.approx(one.item(), abs=1e-4)
    assert dual[2, 1] == pytest.approx(alike.item(), abs=1e-5)


def test_every_way_of_scoring_gives_figures() -> None:
    measured = measure_matching(tiny_subject(has_heads=True), seen_pictures(6), set_name="pets", bootstrap=Bootstrap())
    for way in (CONCEPT_WORDS, EMBEDDINGS, CROSS_ENCODER):
        assert 0 <= value(measured, f"matching accuracy, {way}") <= 1
        assert value(measured, f"image→caption recall@10 among 6, {way}") == 1
        assert value(measured, f"caption→image recall@10 among 6, {way}") == 1
    assert value(measured, f"image→any of its captions recall@10 among 12, {EMBEDDINGS}") >= 0
    assert {len(curve.values) for curve in measured.curves} == {6}
    assert not measured.notes


def test_directions_are_not_mixed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every picture prefers its own caption, but the first picture scores highest for every caption."""

    def scores(_subject: object, pictures: list[object], texts: list[str]) -> torch.Tensor:
        own = torch.tensor([[float(j == k // 2) for k in range(len(texts))] for j in range(len(pictures))])
        return own + 10 * (torch.arange(len(pictures)) == 0)[:, None]

    monkeypatch.setattr("engine.evaluation.matching.concept_scores", scores)
    measured = measure_matching(tiny_subject(), seen_pictures(4), set_name="pets", bootstrap=Bootstrap())
    assert value(measured, f"image→caption recall@1 among 4, {CONCEPT_WORDS}") == 1
    assert value(measured, f"caption→image recall@1 among 4, {CONCEPT_WORDS}") == 0.25


def test_a_hundred_candidates_are_measured_where_there_are_more() -> None:
    measured = measure_matching(tiny_subject(), seen_pictures(102), set_name="pets", bootstrap=Bootstrap())
    among_all = value(measured, f"image→caption recall@5 among 102, {CONCEPT_WORDS}")
    assert value(measured, f"image→caption recall@5 among 100, {CONCEPT_WORDS}") == pytest.approx(among_all, abs=0.02)


def test_weights_without_a_matching_head_are_said_to_have_none() -> None:
    measured = measure_matching(tiny_subject(), seen_pictures(3), set_name="pets", bootstrap=Bootstrap())
    assert len(measured.notes) == 2
    assert all("matching head" in note for note in measured.notes)
    assert value(measured, f"matching accuracy, {CONCEPT_WORDS}") >= 0
