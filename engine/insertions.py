"""Where insertions stand among the turns. Owns that arithmetic; knows no form in which prompts are written."""

from collections.abc import Sequence

from engine.types import Insertion


def by_place(insertions: Sequence[Insertion], num_turns: int) -> dict[int, list[Insertion]]:
    """The insertions that stand before each of `num_turns` turns, or after the last, by its index."""
    found: dict[int, list[Insertion]] = {}
    # Those that go deeper than the conversation keep the order that they had when it was longer.
    for insertion in sorted(insertions, key=lambda one: -one.depth):
        found.setdefault(max(0, num_turns - max(0, insertion.depth)), []).append(insertion)
    return found
