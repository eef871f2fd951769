"""What a training task is: it draws its own samples and says how wrong the model is about them."""

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True)
class TaskLoss:
    """`total` is a scalar to be minimised, the mean over the samples drawn; `parts` are figures for the log."""

    total: Tensor
    parts: dict[str, float] = field(default_factory=dict)


class Task(Protocol):
    """One thing to learn. What is drawn depends on the task's seed and `step` alone, so that a resumed run goes on as
    if it had never stopped."""

    @property
    def name(self) -> str:
        """As the options and the log call it."""

    def loss(self, step: int, *, part: int = 0, num_parts: int = 1) -> TaskLoss:
        """The loss of this step's samples, or of slice `part` of `num_parts` of them (gradient accumulation)."""
