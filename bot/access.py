"""When the bot answers: whether a message is meant for a persona. Pure.

Owns the rules for direct chats, mentions, replies, names and trigger words. Knows neither the store nor who spoke
before: the caller says whether a message replies to the persona.
"""

from bot.types import ChatKind, IncomingMessage
from bot.words import fold, has_any
from engine.persona import Persona


def is_meant_for(message: IncomingMessage, persona: Persona, *, is_reply_to_persona: bool) -> bool:
    """Whether `persona` answers `message`. Bots are never answered, so that two of them cannot talk for ever."""
    triggers = persona.triggers
    if message.author.is_bot:
        return False
    if message.kind is ChatKind.DIRECT:
        return True
    text = fold(message.text)
    return (
        (triggers.mention and message.mentions_bot)
        or (triggers.reply and is_reply_to_persona)
        or (triggers.name and has_any(text, names_on(persona, message.room.platform)))
        or has_any(text, triggers.words)
    )


def names_on(persona: Persona, platform: str) -> tuple[str, ...]:
    """The names that people on `platform` know `persona` by."""
    faces = {str(key): face for key, face in persona.platforms.items()}
    face = faces.get(platform)
    return (persona.name, face.name) if face is not None and face.name else (persona.name,)
