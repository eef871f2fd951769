"""What the next step computes: who is let in, who reads how much of the prompt, who gets a token. Touches no tensor.

Reading a prompt takes as long as many tokens, so it is cut into chunks that ride along with the tokens of the others: a
step that loads all weights for one token computes a few hundred more for little. While somebody is being answered the
chunks are so small that words keep coming; otherwise they are large.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from engine.generation.queue import FairQueue
from engine.generation.sequence import Sequence

MAX_RUNNING = 16
# Fewer tokens than these cost as much as one: they tell nothing of how long many take.
MIN_TELLING_TOKENS = 64
MIN_MIXED = 32
NEWEST_WEIGHT = 0.25


@dataclass(frozen=True, slots=True)
class StepBudget:
    """How many tokens a step may compute: `mixed` while replies are being written, `reading` while there are none.

    With `max_mixed_s` the scheduler learns `mixed` from how long steps take, up to `reading`, so that whoever is being
    answered gets the next word in about that time. Who is computed alone reads `alone` tokens at a time, whatever the
    others do: cut otherwise, a prompt rounds differently.
    """

    mixed: int = 128
    reading: int = 512
    alone: int = 256
    max_mixed_s: float | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """The next `num_tokens` positions of each lane of `sequence`, or what is left of it. With `has_logits` they are the
    last ones that stand there, and a token is chosen."""

    sequence: Sequence
    num_tokens: int
    has_logits: bool


class Scheduler:
    """Sequences that wait, in `queue`, and sequences that run."""

    def __init__(self, *, max_running: int = MAX_RUNNING, max_wait_s: float = 300.0, budget: StepBudget) -> None:
        self.queue = FairQueue(max_running=max_running, max_wait_s=max_wait_s)
        self._budget = budget
        self._num_mixed = budget.mixed
        self._running: list[Sequence] = []

    @property
    def has_work(self) -> bool:
        """Whether anybody waits or runs."""
        return bool(len(self.queue) or self._running)

    @property
    def running(self) -> tuple[Sequence, ...]:
        """Those that run, in the order of their admission."""
        return tuple(self._running)

    def add(self, sequence: Sequence) -> None:
        """Let `sequence` wait behind all others."""
        self.queue.add(sequence)

    def next(self, now: float) -> Sequence | None:
        """Who is to be let in, if anybody may."""
        return self.queue.next(self._running, now)

    @property
    def has_enough_to_read(self) -> bool:
        """Whether those who run have as much to read as fits into a step: then nobody else could begin to."""
        num_unread = sum(one.num_unread * len(one.lanes) for one in self._running if one.is_prefilling)
        return num_unread >= self._budget.reading

    def admit(self, sequence: Sequence, now: float) -> None:
        """Move a waiting `sequence` to the running ones."""
        self.queue.pop(sequence, now)
        self._running.append(sequence)
        sequence.started_at = now

    def schedule(self) -> list[Work]:
        """The next step's work. Everybody who is being answered gets a token; what the budget leaves goes to those who
        read, who came first first, so that one prompt is ready soon rather than all of them late."""
        decoding = [Work(one, 1, has_logits=True) for one in self._running if not one.is_prefilling]
        budget = self._num_mixed if decoding else self._budget.reading
        left = max(budget - len(decoding), 1)
        reading = []
        for sequence in self._running:
            if sequence.is_prefilling and left > 0:
                chunk = min(sequence.num_unread, self._budget.alone if sequence.is_alone else left)
                reading.append(Work(sequence, chunk, has_logits=chunk == sequence.num_unread))
                left -= chunk * len(sequence.lanes)
        return [*decoding, *reading]

    def remove_cancelled(self) -> list[Sequence]:
        """Take out those that nobody wants any more, waiting or running."""
        return self._remove_all([one for one in (*self.queue, *self._running) if one.is_cancelled])

    def remove_expired(self, now: float) -> list[Sequence]:
        """Take out those that have waited for too long."""
        return self._remove_all(self.queue.expired(now))

    def remove(self, sequence: Sequence, now: float | None = None) -> None:
        """Take `sequence` out; with `now`, its reply has ended well."""
        if sequence not in self._running:
            self.queue.remove(sequence)
            return
        self._running.remove(sequence)
        if now is not None:
            self.queue.note_finished(sequence, now)

    def note_step(self, works: Iterable[Work], duration_s: float) -> None:
        """How long a step took: the next ones that mix reading and answering are as large as time allows."""
        num_tokens = sum(work.num_tokens * len(work.sequence.lanes) for work in works)
        if self._budget.max_mixed_s is None or num_tokens < MIN_TELLING_TOKENS:
            return
        fitting = num_tokens * self._budget.max_mixed_s / max(duration_s, 1e-6)
        learnt = self._num_mixed + NEWEST_WEIGHT * (fitting - self._num_mixed)
        # However slow the steps are: beside a token for everybody there is room to read.
        least = MIN_MIXED + len(self._running)
        self._num_mixed = round(min(max(learnt, least), self._budget.reading))

    def clear(self) -> list[Sequence]:
        """Take everybody out."""
        return self._remove_all([*self._running, *self.queue])

    def _remove_all(self, sequences: Iterable[Sequence]) -> list[Sequence]:
        removed = list(sequences)
        for sequence in removed:
            self.remove(sequence)
        return removed
