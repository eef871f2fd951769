"""Notices that the engine's thread does not come back from a step: the device hangs, or something else holds it.

Owns the clock that runs while the thread is at work. Knows nothing of what the thread does, and stops nothing: nobody
can stop a thread from outside.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class StepWatch:
    """Written by one thread, read by another: a single attribute passes between them."""

    def __init__(self) -> None:
        self._began_at: float | None = None

    @contextmanager
    def step(self) -> Iterator[None]:
        """On the thread: one step begins here, and ends."""
        self._began_at = time.monotonic()
        try:
            yield
        finally:
            self._began_at = None

    @property
    def began_at(self) -> float | None:
        """When the step began that the thread is in; `None` between two steps."""
        return self._began_at

    def in_step_for_s(self) -> float:
        """How long the thread has been in its step; 0 between two steps."""
        began_at = self._began_at
        return time.monotonic() - began_at if began_at is not None else 0.0
