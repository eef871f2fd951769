"""Who is in a room: the persona that was chosen there, others beside it, and what the room has set for itself.

Owns how a room's choice, the default and the cast become personas. Knows neither messages nor who may change it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bot.adapters.base import ReplyChannel
from bot.errors import PersonaError
from bot.rooms import RoomSettings
from bot.types import ConversationKey, PersonaCard, Room, Speaker
from engine.persona import Expression, Persona

# In place of a persona's id, where what several of them say keeps one order.
ALL_OF_THEM = "*"


class PersonaSource(Protocol):
    """The personas that can be talked to: `bot.personas.library.PersonaLibrary`."""

    def all(self) -> tuple[Persona, ...]:
        """All personas, by name."""

    def get(self, persona_id: str) -> Persona:
        """The persona with this id. Raises `PersonaError`."""

    def find(self, text: str) -> Persona | None:
        """The persona that somebody means by `text`."""

    def card(self, persona: Persona) -> PersonaCard:
        """What people see of `persona`."""

    def speaker(self, persona: Persona, platform: str) -> Speaker:
        """How `persona` is shown on `platform`."""

    def sticker(self, persona: Persona, expression: Expression) -> Path | None:
        """The file of the sticker that shows `expression`, if there is one."""


class RoomStore(Protocol):
    """What a room chose: `bot.store.repositories.Rooms`. Raises `StoreError`."""

    async def persona_and_settings(self, room: Room) -> tuple[str | None, RoomSettings]:
        """The persona that was chosen, if any was, and the settings.

        A thread's persona is its channel's where it has none of its own. Its settings are laid over its channel's.
        """

    async def choose(self, room: Room, persona_id: str) -> None:
        """Let that persona answer in `room`."""

    async def settings(self, room: Room) -> RoomSettings:
        """What is set there; of a thread, laid over what is set for its channel."""

    async def move(self, platform: str, old_chat_id: str, new_chat_id: str) -> None:
        """All that is kept of one chat belongs to another from now on."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A room at one moment. `cast` has everybody who is there, `main` first: the one that answers where none is named.

    `notice` is what people should know about the choice of `main`.
    """

    room: Room
    main: Persona
    cast: tuple[Persona, ...]
    settings: RoomSettings
    notice: str | None = None

    @property
    def is_shared(self) -> bool:
        """Whether several personas are there, who hear each other."""
        return len(self.cast) > 1

    @property
    def persona_ids(self) -> tuple[str, ...]:
        """The ids of the cast."""
        return tuple(persona.id for persona in self.cast)

    def has(self, persona_id: str) -> bool:
        """Whether that persona is in the room."""
        return persona_id in self.persona_ids

    def lane(self, persona_id: str) -> ConversationKey:
        """Where that persona's replies wait for each other. A shared room has one order for all of them."""
        return ConversationKey(self.room, ALL_OF_THEM if self.is_shared and self.has(persona_id) else persona_id)

    @property
    def lanes(self) -> tuple[ConversationKey, ...]:
        """Wherever replies of the cast wait, also those from before somebody joined or left."""
        return tuple(ConversationKey(self.room, lane) for lane in (ALL_OF_THEM, *self.persona_ids))


class Stages:
    """Finds who is in a room. On the platforms `always_faces`, a persona has its own face even where it is alone."""

    def __init__(
        self,
        library: PersonaSource,
        rooms: RoomStore,
        *,
        default_persona: str | None = None,
        always_faces: frozenset[str] = frozenset(),
    ) -> None:
        self._library = library
        self._rooms = rooms
        self._default_persona = default_persona
        self._always_faces = always_faces
        self._standing_in: str | None = None

    async def of(self, room: Room) -> Stage | None:
        """The room as it is now; `None` where there is no persona at all."""
        chosen_id, settings = await self._rooms.persona_and_settings(room)
        chosen, default = self.persona(chosen_id), self._default()
        main = chosen or default
        if main is None:
            return None
        notice = None
        if chosen is None and chosen_id is not None:
            notice = f"“{chosen_id}” is not here any more: {main.name} answers from now on."
        beside = (self.persona(persona_id) for persona_id in settings.cast)
        cast = {persona.id: persona for persona in (main, *beside) if persona is not None}
        return Stage(room, main, tuple(cast.values()), settings, notice)

    def speaking(self, channel: ReplyChannel, stage: Stage, persona: Persona) -> ReplyChannel:
        """`channel` as the one where `persona` speaks: where several may, people see which one does."""
        is_told_apart = stage.is_shared or persona.id != stage.main.id or stage.room.platform in self._always_faces
        if not is_told_apart:
            return channel
        return channel.speaking_as(self._library.speaker(persona, stage.room.platform))

    def persona(self, persona_id: str | None) -> Persona | None:
        """The persona with that id, where there is one."""
        if persona_id is None:
            return None
        try:
            return self._library.get(persona_id)
        except PersonaError:
            return None

    def _default(self) -> Persona | None:
        named = self.persona(self._default_persona)
        if named is None:
            # Whoever arrives later, and comes first by name, does not take over every room.
            named = self.persona(self._standing_in) or next(iter(self._library.all()), None)
            self._standing_in = named.id if named is not None else None
        return named
