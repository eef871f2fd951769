"""How conversations begin: what a persona may open them with, and what people say who only say hello. Pure."""

import re
from datetime import datetime

from bot.personas.prompt import fill_macros
from bot.words import fold
from engine.persona import Persona

MAX_HELLO_CHARACTERS = 40
MAX_TITLE_CHARACTERS = 60

# fmt: off
_HELLOS = frozenset({
    "hi", "hello", "hey", "heya", "hiya", "yo", "howdy", "greetings", "hallo", "hej", "moin", "servus", "hola", "ola",
    "olá", "oi", "bonjour", "salut", "coucou", "ciao", "salve", "buongiorno", "ahoj", "cześć", "merhaba", "selam",
    "namaste", "привет", "здравствуй", "здравствуйте", "你好", "您好", "嗨", "こんにちは", "こんばんは", "안녕",
})
# What may stand beside a hello.
_COURTESIES = frozenset({"there", "again", "you", "all", "everyone", "everybody", "my", "dear", "friend", "bot"})
# fmt: on
_WORD = re.compile(r"\w+")


def greetings_for(
    persona: Persona,
    *,
    is_group: bool = False,
    user_name: str | None = None,
    conversation: str = "",
    now: datetime | None = None,
) -> tuple[str, ...]:
    """What `persona` may begin a conversation with, as its author orders it: in a group those for groups come first."""
    written = (*persona.group_greetings, *persona.greetings) if is_group else persona.greetings
    filled = (fill_macros(text, persona, user_name, conversation=conversation, now=now).strip() for text in written)
    return tuple(dict.fromkeys(text for text in filled if text))


def title_of(greeting: str) -> str:
    """The beginning of a greeting, to choose it by."""
    line = " ".join(greeting.split())
    return line if len(line) <= MAX_TITLE_CHARACTERS else f"{line[: MAX_TITLE_CHARACTERS - 1].rstrip()}…"


def is_hello(text: str) -> bool:
    """Whether `text` says nothing but hello, so that a greeting is the answer to it."""
    if len(text) > MAX_HELLO_CHARACTERS or "?" in text or "？" in text:
        return False
    words = _WORD.findall(fold(text))
    return bool(words) and words[0] in _HELLOS and all(word in _HELLOS | _COURTESIES for word in words[1:])
