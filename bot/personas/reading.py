"""One persona file in, one `Persona` out, or every problem in it with its line and column.

Owns the file: its name, its size, the pictures beside it. Leaves YAML to `bot.personas.document`, the wording of what
is wrong to `bot.personas.mistakes`, and character cards to `bot.personas.cards`. Knows no folder of personas and no
prompt.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pydantic import JsonValue, ValidationError

from bot.errors import PersonaError
from bot.personas.cards import files as card_files
from bot.personas.cards.card import Card
from bot.personas.cards.containers import CardError, NoCard
from bot.personas.cards.persona import persona_from_card
from bot.personas.document import (
    MAX_DOCUMENT_BYTES,
    Document,
    Location,
    Mistake,
    UnreadableDocument,
    parse_document,
)
from bot.personas.mistakes import lore_mistakes, schema_mistakes
from engine.persona import Persona

PERSONA_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
AVATAR_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif")
STICKER_SUFFIXES = (".png", ".webp", ".gif")
MAX_PICTURE_BYTES = 8 * 1024 * 1024
# A file of another kind has thousands of mistakes, and finding the words for each takes long.
MAX_PROBLEMS = 50


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
    """A persona file is wrong. `problems` holds what was found, in the order of the file, at most `MAX_PROBLEMS`."""

    def __init__(self, problems: Sequence[PersonaProblem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class NoPersona(InvalidPersona):
    """The file is a picture or a JSON file about something else, which may well lie among personas."""


def read_persona(path: Path) -> Persona:
    """The persona in the file at `path`, a card's too. Raises `InvalidPersona` with all problems."""
    if card_files.is_card_file(path):
        return read_card_persona(path)[1]
    try:
        document = parse_document(_read_bytes(path))
    except OSError as error:
        raise _invalid(path, [Mistake(None, f"the file cannot be read: {error.strerror or error}")]) from None
    except UnreadableDocument as error:
        raise _invalid(path, [error.mistake]) from None
    mistakes = [*document.mistakes, *_id_mistakes(path, document), *_picture_mistakes(path.parent, document)]
    document.values["id"] = path.stem if PERSONA_ID.fullmatch(path.stem) else "unnamed"
    persona = _validated(document, mistakes)
    if persona is not None:
        mistakes.extend(islice(lore_mistakes(persona, document), MAX_PROBLEMS))
    if persona is None or mistakes:
        raise _invalid(path, mistakes)
    return persona


def read_card_persona(path: Path) -> tuple[Card, Persona]:
    """The card in the file at `path`, and its persona. Raises `InvalidPersona`, `NoPersona` where it is no card."""
    try:
        card = card_files.read_card(path)
        return card, persona_from_card(card, id=card_files.card_id(path.stem))
    except NoCard as error:
        raise NoPersona([PersonaProblem(path, None, None, str(error))]) from None
    except CardError as error:
        raise InvalidPersona([PersonaProblem(path, None, None, str(error))]) from None


def resolve_avatar(folder: Path, avatar: str) -> Path:
    """The picture file that `avatar` names beside a persona in `folder`. Raises `PersonaError` with what is wrong."""
    return _resolve(folder, avatar, "an avatar", AVATAR_SUFFIXES)


def resolve_sticker(folder: Path, sticker: str) -> Path:
    """The file that `sticker` names beside a persona in `folder`. Raises `PersonaError` with what is wrong."""
    return _resolve(folder, sticker, "a sticker", STICKER_SUFFIXES)


def _resolve(folder: Path, name: str, kind: str, suffixes: Sequence[str]) -> Path:
    noun = kind.split()[-1]
    if "://" in name:
        raise PersonaError(f"{kind} is a file beside the persona, not a web address; download it first")
    if not name.isprintable():
        raise PersonaError(f"{kind}'s name must not contain control characters")
    try:
        path, home = (folder / name).resolve(), folder.resolve()
        if not path.is_relative_to(home):
            raise PersonaError(f"the {noun} `{name}` lies outside the persona's folder; move it beside the persona")
        if not path.is_file():
            raise PersonaError(f"{noun} file not found: there is no `{name}` in the persona's folder")
        if path.suffix.lower() not in suffixes:
            raise PersonaError(f"{kind} must be one of {', '.join(suffixes)}")
        if path.stat().st_size > MAX_PICTURE_BYTES:
            raise PersonaError(f"the {noun} `{name}` is larger than {MAX_PICTURE_BYTES // 1024 // 1024} MiB; shrink it")
    except (OSError, RuntimeError) as error:  # RuntimeError: links that go round in a circle
        raise PersonaError(f"the {noun} `{name}` cannot be read: {error}") from None
    return path


