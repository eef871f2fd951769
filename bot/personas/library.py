"""The personas that can be talked to, kept in step with their folders.

Owns the folders, the last good version of every file, and hot reload. Knows no YAML (`bot.personas.reading`) and no
platform. Reading may happen on another thread; what is served changes in one assignment.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from pathlib import Path

from watchfiles import awatch

from bot.access import names_on
from bot.errors import PersonaError
from bot.expressions import expression_for
from bot.personas.prompt import fill_macros
from bot.personas.reading import InvalidPersona, PersonaProblem, read_persona, resolve_avatar, resolve_sticker
from bot.types import PersonaCard, Speaker
from bot.words import fold
from engine.persona import Expression, Persona

SUFFIXES = (".yaml", ".yml")
# Folders are compared at least this often: notifications do not exist on every disk, and can be lost.
POLL_INTERVAL_S = 0.5

_log = logging.getLogger(__name__)

Stamp = tuple[int, int, int]
"""What changes when a file changes: modification time, size, inode."""


@dataclass(frozen=True, slots=True)
class _Source:
    """A file as it was read last. `persona` is its last good version, which may be older than `stamp`."""

    path: Path
    stamp: Stamp | None
    persona: Persona | None
    problems: tuple[PersonaProblem, ...] = ()


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
    """All personas of `folders`; a persona in a later folder replaces one with the same id in an earlier folder."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(folders)
        self._shelf = _Shelf()
        self._callbacks: list[Callable[[], None]] = []

    def load(self) -> None:
        """Read every file anew. A broken one is in `problems`, and its last good version stays."""
        self._serve(_stocked(self._folders, self._shelf, _Rereading.ALL))

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
        return next((path for path in found if path is not None), None)

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
        try:
            # Checked again now: the file may have been removed, or replaced by a link, since it was read.
            return resolve(source.path.parent, name)
        except PersonaError as error:
            _log.debug("%s: %s", source.path, error)
            return None

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

    async def _refresh(self, *, is_notified: bool) -> None:
        # A broken file may have been mended from outside: by an avatar that arrived. Its own stamp does not show that.
        rereading = _Rereading.BROKEN if is_notified else _Rereading.CHANGED
        shelf = await asyncio.to_thread(_stocked, self._folders, self._shelf, rereading)
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


def _stocked(folders: Sequence[Path], before: _Shelf, rereading: _Rereading) -> _Shelf:
    """What the folders hold now. Files that need no `rereading` are taken from `before`."""
    sources: dict[Path, _Source] = {}
    served: dict[str, _Source] = {}
    clashes: list[PersonaProblem] = []
    for folder in folders:
        owners: dict[str, Path] = {}
        for path in persona_files(folder):
            source = sources[path] = _current(path, before.sources.get(path), rereading)
            owner = owners.setdefault(path.stem, path)
            if owner != path:
                message = f"{owner.name} beside it has the same id; rename or remove one of them"
                clashes.append(PersonaProblem(path, None, None, message))
            elif source.persona:
                served[source.persona.id] = source
    problems = (*(problem for source in sources.values() for problem in source.problems), *clashes)
    personas = {persona_id: source.persona for persona_id, source in served.items() if source.persona}
    return _Shelf(sources, served, personas, problems)


def _current(path: Path, known: _Source | None, rereading: _Rereading) -> _Source:
    # The stamp is taken first: a change while reading makes it old, and the file is read again.
    stamp = _stamp(path)
    is_wanted = rereading is _Rereading.ALL or (rereading is _Rereading.BROKEN and known and known.problems)
    if known and stamp == known.stamp and not is_wanted:
        return known
    return _read(path, stamp, known)


def _read(path: Path, stamp: Stamp | None, known: _Source | None) -> _Source:
    try:
        return _Source(path, stamp, read_persona(path))
    except InvalidPersona as error:
        return _Source(path, stamp, known.persona if known else None, error.problems)


def persona_files(folder: Path) -> Iterator[Path]:
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        return
    for path in paths:
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file():
            yield path


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
