"""What texts cost where no tokenizer is at hand.

Owns the estimate, and what is learnt about it from what servers say that prompts have cost. Knows no model.
"""

import math
import re

from engine.types import ContextSize, TokenMeasure

# Letters a token takes, rather too few: most tokenizers take four letters of English, three of other Latin texts, and
# about one sign of the scripts without spaces.
LETTERS_PER_TOKEN = 3.0
MARGIN = 1.05
UPWARDS, DOWNWARDS = 0.7, 0.2
MIN_RATIO, MAX_RATIO = 0.2, 4.0
# A prompt teaches where it has so many tokens, and about a kind of text that is such a share of it.
LEAST_TO_LEARN_FROM = 50
LEAST_SHARE = 0.5
_COSTLY = re.compile(r"[^\x00-\u024f]")


class EstimatedTokens:
    """A `TokenMeasure` that does not know its model."""

    def context(self) -> ContextSize:
        """Unknown."""
        return ContextSize()

    def count_tokens(self, text: str) -> int:
        """An estimate, rather too high."""
        return math.ceil(sum(_shares(text)))

    async def measure(self) -> TokenMeasure:
        """The same as a value that can be had elsewhere."""
        return EstimatedTokens()


class CalibratedTokens:
    """A `TokenMeasure` that learns from what prompts have really cost. `size` may be set at any time.

    Scripts without spaces and the others are learnt apart: what holds of one says nothing about the other.
    """

    def __init__(self) -> None:
        self.size = ContextSize()
        # Real tokens for each estimated one: of letters, and of signs that cost about one each.
        self._ratios = [1.0, 1.0]

    def context(self) -> ContextSize:
        """As it was told."""
        return self.size

    def count_tokens(self, text: str) -> int:
        """An estimate, rather too high."""
        estimate = sum(share * ratio for share, ratio in zip(_shares(text), self._ratios, strict=True))
        return math.ceil(estimate * MARGIN)

    def note(self, text: str, *, num_turns: int, num_tokens: int) -> None:
        """A prompt of all of `text`, in `num_turns` messages, was `num_tokens` long."""
        shares = _shares(text)
        found = num_tokens - num_turns * self.size.per_turn
        total = sum(shares)
        if total < LEAST_TO_LEARN_FROM or found <= 0:
            return
        for kind, share in enumerate(shares):
            if share > LEAST_SHARE * total:
                # What the other kind takes is known as well as it is.
                rest = found - shares[1 - kind] * self._ratios[1 - kind]
                self._learn(kind, rest / share)

    def _learn(self, kind: int, ratio: float) -> None:
        ratio = min(max(ratio, MIN_RATIO), MAX_RATIO)
        # An estimate that was too low does harm, one that was too high wastes a little: the one is mended at once.
        pace = UPWARDS if ratio > self._ratios[kind] else DOWNWARDS
        self._ratios[kind] += pace * (ratio - self._ratios[kind])


def _shares(text: str) -> tuple[float, float]:
    """The estimated cost of letters, and of signs of other scripts."""
    num_costly = len(_COSTLY.findall(text))
    return (len(text) - num_costly) / LETTERS_PER_TOKEN, float(num_costly)
