"""In which language a text is, as far as that is sure.

Owns scripts, the list of languages that are told apart, and the detector, which takes half a second to load: `load`
does it beforehand. Knows no persona.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

_SCRIPTS = {
    "latin": re.compile(r"[a-zÀ-ɏḀ-ỿ]", re.IGNORECASE),
    "cyrillic": re.compile(r"[\u0400-\u052f]"),
    "greek": re.compile(r"[\u0370-\u03ff\u1f00-\u1fff]"),
    "hebrew": re.compile(r"[\u0590-\u05ff]"),
    "arabic": re.compile(r"[\u0600-\u06ff\u0750-\u077f]"),
    "devanagari": re.compile(r"[\u0900-\u097f]"),
    "bengali": re.compile(r"[\u0980-\u09ff]"),
    "thai": re.compile(r"[\u0e00-\u0e7f]"),
    "hangul": re.compile(r"[\u1100-\u11ff\uac00-\ud7af]"),
    "kana": re.compile(r"[\u3040-\u30ff]"),
    "han": re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]"),
}
# What a sign of a script counts: one of Chinese says as much as three letters.
_WEIGHTS = {"han": 3, "kana": 2, "hangul": 2}

_LATIN = (
    "ca", "cs", "da", "de", "en", "es", "et", "fi", "fr", "hr", "hu", "id", "it", "la", "lt", "lv", "nb", "nl", "nn",
    "no", "pl", "pt", "ro", "sk", "sl", "sv", "sw", "tl", "tr", "vi",
)  # fmt: skip
SCRIPTS_OF: Mapping[str, frozenset[str]] = {
    **{code: frozenset({"latin"}) for code in _LATIN},
    **{code: frozenset({"cyrillic"}) for code in ("bg", "ru", "uk")},
    "sr": frozenset({"cyrillic", "latin"}),
    **{code: frozenset({"arabic"}) for code in ("ar", "fa", "ur")},
    "bn": frozenset({"bengali"}),
    "el": frozenset({"greek"}),
    "he": frozenset({"hebrew"}),
    "hi": frozenset({"devanagari"}),
    "th": frozenset({"thai"}),
    "zh": frozenset({"han"}),
    "ja": frozenset({"kana", "han"}),
    "ko": frozenset({"hangul", "han"}),
}
# Too close to be told apart in a sentence.
_RELATIVES = (
    {"da", "nb", "nn", "no", "sv"}, {"es", "ca"}, {"hr", "sr", "sl"}, {"cs", "sk"}, {"it", "la"},
)  # fmt: skip


def base_of(code: str) -> str:
    """The language of a tag: "zh-Hans" → "zh"."""
    return code.split("-")[0].lower()


def weights_by_script(text: str) -> Counter[str]:
    """How much of `text` is in each script, in letters."""
    return Counter(
        {name: num * _WEIGHTS.get(name, 1) for name, script in _SCRIPTS.items() if (num := len(script.findall(text)))}
    )


def with_relatives(codes: Iterable[str]) -> frozenset[str]:
    """`codes` and the languages that cannot be told from them."""
    known = set(codes)
    return frozenset(known.union(*(group for group in _RELATIVES if group & known)))


def latin_shares(text: str) -> dict[str, float]:
    """How likely `text`, in Latin letters, is in each language that uses them. Together 1."""
    return dict(_detector().rank(text))


def load() -> None:
    """Load the detector, so that nobody waits for it later."""
    _detector()


@lru_cache(maxsize=1)
def _detector() -> Any:  # noqa: ANN401 - the package has no types
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    detector = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    detector.set_languages([code for code in _LATIN if code in detector.labels])
    return detector
