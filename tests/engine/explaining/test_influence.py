"""Influence against a plain loop that takes parts out of the features."""

from dataclasses import replace

import pytest
import torch

from engine.encoders.types import ImageFeatures
from engine.explaining import influence as module
from engine.explaining.influence import attention_of, influence_of, prefixes_of
from engine.explaining.likelihood import ReplyLikelihood
from engine.explaining.shares import ExplainedTurn, open_turn
from engine.fusion.model import TurnFeatures
from engine.fusion.pipeline import FusionPipeline
from tests.engine.explaining.tiny import NUM_FACETS, a_pipeline, a_request, said
from tests.engine.tiny import tiny_language_model


@pytest.fixture(scope="module")
def fuser() -> FusionPipeline:
    return a_pipeline()


@pytest.fixture(scope="module")
def explained(fuser: FusionPipeline) -> ExplainedTurn:
    opened = open_turn(tiny_language_model(), fuser, a_request(said("a dog", "red", "blue")), "A dog.")
    assert opened is not None
    return opened


def nats(fuser: FusionPipeline, likelihood: ReplyLikelihood, turn: TurnFeatures) -> float:
    with torch.no_grad():
        return likelihood.of(fuser.model([turn]).prefix).item()


def without_row(rows: torch.Tensor, index: int) -> torch.Tensor:
    return torch.cat([rows[:index], rows[index + 1 :]])


def test_scored_parts_lose_what_the_reply_loses_without_them(
    fuser: FusionPipeline, explained: ExplainedTurn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NUM_SCORED", 1000)
    found = influence_of(explained.prefixes(fuser), explained.likelihood)
    turn, likelihood = explained.features, explained.likelihood
    full = nats(fuser, likelihood, turn)
    facets = [full - nats(fuser, likelihood, replace(turn, persona=without_row(turn.persona, j))) for j in range(4)]
    words = [full - nats(fuser, likelihood, replace(turn, text=without_row(turn.text, j))) for j in range(2)]
    assert found.parts["facets"].tolist() == pytest.approx(facets, abs=1e-4)
    assert found.parts["words"].tolist() == pytest.approx(words, abs=1e-4)
    assert found.streams["persona"] == pytest.approx(
        full - nats(fuser, likelihood, replace(turn, persona=turn.persona[:0])), abs=1e-4
    )
    assert found.streams["image"] == pytest.approx(full - nats(fuser, likelihood, replace(turn, images=())), abs=1e-4)
    assert max(map(abs, facets)) > 1e-3


def with_concepts(image: ImageFeatures, kept: list[float]) -> ImageFeatures:
    return ImageFeatures(image.patches, image.concept_ids, image.concept_weights * torch.tensor(kept))


def test_a_concept_is_credited_for_what_it_does_alone_too(
    fuser: FusionPipeline, explained: ExplainedTurn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NUM_SCORED", 1000)
    found = influence_of(explained.prefixes(fuser), explained.likelihood).parts["concepts"]
    first, second = explained.features.images

    def of(first_kept: list[float], second_kept: list[float]) -> float:
        images = (with_concepts(first, first_kept), with_concepts(second, second_kept))
        return nats(fuser, explained.likelihood, replace(explained.features, images=images))

    every, none = [1.0] * 4, [0.0] * 4
    lost = of(every, every) - of(every, [1, 0, 1, 1])
    gained = of(none, [0, 1, 0, 0]) - of(none, none)
    assert found[5].item() == pytest.approx((lost + gained) / 2, abs=1e-4)
    assert len(found) == 8


def test_regions_are_those_of_each_picture(
    fuser: FusionPipeline, explained: ExplainedTurn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NUM_SCORED", 1000)
    first, second = explained.features.images
    turn = replace(explained.features, images=(first, second))
    prefixes = prefixes_of(fuser.model, turn, occluded=[[second], [first, second]])
    found = influence_of(prefixes, explained.likelihood).parts["regions"]
    full = nats(fuser, explained.likelihood, turn)
    expected = [(second, second), (first, first), (first, second)]
    lost = [full - nats(fuser, explained.likelihood, replace(turn, images=pair)) for pair in expected]
    assert found.tolist() == pytest.approx(lost, abs=1e-4)


def test_small_changes_are_told_by_the_gradient_as_well(
    fuser: FusionPipeline, explained: ExplainedTurn, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefixes = explained.prefixes(fuser)
    near = replace(
        prefixes, without={kind: prefixes.full + 0.05 * (v - prefixes.full) for kind, v in prefixes.without.items()}
    )
    monkeypatch.setattr(module, "NUM_SCORED", 0)
    told = influence_of(near, explained.likelihood).parts
    monkeypatch.setattr(module, "NUM_SCORED", 1000)
    scored = influence_of(near, explained.likelihood).parts
    for kind in ("regions", "words", "facets"):
        assert torch.allclose(told[kind], scored[kind], atol=2e-3)
        assert scored[kind].abs().max() > 0


def test_attention_is_a_share_of_all(fuser: FusionPipeline, explained: ExplainedTurn) -> None:
    looked = attention_of(fuser.model, explained.features)
    assert [len(looked.parts[kind]) for kind in module.PARTS] == [50, 8, 2, NUM_FACETS]
    assert sum(looked.streams.values()) == pytest.approx(1, abs=1e-4)


def test_a_turn_without_pictures_has_no_regions() -> None:
    fuser = a_pipeline(policy="always")
    opened = open_turn(tiny_language_model(), fuser, a_request(said("a dog")), "A dog.")
    assert opened is not None
    found = influence_of(opened.prefixes(fuser), opened.likelihood)
    assert [len(found.parts[kind]) for kind in module.PARTS] == [0, 0, 2, NUM_FACETS]
    assert found.streams["image"] == pytest.approx(0, abs=1e-5)
