"""How words are compared and found: in any case and width, whole where their script puts spaces between words. Pure."""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

# Scripts without spaces between words, or, as Korean, with endings joined to them: a word is found wherever it stands.
_UNSPACED_SIGNS = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
    r"\U00020000-\U0003ffff"
)
UNSPACED = re.compile(f"[{_UNSPACED_SIGNS}]")
# What a word cannot end before: between “Mira” and “在吗” a word ends.
_WORD_SIGN = rf"[^\W{_UNSPACED_SIGNS}]"
_SIGN = re.compile(_WORD_SIGN)
_WORD = re.compile(f"{_WORD_SIGN}+")


def fold(text: str) -> str:
    """`text` without differences of case and width."""
    return unicodedata.normalize("NFKC", text).casefold()


def has_any(folded: str, words: tuple[str, ...]) -> bool:
    """Whether one of `words` occurs in a folded text as a whole word, or as several with any space between them."""
    return any(_pattern(word).search(folded) for word in words)


def spaced_words(folded: str) -> list[str]:
    """The words of a folded text, but for those in scripts that put no spaces between them."""
    return _WORD.findall(folded)


def is_whole(text: str, begin: int, end: int) -> bool:
    """Whether no word goes on over the borders of `text[begin:end]`."""
    return not _SIGN.match(text[begin - 1 : begin]) and not _SIGN.match(text[end : end + 1])


def find_word(folded: str, word: str) -> Iterator[tuple[int, int]]:
    """Where `word` occurs in a folded text, as `has_any` finds it: each place's beginning and end."""
    return (match.span() for match in _pattern(word).finditer(folded))


@lru_cache(maxsize=4096)
def _pattern(word: str) -> re.Pattern[str]:
    escaped = r"\s+".join(re.escape(part) for part in fold(word).split())
    return re.compile(escaped if UNSPACED.search(word) else f"(?<!{_WORD_SIGN}){escaped}(?!{_WORD_SIGN})")
