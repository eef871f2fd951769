"""What wakes a persona, and what holds it back. Pure, but for patterns that it gives up.

Owns names, words, patterns, chance, channels and quiet hours, each as a question about one persona. Who answers a
message is for `bot.cast`, which asks them.
"""

import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import regex

from bot.rooms import EVERYONE, RoomSettings
from bot.types import IncomingMessage
from bot.words import fold, has_any
from engine.persona import Persona, Triggers, compile_pattern, parse_quiet_hours

logger = logging.getLogger(__name__)

# What all patterns of one persona may take for one message, and what none of them takes that is any good.
MAX_PATTERNS_S = 0.05
MAX_PATTERN_S = 0.02
MAX_CHARACTERS_SEARCHED = 8_000

# Somebody is spoken to by name, whoever that is; not the middle of a mail address.
_SPOKEN_TO = re.compile(r"(?<![\w.])@\w")


def effective_triggers(persona: Persona, settings: RoomSettings) -> Triggers:
    """When `persona` answers in a room with these settings: as its author wrote, but for what the room changed."""
    changes: dict[str, object] = {}
    for name in (EVERYONE, persona.id):
        if name in settings.triggers:
            changes |= settings.triggers[name].model_dump(exclude_none=True)
    return persona.triggers.model_copy(update=changes)


def names_on(persona: Persona, platform: str) -> tuple[str, ...]:
    """The names that people on `platform` know `persona` by."""
    faces = {str(key): face for key, face in persona.platforms.items()}
    face = faces.get(platform)
    return (persona.name, face.name) if face is not None and face.name else (persona.name,)


def is_listening_in(message: IncomingMessage, triggers: Triggers) -> bool:
    """Whether the room of `message` is among the channels where a persona answers. No channels are all of them."""
    if not triggers.channels:
        return True
    room = message.room
    here = {_folded_channel(name) for name in (room.chat_id, room.thread_id, *message.room_names) if name}
    return any(_folded_channel(channel) in here for channel in triggers.channels)


def is_quiet(triggers: Triggers, now: datetime | None) -> bool:
    """Whether `now`, the time on the bot's clock with its zone, lies in the quiet hours."""
    return now is not None and any(_hold(hours, now) for hours in triggers.quiet_hours)


def is_called(text: str, triggers: Triggers) -> bool:
    """Whether a trigger word or pattern occurs in `text`."""
    return has_any(fold(text), triggers.words) or _matches_any(text, triggers.patterns)


def is_said_to_nobody(message: IncomingMessage) -> bool:
    """Whether `message` speaks to nobody that one could tell from the outside."""
    is_mention = message.mentions_bot or message.mentioned_names or _SPOKEN_TO.search(message.text)
    return message.reply_to is None and not is_mention


def joins_in(triggers: Triggers, roll: Callable[[], float] | None) -> bool:
    """Whether chance has it that a persona answers what was said to nobody. `roll` draws from 0 up to 1."""
    return roll is not None and triggers.chance > 0 and roll() < triggers.chance


def _folded_channel(name: str) -> str:
    return fold(name).strip().removeprefix("#")


def _hold(hours: str, now: datetime) -> bool:
    try:
        return parse_quiet_hours(hours).holds(now)
    except ValueError:  # kept by a room when its zone was still known
        return False


@dataclass(slots=True)
class _TimedPattern:
    """A compiled pattern. `compiled=None`: it is no pattern any more, or took too long once."""

    compiled: regex.Pattern[str] | None

    def is_in(self, text: str, timeout_s: float) -> bool:
        if self.compiled is None:
            return False
        try:
            return self.compiled.search(text, timeout=timeout_s) is not None
        except TimeoutError:
            if timeout_s >= MAX_PATTERN_S:  # else the ones before left it no time
                self._give_up(self.compiled)
            return False

    def _give_up(self, compiled: regex.Pattern[str]) -> None:
        # Not the pattern itself: a room's is what somebody wrote.
        logger.warning(
            "a trigger pattern of %d characters takes too long on some messages, and is left out until the next "
            "start: make it simpler, without repeats inside of repeats",
            len(compiled.pattern),
        )
        self.compiled = None


def _matches_any(text: str, patterns: Sequence[str]) -> bool:
    searched = text[:MAX_CHARACTERS_SEARCHED]
    deadline = time.monotonic() + MAX_PATTERNS_S
    for pattern in patterns:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return False
        if _timed(pattern).is_in(searched, left_s):
            return True
    return False


@lru_cache(maxsize=1024)
def _timed(pattern: str) -> _TimedPattern:
    try:
        return _TimedPattern(compile_pattern(pattern))
    except ValueError:
        return _TimedPattern(None)
