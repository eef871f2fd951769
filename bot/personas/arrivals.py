"""Cards that come into a folder of personas, and files that leave it.

Owns what they are called there, and that nothing is lost: what gives way is kept in `.removed`. The command line and
the commands in chat use it; it knows neither.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePath

from bot.errors import PersonaError
from bot.personas.cards.card import Card, parse_card
from bot.personas.cards.containers import CardError
from bot.personas.cards.files import NameTaken, card_id, suffix_for, write_file
from bot.personas.cards.persona import card_from_persona, understand
from bot.personas.cards.pictures import MAX_FACE_SIDE, avatar_data, clean_png
from bot.personas.library import persona_files, persona_id_of
from bot.personas.reading import (
    MAX_PICTURE_BYTES,
    read_card_persona,
    read_persona,
    resolve_avatar,
    resolve_sticker,
)
from engine.persona import Persona

REMOVED = ".removed"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A card that has come in: its file, what it became, its picture as a PNG, and what of it has no effect."""

    path: Path
    persona: Persona
    picture: bytes | None
    warnings: tuple[str, ...] = ()


def bring_in(data: bytes, *, file_name: str, folder: Path, name: str = "", overwrite: bool = False) -> Arrival:
    """Put the card in `data` into `folder`, under `name` or else under its character's.

    Raises `CardError` where it is none, `NameTaken` where somebody has that name already and is not to give way.
    """
    card = parse_card(data, name=file_name)
    persona_id = _id_for(card, file_name=file_name, name=name)
    understanding = understand(card, id=persona_id)
    picture = avatar_data(card)
    shown = clean_png(picture, max_side=MAX_FACE_SIDE) if picture else None
    path = folder / f"{persona_id}{suffix_for(data)}"
    older = files_of(persona_id, folder)
    if older and not overwrite:
        raise NameTaken(f"there is a persona called `{persona_id}` already, in {older[0].name}; choose another name")
    moved = {file: remove(file) for file in older}
    try:
        write_file(path, data)
    except CardError:
        for file, kept in moved.items():
            kept.rename(file)
        raise
    unshown = ("its picture is damaged or too large, and is not shown",) if picture and shown is None else ()
    return Arrival(path, understanding.persona, shown, (*understanding.warnings, *unshown))


def files_of(persona_id: str, folder: Path) -> list[Path]:
    """The files in `folder` that are the persona with this id, or would be if they were right."""
    return [path for path in persona_files(folder) if persona_id_of(path) == persona_id]


def remove(path: Path) -> Path:
    """Move a persona's file out of sight, and return where it is now. Raises `CardError`."""
    kept = path.parent / REMOVED
    try:
        kept.mkdir(exist_ok=True)
        return path.rename(kept / f"{datetime.now():%Y-%m-%d-%H%M%S-%f}-{path.name}")
    except OSError as error:
        raise CardError(f"{path.name} cannot be moved into {REMOVED}: {error.strerror or error}") from None


def card_of(path: Path) -> Card:
    """The persona in the file at `path` as a card, with its pictures. Raises `PersonaError`."""
    persona = read_persona(path)
    avatar = _beside(path, persona.avatar, resolve_avatar) if persona.avatar else None
    if path.suffix.lower() not in (".yaml", ".yml"):
        return read_card_persona(path)[0]
    named = [
        *((face.avatar, resolve_avatar) for face in persona.expressions.values()),
        *((face.sticker, resolve_sticker) for face in persona.expressions.values()),
    ]
    found = {name: data for name, resolve in named if name and (data := _beside(path, name, resolve))}
    return card_from_persona(persona, avatar=avatar, files=found)


def _beside(path: Path, name: str, resolve: Callable[[Path, str], Path]) -> bytes | None:
    try:
        with resolve(path.parent, name).open("rb") as file:
            return file.read(MAX_PICTURE_BYTES)
    except (PersonaError, OSError):
        return None


def _id_for(card: Card, *, file_name: str, name: str) -> str:
    if name:
        wanted = card_id(name)
        if wanted != name:
            raise CardError(f"a persona cannot be called `{name[:64]}`; `{wanted}` would do")
        return wanted
    own = card_id(card.text("name").strip())
    return (
        own if card.text("name").isascii() and card.text("name").strip() else card_id(PurePath(file_name).stem or own)
    )
