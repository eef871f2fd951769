"""Decorators of lore: the lines `@@name value` that character cards begin an entry's text with. Pure.

Owns which there are, their values, fallbacks and which of several counts. What they do is for `bot.personas.lorebook`.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, get_args

from engine.lore import EntryRole, Position, split_content

_MAX_NUMBER = 1_000_000


@dataclass(frozen=True, slots=True)
class Decorators:
    """What the decorators of one entry say; `None`, empty or `False` where there is none of the name."""

    activate: bool = False
    dont_activate: bool = False
    keep_activate_after_match: bool = False
    dont_activate_after_match: bool = False
    activate_only_after: int | None = None
    activate_only_every: int | None = None
    is_greeting: int | None = None
    is_user_icon: str | None = None
    scan_depth: int | None = None
    additional_keys: tuple[str, ...] = ()
    exclude_keys: tuple[str, ...] = ()
    depth: int | None = None
    reverse_depth: int | None = None
    role: EntryRole | None = None
    position: Position | None = None
    ignore_on_max_context: bool = False
    disable_ui_prompt: str | None = None


@dataclass(frozen=True, slots=True)
class DecoratedText:
    """The text of an entry without its decorators, and what they say."""

    text: str
    decorators: Decorators = field(default_factory=Decorators)


def split_decorators(content: str, *, missing: Collection[Position] = ()) -> DecoratedText:
    """`content` taken apart. Positions in `missing` are those of sections that this persona has not.

    A decorator that is unknown, has a wrong value or has no meaning in a chat gives way to its fallback, the line
    `@@@name value` below it, and that to the next one. Of several with one name the first counts.
    """
    said: dict[str, Any] = {}
    lines, text = split_content(content)
    is_heard = True  # whether the decorator counted that fallbacks belong to; without one they say nothing
    for line in lines:
        if line.startswith("@@@") and is_heard:
            continue
        name, value = _read(line.lstrip("@"), missing)
        is_heard = value is not None
        if is_heard:
            said.setdefault(name, value)
    return DecoratedText(text, Decorators(**said))


def _read(line: str, missing: Collection[Position]) -> tuple[str, object]:
    """The name and the value of a decorator, `None` where it does not count."""
    name, _, written = line.partition(" ")
    name, written = name.strip().lower(), written.strip()
    read = _READERS.get(name)
    value = read(written) if read else None
    return name, None if name == "position" and value in missing else value


def _flag(written: str) -> bool | None:
    return True if written.lower() in ("", "true") else None


def _number(written: str) -> int | None:
    try:
        number = float(written)
    except ValueError:
        return None
    # Also for what is no number at all, such as `nan`.
    return int(number) if -_MAX_NUMBER <= number <= _MAX_NUMBER and number.is_integer() else None


def _count(written: str) -> int | None:
    number = _number(written)
    return number if number is not None and number >= 0 else None


def _period(written: str) -> int | None:
    return _count(written) or None


def _depth(written: str) -> int | None:
    number = _number(written)
    return None if number is None else max(number, 0)


def _text(written: str) -> str | None:
    return written or None


def _words(written: str) -> tuple[str, ...] | None:
    return tuple(word.strip() for word in written.split(",") if word.strip()) or None


def _one_of(*choices: str) -> Callable[[str], str | None]:
    return lambda written: written.lower() if written.lower() in choices else None


# Without `instruct_depth`, `reverse_instruct_depth` and `instruct_scan_depth`: they have no meaning in a chat, so that
# their fallbacks count.
_READERS: dict[str, Callable[[str], object]] = {
    "activate": _flag,
    "dont_activate": _flag,
    "keep_activate_after_match": _flag,
    "dont_activate_after_match": _flag,
    "activate_only_after": _count,
    "activate_only_every": _period,
    "is_greeting": _count,
    "is_user_icon": _text,
    "scan_depth": _count,
    "additional_keys": _words,
    "exclude_keys": _words,
    "depth": _depth,
    "reverse_depth": _depth,
    "role": _one_of(*get_args(EntryRole)),
    "position": _one_of(*(position for position in get_args(Position) if position != "at_depth")),
    "ignore_on_max_context": _flag,
    "disable_ui_prompt": _one_of("system_prompt", "post_history_instructions"),
}
