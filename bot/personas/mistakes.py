"""What the persona schema finds wrong, in the words of somebody who writes personas.

Owns the wording and the suggestions. Knows where a value stands only through `Document`, and no file.
"""

from collections.abc import Iterator
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bot.expressions import EMOTIONS
from bot.personas.document import Document, Location, Mistake, Place
from bot.personas.lore_keys import Spelling, key_problem
from engine.persona import Persona

# What authors of character cards and other tools would write, and where it goes here.
_KNOWN_ELSEWHERE = {
    "description": "summary",
    "bio": "background",
    "personality": "traits",
    "first_mes": "greetings",
    "greeting": "greetings",
    "mes_example": "examples",
    "dialogue": "examples",
    "system_prompt": "background",
    "rules": "boundaries",
    "knowledge": "lore",
    "character_book": "lore",
    "license": "licence",
    "author": "creator",
    "lang": "language",
}
# The same for lore, where SillyTavern's names in both its spellings are what people know.
_LORE_ELSEWHERE = {
    "key": "keys",
    "keywords": "keys",
    "triggers": "keys",
    "keysecondary": "secondary_keys",
    "text": "content",
    "entry": "content",
    "comment": "name",
    "memo": "name",
    "title": "name",
    "disable": "enabled",
    "disabled": "enabled",
    "always": "constant",
    "insertion_order": "order",
    "insertionorder": "order",
    "selectivelogic": "logic",
    "selective_logic": "logic",
    "selective": "secondary_keys",
    "casesensitive": "case_sensitive",
    "use_regex": "regex",
    "useregex": "regex",
    "matchwholewords": "whole_words",
    "match_whole_words": "whole_words",
    "scandepth": "scan_depth",
    "useprobability": "probability",
    "use_probability": "probability",
    "chance": "probability",
    "group": "groups",
    "weight": "group_weight",
    "groupweight": "group_weight",
    "groupoverride": "group_override",
    "excluderecursion": "exclude_recursion",
    "preventrecursion": "prevent_recursion",
    "delayuntilrecursion": "delay_until_recursion",
    "ignorebudget": "ignore_budget",
    "recursive_scanning": "recursive",
    "recursion": "recursive",
    "max_recursion_steps": "max_recursion",
    "budget": "token_budget",
    "max_tokens": "token_budget",
    "tokenbudget": "token_budget",
}
_SAMPLES = {
    "name": "name: Mira",
    "summary": "summary: Keeper of a lighthouse who collects storms.",
    "greetings": 'greetings: ["Ahoy! What brings you up all those stairs?"]',
    "user": "user: How are you?",
    "reply": "reply: Windswept, thank you!",
    "content": "content: The lighthouse was built in 1851.",
}


def schema_mistakes(error: ValidationError, document: Document) -> Iterator[Mistake]:
    """Every finding of `error`, once a place."""
    seen: set[Location] = set()
    for details in error.errors(include_url=False):
        location = _written_part(details, document)
        if location not in seen:
            seen.add(location)
            yield Mistake(_place_of(location, details, document), _message(location, details))


def lore_mistakes(persona: Persona, document: Document) -> Iterator[Mistake]:
    """What is allowed in lore, because character cards have it, and yet would never be told."""
    for number, entry in enumerate(persona.lore):
        here: Location = ("lore", number)
        if entry.is_regex and entry.is_constant and not entry.keys:
            yield _lore_mistake(document, here, "would never be told: with `regex: true` it needs `keys`")
        for name, keys in (("keys", entry.keys), ("secondary_keys", entry.secondary_keys)):
            for place, key in enumerate(keys):
                problem = key_problem(Spelling(key, entry.is_regex, entry.is_case_sensitive, entry.has_whole_words))
                if problem is not None:
                    yield _lore_mistake(document, (*here, name, place), problem)


def _lore_mistake(document: Document, location: Location, problem: str) -> Mistake:
    return Mistake(document.places.get(location, Place(1, 1)), f"`{_spelled(location)}` {problem}")


def _written_part(details: ErrorDetails, document: Document) -> Location:
    """The location without the steps that only the schema knows, such as the branch of a union."""
    location = details["loc"]
    if details["type"] == "missing":
        return location
    while location and location not in document.places:
        location = location[:-1]
    return location


def _place_of(location: Location, details: ErrorDetails, document: Document) -> Place | None:
    if details["type"] == "extra_forbidden" or details["loc"][-1:] == ("[key]",):
        return document.key_places.get(location)
    if details["type"] == "missing":
        location = location[:-1]
    return document.places.get(location, Place(1, 1))


