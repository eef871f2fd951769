"""A few personas in memory, without files."""

from dataclasses import dataclass
from pathlib import Path

from bot.errors import PersonaError
from bot.types import PersonaCard, Speaker
from engine.persona import Expression, Persona


def a_persona(name: str, **changes: object) -> Persona:
    """A persona with just what the schema demands."""
    values = {
        "id": name.casefold(),
        "name": name,
        "summary": f"{name} is a test.",
        "greetings": (f"I am {name}, {{{{user}}}}.",),
    }
    return Persona.model_validate(values | changes)


@dataclass
class MemoryLibrary:
    """Like `bot.personas.library.PersonaLibrary`."""

    personas: list[Persona]

    def all(self) -> tuple[Persona, ...]:
        return tuple(sorted(self.personas, key=lambda persona: persona.name))

    def get(self, persona_id: str) -> Persona:
        for persona in self.personas:
            if persona.id == persona_id:
                return persona
        raise PersonaError(f"no persona is called {persona_id!r}")

    def find(self, text: str) -> Persona | None:
        wanted = text.casefold()
        exact = [persona for persona in self.all() if persona.id == wanted]
        begun = [persona for persona in self.all() if wanted and persona.id.startswith(wanted)]
        matches = exact or begun
        return matches[0] if len(matches) == 1 else None

    def card(self, persona: Persona) -> PersonaCard:
        return PersonaCard(persona.id, persona.name, persona.summary, persona.language)

    def speaker(self, persona: Persona, platform: str) -> Speaker:
        return Speaker(persona.id, persona.name)

    def sticker(self, persona: Persona, expression: Expression) -> Path | None:
        return Path(expression.sticker) if expression.sticker else None
