"""The personas that can be talked to, kept in step with their folders.

Owns the folders, the last good version of every file, and hot reload. Knows no YAML (`bot.personas.reading`), no
prompt and no platform.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from bot.personas.reading import PersonaProblem, read_persona
from bot.types import PersonaCard
from engine.persona import Persona


class PersonaLibrary:
    """All personas of `folders`; a persona in a later folder replaces one with the same id in an earlier folder."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(folders)
        self._personas: dict[str, Persona] = {}
        self._callbacks: list[Callable[[], None]] = []

    def load(self) -> None:
        """Read every file anew."""
        paths = [path for folder in self._folders for path in sorted(folder.glob("*.yaml"))]
        self._personas = {path.stem: read_persona(path) for path in paths}

    @property
    def problems(self) -> tuple[PersonaProblem, ...]:
        """What is wrong with the files as they are now."""
        return ()

    def all(self) -> tuple[Persona, ...]:
        """All personas, by name."""
        return tuple(sorted(self._personas.values(), key=lambda persona: persona.name.casefold()))

    def get(self, persona_id: str) -> Persona:
        """The persona with this id. Raises `PersonaError` with the ids that exist."""
        return self._personas[persona_id]

    def find(self, text: str) -> Persona | None:
        """The persona somebody means: an id, a name, or the beginning of exactly one of them, in any case."""
        return self._personas.get(text.casefold())

    def card(self, persona: Persona) -> PersonaCard:
        """What people see of `persona`."""
        return PersonaCard(persona.id, persona.name, persona.summary, persona.language, self.avatar(persona))

    def avatar(self, persona: Persona, platform: str | None = None) -> Path | None:
        """The avatar of `persona` on `platform`, if it has one; never a file outside the persona's folder."""
        return None

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` after every reload that changed a persona or a problem. It must not raise."""
        self._callbacks.append(callback)

    async def watch(self) -> None:
        """Keep in step with the folders until cancelled."""
