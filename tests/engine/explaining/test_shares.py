"""From a request and its reply to shares in a person's terms."""

import time
from dataclasses import replace
from unittest.mock import PropertyMock, patch

import pytest
import torch

from engine.decoder.language_model import LanguageModel
from engine.errors import RequestError
from engine.explaining import explain
from engine.explaining.faithfulness import reply_to
from engine.explaining.shares import METHODS, NO_FUSION, NO_PREFIX, OWN_PICTURES
from engine.generation.loop import GenerationLoop
from engine.generation.sequence import Sequence
from engine.runtime.plain import plain_runtime
from engine.types import Insertion, Role, StreamShares, Turn
from tests.engine.explaining.tiny import NUM_FACETS, PERSONA, a_pipeline, a_request, said
from tests.engine.tiny import tiny_language_model


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_language_model()


@pytest.mark.parametrize("measure", ["influence", "attention"])
def test_the_shares_of_each_kind_sum_to_one_or_nothing(model: LanguageModel, measure: str) -> None:
    request = a_request(said("a dog, of ada", "red", "blue"))
    explanation = explain(model, a_pipeline(), request, "A dog.", measure=measure)
    assert explanation.has_prefix
    assert explanation.method == METHODS[measure]
    assert [(one.image, one.rows, one.columns) for one in explanation.regions] == [(0, 5, 5), (1, 5, 5)]
    assert [word.text for word in explanation.words] == ["a", "dog", "of", "ada"]
    assert [(facet.kind, facet.text) for facet in explanation.facets] == [
        (facet.kind, facet.text) for facet in PERSONA.facets()
    ]
    assert sorted(one.text for one in explanation.concepts) == ["thing 11", "thing 3", "thing 5", "thing 7"]
    regions = [share for one in explanation.regions for share in one.shares]
    streams = explanation.stream_shares
    kinds = [regions, [streams.image, streams.text, streams.persona]]
    kinds += [[one.share for one in part] for part in (explanation.concepts, explanation.words, explanation.facets)]
    for shares in kinds:
        assert min(shares) >= 0
        # Random weights know parts that only hinder.
        assert sum(shares) == pytest.approx(1, abs=1e-4) or (measure == "influence" and sum(shares) == 0)
    assert sum(map(sum, kinds)) > 2


def test_what_does_not_differ_has_no_share(model: LanguageModel) -> None:
    """A picture of one colour has no region that matters: blanked with its own mean, it stays as it was."""
    explanation = explain(model, a_pipeline(), a_request(said("a dog", "white")), "A dog.")
    assert sum(explanation.regions[0].shares) == 0
    assert len(explanation.facets) == NUM_FACETS


def test_a_question_about_an_earlier_picture_is_explained_by_that_picture(model: LanguageModel) -> None:
    turns = (said("a cat", "red"), Turn(Role.ASSISTANT, "Nice."), said("a pizza"))
    explanation = explain(model, a_pipeline(), a_request(*turns), "Red.")
    assert [word.text for word in explanation.words] == ["a", "cat"]
    assert len(explanation.regions) == 1
    newest = explain(model, a_pipeline(policy="always"), a_request(*turns[1:]), "Red.")
    assert [word.text for word in newest.words] == ["a", "pizza"]


def test_an_earlier_picture_changes_nothing_about_which_turn_is_newest(model: LanguageModel) -> None:
    turns = (said("a cat", "red"), Turn(Role.ASSISTANT, "Nice."), said("a pizza", "blue"))
    assert [word.text for word in explain(model, a_pipeline(), a_request(*turns), "Red.").words] == ["a", "pizza"]


def test_turns_that_did_not_fit_are_left_out_as_they_were_for_the_reply() -> None:
    model = tiny_language_model(max_context_tokens=300)
    turns = (said("a cat", "red"), Turn(Role.ASSISTANT, "Nice. " * 40), said("a pizza"))
    explanation = explain(model, a_pipeline(), a_request(*turns), "Red.")
    assert (explanation.has_prefix, explanation.method) == (False, NO_PREFIX)


