"""From a conversation with a persona to the engine's request: as the bot makes it, or with one plain prompt.

Owns the two ways. What is recalled, told and left out for want of room is the bot's own code; nothing is stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from bot.personas.prompt import NO_HOUSE_RULES, HouseRules, Scene, prepare
from bot.personas.prompt import fill_macros as filled
from bot.personas.recall import Recall
from bot.personas.wording import phrases_of
from bot.scoring.plain import plain_prompt
from engine.persona import Persona
from engine.types import Asker, GenerationRequest, SamplingSettings, TokenMeasure, Turn

USER_NAME = "Alex"


class RequestWriter(Protocol):
    """How a request is made."""

    async def write(
        self, persona: Persona, turns: Sequence[Turn], *, asker: Asker, seed: int | None
    ) -> GenerationRequest:
        """The request for the reply to the last of `turns`."""


@dataclass(frozen=True, slots=True)
class BotRequests:
    """As in a direct chat."""

    sampling: SamplingSettings
    measure: TokenMeasure | None = None
    recall: Recall | None = None
    house: HouseRules = NO_HOUSE_RULES
    max_turns: int = 24

    async def write(
        self, persona: Persona, turns: Sequence[Turn], *, asker: Asker, seed: int | None
    ) -> GenerationRequest:
        """Persona, examples, lore, what is recalled, and the newest turns."""
        newest = turns[-self.max_turns :]
        scene = Scene(
            user_name=USER_NAME,
            num_before=len(turns) - len(newest),
            conversation=asker.conversation,
            seed=f"{asker.conversation}/{len(turns)}",
            recalled=await self.recall.about(persona, turns[-1].text) if self.recall is not None else (),
            now=datetime.now(UTC),
        )
        return prepare(
            persona,
            newest,
            sampling=self.sampling,
            scene=scene,
            house=self.house,
            measure=self.measure,
            seed=seed,
            asker=asker,
        ).request


@dataclass(frozen=True, slots=True)
class PlainRequests:
    """The persona's whole text as one system prompt, before the same turns, with the same sampling."""

    sampling: SamplingSettings
    max_turns: int = 24

    async def write(
        self, persona: Persona, turns: Sequence[Turn], *, asker: Asker, seed: int | None
    ) -> GenerationRequest:
        """Nothing but the text and the turns."""
        settings = replace(self.sampling, **persona.sampling.model_dump(exclude_none=True))
        settings = replace(settings, stop=(*settings.stop, f"\n{phrases_of(persona).user}:"))
        return GenerationRequest(
            persona=persona,
            system_prompt=filled(plain_prompt(persona), persona, USER_NAME),
            turns=tuple(turns[-self.max_turns :]),
            sampling=settings if seed is None else replace(settings, seed=seed),
            asker=asker,
        )
