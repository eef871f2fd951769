"""What texts cost by a model's own tokenizer.

Owns a tokenizer of its own, so that it can be asked from any thread while the engine uses another. Knows no model and
no torch; it pickles, so that a replica's measure can be had elsewhere.
"""

from functools import lru_cache

from tokenizers import Tokenizer

from engine.types import ContextSize

# Texts are counted again and again while a prompt is put together; longer ones are hardly ever asked for twice.
MAX_REMEMBERED = 4096
MAX_REMEMBERED_CHARACTERS = 4096


class TokenizerMeasure:
    """A `TokenMeasure` that counts exactly. `tokenizer` is its JSON, as `tokenizers` writes it."""

    def __init__(self, tokenizer: str, size: ContextSize) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._size = size
        self._count_short = lru_cache(maxsize=MAX_REMEMBERED)(self._count)

    def __reduce__(self) -> tuple[type["TokenizerMeasure"], tuple[str, ContextSize]]:
        return TokenizerMeasure, (self._tokenizer.to_str(), self._size)

    def context(self) -> ContextSize:
        """How much there is room for."""
        return self._size

    def count_tokens(self, text: str) -> int:
        """How many tokens `text` takes."""
        return self._count_short(text) if len(text) <= MAX_REMEMBERED_CHARACTERS else self._count(text)

    def _count(self, text: str) -> int:
        # Half a surrogate pair is no character; prompts have a question mark in its place.
        whole = text.encode("utf-8", "replace").decode("utf-8")
        return len(self._tokenizer.encode(whole, add_special_tokens=False))
