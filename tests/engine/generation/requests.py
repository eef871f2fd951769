"""Requests as the bot would make them, for tests."""

from engine.persona import Persona
from engine.types import GenerationRequest, Role, SamplingSettings, Turn

NELL = Persona(id="nell", name="Nell", summary="A pirate captain.", greetings=("Ahoy!",))
ADA = Persona(id="ada", name="Ada", summary="A teacher.", greetings=("Hello!",))


def talk(*texts: str) -> tuple[Turn, ...]:
    """Turns by user and assistant in turns, the last one the user's."""
    first = len(texts) % 2
    return tuple(Turn(Role.USER if (index + first) % 2 else Role.ASSISTANT, text) for index, text in enumerate(texts))


def request(
    *texts: str, persona: Persona = NELL, system_prompt: str = "You are Nell, a pirate captain.", **sampling: object
) -> GenerationRequest:
    """A request; `sampling` overrides short and repeatable settings."""
    settings = SamplingSettings(**{"max_new_tokens": 8, "seed": 1, "repetition_penalty": 1.0, **sampling})
    return GenerationRequest(persona, system_prompt, talk(*(texts or ("Hi!",))), settings)
