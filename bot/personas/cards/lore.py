"""The lorebook of a card as lore, and back. Pure.

Owns the names that the specifications and SillyTavern give to the same things: its extensions of a card's entries in
snake case, its standalone files in camel case. What entries do is for `bot.personas.lorebook`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast, get_args

from pydantic import ValidationError

from bot.personas.cards.card import as_text
from bot.personas.cards.containers import Json
from bot.personas.cards.texts import clean_line, clean_text
from engine.lore import EntryRole, Logic, Lorebook, LoreEntry, Position

MAX_ENTRIES = 5_000
MAX_KEY_LENGTH = 1_000
MAX_CONTENT_LENGTH = 100_000
_MAX_COUNT = 1_000_000
_MAX_ORDER = 1_000_000_000

# By SillyTavern's numbers. Its author's note, which 2 and 3 stand around, is 4 messages deep unless it is moved.
_POSITIONS: dict[int, Position] = {
    0: "before_char",
    1: "after_char",
    2: "at_depth",
    3: "at_depth",
    4: "at_depth",
    5: "before_examples",
    6: "after_examples",
}
_NOTE_POSITIONS = (2, 3)
_NOTE_DEPTH = 4
_ROLES: tuple[EntryRole, ...] = ("system", "user", "assistant")
_LOGICS: tuple[Logic, ...] = ("and_any", "not_all", "not_any", "and_all")
_SILLYTAVERN = frozenset({"position", "selectiveLogic", "exclude_recursion", "probability", "display_index"})
_CAMEL = re.compile(r"_([a-z])")
# What standalone files call otherwise.
_OTHER_NAMES = {
    "keys": ("key",),
    "secondary_keys": ("keysecondary",),
    "insertion_order": ("order",),
    "use_probability": ("useProbability",),
}


@dataclass(frozen=True, slots=True)
class Lore:
    """What a lorebook says, and what of it has no effect."""

    entries: tuple[LoreEntry, ...]
    book: Lorebook
    warnings: tuple[str, ...] = ()


def lore_from(book: Json) -> Lore:
    """The lore in a card's `character_book`, or in a standalone file of SillyTavern's."""
    written = list(_entries_of(book))
    read = [_entry(entry) for entry in written[:MAX_ENTRIES]]
    entries = tuple(entry for entry in read if entry is not None)
    warnings = []
    if len(written) > MAX_ENTRIES:
        warnings.append(f"of {len(written):,} lore entries only the first {MAX_ENTRIES:,} are told")
    if silent := len(read) - len(entries):
        warnings.append(f"{silent} lore entries have no text or no keys, or too long ones, and are never told")
    return Lore(entries, _book(book), tuple(warnings))


def note_from(prompt: Json) -> LoreEntry | None:
    """SillyTavern's note about the character, which stands among the last messages."""
    text = clean_text(as_text(prompt.get("prompt")))
    if not text or len(text) > MAX_CONTENT_LENGTH:
        return None
    return LoreEntry(
        content=text,
        is_constant=True,
        name="Character's note",
        position="at_depth",
        depth=_count(prompt.get("depth"), 4),
        role=_role(prompt.get("role")),
        ignores_budget=True,
    )


def book_from(entries: Sequence[LoreEntry], book: Lorebook) -> Json:
    """`entries` as a `character_book`, with the extensions that SillyTavern reads."""
    written: Json = {
        "scan_depth": book.scan_depth,
        "recursive_scanning": book.is_recursive,
        "extensions": {},
        "entries": [_written(entry, number) for number, entry in enumerate(entries)],
    }
    return written if book.token_budget is None else {**written, "token_budget": book.token_budget}


def _entries_of(book: Json) -> Iterator[Json]:
    entries = book.get("entries")
    for entry in entries.values() if isinstance(entries, dict) else entries if isinstance(entries, list) else ():
        if isinstance(entry, dict):
            yield entry


def _book(book: Json) -> Lorebook:
    budget = book.get("token_budget")
    return Lorebook(
        scan_depth=_count(book.get("scan_depth"), Lorebook().scan_depth),
        # Some programs write 0 where nobody has set one.
        token_budget=_count(budget, 0) or None,
        is_recursive=_flag(book.get("recursive_scanning"), default=False),
        max_recursion=_count(_extensions(book).get("max_recursion_steps"), 0),
    )


def _entry(entry: Json) -> LoreEntry | None:
    position, depth = _place(entry)
    regex, secondary = _regex_and_secondary(entry)
    try:
        return LoreEntry(
            keys=_keys(_value(entry, "keys")),
            content=clean_text(as_text(entry.get("content"))),
            is_constant=_flag(_value(entry, "constant"), default=False),
            is_enabled=_flag(entry.get("enabled"), default=not _flag(entry.get("disable"), default=False)),
            name=clean_line(as_text(entry.get("name")) or as_text(entry.get("comment")))[:200],
            order=_whole(_value(entry, "insertion_order"), 100),
            priority=_whole(entry.get("priority"), 100),
            position=position,
            depth=depth,
            role=_role(_value(entry, "role")),
            secondary_keys=secondary,
            logic=_LOGICS[_choice(_named(entry, "selectiveLogic"), len(_LOGICS))],
            is_case_sensitive=_flag(_value(entry, "case_sensitive"), default=False),
            is_regex=regex,
            # The specifications find a key wherever it stands, also inside a word.
            has_whole_words=_flag(_value(entry, "match_whole_words"), default=False),
            scan_depth=_optional_count(_value(entry, "scan_depth")),
            probability=_probability(entry),
            groups=tuple(
                part for group in clean_line(as_text(_value(entry, "group"))).split(",") if (part := group.strip())
            ),
            group_weight=max(0.0, _number(_value(entry, "group_weight"), 100)),
            group_override=_flag(_value(entry, "group_override"), default=False),
            sticky=_count(_value(entry, "sticky"), 0),
            cooldown=_count(_value(entry, "cooldown"), 0),
            delay=_count(_value(entry, "delay"), 0),
            is_not_found_by_lore=_flag(_value(entry, "exclude_recursion"), default=False),
            finds_no_lore=_flag(_value(entry, "prevent_recursion"), default=False),
            recursion_level=_recursion_level(entry),
            ignores_budget=_flag(_value(entry, "ignore_budget"), default=False),
        )
    except ValidationError:  # no content, or nothing that would ever bring it up
        return None


