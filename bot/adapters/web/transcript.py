"""What a conversation looks like on the page: bubbles, in order. Knows no HTML, no HTTP and no persona."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from uuid import uuid4

from bot.commands import Choice
from bot.types import StoredTurn
from engine.types import Role


class Speaker(StrEnum):
    """Whose bubble it is. A notice is the page's own word: a refused file, a command's answer."""

    USER = "user"
    PERSONA = "persona"
    NOTICE = "notice"


@dataclass(frozen=True, slots=True)
class ShownPicture:
    """A picture in a bubble. Without a `url` only its name is shown: it was refused, or is not kept."""

    name: str
    url: str | None


@dataclass(frozen=True, slots=True)
class Offer:
    """Things to pick below a notice; picking fills `argument` of the command at `path`."""

    path: tuple[str, ...]
    argument: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class Bubble:
    """One message as shown."""

    speaker: Speaker
    text: str
    pictures: tuple[ShownPicture, ...] = ()
    offer: Offer | None = None
    id: str = ""


class Transcript:
    """The bubbles of one conversation. `on_change` hears of each bubble that is new or changed later on.

    Without `turns` it is not the remembered conversation, only what happened since.
    """

    def __init__(self, on_change: Callable[[Bubble], None], turns: Iterable[StoredTurn] | None = None) -> None:
        self.is_loaded = turns is not None
        self._on_change = on_change
        self._bubbles = {bubble.id: bubble for bubble in map(bubble_of, turns or ())}

    def __iter__(self) -> Iterator[Bubble]:
        return iter(tuple(self._bubbles.values()))

    def __contains__(self, bubble_id: str) -> bool:
        return bubble_id in self._bubbles

    def __getitem__(self, bubble_id: str) -> Bubble:
        return self._bubbles[bubble_id]

    def add(self, bubble: Bubble) -> Bubble:
        """Append `bubble` and give it an id."""
        return self._put(replace(bubble, id=uuid4().hex))

    def set_text(self, bubble_id: str, text: str) -> Bubble:
        """Replace a bubble's text."""
        return self._put(replace(self._bubbles[bubble_id], text=text))

    def set_pictures(self, bubble_id: str, pictures: tuple[ShownPicture, ...]) -> Bubble:
        """Replace a bubble's pictures."""
        return self._put(replace(self._bubbles[bubble_id], pictures=pictures))

    def _put(self, bubble: Bubble) -> Bubble:
        self._bubbles[bubble.id] = bubble
        self._on_change(bubble)
        return bubble


def bubble_of(turn: StoredTurn) -> Bubble:
    """A remembered turn as it is shown."""
    speaker = Speaker.PERSONA if turn.role is Role.ASSISTANT else Speaker.USER
    return Bubble(speaker, turn.text, stored_pictures(turn), id=uuid4().hex)


def stored_pictures(turn: StoredTurn) -> tuple[ShownPicture, ...]:
    """A remembered turn's pictures, where the page can fetch them."""
    return tuple(ShownPicture("Picture", f"/picture/{attachment.digest}") for attachment in turn.attachments)
