"""Translations: the prompt says what is wanted, and a model that was not made for it is found out."""

from pathlib import Path

import pytest

from engine.decoder.language_model import LanguageModel
from engine.errors import PromptTooLong
from engine.seeing import translating
from engine.seeing.translating import is_made_for, translate
from engine.seeing.work import finish
from engine.types import Image
from tests.engine.encoders.tiny import picture
from tests.engine.seeing.tiny import a_fuser, tiny_llava
from tests.engine.tiny import tiny_language_model, tiny_llama, tiny_tokenizer

DOG = Image("d" * 64, picture("red"))


def test_a_small_model_translates_and_is_unsure() -> None:
    made = finish(translate(tiny_language_model(), None, "A dog.", language="German", images=()))
    assert made.text
    assert made.is_unsure


@pytest.mark.parametrize(("language", "is_fit"), [("English", True), ("German", False)])
def test_the_catalogue_says_what_a_model_was_made_for(language: str, is_fit: bool) -> None:
    model = LanguageModel(tiny_llama(), tiny_tokenizer(), name="smollm2-135m-instruct")
    assert is_made_for(model, language) is is_fit


def test_of_other_models_the_size_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_language_model()
    assert not is_made_for(model, "German")
    monkeypatch.setattr(translating, "MIN_PARAMETERS_TO_TRANSLATE", 1000)
    assert is_made_for(model, "German")


def test_the_picture_goes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = []

    def keep(_model: object, prompt: object, _options: object) -> object:
        prompts.append(prompt)
        raise InterruptedError

    monkeypatch.setattr(translating, "continue_prompt", keep)
    model = tiny_language_model()
    for images in ((DOG,), ()):
        with pytest.raises(InterruptedError):
            finish(translate(model, a_fuser(), "A dog.", language="German", images=images))
    with_picture, without = prompts
    assert len(with_picture.prefixes) == 1
    assert without.prefixes == ()
    text = model.tokenizer.decode([token for piece in with_picture.pieces for token in piece])
    assert "into German" in text
    assert "A dog." in text
    assert "picture" in text


def test_a_vision_language_model_sees_the_picture_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llava(tmp_path)
    made = finish(translate(model, None, "A dog.", language="German", images=(DOG,)))
    assert made.text is not None


def test_a_text_that_does_not_fit_is_refused() -> None:
    model = tiny_language_model(max_context_tokens=256)
    with pytest.raises(PromptTooLong, match="give a part"):
        finish(translate(model, None, "word " * 60, language="German", images=()))
