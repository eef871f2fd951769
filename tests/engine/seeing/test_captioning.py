"""Captions: the prompt has the picture in it, and of several candidates the one that fits is taken."""

import pytest
import torch

from engine.encoders.types import ImageFeatures
from engine.seeing import captioning
from engine.seeing.captioning import CaptionOptions, caption, picture_prompt
from engine.seeing.decoding import Continuation, DecodingOptions
from engine.seeing.eye import Eye
from engine.seeing.instructions import CAPTION_REQUEST
from engine.seeing.work import Pieces
from tests.engine.fusion.tiny import an_image
from tests.engine.seeing.tiny import an_eye
from tests.engine.tiny import tiny_language_model

SHORT = CaptionOptions(DecodingOptions(num_drawn=3, max_new_tokens=10))


def test_the_prompt_carries_the_pictures_prefix() -> None:
    model, eye = tiny_language_model(), an_eye()
    prompts = [picture_prompt(model, eye, an_image(seed=seed), CAPTION_REQUEST) for seed in (1, 1, 2)]
    assert all(prompt.prefixes[0].shape == (3, 32) for prompt in prompts)
    assert torch.equal(prompts[0].prefixes[0], prompts[1].prefixes[0])
    assert not torch.allclose(prompts[0].prefixes[0], prompts[2].prefixes[0], atol=1e-4)
    assert picture_prompt(model, an_eye(is_trained=False), an_image(), CAPTION_REQUEST).prefixes == ()


def test_the_same_picture_gives_the_same_caption() -> None:
    model, eye = tiny_language_model(), an_eye()
    once = caption(model, eye, an_image(seed=4), options=SHORT)
    assert once == caption(model, eye, an_image(seed=4), options=SHORT)
    assert once.text
    assert once.match is not None
    assert 0 <= once.match <= 1


def test_the_candidate_that_fits_is_taken_before_one_that_is_merely_likely(monkeypatch: pytest.MonkeyPatch) -> None:
    proposed = [Continuation("a pizza", -0.5), Continuation("A Pizza", -0.9), Continuation("a dog", -1.0)]

    def continue_prompt(*_args: object) -> Pieces[list[Continuation]]:
        yield
        return proposed

    def match(_self: Eye, images: list[ImageFeatures], texts: list[str]) -> Pieces[list[list[float]]]:
        assert texts == ["a pizza", "a dog"], "each text once"
        yield
        return [[0.1, 0.9] for _ in images]

    monkeypatch.setattr(captioning, "continue_prompt", continue_prompt)
    monkeypatch.setattr(Eye, "match", match)
    found = caption(tiny_language_model(), an_eye(), an_image())
    assert (found.text, found.match, found.mean_log_probability) == ("a dog", 0.9, -1.0)
    found = caption(tiny_language_model(), an_eye(), an_image(), options=CaptionOptions(match_weight=0.0))
    assert found.text == "a pizza"


def test_without_a_matching_head_the_greedy_candidate_is_taken() -> None:
    found = caption(tiny_language_model(), an_eye(has_heads=False), an_image(), options=SHORT)
    assert found.match is None
    assert found.text


def test_a_model_that_says_nothing_still_gives_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def continue_prompt(*_args: object) -> Pieces[list[Continuation]]:
        yield
        return [Continuation("", -0.1), Continuation("", -0.2)]

    monkeypatch.setattr(captioning, "continue_prompt", continue_prompt)
    assert caption(tiny_language_model(), an_eye(), an_image()).text == "a picture"
