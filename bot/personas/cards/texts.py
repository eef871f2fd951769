"""What strangers write, made fit for a persona: harmless signs, first sentences, a guess at the language. Pure.

Owns no meaning: what a text is for is `bot.personas.cards.persona`'s.
"""

import re
from collections import Counter

# A sentence ends at a stop before a space, and at a full-width stop anywhere.
_SENTENCE_END = re.compile(r"(?<!\b[A-Z])[.!?…]++[\"”')\]]*+(?=\s|\Z)|[。！？][」”]?|\n")
_OPENING = re.compile(r"(?:\s|\[|<[a-z_]{1,30}>)*", re.IGNORECASE)
_OLD_CHAR = re.compile(r"<(?:BOT|CHAR)>", re.IGNORECASE)
_OLD_USER = re.compile(r"<USER>", re.IGNORECASE)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# These make a line read otherwise than it is written, or break it.
_LINE_MARKS = re.compile(r"[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_MAX_GUESSED_FROM = 8_000
_MIN_COMMON_WORDS = 3

_SCRIPTS = (
    ("ja", re.compile(r"[\u3040-\u30ff]")),
    ("ko", re.compile(r"[\uac00-\ud7af]")),
    ("zh", re.compile(r"[\u4e00-\u9fff]")),
    ("ru", re.compile(r"[\u0400-\u04ff]")),
    ("th", re.compile(r"[\u0e00-\u0e7f]")),
    ("ar", re.compile(r"[\u0600-\u06ff]")),
    ("he", re.compile(r"[\u0590-\u05ff]")),
    ("el", re.compile(r"[\u0370-\u03ff]")),
    ("hi", re.compile(r"[\u0900-\u097f]")),
)
# The frequent words of languages in Latin letters that are no words of the others.
_COMMON_WORDS = {
    "en": "the and is of with you your her his that for from they are was",
    "de": "der die das und ist nicht mit dich eine ich sie auf dem von sich",
    "es": "el los las una que por con para es su muy pero como ella",
    "fr": "le les des une est dans pour avec qui elle vous pas sur son",
    "pt": "os uma não com para você ela ele seu sua mais muito são dos",
    "it": "il gli una che per con è sono della lei suo non più nel",
}
_WORD = re.compile(r"[^\W\d_]+")
_LETTER = re.compile(r"[^\W\d_]")


def clean_text(text: str) -> str:
    """`text` with plain line ends, without control characters and halves of signs, and with today's macros."""
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    lines = whole.replace("\r\n", "\n").replace("\r", "\n")
    return _OLD_USER.sub("{{user}}", _OLD_CHAR.sub("{{char}}", _CONTROLS.sub("", lines))).strip()


def clean_line(text: str) -> str:
    """`text` on one line, which reads as it is written."""
    return " ".join(_LINE_MARKS.sub(" ", clean_text(text)).split())


def first_sentence(text: str, *, max_length: int) -> str:
    """How `text` begins, on one line, without the brackets and tags that some authors put around everything."""
    # No more is looked at than can be shown: the search would take long over very many stops.
    bare = _OPENING.sub("", text[: 4 * max_length], count=1)
    end = _SENTENCE_END.search(bare)
    sentence = " ".join((bare[: end.end()] if end else bare).split()).rstrip("]")
    if len(sentence) <= max_length:
        return sentence
    cut = sentence[: max_length - 1]
    return f"{cut[: cut.rfind(' ')] if ' ' in cut[max_length // 2 :] else cut}…"


def guess_language(text: str) -> str | None:
    """The language of `text` by its letters and its commonest words; `None` where nothing tells."""
    sample = re.sub(r"\{\{[^{}]*\}\}", " ", text[:_MAX_GUESSED_FROM])
    num_letters = len(_LETTER.findall(sample))
    if not num_letters:
        return None
    for language, script in _SCRIPTS:
        # A Japanese text is half Chinese signs; a name in another script makes no other language.
        if len(script.findall(sample)) > num_letters * (0.1 if language == "ja" else 0.3):
            return language
    words = Counter(word.lower() for word in _WORD.findall(sample))
    counts = {language: sum(words[word] for word in common.split()) for language, common in _COMMON_WORDS.items()}
    best, second = sorted(counts, key=lambda language: -counts[language])[:2]
    return best if counts[best] >= _MIN_COMMON_WORDS and counts[best] > 1.5 * counts[second] else None
