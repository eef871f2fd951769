"""The personas that can be talked to, kept in step with their folders.

Owns the folders, the last good version of every file, and hot reload. Knows no YAML (`bot.personas.reading`), of cards
that they bring their pictures along, and no platform. Reading may happen on another thread; what is served changes in
one assignment.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import partial
from pathlib import Path

from watchfiles import awatch

from bot.access import names_on
from bot.errors import PersonaError
from bot.expressions import expression_for
from bot.personas.cards.card import Card
from bot.personas.cards.files import card_id, is_card_file
from bot.personas.cards.pictures import MAX_FACE_SIDE, CardPictures, asset_data, avatar_data, face_assets, find_file
from bot.personas.prompt import fill_macros
from bot.personas.reading import (
    MAX_PICTURE_BYTES,
    InvalidPersona,
    NoPersona,
    PersonaProblem,
    read_card_persona,
    read_persona,
    resolve_avatar,
    resolve_sticker,
)
from bot.types import PersonaCard, Speaker
from bot.words import fold
from engine.persona import Expression, Persona

SUFFIXES = (".yaml", ".yml")
# A PNG or a JSON file among personas may be about anything else.
CARD_ONLY_SUFFIXES = (".charx",)
# Folders are compared at least this often: notifications do not exist on every disk, and can be lost.
POLL_INTERVAL_S = 0.5

_log = logging.getLogger(__name__)

Stamp = tuple[int, int, int]
"""What changes when a file changes: modification time, size, inode."""


@dataclass(frozen=True, slots=True)
class _Source:
    """A file as it was read last. `persona` is its last good version, which may be older than `stamp`.

    Of a card, `pictures` are those that came with it, by the names that the persona has for them; its avatar by none.
    """

    path: Path
    stamp: Stamp | None
    persona: Persona | None
    problems: tuple[PersonaProblem, ...] = ()
    pictures: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Shelf:
    """Everything that was read, and what is served of it."""

    sources: dict[Path, _Source] = field(default_factory=dict)
    served: dict[str, _Source] = field(default_factory=dict)
    personas: dict[str, Persona] = field(default_factory=dict)
    problems: tuple[PersonaProblem, ...] = ()


class _Rereading(Enum):
    """Which files are read again: those that changed, also those with problems, or all."""

    CHANGED = auto()
    BROKEN = auto()
    ALL = auto()


class PersonaLibrary:
    """All personas of `folders`; a persona in a later folder replaces one with the same id in an earlier folder.

    In `cache`, clean copies of cards' pictures are kept. Without it only cards that are pictures have one, themselves.
    """

    def __init__(self, folders: Sequence[Path], *, cache: Path | None = None) -> None:
        self._folders = tuple(folders)
        self._pictures = CardPictures(cache) if cache is not None else None
        self._refreshing = asyncio.Lock()
        self._shelf = _Shelf()
        self._callbacks: list[Callable[[], None]] = []

    def load(self) -> None:
        """Read every file anew. A broken one is in `problems`, and its last good version stays."""
        self._serve(_stocked(self._folders, self._shelf, _Rereading.ALL, self._pictures))

    @property
    def problems(self) -> tuple[PersonaProblem, ...]:
        """What is wrong with the files as they are now."""
        return self._shelf.problems

    def all(self) -> tuple[Persona, ...]:
        """All personas, by name."""
        return tuple(sorted(self._shelf.personas.values(), key=lambda persona: (fold(persona.name), persona.id)))

    def get(self, persona_id: str) -> Persona:
        """The persona with this id. Raises `PersonaError` with the names that exist."""
        persona = self._shelf.personas.get(persona_id)
        if persona is None:
            known = ", ".join(f"{persona.id} ({persona.name})" for persona in self.all())
            raise PersonaError(f"no persona is called {persona_id!r}; there are: {known or 'none'}")
        return persona

    def find(self, text: str) -> Persona | None:
        """The persona somebody means: an id, a name, or the beginning of exactly one persona's, in any case."""
        wanted = fold(text).strip()
        if not wanted:
            return None
        if wanted in self._shelf.personas:
            return self._shelf.personas[wanted]
        named = [persona for persona in self.all() if fold(persona.name) == wanted]
        begun = [
            persona for persona in self.all() if persona.id.startswith(wanted) or fold(persona.name).startswith(wanted)
        ]
        matches = named or begun
        return matches[0] if len(matches) == 1 else None

    def card(self, persona: Persona) -> PersonaCard:
        """What people see of `persona`."""
        summary = fill_macros(persona.summary, persona)
        return PersonaCard(persona.id, persona.name, summary, persona.language, self.avatar(persona))

    def speaker(self, persona: Persona, platform: str) -> Speaker:
        """How `persona` is shown on `platform`: its name and picture there, and the picture that suits a text."""
        avatar = self.avatar(persona, platform)
        return Speaker(persona.id, names_on(persona, platform)[-1], avatar, partial(self.avatar_for, persona))

    def avatar(self, persona: Persona, platform: str | None = None) -> Path | None:
        """The avatar of `persona` on `platform`, if it has one; never a file outside the persona's folder."""
        faces = [face.avatar for name, face in persona.platforms.items() if name == platform]
        found = (self._file(persona, avatar, resolve_avatar) for avatar in (*faces, persona.avatar))
        return next((path for path in found if path is not None), self._picture(persona, ""))

    def avatar_for(self, persona: Persona, text: str) -> Path | None:
        """The picture of the face that `persona` makes to `text`; `None` where the usual one suits it."""
        found = expression_for(text, persona)
        return self._file(persona, found[1].avatar, resolve_avatar) if found is not None else None

    def sticker(self, persona: Persona, expression: Expression) -> Path | None:
        """The sticker of that expression of `persona`, if there is one."""
        return self._file(persona, expression.sticker, resolve_sticker)

    def _file(self, persona: Persona, name: str | None, resolve: Callable[[Path, str], Path]) -> Path | None:
        source = self._shelf.served.get(persona.id)
        if source is None or name is None:
            return None
        if is_card_file(source.path):
            return self._picture(persona, name)
        try:
            # Checked again now: the file may have been removed, or replaced by a link, since it was read.
            return resolve(source.path.parent, name)
        except PersonaError as error:
            _log.debug("%s: %s", source.path, error)
            return None

    def _picture(self, persona: Persona, name: str) -> Path | None:
        """The picture that came with the card of `persona` under that name."""
        source = self._shelf.served.get(persona.id)
        path = source.pictures.get(name) if source is not None else None
        return path if path is not None and path.is_file() else None

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback`, on the event loop, after every reload that changed something. It must not raise."""
        self._callbacks.append(callback)

    async def watch(self) -> None:
        """Keep in step with the folders until cancelled. They may vanish, and come back, at any time."""
        while True:
            watched = await asyncio.to_thread(_identities, self._folders)
            existing = [folder for folder, identity in zip(self._folders, watched, strict=True) if identity]
            async with aclosing(_wakings(existing)) as wakings:
                async for is_notified in wakings:
                    await self._refresh(is_notified=is_notified)
                    if await asyncio.to_thread(_identities, self._folders) != watched:
                        break  # another folder stands there now, which the notifications do not cover

    async def refresh(self) -> None:
        """Look at once what has changed in the folders."""
        await self._refresh(is_notified=True)

    async def _refresh(self, *, is_notified: bool) -> None:
        # A broken file may have been mended from outside: by an avatar that arrived. Its own stamp does not show that.
        rereading = _Rereading.BROKEN if is_notified else _Rereading.CHANGED
        async with self._refreshing:
            shelf = await asyncio.to_thread(_stocked, self._folders, self._shelf, rereading, self._pictures)
            if shelf != self._shelf:
                self._serve(shelf)
                for callback in self._callbacks:
                    callback()

    def _serve(self, shelf: _Shelf) -> None:
        before, self._shelf = self._shelf, shelf
        for problem in shelf.problems:
            if problem not in before.problems:
                _log.error("%s", problem)
        for persona_id in before.personas.keys() | shelf.personas.keys():
            if persona_id not in shelf.personas:
                _log.info("persona %s is gone", persona_id)
            elif persona_id not in before.personas:
                _log.info("persona %s is here", persona_id)
            elif before.personas[persona_id] != shelf.personas[persona_id]:
                _log.info("persona %s has changed", persona_id)


async def _wakings(folders: Sequence[Path], *, is_polling: bool = False) -> AsyncGenerator[bool, None]:
    """Yield `True` after every change in `folders`, and `False` every `POLL_INTERVAL_S` without one."""
    if not folders:
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            yield False
    changes = awatch(
        *folders,
        watch_filter=None,
        debounce=200,
        rust_timeout=int(POLL_INTERVAL_S * 1000),
        yield_on_timeout=True,
        force_polling=is_polling or None,
        ignore_permission_denied=True,
    )
    try:
        async with aclosing(changes):
            async for changed in changes:
                yield bool(changed)
    except FileNotFoundError:
        await asyncio.sleep(POLL_INTERVAL_S)  # a folder vanished in between
        yield False
    except OSError as error:
        if is_polling:
            raise
        _log.warning("the system gives no notice of changed files (%s); comparing them instead", error)
        async with aclosing(_wakings(folders, is_polling=True)) as wakings:
            async for is_notified in wakings:
                yield is_notified


def _stocked(folders: Sequence[Path], before: _Shelf, rereading: _Rereading, pictures: CardPictures | None) -> _Shelf:
    """What the folders hold now. Files that need no `rereading` are taken from `before`."""
    sources: dict[Path, _Source] = {}
    served: dict[str, _Source] = {}
    clashes: list[PersonaProblem] = []
    for folder in folders:
        owners: dict[str, Path] = {}
        for path in persona_files(folder):
            source = sources[path] = _current(path, before.sources.get(path), rereading, pictures)
            if not source.persona and not source.problems:
                continue  # a picture beside the personas
            owner = owners.setdefault(persona_id_of(path), path)
            if owner != path:
                message = f"{owner.name} beside it has the same id; rename or remove one of them"
                clashes.append(PersonaProblem(path, None, None, message))
            elif source.persona:
                served[source.persona.id] = source
    problems = (*(problem for source in sources.values() for problem in source.problems), *clashes)
    personas = {persona_id: source.persona for persona_id, source in served.items() if source.persona}
    return _Shelf(sources, served, personas, problems)


def _current(path: Path, known: _Source | None, rereading: _Rereading, pictures: CardPictures | None) -> _Source:
    # The stamp is taken first: a change while reading makes it old, and the file is read again.
    stamp = _stamp(path)
    is_wanted = rereading is _Rereading.ALL or (rereading is _Rereading.BROKEN and known and known.problems)
    if known and stamp == known.stamp and not is_wanted:
        return known
    try:
        return _read(path, stamp, pictures)
    except InvalidPersona as error:
        if isinstance(error, NoPersona) and path.suffix.lower() not in CARD_ONLY_SUFFIXES:
            return _Source(path, stamp, None)
        good = known or _Source(path, stamp, None)
        return replace(good, stamp=stamp, problems=error.problems)


def _read(path: Path, stamp: Stamp | None, pictures: CardPictures | None) -> _Source:
    if not is_card_file(path):
        return _Source(path, stamp, read_persona(path))
    card, persona = read_card_persona(path)
    shown = _shown_pictures(path, card, persona, pictures)
    return _Source(path, stamp, persona, pictures={name: kept for name, kept in shown if kept is not None})


def _shown_pictures(
    path: Path, card: Card, persona: Persona, pictures: CardPictures | None
) -> Iterator[tuple[str, Path | None]]:
    """The pictures that came with a card, by the names that its persona has for them."""
    if pictures is None:
        is_picture = card.image is not None and len(card.image) <= MAX_PICTURE_BYTES
        yield "", path if is_picture else None
        return
    avatar = avatar_data(card)
    yield "", pictures.keep(avatar, max_side=MAX_FACE_SIDE) if avatar else None
    assets = face_assets(card)
    for emotion, expression in persona.expressions.items():
        if expression.avatar:
            found = asset_data(card, assets[emotion]) if emotion in assets else find_file(card, expression.avatar)
            yield expression.avatar, pictures.keep(found, max_side=MAX_FACE_SIDE) if found else None
        if expression.sticker and (sticker := find_file(card, expression.sticker)):
            yield expression.sticker, pictures.keep(sticker, max_side=MAX_FACE_SIDE)


def persona_files(folder: Path) -> Iterator[Path]:
    """The files in `folder` that may be personas, those that were written for Commedia first."""
    try:
        paths = sorted(folder.iterdir(), key=lambda path: (is_card_file(path), path))
    except OSError:
        return
    for path in paths:
        is_wanted = path.suffix.lower() in SUFFIXES or is_card_file(path)
        if is_wanted and not path.name.startswith(".") and path.is_file():
            yield path


def persona_id_of(path: Path) -> str:
    """The id that a persona's file gives it."""
    return card_id(path.stem) if is_card_file(path) else path.stem


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _identities(folders: Iterable[Path]) -> list[tuple[int, int] | None]:
    """Which folders stand at these paths, `None` for those that do not exist."""
    identities: list[tuple[int, int] | None] = []
    for folder in folders:
        try:
            status = folder.stat()
        except OSError:
            identities.append(None)
        else:
            identities.append((status.st_dev, status.st_ino))
    return identities
