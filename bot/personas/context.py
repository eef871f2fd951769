"""What of a conversation fits into the room that a model has, in a fixed order of worth.

Owns that order, from what is never left out to what goes first:

1. who the persona is, its instructions, and the turn that is answered with its pictures;
2. the exchange before it;
3. lore, by its priority, in at most a share of the room;
4. what is recalled because the question is about it;
5. the first example, which teaches the voice;
6. older turns, the newest first, then the pictures in them;
7. more examples.

A turn is kept whole or left out whole, and what is kept has no gaps. Pure: knows neither files nor the engine, only
what texts cost.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bot.personas.lorebook import LoreReport
from bot.personas.recall import Recalled
from engine.types import Role, TokenMeasure, Turn

# What is left for a reply is at most half: a long answer never costs everything that was said before.
MAX_REPLY_SHARE = 0.5
# The exchange that a reply mostly hangs on.
NUM_NEAR_TURNS = 2


@dataclass(frozen=True, slots=True)
class ContextReport:
    """What a prompt is made of, in tokens as far as they are known: `max_tokens=None` is no known limit.

    `has_large_persona`: who the persona is and what is told whatever the room takes more than the question.
    """

    lore: LoreReport
    recalled: tuple[Recalled, ...] = ()
    num_tokens: int = 0
    max_tokens: int | None = None
    num_examples: int = 0
    num_examples_left_out: int = 0
    num_turns_left_out: int = 0
    num_pictures_left_out: int = 0
    has_large_persona: bool = False


class Room:
    """Tokens that are left. Without a limit there is always room."""

    def __init__(self, measure: TokenMeasure, *, max_new_tokens: int) -> None:
        self._measure = measure
        self._size = measure.context()
        self.context_tokens = self._size.max_tokens
        self.num_taken = 0
        self.max_tokens: int | None = None
        if self._size.max_tokens is not None:
            for_reply = min(max_new_tokens, int(self._size.max_tokens * MAX_REPLY_SHARE))
            self.max_tokens = self._size.max_tokens - for_reply

    @property
    def num_left(self) -> int | None:
        """What is left; `None` where there is no limit. Never below 0."""
        return None if self.max_tokens is None else max(0, self.max_tokens - self.num_taken)

    def share(self, part: float) -> int | None:
        """So many tokens of the whole, or what is left of it where that is less."""
        if self.max_tokens is None or self.num_left is None:
            return None
        return min(int(self.max_tokens * part), self.num_left)

    def count(self, text: str) -> int:
        """What `text` costs."""
        return self._measure.count_tokens(text) if text else 0

    def count_turn(self, turn: Turn) -> int:
        """What `turn` costs with its pictures."""
        return self.count(turn.text) + self._size.per_turn + len(turn.images) * self._size.per_picture

    @property
    def per_picture(self) -> int:
        """What each picture of a turn costs."""
        return self._size.per_picture

    def take(self, num_tokens: int) -> None:
        """So many are needed, whether there is room or not."""
        self.num_taken += num_tokens

    def take_if_fits(self, num_tokens: int) -> bool:
        """Take so many if they are left."""
        if self.num_left is not None and num_tokens > self.num_left:
            return False
        self.num_taken += num_tokens
        return True


@dataclass(frozen=True, slots=True)
class FittedTurns:
    """The turns that fit, oldest first."""

    turns: tuple[Turn, ...]
    num_left_out: int
    num_pictures_left_out: int


def take_newest(turns: Sequence[Turn], room: Room) -> int:
    """Take the turn that is answered, and of the exchange before it what fits. How many turns that are."""
    if not turns:
        return 0
    room.take(room.count_turn(turns[-1]))
    return 1 + _num_that_fit(turns[:-1][-NUM_NEAR_TURNS:], room, room.count_turn)


def take_older(turns: Sequence[Turn], num_taken: int, room: Room) -> FittedTurns:
    """Take of the turns before the last `num_taken` what fits, and say which are kept altogether.

    Their pictures come after all of their words: each of those costs as much as many turns.
    """
    older = turns[: len(turns) - num_taken]
    num_older = _num_that_fit(older, room, lambda turn: room.count_turn(replace(turn, images=())))
    kept = list(turns[len(older) - num_older :])
    num_pictures_left_out = 0
    for index in range(num_older - 1, -1, -1):
        images = kept[index].images
        num_shown = len(images)
        while num_shown and not room.take_if_fits(num_shown * room.per_picture):
            num_shown -= 1
        if num_shown < len(images):
            kept[index] = replace(kept[index], images=images[len(images) - num_shown :])
            num_pictures_left_out += len(images) - num_shown
    # A conversation begins with what somebody said, not with the answer to a question that was left out.
    while len(older) - num_older > 0 and len(kept) > num_taken and kept[0].role is Role.ASSISTANT:
        del kept[0]
        num_older -= 1
    return FittedTurns(tuple(kept), len(older) - num_older, num_pictures_left_out)


def _num_that_fit(turns: Sequence[Turn], room: Room, cost: Callable[[Turn], int]) -> int:
    """How many of `turns`, the newest first and without gaps, there is room for; it is taken."""
    num_taken = 0
    for turn in reversed(turns):
        if not room.take_if_fits(cost(turn)):
            break
        num_taken += 1
    return num_taken
