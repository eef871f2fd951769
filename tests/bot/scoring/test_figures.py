"""Intervals widen with disagreement, narrow with more items, and stay where they are when drawn again."""

import pytest

from bot.scoring.figures import difference_of, mean_of


def test_of_nothing_there_is_no_mean() -> None:
    assert mean_of([]) is None
    assert mean_of([[], []]) is None


def test_what_was_asked_again_counts_as_one_item() -> None:
    estimate = mean_of([[1, 1, 1, 1], [0]])
    assert estimate is not None
    assert estimate.value == 0.5
    assert estimate.num_items == 2


def test_more_items_make_a_narrower_interval() -> None:
    few, many = mean_of([[1], [0]] * 4), mean_of([[1], [0]] * 100)
    assert few is not None
    assert many is not None
    assert few.value == many.value == 0.5
    assert many.high - many.low < 0.5 * (few.high - few.low)
    assert few.low < 0.5 < few.high


def test_repeats_do_not_narrow_it() -> None:
    once, often = mean_of([[1], [0]] * 5), mean_of([[1] * 9, [0] * 9] * 5)
    assert once == often


def test_one_item_proves_nothing() -> None:
    estimate = mean_of([[1]])
    assert estimate is not None
    assert (estimate.low, estimate.high) == (0, 1)


@pytest.mark.parametrize(("value", "low", "high"), [(1.0, 0.478, 1.0), (0.0, 0.0, 0.522)])
def test_five_alike_prove_little(value: float, low: float, high: float) -> None:
    estimate = mean_of([[value]] * 5)
    assert estimate is not None
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((value, low, high), abs=0.001)


def test_no_difference_may_be_one_either_way() -> None:
    difference = difference_of([[1.0]] * 5, [[1.0]] * 5)
    assert difference is not None
    assert (difference.low, difference.high) == pytest.approx((-0.522, 0.522), abs=0.001)


def test_a_paired_difference_is_surer_than_either_value() -> None:
    ours = [[float(number % 2)] for number in range(40)]
    theirs = [[number % 2 - 0.25] for number in range(40)]
    difference = difference_of(ours, theirs)
    assert difference is not None
    assert (difference.value, difference.low, difference.high) == pytest.approx((0.25, 0.25, 0.25))


def test_a_difference_needs_two_pairs() -> None:
    assert difference_of([[1]], [[0]]) is None
    assert difference_of([[1], []], [[0], [1]]) is None
