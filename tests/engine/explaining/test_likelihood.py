"""A reply's log-likelihood against a plain reading of the whole prompt."""

from collections.abc import Iterator
from unittest.mock import patch

import pytest
import torch

from engine.decoder.language_model import LanguageModel
from engine.decoder.prompt import TokenPieces
from engine.explaining import likelihood as likelihood_module
from engine.explaining.likelihood import ReplyLikelihood
from tests.engine.tiny import tiny_language_model

PIECES = TokenPieces(((1, 40, 41, 42), (50, 51), (60, 61, 62)), places=(0, 2))
REPLY = (70, 71, 72)


@pytest.fixture(params=[True, False], ids=["cached", "read anew"])
def model(request: pytest.FixtureRequest) -> Iterator[LanguageModel]:
    with patch.object(LanguageModel, "is_cache_plain", request.param):
        yield tiny_language_model()


def prefixes(num: int) -> torch.Tensor:
    return torch.randn(num, 3, 32, generator=torch.Generator().manual_seed(4)) * 0.2


def plainly(
    model: LanguageModel, first: torch.Tensor, second: torch.Tensor, steering: torch.Tensor | None = None
) -> float:
    parts = [model.embed(PIECES.pieces[0]), first, model.embed(PIECES.pieces[1]), second, model.embed(PIECES.pieces[2])]
    embedded = torch.cat([*parts, model.embed(REPLY)])[None]
    with torch.no_grad():
        states = model.model.base_model(inputs_embeds=embedded).last_hidden_state
        states = states if steering is None else states + steering
        log_probabilities = model.model.get_output_embeddings()(states)[0].log_softmax(dim=-1)
    return sum(float(log_probabilities[-4 + place, token]) for place, token in enumerate(REPLY))


@pytest.mark.parametrize("index", [0, 1])
def test_each_version_scores_as_if_read_alone(model: LanguageModel, index: int) -> None:
    first, second, *others = prefixes(25)
    likelihood = ReplyLikelihood(model, PIECES, [first, second], index=index, reply_ids=REPLY)
    scores = likelihood.of(torch.stack(others))
    expected = [plainly(model, *((other, second) if index == 0 else (first, other))) for other in others]
    assert scores.tolist() == pytest.approx(expected, abs=1e-4)
    assert max(expected) - min(expected) > 0.01


def test_the_gradient_tells_what_a_small_change_does(model: LanguageModel) -> None:
    first, second, change = prefixes(3)
    likelihood = ReplyLikelihood(model, PIECES, [first, second], index=1, reply_ids=REPLY)
    score, gradient = likelihood.gradient(second)
    assert score == pytest.approx(plainly(model, first, second), abs=1e-4)
    step = 1e-2
    up, down = likelihood.of(torch.stack([second + step * change, second - step * change])).tolist()
    assert float((gradient * change).sum()) == pytest.approx((up - down) / (2 * step), rel=0.05, abs=1e-3)


def test_steering_is_at_work_while_the_reply_is_written(model: LanguageModel) -> None:
    first, second = prefixes(2)
    steering = torch.randn(32, generator=torch.Generator().manual_seed(1))
    likelihood = ReplyLikelihood(model, PIECES, [first, second], index=0, reply_ids=REPLY, steering=steering)
    expected = plainly(model, first, second, steering)
    assert likelihood.of(first[None]).tolist() == pytest.approx([expected], abs=1e-4)
    assert abs(expected - plainly(model, first, second)) > 0.01


def test_steering_can_be_varied_along(model: LanguageModel) -> None:
    first, second, other = prefixes(3)
    steering = torch.randn(2, 1, 32, generator=torch.Generator().manual_seed(1))
    likelihood = ReplyLikelihood(model, PIECES, [first, second], index=1, reply_ids=REPLY, varies_steering=True)
    versions = torch.cat([torch.stack([second, other]), steering], dim=1)
    expected = [plainly(model, first, second, steering[0, 0]), plainly(model, first, other, steering[1, 0])]
    assert likelihood.of(versions).tolist() == pytest.approx(expected, abs=1e-4)
    score, gradient = likelihood.gradient(versions[0])
    assert score == pytest.approx(expected[0], abs=1e-4)
    assert gradient.shape == versions[0].shape
    assert gradient[-1].any()


def test_fewer_versions_are_read_together_where_the_vocabulary_is_wide(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, *others = prefixes(7)
    likelihood = ReplyLikelihood(model, PIECES, [first, second], index=0, reply_ids=REPLY)
    together = likelihood.of(torch.stack(others))
    sizes: list[int] = []
    score = ReplyLikelihood._score

    def counted(self: ReplyLikelihood, versions: torch.Tensor) -> torch.Tensor:
        sizes.append(len(versions))
        return score(self, versions)

    monkeypatch.setattr(ReplyLikelihood, "_score", counted)
    monkeypatch.setattr(likelihood_module, "MAX_LOGITS", 2 * len(REPLY) * model.vocab_size)
    assert likelihood.of(torch.stack(others)).tolist() == pytest.approx(together.tolist(), abs=1e-4)
    assert sizes == [2, 2, 1]
