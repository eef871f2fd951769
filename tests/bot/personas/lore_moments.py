"""Personas with lore, and conversations in which it is asked for."""

from typing import Any

from bot.personas.lorebook import LoreMoment, LoreReport, ScannedMessage, ToldLore, tell
from engine.persona import Persona
from engine.types import Role


def with_lore(*entries: dict[str, Any], book: dict[str, Any] | None = None, **fields: Any) -> Persona:
    """A persona called Mira."""
    values = {"id": "mira", "name": "Mira", "summary": "Keeper.", "greetings": ["Hi"], "lore": entries, **fields}
    return Persona.model_validate(values if book is None else {**values, "lorebook": book})


def conversation(*texts: str) -> tuple[ScannedMessage, ...]:
    """`texts` by the user and the persona in turn, so that the last one is the user's."""
    roles = (Role.USER, Role.ASSISTANT)
    return tuple(ScannedMessage(text, roles[(len(texts) - 1 - number) % 2]) for number, text in enumerate(texts))


def report(persona: Persona, *texts: str, max_tokens: int | None = None, **moment: Any) -> LoreReport:
    """The report at the end of a conversation; a word is a token."""
    return tell(
        persona,
        LoreMoment(conversation(*texts), **moment),
        count_tokens=lambda text: len(text.split()),
        max_tokens=max_tokens,
    )


def told(persona: Persona, *texts: str, **moment: Any) -> list[str]:
    """What is told at the end of a conversation."""
    return [entry.text for entry in report(persona, *texts, **moment).told]


def only(persona: Persona, *texts: str, **moment: Any) -> ToldLore:
    """The only entry that is told."""
    (entry,) = report(persona, *texts, **moment).told
    return entry


def is_told(entry: dict[str, Any], *texts: str, **moment: Any) -> bool:
    """Whether an entry with the key `storm`, unless it has others, is told."""
    return told(with_lore({"keys": ["storm"], "content": "Secret.", **entry}), *texts, **moment) == ["Secret."]


def decorated(*lines: str) -> dict[str, Any]:
    """An entry whose text begins with these decorators."""
    return {"content": "\n".join([*lines, "Secret."])}
