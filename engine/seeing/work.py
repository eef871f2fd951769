"""Work in pieces: a generator that yields between them, and returns its result.

Whoever drives it decides what happens in between: the engine's thread lets replies advance, evaluation does nothing.
Knows no torch.
"""

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")

Pieces = Generator[None, None, T]


def finish(work: Pieces[T]) -> T:
    """Do all of `work` at once."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