def _place(entry: Json) -> tuple[Position, int]:
    number = _value(entry, "position")
    depth = _count(_value(entry, "depth"), 4)
    if isinstance(number, int) and not isinstance(number, bool):
        return _POSITIONS.get(number, "after_char"), _NOTE_DEPTH if number in _NOTE_POSITIONS else depth
    return ("before_char" if entry.get("position") == "before_char" else "after_char"), depth


def _regex_and_secondary(entry: Json) -> tuple[bool, tuple[str, ...]]:
    """SillyTavern says of all its entries that they are patterns, and means keys that are written as `/…/`."""
    is_of_sillytavern = not _SILLYTAVERN.isdisjoint(_extensions(entry))
    is_regex = _flag(entry.get("use_regex"), default=False) and not is_of_sillytavern
    is_selective = _flag(entry.get("selective"), default=False) and not is_regex
    return is_regex, _keys(_value(entry, "secondary_keys")) if is_selective else ()


def _recursion_level(entry: Json) -> int:
    value = _value(entry, "delay_until_recursion")
    return 1 if value is True else _count(value, 0)


def _probability(entry: Json) -> float:
    if not _flag(_named(entry, "useProbability"), default=True):
        return 100
    return min(100.0, max(0.0, _number(_value(entry, "probability"), 100)))


def _value(entry: Json, name: str) -> object:
    """The value called `name`: SillyTavern's extension, or the entry's own, in either way of writing."""
    camel = _CAMEL.sub(lambda match: match[1].upper(), name)
    for holder in (_extensions(entry), entry):
        for key in (name, camel, *_OTHER_NAMES.get(name, ())):
            if holder.get(key) is not None:
                return holder[key]
    return None


def _named(entry: Json, name: str) -> object:
    value = _extensions(entry).get(name)
    return entry.get(name) if value is None else value


def _extensions(holder: Json) -> Json:
    extensions = holder.get("extensions")
    return extensions if isinstance(extensions, dict) else {}


def _keys(value: object) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else ()
    texts = (clean_text(as_text(item)) for item in items)
    return tuple(text for text in texts if 0 < len(text) <= MAX_KEY_LENGTH)


def _role(value: object) -> EntryRole:
    text = as_text(value).strip().lower()
    return cast(EntryRole, text) if text in get_args(EntryRole) else _ROLES[_choice(value, len(_ROLES))]


def _choice(value: object, num_choices: int) -> int:
    number = _whole(value, 0)
    return number if 0 <= number < num_choices else 0


def _flag(value: object, *, default: bool) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in ("true", "1", "yes")
    return bool(value) if isinstance(value, int | float) else default


def _number(value: object, default: float) -> float:
    if isinstance(value, bool):
        return default
    try:
        number = float(as_text(value))
    except (ValueError, OverflowError):
        return default
    return number if abs(number) <= _MAX_ORDER else default


def _whole(value: object, default: int) -> int:
    return round(_number(value, default))


def _count(value: object, default: int) -> int:
    return min(_MAX_COUNT, max(0, _whole(value, default)))


def _optional_count(value: object) -> int | None:
    return None if value is None or not as_text(value) else _count(value, 0)


_NUMBERS: dict[Position, int] = {
    "before_char": 0,
    "after_char": 1,
    "at_depth": 4,
    "beside_question": 4,
    "before_examples": 5,
    "after_examples": 6,
}


def _written(entry: LoreEntry, number: int) -> Json:
    is_before = entry.position in ("before_char", "before_desc")
    return {
        "keys": list(entry.keys),
        "content": entry.content,
        "extensions": _written_extensions(entry),
        "enabled": entry.is_enabled,
        "insertion_order": entry.order,
        "case_sensitive": entry.is_case_sensitive,
        "use_regex": entry.is_regex,
        "constant": entry.is_constant,
        "name": entry.name,
        "comment": entry.name,
        "priority": entry.priority,
        "id": number,
        "selective": bool(entry.secondary_keys),
        "secondary_keys": list(entry.secondary_keys),
        "position": "before_char" if is_before else "after_char",
    }


def _written_extensions(entry: LoreEntry) -> Json:
    return {
        "position": _NUMBERS.get(entry.position, 1),
        "depth": 1 if entry.position == "beside_question" else entry.depth,
        "role": _ROLES.index(entry.role),
        "selectiveLogic": _LOGICS.index(entry.logic),
        "match_whole_words": entry.has_whole_words,
        "scan_depth": entry.scan_depth,
        "probability": entry.probability,
        "useProbability": True,
        "group": ", ".join(entry.groups),
        "group_weight": entry.group_weight,
        "group_override": entry.group_override,
        "sticky": entry.sticky,
        "cooldown": entry.cooldown,
        "delay": entry.delay,
        "exclude_recursion": entry.is_not_found_by_lore,
        "prevent_recursion": entry.finds_no_lore,
        "delay_until_recursion": entry.recursion_level,
        "ignore_budget": entry.ignores_budget,
    }
