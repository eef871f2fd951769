"""Figures with their uncertainty: a value, a 95 % interval by resampling the items, and how many items there were.

Owns the bootstrap (percentiles, seeded). Knows no model and no data set.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.extras import needing_extras

Values = NDArray[np.float64]
Rows = NDArray[np.int64]
CONFIDENCE = 0.95
NUM_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Estimate:
    """`low` and `high` bound the 95 % interval; a single item has none."""

    value: float
    low: float | None
    high: float | None
    num_items: int


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report. `group` is what `--only` calls it, `set_name` the data set."""

    group: str
    set_name: str
    name: str
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Curve:
    """Values over `1, 2, …`, such as recall over the number of candidates looked at."""

    set_name: str
    name: str
    values: tuple[float, ...]


@dataclass(slots=True)
class Measured:
    """What one or more measurements found. `examples` are for people to read, `notes` say what was left out."""

    figures: list[Figure] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)

    def add(self, other: "Measured") -> None:
        """Take in what another measurement found."""
        self.figures += other.figures
        self.curves += other.curves
        self.notes += other.notes
        self.examples += other.examples


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Percentile intervals over items. The same seed draws the same resamples."""

    seed: int = 0
    num_resamples: int = NUM_RESAMPLES

    def mean(self, values: Sequence[float] | Values) -> Estimate:
        """The mean over items."""
        items = np.asarray(values, dtype=np.float64)
        return self._estimate(items, _mean, is_vectorized=True)

    def of(self, statistic: Callable[[Rows], float], *, num_items: int) -> Estimate:
        """Any statistic of the items: it is given the rows to compute it from."""
        return self._estimate(np.arange(num_items), statistic, is_vectorized=False)

    def _estimate(self, items: NDArray[Any], statistic: Callable[..., Any], *, is_vectorized: bool) -> Estimate:
        value = float(statistic(items))
        if len(items) < 2:
            return Estimate(value, None, None, len(items))
        with needing_extras():
            from scipy.stats import bootstrap
        low, high = bootstrap(
            (items,),
            statistic,
            n_resamples=self.num_resamples,
            confidence_level=CONFIDENCE,
            method="percentile",
            vectorized=is_vectorized,
            batch=100,
            rng=np.random.default_rng(self.seed),
        ).confidence_interval
        return Estimate(value, float(low), float(high), len(items))


def _mean(items: Values, axis: int = -1) -> Any:  # noqa: ANN401 - a number or an array of them
    return np.mean(items, axis=axis)
