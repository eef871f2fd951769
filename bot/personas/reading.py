"""One persona file in, one `Persona` out, or every problem in it with its line and column.

Owns YAML, the limits on a file, and the wording of what is wrong for somebody who has never seen a stack trace. Knows
no folder of personas (`bot.personas.library`) and no prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bot.errors import PersonaError
from engine.persona import Persona


@dataclass(frozen=True, slots=True)
class PersonaProblem:
    """Something wrong in a persona file. Lines and columns count from 1; `None` where it is about the whole file."""

    path: Path
    line: int | None
    column: int | None
    message: str

    def __str__(self) -> str:
        place = [str(self.path), *(str(number) for number in (self.line, self.column) if number is not None)]
        return f"{':'.join(place)}: {self.message}"


class InvalidPersona(PersonaError):
    """A persona file is wrong. `problems` holds everything that was found, in the order of the file."""

    def __init__(self, problems: Sequence[PersonaProblem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


def read_persona(path: Path) -> Persona:
    """The persona in the file at `path`. Raises `InvalidPersona` with all problems."""
    import yaml

    return Persona.model_validate({**yaml.safe_load(path.read_text(encoding="utf-8")), "id": path.stem})
