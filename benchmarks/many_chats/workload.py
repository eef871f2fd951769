"""What everybody is asked: prompts of equal length, of random words, so that nothing is known by accident.

Owns the shape of a prompt and what was said before it in each condition. Knows no engine. A prompt is 630 tokens of
SmolLM2's chat template, of which the first 231 are the persona; its last 30 are what a conversation adds that was
answered before.
"""

import random
import re
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from engine.decoder.prompt import PromptWriter
from engine.types import Role, Turn

NUM_PROMPT_TOKENS = 630
NUM_PERSONA_TOKENS = 231
NUM_LATEST_TOKENS = 30
NUM_TOKENS_AROUND_PERSONA = 5  # <|im_start|>, the role, a line break; <|im_end|>, a line break
WORDS_OF_TURNS = (98, 60, 60, 60, 60, 7, 12)  # the user's and the persona's by turns


class Condition(StrEnum):
    """What an engine has read before the prompts that are timed."""

    COLD = "cold"
    PERSONA = "persona seen"
    CONVERSATION = "conversation seen"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One conversation as messages, for our engine, and as the token ids that they become, for the others."""

    system: str
    turns: tuple[str, ...]
    ids: tuple[int, ...]

    def as_json(self) -> dict[str, Any]:
        """For the pipe."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Scene:
    """`before` is asked first, for one token each, and not timed; then all of `prompts` at once."""

    before: tuple[Prompt, ...]
    prompts: tuple[Prompt, ...]


class Workload:
    """Writes scenes. Two of them have nothing in common but the template."""

    def __init__(self, model: Path, *, seed: int = 0) -> None:
        tokenizer = AutoTokenizer.from_pretrained(model)
        self._writer = PromptWriter(tokenizer, name=model.name)
        self._words = _single_token_words(tokenizer.get_vocab())
        self._random = random.Random(seed)

    def scene(self, condition: Condition, num_chats: int) -> Scene:
        """`num_chats` prompts, and what was read before them. Where the persona was not seen, each has its own."""
        if condition is Condition.COLD:
            return Scene((), tuple(self._prompt(self._persona(), self._turns()) for _ in range(num_chats)))
        persona = self._persona()
        prompts = tuple(self._prompt(persona, self._turns()) for _ in range(num_chats))
        if condition is Condition.PERSONA:
            return Scene((self._prompt(persona, self._turns()),), prompts)
        return Scene(tuple(self._write(one.system, one.turns[:-2]) for one in prompts), prompts)

    def _persona(self) -> str:
        return self._text(NUM_PERSONA_TOKENS - NUM_TOKENS_AROUND_PERSONA)

    def _turns(self) -> tuple[str, ...]:
        return tuple(self._text(num_words) for num_words in WORDS_OF_TURNS)

    def _text(self, num_words: int) -> str:
        return " ".join(self._random.choices(self._words, k=num_words))

    def _prompt(self, system: str, turns: tuple[str, ...]) -> Prompt:
        prompt = self._write(system, turns)
        if len(prompt.ids) != NUM_PROMPT_TOKENS:
            raise ValueError(f"a prompt has {len(prompt.ids)} tokens: this workload is made for SmolLM2's template")
        return prompt

    def _write(self, system: str, turns: tuple[str, ...]) -> Prompt:
        pieces = self._writer.write(system, as_turns(turns))
        return Prompt(system, turns, pieces.pieces[0])


def as_turns(texts: tuple[str, ...]) -> tuple[Turn, ...]:
    """The user begins, and they take turns."""
    return tuple(Turn(Role.ASSISTANT if number % 2 else Role.USER, text) for number, text in enumerate(texts))


def _single_token_words(vocabulary: dict[str, int]) -> list[str]:
    """Words that are one token wherever they stand, so that a text has as many tokens as words."""
    return sorted(
        word for word in vocabulary if re.fullmatch("[a-z]{4,8}", word) is not None and f"\u0120{word}" in vocabulary
    )
