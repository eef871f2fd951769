"""When the bot answers: whether a message is meant for a persona. Pure.

Owns the rules for direct chats, mentions, replies, names and trigger words. Knows neither the store nor who spoke
before: the caller says whether a message replies to the persona.
"""

import re
import unicodedata
from functools import lru_cache

from bot.types import ChatKind, IncomingMessage
from engine.persona import Persona

# Scripts written without spaces between words: a word there is found wherever its letters stand.
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


def is_meant_for(message: IncomingMessage, persona: Persona, *, is_reply_to_persona: bool) -> bool:
    """Whether `persona` answers `message`. Bots are never answered, so that two of them cannot talk for ever."""
    triggers = persona.triggers
    if message.author.is_bot:
        return False
    if message.kind is ChatKind.DIRECT:
        return True
    return (
        (triggers.mention and message.mentions_bot)
        or (triggers.reply and is_reply_to_persona)
        or (triggers.name and says_any(message.text, names_on(persona, message.room.platform)))
        or says_any(message.text, triggers.words)
    )


def names_on(persona: Persona, platform: str) -> tuple[str, ...]:
    """The names that people on `platform` know `persona` by."""
    faces = {str(key): face for key, face in persona.platforms.items()}
    face = faces.get(platform)
    return (persona.name, face.name) if face is not None and face.name else (persona.name,)


def says_any(text: str, words: tuple[str, ...]) -> bool:
    """Whether one of `words` occurs in `text` as a whole word, in any case."""
    folded = _fold(text)
    return any(_pattern(word).search(folded) for word in words)


@lru_cache(maxsize=1024)
def _pattern(word: str) -> re.Pattern[str]:
    escaped = r"\s+".join(re.escape(part) for part in _fold(word).split())
    return re.compile(escaped if _UNSPACED.search(word) else rf"(?<!\w){escaped}(?!\w)")


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
