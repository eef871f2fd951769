"""Tokens become text that may be shown: whole characters only, and never a part of a stop string.

Owns the decoding. Knows neither tensors nor sampling; `stops` holds back what may become a stop string.
"""

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from engine.generation.stops import StopStrings


class ReplyText:
    """The text of one reply as it grows."""

    def __init__(self, tokenizer: Tokenizer, *, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._stops = StopStrings(stop)

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string has come."""
        return self._stops.is_stopped

    def add(self, token_id: int) -> str:
        """Take a token, and give the text that is safe to show now; `is_stopped` is true from a stop string on."""
        return self._stops.add(self._decode(token_id))

    def finish(self) -> str:
        """What was held back for a stop string that did not come."""
        return self._stops.finish()

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
