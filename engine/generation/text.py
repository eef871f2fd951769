"""Tokens become text that may be shown: whole characters only, and never a part of a stop string.

Owns the decoding. Knows neither tensors nor sampling; `stops` holds back what may become a stop string, `joining` lets
nothing be said twice.
"""

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from engine.generation.joining import Joining
from engine.generation.stops import StopStrings


class ReplyText:
    """The text of one reply as it grows, after the words `reply_start`."""

    def __init__(self, tokenizer: Tokenizer, *, stop: Sequence[str] = (), reply_start: str = "") -> None:
        self._tokenizer = tokenizer
        # Some tokenizers write no space in front of the first word that they see.
        said = tokenizer.encode(reply_start.rstrip(), add_special_tokens=False).ids if reply_start else []
        self._stream = DecodeStream(ids=said, skip_special_tokens=True)
        self._joining = Joining(reply_start)
        self._stops = StopStrings(stop, before=reply_start)

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string has come."""
        return self._stops.is_stopped

    def add(self, token_id: int) -> str:
        """Take a token, and give the text that is safe to show now; `is_stopped` is true from a stop string on."""
        return self._stops.add(self._joining.add(self._decode(token_id)))

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
