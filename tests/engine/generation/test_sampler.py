"""Choices: each filter against what it should leave, and the same seed choosing the same."""

from collections import Counter

import pytest
import torch

from engine.errors import DeviceError
from engine.generation.sampler import Sampler
from engine.types import SamplingSettings

LOGITS = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
PLAIN = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0, "seed": 7}


def sampler(*, penalised: tuple[int, ...] = (), exempt: tuple[int, ...] = (), **settings: object) -> Sampler:
    return Sampler(
        SamplingSettings(**{**PLAIN, **settings}),
        vocab_size=4,
        device=torch.device("cpu"),
        penalised_ids=penalised,
        exempt_ids=exempt,
    )


def shares(count: int = 4000, **settings: object) -> list[float]:
    drawing = sampler(**settings)
    counted = Counter(drawing.choose(LOGITS) for _ in range(count))
    return [counted[token] / count for token in range(4)]


def test_without_filters_tokens_come_by_their_probability() -> None:
    assert shares() == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)


def test_temperature_sharpens() -> None:
    assert shares(temperature=0.5) == pytest.approx([0.685, 0.247, 0.062, 0.007], abs=0.03)


def test_temperature_zero_is_greedy() -> None:
    assert shares(100, temperature=0.0) == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_k": 99}, {0, 1, 2, 3}),
        ({"top_p": 0.7}, {0, 1}),
        ({"top_p": 0.01}, {0}),
        ({"min_p": 0.2}, {0, 1, 2}),
        ({"min_p": 0.99}, {0}),
        ({"top_k": 3, "top_p": 0.9, "min_p": 0.5}, {0, 1}),
    ],
)
def test_filters_keep_the_likeliest(settings: dict[str, object], kept: set[int]) -> None:
    assert {token for token, share in enumerate(shares(**settings)) if share} == kept


def test_the_same_seed_chooses_the_same() -> None:
    one, other, third = sampler(seed=-5), sampler(seed=-5), sampler(seed=6)
    drawn = [[each.choose(LOGITS) for _ in range(50)] for each in (one, other, third)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_without_a_seed_each_reply_is_its_own() -> None:
    one, other = sampler(seed=None), sampler(seed=None)
    assert [one.choose(LOGITS) for _ in range(60)] != [other.choose(LOGITS) for _ in range(60)]


def test_what_was_said_becomes_less_likely_whatever_its_sign() -> None:
    logits = torch.tensor([2.0, 1.5, -1.0, -1.1])
    greedy = {"temperature": 0.0, "repetition_penalty": 1.5}
    assert sampler(**greedy).choose(logits) == 0
    assert sampler(**greedy, penalised=(0,)).choose(logits) == 1
    assert sampler(**greedy, penalised=(2,)).choose(torch.tensor([-9.0, -9.0, -1.0, -1.1])) == 3


def test_what_it_chose_itself_counts_as_said() -> None:
    drawing = sampler(temperature=0.0, repetition_penalty=1.5)
    assert [drawing.choose(torch.tensor([2.0, 1.5, 0.0, 0.0])) for _ in range(2)] == [0, 1]


def test_the_end_of_a_turn_is_never_penalised() -> None:
    drawing = sampler(temperature=0.0, repetition_penalty=1.9, penalised=(0,), exempt=(0,))
    assert [drawing.choose(torch.tensor([2.0, 1.5, 0.0, 0.0])) for _ in range(2)] == [0, 0]


@pytest.mark.parametrize("temperature", [1e-3, 1e-40, 1e-300])
def test_the_smallest_temperatures_are_greedy(temperature: float) -> None:
    drawing = sampler(temperature=temperature)
    assert {drawing.choose(torch.tensor([-30.0, 20.0, 19.9, 3.0])) for _ in range(20)} == {1}


def test_a_draw_of_zero_chooses_nothing_that_was_filtered_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda self, **_: self.zero_())
    assert sampler(top_p=0.4).choose(LOGITS) == 0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_are_an_error_with_a_remedy(temperature: float) -> None:
    with pytest.raises(DeviceError, match=r"engine\.dtype"):
        sampler(temperature=temperature).choose(torch.full((4,), float("nan")))
