"""A persona and a conversation in, a request to the engine out. Pure: no files, no clock, no chance.

Owns the wording of the system prompt, macros and which lore is told. Knows no model: the engine renders the chat
template and drops turns that do not fit.
"""

from collections.abc import Sequence
from dataclasses import replace

from engine.persona import Persona
from engine.types import GenerationRequest, SamplingSettings, Turn


def build_request(
    persona: Persona,
    turns: Sequence[Turn],
    *,
    sampling: SamplingSettings,
    user_name: str | None = None,
    is_group: bool = False,
    seed: int | None = None,
) -> GenerationRequest:
    """The request for `persona`'s reply to the last of `turns`."""
    own = persona.sampling.model_dump(exclude_none=True)
    return GenerationRequest(persona, persona.summary, tuple(turns), replace(sampling, **own, seed=seed))


def speaker_label(display_name: str) -> str:
    """`display_name` as one harmless line, for turns in a group: `f"{speaker_label(name)}: {text}"`."""
    return " ".join(display_name.split())[:40]


def fill_macros(text: str, persona: Persona, user_name: str | None = None) -> str:
    """`text` with `{{char}}` and `{{user}}` replaced, in any case. Greetings need it too."""
    return text.replace("{{char}}", persona.name).replace("{{user}}", user_name or "friend")
