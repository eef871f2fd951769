import numpy as np
import pytest

from engine.evaluation.figures import Bootstrap


def test_the_interval_of_a_mean_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    found = Bootstrap(seed=0).mean(values)
    assert found.value == pytest.approx(values.mean())
    assert found.num_items == 400
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.15)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.arange(30.0) ** 2
    assert Bootstrap(seed=3).mean(values) == Bootstrap(seed=3).mean(values)
    assert Bootstrap(seed=3).mean(values) != Bootstrap(seed=4).mean(values)


def test_one_item_has_no_interval() -> None:
    found = Bootstrap().mean([0.5])
    assert (found.value, found.low, found.high, found.num_items) == (0.5, None, None, 1)


def test_equal_items_have_an_interval_of_no_width() -> None:
    found = Bootstrap().mean([0.25] * 5)
    assert (found.low, found.high) == (0.25, 0.25)


def test_any_statistic_is_resampled_by_rows() -> None:
    table = np.random.default_rng(2).normal(size=(60, 2))
    plain = Bootstrap(seed=1).of(lambda rows: float(table[rows].mean()), num_items=60)
    assert plain.value == pytest.approx(table.mean())
    by_mean = Bootstrap(seed=1).mean(table.mean(axis=1))
    assert plain.low == pytest.approx(by_mean.low, abs=0.05)
    assert plain.high == pytest.approx(by_mean.high, abs=0.05)
