"""What a persona says of itself that a question is about: told again beside the question, small models find it there.

Owns which statements can be recalled, and how near a question they are: by meaning where the engine can compare
meanings, else by words in common. Knows neither prompts nor conversations.
"""

import asyncio
import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Protocol

from bot.words import UNSPACED, fold, spaced_words
from engine.errors import EngineError
from engine.lore import LoreEntry
from engine.persona import Persona
from engine.same import Same
from engine.types import Embedding

logger = logging.getLogger(__name__)

MAX_RECALLED = 2
MAX_STATEMENTS = 64
MAX_QUESTION_CHARACTERS = 400
MAX_STATEMENT_CHARACTERS = 400
# Measured on 48 questions to four personas and 80 lines of small talk: the right statement is hardly ever below it, the
# nearest one to small talk in nearly half of all cases.
MIN_LIKENESS = 0.24
# Shares of a question's words, rare ones counting more, that a statement has to have.
MIN_OVERLAP = 0.3
# The first question to a persona waits until its statements are read; that is once.
MAX_WAIT_S = 5.0
MAX_PERSONAS = 64
# Who it is and how it talks stands in every prompt, and is nearest to every hello.
_TOLD_ANYWAY = frozenset({"name", "traits", "voice", "examples", "lore", "pronouns"})
# What says where an entry stands, and how its keys are found.
_NO_RULES = frozenset(
    {"keys", "content", "name", "order", "priority", "position", "is_case_sensitive", "has_whole_words", "scan_depth"}
)
# The code of the only language in which the embedded text encoder knows meanings.
_ENGLISH = "en"


class Embedder(Protocol):
    """What is needed of the engine: `engine.types.SeeingEngine`. Raises `EngineError`."""

    async def embed_text(self, text: str) -> Embedding:
        """The embedding of a text."""


@dataclass(frozen=True, slots=True)
class Recalled:
    """Something that a question is about. `name` is the field, or the lore entry, that it comes from."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class _Known:
    """A persona's statements; `embeddings` is empty where there are none."""

    statements: tuple[Recalled, ...]
    embeddings: tuple[Embedding, ...]


class Recall:
    """Finds statements. Without an `embedder`, by words alone."""

    def __init__(self, embedder: Embedder | None = None) -> None:
        self._embedder = embedder
        self._known: OrderedDict[str, asyncio.Task[_Known]] = OrderedDict()

    async def about(self, persona: Persona, question: str) -> tuple[Recalled, ...]:
        """What `persona` says of itself that bears on `question`, the nearest first; often nothing."""
        question = question.strip()[:MAX_QUESTION_CHARACTERS]
        if not question:
            return ()
        if self._embedder is not None and persona.language.split("-")[0] == _ENGLISH:
            try:
                async with asyncio.timeout(MAX_WAIT_S):
                    return await self._by_meaning(persona, question, self._embedder)
            except (EngineError, TimeoutError) as error:
                logger.debug("statements are found by words: %s", error)
        return by_words(statements(persona), question)

    async def aclose(self) -> None:
        """Give up what is still being read."""
        for task in self._known.values():
            task.cancel()
        await asyncio.gather(*self._known.values(), return_exceptions=True)

    async def _by_meaning(self, persona: Persona, question: str, embedder: Embedder) -> tuple[Recalled, ...]:
        digest = persona.digest()
        task = self._known.get(digest)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._known[digest] = asyncio.create_task(_read(persona, embedder))
        self._known.move_to_end(digest)
        while len(self._known) > MAX_PERSONAS:
            self._known.popitem(last=False)  # not cancelled: somebody may be waiting for it
        # Whoever gives up waiting leaves it to be read for the next one.
        known = await asyncio.shield(task)
        asked = await embedder.embed_text(question)
        found = [
            (_likeness(asked, embedding), statement)
            for statement, embedding in zip(known.statements, known.embeddings, strict=True)
            if embedding.space == asked.space
        ]
        near = [(likeness, statement) for likeness, statement in found if likeness >= MIN_LIKENESS]
        near.sort(key=lambda pair: -pair[0])
        return tuple(statement for _, statement in near[:MAX_RECALLED])


def statements(persona: Persona) -> tuple[Recalled, ...]:
    """What can be recalled of `persona`: facts, and lore that has no rules but keys."""
    return _statements_of(Same(persona))


@lru_cache(maxsize=MAX_PERSONAS)
def _statements_of(known: Same[Persona]) -> tuple[Recalled, ...]:
    # Asked with every question, and a lorebook may have thousands of entries.
    persona = known.value
    facts = [
        Recalled(facet.kind, _to_the_persona(facet.text))
        for facet in persona.facets()
        if facet.kind not in _TOLD_ANYWAY
    ]
    lore = [Recalled(_name_of(entry), entry.content) for entry in persona.lore if _is_plain(entry)]
    found = [*facts, *(lore if persona.lorebook.has_recall else ())]
    short = (one for one in found if len(one.text) <= MAX_STATEMENT_CHARACTERS)
    return tuple({one.text: one for one in short}.values())[:MAX_STATEMENTS]


def by_words(known: Sequence[Recalled], question: str) -> tuple[Recalled, ...]:
    """The statements that have most of the words of `question`; a word counts more the fewer statements have it."""
    asked = set(_terms(question))
    terms = [set(_terms(f"{one.name} {one.text}")) for one in known]
    num_with = Counter(term for one in terms for term in one & asked)
    weights = {term: math.log(1 + len(known) / num_with[term]) if num_with[term] else 0.0 for term in asked}
    whole = sum(weights.values())
    if not whole:
        return ()
    ranked = sorted(
        ((sum(weights[term] for term in one & asked) / whole, index) for index, one in enumerate(terms)),
        key=lambda pair: (-pair[0], pair[1]),
    )
    return tuple(known[index] for share, index in ranked[:MAX_RECALLED] if share >= MIN_OVERLAP)


def _to_the_persona(text: str) -> str:
    """What it says of itself as it is told it: `My age is 61.` as `Your age is 61.`"""
    for own, told in (("My ", "Your "), ("I am ", "You are ")):
        if text.startswith(own):
            return told + text.removeprefix(own)
    return text


async def _read(persona: Persona, embedder: Embedder) -> _Known:
    known = statements(persona)
    return _Known(known, tuple([await embedder.embed_text(one.text) for one in known]))


def _likeness(one: Embedding, other: Embedding) -> float:
    """The cosine: embeddings have length 1."""
    return math.fsum(a * b for a, b in zip(one.values, other.values, strict=True))


def _is_plain(entry: LoreEntry) -> bool:
    """Whether nothing but its keys says when `entry` is told."""
    rules = (name for name in LoreEntry.model_fields if name not in _NO_RULES)
    has_rules = any(getattr(entry, name) != LoreEntry.model_fields[name].default for name in rules)
    return bool(entry.keys) and not has_rules and not entry.content.startswith("@@")


def _name_of(entry: LoreEntry) -> str:
    return entry.name or entry.keys[0]


def _terms(text: str) -> Iterator[str]:
    """Words without the commonest endings, and pairs of signs in scripts that put no spaces between words."""
    folded = fold(text)
    yield from (_stem(word) for word in spaced_words(folded) if len(word) > 2 or word.isdigit())
    signs = UNSPACED.findall(folded)
    yield from (f"{first}{second}" for first, second in pairwise(signs))


def _stem(word: str) -> str:
    for ending in ("ing", "ed", "es", "s"):
        if len(word) - len(ending) >= 3 and word.endswith(ending):
            return word[: -len(ending)]
    return word
