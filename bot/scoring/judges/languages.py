"""Which language a reply is in, as far as its letters and commonest words tell. Pure; unsure of short texts."""

import re
from collections import Counter

from bot.words import fold

# At least so many words have to be known, and twice as many as of the language that is expected.
MIN_KNOWN_WORDS = 3
MIN_LETTERS = 6
_SCRIPTS = {
    "latin": r"[a-zA-Z\u00c0-\u024f]", "han": r"[\u3400-\u9fff]", "kana": r"[\u3040-\u30ff]",
    "hangul": r"[\uac00-\ud7af]", "cyrillic": r"[\u0400-\u04ff]", "arabic": r"[\u0600-\u06ff]",
    "hebrew": r"[\u0590-\u05ff]", "greek": r"[\u0370-\u03ff]", "devanagari": r"[\u0900-\u097f]",
    "thai": r"[\u0e00-\u0e7f]",
}  # fmt: skip
_SCRIPT_PATTERNS = {name: re.compile(pattern) for name, pattern in _SCRIPTS.items()}
_SCRIPT_OF = {
    "zh": {"han"}, "ja": {"han", "kana"}, "ko": {"hangul", "han"}, "ru": {"cyrillic"}, "uk": {"cyrillic"},
    "bg": {"cyrillic"}, "sr": {"cyrillic", "latin"}, "ar": {"arabic"}, "fa": {"arabic"}, "ur": {"arabic"},
    "he": {"hebrew"}, "el": {"greek"}, "hi": {"devanagari"}, "th": {"thai"},
}  # fmt: skip
# Words that no neighbour shares, so that a name or a borrowed phrase proves nothing.
_COMMON_WORDS = {
    "en": "the and is are you i it of to that with this for what my your not have was they we do how me can be",
    "es": "el los las es y que un una por con para pero muy como esta estoy yo tu mi su del hay qué más soy lo",
    "de": "der die das und ist ich nicht ein eine zu mit den du wir sie es auf für wie mir dir bin auch aber habe",
    "fr": "le les des et est je vous une pour dans pas que qui sur avec mon votre nous c'est suis ne mais au du",
    "pt": "os não uma você eu com para mas muito como está são meu minha seu sua do da em um isso ao",
    "it": "il gli che non una per con sono mio tuo ma molto come questo della di è ho anche perché",
}
_WORDS = {code: frozenset(words.split()) for code, words in _COMMON_WORDS.items()}
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?")


def is_foreign(text: str, spoken: frozenset[str]) -> bool:
    """Whether most of `text` is in none of the languages `spoken`, codes without region; false where unsure."""
    return _has_foreign_script(text, spoken) or _has_foreign_words(text, spoken)


def _has_foreign_script(text: str, spoken: frozenset[str]) -> bool:
    counts = Counter({name: len(pattern.findall(text)) for name, pattern in _SCRIPT_PATTERNS.items()})
    own = {script for code in spoken for script in _SCRIPT_OF.get(code, {"latin"})}
    num_own = sum(number for name, number in counts.items() if name in own)
    num_foreign = sum(counts.values()) - num_own
    # A letter of the scripts without spaces weighs more than one of ours.
    return counts.total() >= MIN_LETTERS and num_foreign > 2 * num_own


def _has_foreign_words(text: str, spoken: frozenset[str]) -> bool:
    own_codes = spoken & _WORDS.keys()
    if not own_codes or len(own_codes) < len(spoken):  # a language whose words are not known here
        return False
    words = [word.replace("\u2019", "'") for word in _WORD.findall(fold(text))]
    known = {code: sum(word in listed for word in words) for code, listed in _WORDS.items()}
    most_own = max(known[code] for code in own_codes)
    most_foreign = max(number for code, number in known.items() if code not in own_codes)
    return most_foreign >= MIN_KNOWN_WORDS and most_foreign > 2 * most_own
