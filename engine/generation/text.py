"""Tokens become text that may be shown: whole characters only, and never a part of a stop string.

Owns what is held back. Knows neither tensors nor sampling.
"""

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class ReplyText:
    """The text of one reply as it grows."""

    def __init__(self, tokenizer: Tokenizer, *, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._stop = tuple(text for text in stop if text)
        self._held = ""
        self.is_stopped = False

    def add(self, token_id: int) -> str:
        """Take a token, and give the text that is safe to show now; sets `is_stopped` at a stop string."""
        self._held += self._decode(token_id)
        found = [index for stop in self._stop if (index := self._held.find(stop)) >= 0]
        if found:
            self.is_stopped = True
            return self._release(min(found), drop_rest=True)
        return self._release(len(self._held) - self._num_suspect())

    def finish(self) -> str:
        """What was held back for a stop string that did not come."""
        return "" if self.is_stopped else self._release(len(self._held))

    def _decode(self, token_id: int) -> str:
        try:
            return self._stream.step(self._tokenizer, token_id) or ""
        except Exception as error:
            # tokenizers raises Exception itself, and nothing else of it is known.
            if type(error) is not Exception:
                raise
            # A row of bytes that is no text at all confuses the stream: go on with a fresh one.
            self._stream = DecodeStream(skip_special_tokens=True)
            return self._stream.step(self._tokenizer, token_id) or ""

    def _num_suspect(self) -> int:
        """Length of the longest end of the held text that could become a stop string."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for size in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-size:]) for stop in self._stop):
                return size
        return 0

    def _release(self, size: int, *, drop_rest: bool = False) -> str:
        text, rest = self._held[:size], self._held[size:]
        self._held = "" if drop_rest else rest
        return text
