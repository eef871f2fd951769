"""Means with their 95 % intervals, by resampling. Owns the bootstrap; knows no persona. Seeded, so it repeats."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NUM_RESAMPLES = 2000
_OUTSIDE = (2.5, 97.5)
_COVERED = 0.975


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean; `low` and `high` bound its 95 % interval. `num_items` is how many different things were asked."""

    value: float
    low: float
    high: float
    num_items: int


def mean_of(groups: Sequence[Sequence[float]], *, lowest: float = 0.0) -> Estimate | None:
    """The mean of the groups' means, which are from `lowest` to 1; `None` of nothing.

    What was seen when the same thing was asked again goes into one group: such values hang together, so that only
    groups are resampled.
    """
    means = np.asarray([sum(group) / len(group) for group in groups if group], dtype=np.float64)
    if not means.size:
        return None
    if means.size == 1:  # nothing says how far it might have been elsewhere
        return Estimate(float(means[0]), 0.0, 1.0, 1)
    if np.ptp(means) == 0 and float(means[0]).is_integer():
        return _of_one_answer(float(means[0]), int(means.size), lowest)
    rows = np.random.default_rng(0).integers(0, means.size, size=(NUM_RESAMPLES, means.size))
    low, high = np.percentile(means[rows].mean(axis=1), _OUTSIDE)
    return Estimate(float(means.mean()), float(low), float(high), int(means.size))


def _of_one_answer(value: float, num_items: int, lowest: float) -> Estimate:
    """Where all were right, or none, resampling sees no doubt. The bounds are then those of Clopper and Pearson."""
    room = 1 - (1 - _COVERED) ** (1 / num_items)
    return Estimate(value, max(lowest, value - room), min(1.0, value + room), num_items)


def difference_of(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> Estimate | None:
    """How much higher `ours` is than `theirs`, of the same things asked in the same order; `None` of nothing."""
    pairs = [(one, other) for one, other in zip(ours, theirs, strict=True) if one and other]
    if len(pairs) < 2:
        return None
    return mean_of([[sum(one) / len(one) - sum(other) / len(other)] for one, other in pairs], lowest=-1.0)