def _read_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_DOCUMENT_BYTES + 1)


def _id_mistakes(path: Path, document: Document) -> Iterator[Mistake]:
    if not PERSONA_ID.fullmatch(path.stem):
        yield Mistake(
            None,
            f"the file's name becomes the persona's id: rename `{path.stem}` to at most 64 of a-z, 0-9, `-` and `_`, "
            "beginning with a letter or digit",
        )
    elif document.values.get("id", path.stem) != path.stem:
        yield Mistake(
            document.key_places[("id",)],
            f"the id is the file's name, `{path.stem}`: remove this line or rename the file",
        )


def _picture_mistakes(folder: Path, document: Document) -> Iterator[Mistake]:
    faces, shown = document.values.get("platforms"), document.values.get("expressions")
    avatars: list[Location] = [("avatar",)]
    stickers: list[Location] = []
    if isinstance(faces, dict):
        avatars += [("platforms", platform, "avatar") for platform in faces]
    if isinstance(shown, dict):
        avatars += [("expressions", emotion, "avatar") for emotion in shown]
        stickers += [("expressions", emotion, "sticker") for emotion in shown]
    for locations, resolve in ((avatars, resolve_avatar), (stickers, resolve_sticker)):
        for location in locations:
            name = _value_at(document.values, location)
            if isinstance(name, str) and name.strip():
                try:
                    resolve(folder, name.strip())
                except PersonaError as error:
                    yield Mistake(document.places[location], str(error))


def _validated(document: Document, mistakes: list[Mistake]) -> Persona | None:
    """The persona, or `None` and why in `mistakes`.

    YAML takes `1.0`, `no` or `12:30` for numbers and truth values; where the schema wants a text, the author's spelling
    is the right one.
    """
    while True:
        try:
            return Persona.model_validate(document.values)
        except ValidationError as error:
            respelled = _mistaken_for_values(error, document)
            if not respelled:
                mistakes.extend(islice(schema_mistakes(error, document), MAX_PROBLEMS))
                return None
        for location in respelled:
            _place_value(document.values, location, document.spellings.pop(location))


def _mistaken_for_values(error: ValidationError, document: Document) -> set[Location]:
    """Where a text is wanted and YAML made something else of what the author wrote."""
    wanted = [details["loc"] for details in error.errors(include_url=False) if details["type"] == "string_type"]
    # Below a union the last step names the branch.
    return {place for location in wanted for place in (location, location[:-1]) if place in document.spellings}


def _value_at(values: JsonValue, location: Location) -> JsonValue:
    for step in location:
        if isinstance(values, dict) and isinstance(step, str):
            values = values.get(step)
        elif isinstance(values, list) and isinstance(step, int):
            values = values[step]
        else:
            return None
    return values


def _place_value(values: dict[str, JsonValue], location: Location, text: str) -> None:
    parent, step = _value_at(values, location[:-1]), location[-1]
    if isinstance(parent, dict):
        parent[str(step)] = text
    elif isinstance(parent, list):
        parent[int(step)] = text


def _invalid(path: Path, mistakes: list[Mistake]) -> InvalidPersona:
    problems = []
    ordered = sorted(mistakes, key=lambda mistake: mistake.place or (0, 0))[:MAX_PROBLEMS]
    if len(mistakes) >= MAX_PROBLEMS:
        ordered.append(Mistake(None, f"only {MAX_PROBLEMS} problems are listed; mend these first"))
    for mistake in ordered:
        line, column = mistake.place or (None, None)
        problems.append(PersonaProblem(path, line, column, mistake.message))
    return InvalidPersona(problems)