def test_a_turn_without_a_prefix_says_why(model: LanguageModel) -> None:
    asked = a_request(said("a dog"))
    without_pictures = explain(model, a_pipeline(), asked, "A dog.")
    without_fusion = explain(model, None, asked, "A dog.")
    untrained = a_pipeline(is_trained=False)
    with patch.object(LanguageModel, "takes_pictures", PropertyMock(return_value=True)):
        own_pictures = explain(model, a_pipeline(), a_request(said("a dog", "red")), "A dog.")
    assert [one.method for one in (without_pictures, without_fusion, own_pictures)] == [
        NO_PREFIX,
        NO_FUSION,
        OWN_PICTURES,
    ]
    for one in (without_pictures, without_fusion, own_pictures):
        assert not one.has_prefix
        assert one.stream_shares == StreamShares(0, 0, 0)
        assert [one.regions, one.concepts, one.words, one.facets] == [(), (), (), ()]
    assert not explain(model, untrained, a_request(said("a dog", "red")), "A dog.").has_prefix


@pytest.mark.parametrize("reply", ["", "  \n"])
def test_without_a_reply_there_is_nothing_to_explain(model: LanguageModel, reply: str) -> None:
    with pytest.raises(RequestError, match="no reply to explain yet"):
        explain(model, a_pipeline(), a_request(said("a dog", "red")), reply)


def test_a_picture_alone_is_explained(model: LanguageModel) -> None:
    explanation = explain(model, a_pipeline(), a_request(said("", "red")), "A dog.")
    assert explanation.words == ()
    assert explanation.stream_shares.text == 0


def test_what_the_engine_has_fused_in_inference_mode_can_be_explained(model: LanguageModel) -> None:
    """The loop's tensors have no gradient; the pipeline's caches hand them out again."""
    fuser, request = a_pipeline(), a_request(said("a dog", "red"))
    answers: list[object] = []
    loop = GenerationLoop(model, plain_runtime(model), fuser)
    loop.add(Sequence(request, answers.append, time.monotonic()))
    while loop.has_work:
        loop.step()
    with torch.inference_mode():
        warm = explain(model, fuser, request, "A dog.")
    cold = explain(model, a_pipeline(), request, "A dog.")
    assert warm.stream_shares.image == pytest.approx(cold.stream_shares.image, abs=1e-4)
    assert [one.share for one in warm.facets] == pytest.approx([one.share for one in cold.facets], abs=1e-3)


def test_pictures_beyond_the_models_limit_are_not_explained(model: LanguageModel) -> None:
    explanation = explain(model, a_pipeline(max_images=1), a_request(said("a dog", "red", "blue")), "A dog.")
    assert len(explanation.regions) == 1


def test_replies_are_made_as_the_engine_makes_them(model: LanguageModel) -> None:
    fuser, request = a_pipeline(), a_request(said("a dog", "red"))
    assert reply_to(model, fuser, request) == reply_to(model, fuser, request)
    other = replace(request, sampling=replace(request.sampling, seed=2))
    assert reply_to(model, fuser, request) != reply_to(model, fuser, other)


def test_a_reply_is_explained_behind_what_was_inserted(model: LanguageModel) -> None:
    asked = a_request(said("a dog", "red"))
    behind = replace(asked, insertions=(Insertion("Be brief."),))
    alone, followed = (explain(model, a_pipeline(), one, "A dog.") for one in (asked, behind))
    assert alone.regions != followed.regions


def test_the_rest_of_a_reply_is_explained_behind_its_beginning(model: LanguageModel) -> None:
    asked = a_request(said("a dog", "red"))
    behind = replace(asked, reply_start="It is")
    alone, followed = (explain(model, a_pipeline(), one, " a dog.") for one in (asked, behind))
    assert alone.regions != followed.regions
