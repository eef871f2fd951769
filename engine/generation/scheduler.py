"""Who is next: first come, first served, and a bounded number side by side. Touches no tensor."""

from collections import deque

from engine.generation.sequence import Sequence

MAX_RUNNING = 8


class Scheduler:
    """Sequences that wait and sequences that run.

    A step admits at most one waiting sequence, because a prefill takes as long as many decode steps and everybody
    running waits for it; then each running sequence advances by one token.
    """

    def __init__(self, *, max_running: int) -> None:
        self._max_running = max_running
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []

    @property
    def has_work(self) -> bool:
        """Whether anybody waits or runs."""
        return bool(self._waiting or self._running)

    @property
    def running(self) -> tuple[Sequence, ...]:
        """Those that run, in the order of their admission."""
        return tuple(self._running)

    def add(self, sequence: Sequence) -> None:
        """Let `sequence` wait behind all others."""
        self._waiting.append(sequence)

    def admit(self) -> Sequence | None:
        """Move the longest waiting sequence to the running ones, if there is room."""
        if not self._waiting or len(self._running) >= self._max_running:
            return None
        sequence = self._waiting.popleft()
        self._running.append(sequence)
        return sequence

    def remove_cancelled(self) -> list[Sequence]:
        """Take out those that nobody wants any more, waiting or running."""
        cancelled = [sequence for sequence in (*self._waiting, *self._running) if sequence.is_cancelled]
        for sequence in cancelled:
            self.remove(sequence)
        return cancelled

    def remove(self, sequence: Sequence) -> None:
        """Take `sequence` out."""
        if sequence in self._running:
            self._running.remove(sequence)
        else:
            self._waiting.remove(sequence)

    def clear(self) -> list[Sequence]:
        """Take everybody out."""
        everybody = [*self._running, *self._waiting]
        self._running.clear()
        self._waiting.clear()
        return everybody
