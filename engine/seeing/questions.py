"""Questions about a picture: which of them a look at its content can answer with yes or no.

Owns the reading of a question; pure. Knows neither weights nor pictures.
"""

import re

# What features of the whole picture hardly tell: colours, numbers, places, writing, names.
_BEYOND = re.compile(
    r"\b(?:colou?rs?|how (?:many|much|old|big|tall|far)|number of|count|where|left|right|behind|in front|next to"
    r"|written|writing|says?|read|text|name|who|whose|when|why)\b",
    re.IGNORECASE,
)
_ASKED = re.compile(
    r"^(?:is|are|was|were|does|do|can|could) "
    r"(?:(?:it|this|that|these|those|there|they|you|the (?:picture|photo|image))(?: here)? )"
    r"(?:(?:see|show|shows|contain|have|be|spot|find|recogni[sz]e) )?"
    r"(?P<thing>.+?)"
    r"(?: (?:in|on|at) (?:it|this|that|here|(?:the|this|my|that) (?:picture|photo|image)))?"
    r"(?: (?:here|there|too|or not))?[?.! ]*$",
    re.IGNORECASE,
)
_ARTICLE = re.compile(r"^(?:any|some|a|an|the|one|my|your|our|really|actually) ", re.IGNORECASE)
MAX_WORDS = 8


def thing_asked_for(question: str) -> str | None:
    """ "Is there a dog in the picture?" → "dog": what the answer is yes or no about, where that is plain."""
    asked = " ".join(question.split())
    match = _ASKED.match(asked)
    if match is None or is_beyond(asked) or " or " in match["thing"].lower():
        return None
    thing = match["thing"].strip(" ?.!,")
    while (bare := _ARTICLE.sub("", thing)) != thing:
        thing = bare
    return thing if thing and len(thing.split()) <= MAX_WORDS else None


def with_article(thing: str) -> str:
    """ "dog" → "a dog"; what is plural keeps its form."""
    if thing.endswith("s") and not thing.endswith("ss"):
        return thing
    return f"{'an' if thing[:1].lower() in 'aeiou' else 'a'} {thing}"


def is_beyond(question: str) -> bool:
    """Whether it asks for what the default stack cannot see."""
    return _BEYOND.search(question) is not None
