"""Which updates have arrived, and which of them the server may forget.

Telegram repeats every update from the asked offset on, and forgets those before it. Owns that bookkeeping; does no
requests and knows nothing of what an update means.
"""

from collections.abc import Sequence
from typing import Any

RawUpdate = dict[str, Any]


class UpdateLedger:
    """Remembers what arrived and what was handed over, so that nothing is lost and nothing comes twice."""

    def __init__(self) -> None:
        self._next_id = 0
        self._waiting: set[int] = set()

    @property
    def offset(self) -> int:
        """Everything before it was handed over and may be forgotten. 0 before the first update."""
        return min(self._waiting, default=self._next_id)

    @property
    def has_waiting(self) -> bool:
        """Whether something has arrived that is not handed over yet, so that the server will repeat it."""
        return bool(self._waiting)

    def new_ones(self, batch: Sequence[RawUpdate]) -> list[RawUpdate]:
        """The updates of `batch` that were not seen before, in order; they wait from now on."""
        fresh = sorted((raw for raw in batch if raw["update_id"] >= self._next_id), key=lambda raw: raw["update_id"])
        for raw in fresh:
            self._waiting.add(raw["update_id"])
            self._next_id = raw["update_id"] + 1
        return fresh

    def handed_over(self, update_id: int) -> None:
        """`update_id` has reached whoever handles it, or cannot be handled at all."""
        self._waiting.discard(update_id)
