"""The jobs: each stack goes its own way, and what it cannot do is refused with a word."""

import math
from pathlib import Path

import pytest
import torch

from engine.decoder.language_model import LanguageModel
from engine.errors import DeviceError, EngineError, NotAvailable, RequestError
from engine.seeing import asking, jobs
from engine.seeing.jobs import BLIND, UNSURE_BELOW, describe, embed_images, embed_text, explain, match, space
from engine.seeing.work import Pieces, finish
from engine.types import GenerationRequest, Image, Role, Turn
from tests.engine.encoders.tiny import picture, random_image_encoder
from tests.engine.generation.requests import NELL
from tests.engine.seeing.tiny import Loaded, a_fuser, loaded, tiny_llava
from tests.engine.tiny import tiny_language_model

RED, BLUE = Image("r" * 64, picture("red")), Image("b" * 64, picture("blue", size=(300, 200)))


def test_the_default_stack_describes_and_says_how_sure_it_is() -> None:
    sight = finish(describe(loaded(), RED, question=None, language=None))
    assert sight.text
    assert 0 <= sight.confidence <= 1
    assert sight.is_unsure == (sight.confidence < UNSURE_BELOW)
    assert sight.is_unsure == sight.text.startswith("I am not sure")


@pytest.mark.parametrize(
    ("fits", "begins", "is_unsure"), [(0.9, "Yes", False), (0.1, "No", False), (0.5, "I am not sure", True)]
)
def test_a_thing_is_looked_for_with_the_matching_head(
    monkeypatch: pytest.MonkeyPatch, fits: float, begins: str, is_unsure: bool
) -> None:
    def fixed(_self: object, images: list[object], texts: list[str]) -> Pieces[list[list[float]]]:
        assert texts == ["a dog"]
        yield
        return [[fits]] * len(images)

    monkeypatch.setattr(jobs.Eye, "match", fixed)
    sight = finish(describe(loaded(), RED, question="Is there a dog?", language=None))
    assert sight.text.startswith(begins)
    assert "dog" in sight.text
    assert sight.is_unsure is is_unsure


def test_what_is_beyond_it_is_a_guess() -> None:
    sight = finish(describe(loaded(), RED, question="How many dogs are there?", language=None))
    assert sight.text.startswith("I cannot see that well")
    assert sight.is_unsure


def test_a_vision_language_model_is_asked_itself(tmp_path: Path) -> None:
    stack = Loaded(tiny_llava(tmp_path))
    sight = finish(describe(stack, RED, question="What is it?", language="German"))
    assert 0 < sight.confidence <= 1
    assert finish(describe(stack, BLUE, question="What is it?", language="German")) != sight


def test_a_vision_language_model_says_itself_what_fits(tmp_path: Path) -> None:
    model = tiny_llava(tmp_path)
    stack = Loaded(model)
    matches = finish(match(stack, "a dog", [RED, BLUE, RED]))
    assert matches[0] == matches[2] != matches[1]
    assert all(0 < one < 1 for one in matches)
    with pytest.raises(NotAvailable):
        finish(space(stack))


def test_yes_is_weighed_against_no(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llava(tmp_path)
    logits = torch.full((model.vocab_size,), -30.0)
    logits[model.prompts.tokenise("Yes")[0]], logits[model.prompts.tokenise("no")[0]] = 3.0, 0.0
    monkeypatch.setattr(LanguageModel, "prefill", lambda *_: logits)
    assert asking.fits(model, RED, "a dog") == pytest.approx(1 / (1 + math.exp(-3.0)), abs=1e-3)


@pytest.mark.parametrize("stack", [Loaded(tiny_language_model()), loaded(has_heads=False, is_trained=False)])
def test_a_blind_stack_says_so(stack: Loaded) -> None:
    with pytest.raises(NotAvailable) as caught:
        finish(describe(stack, RED, question=None, language=None))
    assert str(caught.value) == BLIND


@pytest.mark.parametrize("stack", [Loaded(tiny_language_model()), loaded(has_heads=False)])
def test_without_matching_no_picture_can_be_found(stack: Loaded) -> None:
    for work in (space(stack), embed_text(stack, "a dog"), embed_images(stack, [RED]), match(stack, "a dog", [RED])):
        with pytest.raises(NotAvailable):
            finish(work)


def test_pictures_are_embedded_one_a_piece_and_matched_in_order() -> None:
    stack = loaded()
    work = embed_images(stack, [RED, BLUE, RED])
    assert sum(1 for _ in work) == 3
    red, blue, again = finish(embed_images(stack, [RED, BLUE, RED]))
    assert red == again
    assert red != blue
    assert red.space == finish(space(stack)) == finish(embed_text(stack, "a dog")).space
    one, other = finish(match(stack, "a dog", [RED, BLUE]))
    assert (other, one) == finish(match(stack, "a dog", [BLUE, RED]))


def test_a_reply_that_was_just_made_is_explained() -> None:
    """What a reply leaves in the caches was computed without gradients, which explaining may need."""
    stack = Loaded(tiny_language_model(), a_fuser(image_encoder=random_image_encoder()))
    turn = Turn(Role.USER, "a dog", (RED,))
    request = GenerationRequest(NELL, "You are Nell.", (turn,))
    assert stack.fuser is not None
    with torch.inference_mode():
        stack.fuser.fuse(NELL, turn.text, turn.images)
    explanation = finish(explain(stack, request, "A dog, aye."))
    assert explanation.has_prefix
    assert explanation.regions
    assert not finish(explain(Loaded(tiny_language_model()), request, "A dog, aye.")).has_prefix


def test_a_picture_that_cannot_be_decoded_is_said() -> None:
    with pytest.raises(RequestError, match="send it again"):
        finish(describe(loaded(), Image("x" * 64, b"bad"), question=None, language=None))


def test_memory_that_runs_out_is_told_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(jobs, "caption_in_pieces", explode)
    with pytest.raises(DeviceError, match="smaller model"):
        finish(describe(loaded(), RED, question=None, language=None))


def test_a_bug_stays_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object, **__: object) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(jobs, "caption_in_pieces", explode)
    with pytest.raises(RuntimeError, match="shapes differ") as caught:
        finish(describe(loaded(), RED, question=None, language=None))
    assert not isinstance(caught.value, EngineError)
