"""Continuations side by side say what each would say alone."""

import pytest
import torch

from engine.decoder.language_model import EncodedPrompt, LanguageModel
from engine.errors import DeviceError
from engine.seeing.decoding import DecodingOptions, continue_prompt
from engine.seeing.work import finish
from engine.types import Role, Turn
from tests.engine.tiny import tiny_language_model

GREEDY = DecodingOptions(num_drawn=0, max_new_tokens=12, is_sentence=False)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_language_model()


def a_prompt(model: LanguageModel, text: str = "What is it?", *, is_steered: bool = False) -> EncodedPrompt:
    steering = torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(3)) if is_steered else None
    return model.encode(model.prompts.write("Be brief.", [Turn(Role.USER, text)]), steering=steering)


def reference(model: LanguageModel, prompt: EncodedPrompt, num_tokens: int) -> tuple[str, float]:
    """Greedy decoding, token by token, with nothing else around it."""
    state = model.new_state()
    logits, tokens, total = model.prefill(prompt, state), [], 0.0
    for number in range(num_tokens):
        token = int(logits.argmax())
        total += float(logits.log_softmax(-1)[token])
        tokens.append(token)
        if token in model.end_token_ids:
            break
        if number + 1 < num_tokens:
            logits = model.decode(token, state)
    num_scored = len(tokens)
    said = [token for token in tokens if token not in model.end_token_ids]
    return " ".join(model.tokenizer.decode(said, skip_special_tokens=True).split()), total / num_scored


@pytest.mark.parametrize("is_steered", [False, True])
def test_the_first_is_greedy_alone_and_beside_others(model: LanguageModel, is_steered: bool) -> None:
    prompt = a_prompt(model, is_steered=is_steered)
    text, mean = reference(model, prompt, 12)
    (alone,) = finish(continue_prompt(model, prompt, GREEDY))
    among = finish(continue_prompt(model, prompt, DecodingOptions(num_drawn=4, max_new_tokens=12, is_sentence=False)))
    assert len(among) == 5
    for one in (alone, among[0]):
        assert one.text == text
        assert one.mean_log_probability == pytest.approx(mean, abs=1e-3)


def test_draws_differ_and_repeat(model: LanguageModel) -> None:
    options = DecodingOptions(num_drawn=5, temperature=1.5, max_new_tokens=12, is_sentence=False)
    once = finish(continue_prompt(model, a_prompt(model), options))
    again = finish(continue_prompt(model, a_prompt(model), options))
    assert [one.text for one in once] == [one.text for one in again]
    assert len({one.text for one in once}) > 2


def test_a_sentence_ends_where_it_ends(model: LanguageModel) -> None:
    options = DecodingOptions(num_drawn=15, temperature=3.0, top_k=200, max_new_tokens=60)
    texts = [one.text for one in finish(continue_prompt(model, a_prompt(model), options))]
    inner = [text[:-1] for text in texts]
    assert not any(mark in text for text in inner for mark in ".!?\n")
    assert any(text.endswith((".", "!", "?")) for text in texts)


def test_each_step_is_a_piece(model: LanguageModel) -> None:
    work = continue_prompt(model, a_prompt(model), GREEDY)
    num_pieces = sum(1 for _ in work)
    assert 1 <= num_pieces <= GREEDY.max_new_tokens


def test_the_context_is_never_left(model: LanguageModel) -> None:
    short = tiny_language_model(max_context_tokens=a_prompt(model).num_tokens + 3)
    (one,) = finish(continue_prompt(short, a_prompt(short), DecodingOptions(max_new_tokens=50, is_sentence=False)))
    assert len(one.text) <= 3


def test_a_model_that_computes_nothing_is_said(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LanguageModel, "prefill", lambda *_: torch.full((260,), float("nan")))
    with pytest.raises(DeviceError, match=r"engine\.dtype"):
        finish(continue_prompt(model, a_prompt(model), GREEDY))
