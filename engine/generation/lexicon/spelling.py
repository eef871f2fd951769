"""What counts as the same letter, and where a word begins and ends, in any script.

Owns folding, sign by sign, so that a text can be folded as it comes. Knows neither tokens nor lexicons.
"""

import unicodedata
from functools import lru_cache

import regex

# Apostrophes and quotes are written in many ways, and mean the same.
_SAME = str.maketrans("\u2018\u2019\u02bc\u201c\u201d\u2032", "'''\"\"'")
# Nobody sees them: joiners, soft hyphens, variation selectors.
_UNSEEN = regex.compile(r"[\p{Cf}\p{Variation_Selector}]")
# Written without spaces between words.
_UNSPACED = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Yi}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\u30fc]"
)
_OTHER_SPACE = regex.compile(r"[^\S ]")
_DECOMPOSED = regex.compile(r"[\p{Latin}\p{Greek}\p{Cyrillic}]")


def fold(text: str) -> str:
    """`text` in the form in which texts are compared. Folding parts and joining them is the same."""
    return text.lower() if text.isascii() and not _OTHER_SPACE.search(text) else "".join(map(fold_sign, text))


@lru_cache(maxsize=65_536)
def fold_sign(sign: str) -> str:
    """One sign of a text: a letter without its case, nothing where nobody sees it, and a blank for any white space."""
    if sign.isspace():
        return " "
    if _UNSEEN.match(sign):
        return ""
    folded = unicodedata.normalize("NFKC", sign).casefold().translate(_SAME)
    # Apart from its accents, so that it does not matter in which form they come.
    return unicodedata.normalize("NFD", folded) if _DECOMPOSED.match(folded) else folded


@lru_cache(maxsize=65_536)
def is_joined(sign: str) -> bool:
    """Whether a folded sign belongs to one word with such a sign beside it."""
    if sign == "_" or unicodedata.category(sign).startswith("M"):
        return True
    return sign.isalnum() and not _UNSPACED.match(sign)


def phrase(text: str) -> str:
    """What has to be found of a word or phrase: folded, its spaces single."""
    return " ".join(fold(text).split())
