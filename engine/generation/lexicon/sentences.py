"""Where sentences end in a text that grows.

Owns what counts as an end, in any script. Knows neither tokens nor what is to happen there.
"""

import regex

_ENDS = frozenset(".!?…。！？｡؟।॥።")
# Ends that need no space behind them.
_UNSPACED_ENDS = frozenset("。！？｡")
_CLOSING = regex.compile(r"[\p{Pe}\p{Pf}\p{Pi}\"'*_~)\p{Extended_Pictographic}\p{Cf}\p{Variation_Selector}\p{Sk}]")
# What a full stop behind belongs to.
_ABBREVIATIONS = frozenset(
    ["mr", "mrs", "ms", "dr", "st", "prof", "vs", "sr", "sra", "dra", "bzw", "ca", "nr", "b", "e", "g", "h"]
)


class Sentences:
    """Sentences of a reply, which may have begun with `start`; what stands there is not counted."""

    def __init__(self, start: str = "") -> None:
        self._num_ended = 0
        self._has_words = False
        # What may turn out to be no end: "3.5" and "e.g." go on.
        self._may_end = False
        self._has_space = True
        self._word = ""
        self._num_before = 0
        self.add(start)
        self._num_before = self.num

    @property
    def num(self) -> int:
        """Sentences that have ended, with one that seems to."""
        return self._num_ended + self._may_end - self._num_before

    @property
    def is_at_end(self) -> bool:
        """Whether a sentence has ended here, as far as can be told."""
        return self._may_end or (self._num_ended > 0 and not self._has_words)

    @property
    def is_at_start(self) -> bool:
        """Whether a sentence can begin here."""
        return self._may_end or not self._has_words

    def add(self, text: str) -> None:
        """Take more text."""
        for sign in text:
            self._add(sign)

    def _add(self, sign: str) -> None:
        if sign == "\n":
            self._may_end = self._may_end or self._has_words
            self._end()
        elif sign in _ENDS:
            self._may_end = self._may_end or (self._has_words and not (sign == "." and self._word in _ABBREVIATIONS))
            self._has_space = sign in _UNSPACED_ENDS
            self._word = ""
        elif sign.isspace():
            self._has_space = True
            self._word = ""
        elif not _CLOSING.match(sign):
            self._say(sign)

    def _say(self, sign: str) -> None:
        if self._may_end and self._has_space:
            self._end()
        self._may_end = False
        self._has_words = self._has_words or sign.isalpha()
        self._word = self._word + sign.casefold() if sign.isalpha() else ""
        self._has_space = False

    def _end(self) -> None:
        self._num_ended += self._may_end
        self._may_end = self._has_words = False
        self._word = ""
        self._has_space = True
