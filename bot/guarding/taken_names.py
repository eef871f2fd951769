"""Whether a reply takes the name that somebody offers it: "You are now Captain Rex." "I am Captain Rex." Pure.

Owns how names are offered and taken in a few languages. Knows no persona: whoever asks leaves out the names it may use.
"""

import re
from collections.abc import Collection

from bot.words import fold

MAX_LETTERS = 2_000
MAX_WORDS_OF_A_NAME = 4
_OFFER = re.compile(
    r"\b(?:you(?:\s+are|'re|’re|\s+will\s+be)(?:\s+now)?|(?:be|become|play|impersonate)|pretend\s+to\s+be|act\s+(?:as|like)"
    r"|call\s+yourself|your\s+(?:\w+\s+)?name\s+is|(?:ahora\s+)?eres|finge\s+ser|actúa\s+como|te\s+llamas"
    r"|(?:du\s+bist|bist\s+du)(?:\s+(?:jetzt|nun))?|spiele?|du\s+heißt|tu\s+es|tu\s+t['’]appelles|vous\s+êtes)"
    r"\s+(?P<name>[^.!?;:,\n]{1,60})",
    re.IGNORECASE,
)
_CHINESE_OFFER = re.compile(r"你(?:现在|从现在起)?(?:就)?(?:是|叫|扮演)(?P<name>[^，。！？,.!?\s“”\"]{1,12})")
_CLAIM = re.compile(
    r"(?:\b(?:i\sam|i'm|my\sname\sis|call\sme|soy|me\sllamo|mi\snombre\ses|ich\sbin|ich\sheiße|mein\sname\sist|je\ssuis"
    r"|je\sm'appelle|mon\snom\sest|sono|mi\schiamo|eu\ssou|me\schamo)\s|我(?:就)?(?:是|叫))(?P<rest>[^.!?,;:。！？，；：\n]{1,60})"
)
# What may stand before a name that is claimed.
_BEFORE_A_NAME = frozenset(
    {
        "the",
        "a",
        "an",
        "now",
        "called",
        "really",
        "actually",
        "still",
        "el",
        "la",
        "ahora",
        "der",
        "die",
        "jetzt",
        "nun",
        "le",
    }
)
_WORD = re.compile(r"[^\W_][\w'’-]*")
_DENIAL = re.compile(r"(?:not|no|never|nunca|nicht|kein\w*|pas)\b|不")


def offered_names(text: str) -> frozenset[str]:
    """Names that `text` gives to whom it speaks, folded: in scripts with capital letters those begin with one."""
    text = text[:MAX_LETTERS]
    names = {
        fold(word).removesuffix("'s")
        for offer in _OFFER.finditer(text)
        for word in _WORD.findall(offer["name"])[:MAX_WORDS_OF_A_NAME]
        if word[0].isupper() and len(word) > 1
    }
    return frozenset(names | {fold(offer["name"]) for offer in _CHINESE_OFFER.finditer(text)})


def taken_at(folded: str, names: Collection[str]) -> int | None:
    """Where in a folded sentence its speaker claims one of `names`; `None` where nobody does."""
    for claim in _CLAIM.finditer(folded):
        rest = claim["rest"].strip(" \"'“”*_")
        if _DENIAL.match(rest):
            continue
        # Only the name itself: "I am Ann's friend" and "I am older than Ann" claim none.
        named = next((word for word in _WORD.findall(rest) if word not in _BEFORE_A_NAME), "")
        if named in names or any(not name.isascii() and rest.startswith(name) for name in names):
            return claim.start()
    return None
