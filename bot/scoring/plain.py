"""A persona as one plain system prompt: what somebody without Commedia would paste before a chat. Pure.

Owns which fields are text about the character: all but files, switches, sampling, tests and notes. Everything that the
schema has is there word for word, all lore included, in the schema's order.
"""

from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue

from engine.persona import Persona

# What no prompt is made of: pictures, switches, how it is sampled and tested, and who made it.
_NOT_TOLD = (
    "id avatar sampling guard tests triggers talkativeness expressions platforms tags creator notes version licence "
    "extensions lorebook also_speaks"
)
_TOLD_OF_LORE = ("keys", "content")


def plain_prompt(persona: Persona) -> str:
    """Everything that `persona`'s author wrote about it, as `key: value` lines."""
    values: dict[str, JsonValue] = persona.model_dump(
        mode="json", exclude_defaults=True, exclude=set(_NOT_TOLD.split())
    )
    if persona.lore:
        values["lore"] = [
            {key: value for key, value in entry.model_dump(mode="json").items() if key in _TOLD_OF_LORE and value}
            for entry in persona.lore
            if entry.is_enabled
        ]
    return "\n".join(_lines(values, 0))


def _lines(values: Mapping[str, JsonValue], depth: int) -> Iterator[str]:
    told = ((key, value) for key, value in values.items() if value is not None)
    for key, value in told:
        yield from _entry(f"{'  ' * depth}{key}:", value, depth)


def _entry(label: str, value: JsonValue, depth: int) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield label
        yield from _lines(value, depth + 1)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        if all(isinstance(item, str) for item in value):
            yield f"{label} {'; '.join(str(item) for item in value)}"
            return
        yield label
        for item in value:
            yield from _lines(item, depth + 1) if isinstance(item, Mapping) else [f"{'  ' * (depth + 1)}{item}"]
    else:
        yield f"{label} {value}"
