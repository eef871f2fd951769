"""Jobs: work beside replies, such as describing a picture, done in pieces on the engine's thread.

Owns whose piece is next and how a job ends. Knows nothing of threads and event loops: whoever made the job gave it a
way to hand its result over.
"""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from engine.errors import EngineError
from engine.seeing.work import Pieces

logger = logging.getLogger(__name__)

MAX_JOBS_AT_ONCE = 3

T = TypeVar("T")
BeginWork = Callable[[Any], Pieces[T]]
"""Begins a job's work on the thread, from the loop with all that it has loaded."""


@dataclass(eq=False, slots=True)
class Job:
    """A job on its way. `is_cancelled` may be set and `settle` called from any thread; `pieces` belongs to the
    engine's."""

    begin: BeginWork[Any]
    settle: Callable[[object, EngineError | None], None]
    is_cancelled: bool = False
    pieces: Pieces[Any] | None = None

    def advance(self, loop: object) -> bool:
        """Do the next piece, and say whether that was the last one."""
        if self.is_cancelled:
            self.fail(EngineError("nobody waits for this any more"))
            return True
        try:
            if self.pieces is None:
                self.pieces = self.begin(loop)
            next(self.pieces)
        except StopIteration as end:
            self.settle(end.value, None)
        except EngineError as error:
            self.settle(None, error)
        except Exception as error:
            # The boundary: one job's failure is logged, and told to its caller.
            logger.error("a job of the engine failed", exc_info=error)
            failure = EngineError(f"the engine failed on this ({type(error).__name__}); the log says more")
            failure.__cause__ = error
            self.settle(None, failure)
        else:
            return False
        return True

    def fail(self, error: EngineError) -> None:
        """End it where it is."""
        if self.pieces is not None:
            self.pieces.close()
        self.settle(None, error)


@dataclass(slots=True)
class JobQueue:
    """Jobs that take turns, the oldest few of them: a long translation does not hold up who only wants a picture
    described, and not all have begun at once, for each that has holds memory."""

    _jobs: deque[Job] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Job) -> None:
        """Let `job` wait for its turn."""
        self._jobs.append(job)

    def advance(self, loop: object) -> None:
        """Do a piece of one job."""
        # It stays in sight until its piece is done: should the thread die over it, its caller is told too.
        has_ended = self._jobs[0].advance(loop)
        job = self._jobs.popleft()
        if not has_ended:
            self._jobs.insert(MAX_JOBS_AT_ONCE - 1, job)

    def fail_all(self, error: EngineError) -> None:
        """Tell everybody that there will be no result."""
        while self._jobs:
            self._jobs.popleft().fail(type(error)(str(error)))
