"""What a room has set for itself: who is there, when they answer, and what is shown.

Owns the settings' shape and how a thread takes those of the channel around it. Knows neither the store nor commands.
"""

from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

EVERYONE = "*"


class TriggerChanges(BaseModel):
    """What a room wants otherwise than a persona's `engine.persona.Triggers`; `None` leaves it as it is."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    mention: bool | None = None
    reply: bool | None = None
    name: bool | None = None
    words: tuple[str, ...] | None = None
    patterns: tuple[str, ...] | None = None
    chance: float | None = Field(default=None, ge=0, le=1)
    channels: tuple[str, ...] | None = None
    quiet_hours: tuple[str, ...] | None = None


class RoomSettings(BaseModel):
    """The settings of one room.

    `cast` are the ids of the personas that are in the room beside the one that was chosen. `triggers` are by persona
    id, with `EVERYONE` for all. `max_exchange` bounds how many replies personas give to each other in a row, `None` is
    the configured bound. `has_controls`: whether replies have buttons.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    cast: tuple[str, ...] = ()
    triggers: Mapping[str, TriggerChanges] = {}
    max_exchange: int | None = Field(default=None, ge=0, le=10)
    has_controls: bool | None = None

    def within(self, parent: Self) -> Self:
        """These settings of a thread, with those of the channel around it where the thread has none of its own."""
        own = {name: getattr(self, name) for name in self.model_fields_set}
        return parent.model_copy(update=own)