def _message(location: Location, details: ErrorDetails) -> str:
    kind, limits = details["type"], details.get("ctx", {})
    name = f"`{_spelled(location)}`"
    if kind == "missing":
        key = str(location[-1])
        return f"{name} is missing; add for example `{_SAMPLES.get(key, f'{key}: …')}`"
    if kind == "extra_forbidden" or details["loc"][-1:] == ("[key]",):
        return _unknown_key(location)
    if details["input"] is None:
        return f"{name} is empty; give it a value or remove it"
    if kind == "string_pattern_mismatch":
        return f"{name} must be a language code such as `en`, `de` or `zh-Hans`"
    if kind == "literal_error":
        return f"{name} must be one of {_listed(_choices_at(location))}{_suggestion(details['input'], location)}"
    if kind == "string_type":
        return f"{name} must be a text, not {_called(details['input'])}"
    if kind == "tuple_type":
        return f"{name} must be a list: each item on a line of its own, after `- `"
    if kind in {"model_type", "model_attributes_type", "dict_type"}:
        return f"{name} must consist of `key: value` lines; the keys are {_listed(_keys_at(location))}"
    if kind.startswith("bool"):
        return f"{name} must be `true` or `false`"
    if kind.startswith("int"):
        return f"{name} must be a whole number such as `50`, without quotes"
    if kind.startswith(("float", "finite")):
        return f"{name} must be a number such as `0.8`, without quotes"
    if kind == "string_too_short":
        return f"{name} is empty; give it a value or remove it"
    if kind == "string_too_long":
        return f"{name} is longer than {limits['max_length']} characters; shorten it"
    if kind == "too_short":
        return f"{name} needs at least {limits['min_length']} item"
    for bound, words in (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than")):
        if bound in limits:
            return f"{name} must be {words} {limits[bound]:g}"
    if kind == "value_error":
        return f"{name} {limits['error']}"
    return f"{name}: {details['msg'][:1].lower()}{details['msg'][1:]}"


def _unknown_key(location: Location) -> str:
    key, parent = str(location[-1]), location[:-1]
    where = f" in `{_spelled(parent)}`" if parent else ""
    homes = [part for part in _keys_at(()) if key in _keys_at((part,))]
    if not parent and homes:
        return f"`{key}` belongs under `{homes[0]}`"
    known = f"; the keys are {_listed(_keys_at(parent))}"
    return f"`{key}` is not a known key{where}{_suggestion(key, parent) or known}"


def _suggestion(written: object, location: Location) -> str:
    choices = _choices_at(location) or _keys_at(location)
    names = _KNOWN_ELSEWHERE | (_LORE_ELSEWHERE if location[:1] in (("lore",), ("lorebook",)) else {})
    elsewhere = names.get(str(written).lower())
    if elsewhere in choices:
        return f"; did you mean `{elsewhere}`?"
    close = get_close_matches(str(written).lower(), choices, n=1, cutoff=0.7)
    return f"; did you mean `{close[0]}`?" if close else ""


def _spelled(location: Location) -> str:
    """`("examples", 1, "user")` as `examples.2.user`: people count from 1."""
    return ".".join(str(step + 1) if isinstance(step, int) else step for step in location)


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _called(value: object) -> str:
    return "a list" if isinstance(value, list) else "`key: value` lines" if isinstance(value, dict) else "a number"


def _keys_at(location: Location) -> list[str]:
    """The keys that the schema knows at `location`."""
    kind = _type_at(location)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        # `id` comes from the file's name.
        return [field.alias or name for name, field in kind.model_fields.items() if name != "id"]
    if get_origin(kind) is dict:
        key = get_args(kind)[0]
        return [str(choice) for choice in get_args(key)] if get_origin(key) is Literal else list(EMOTIONS)
    return []


def _choices_at(location: Location) -> list[str]:
    kind = _type_at(location)
    return [str(choice) for choice in get_args(kind)] if get_origin(kind) is Literal else []


def _type_at(location: Location) -> object:
    kind: object = Persona
    for step in location:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            fields = {field.alias or name: field for name, field in kind.model_fields.items()}
            if step not in fields:
                return None
            kind = _plain(fields[str(step)].annotation)
        elif get_origin(kind) is tuple:
            kind = _plain(get_args(kind)[0])
        elif get_origin(kind) is dict:
            kind = _plain(get_args(kind)[1])
        else:
            return None
    return kind


def _plain(annotation: object) -> object:
    """`annotation` without its constraints and without `None`."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        return _plain(get_args(annotation)[0])
    return annotation
