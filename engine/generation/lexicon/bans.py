"""Words and phrases that are never said.

A token is forbidden where it would make one of them whole: it holds the end of the word and what follows it, or it
begins something else behind a word that stands there. Where the word could still become a longer one ("me", "meet"),
the token is allowed, but hardly ever chosen: behind it only that longer word could follow.

Owns which tokens those are at each place. Knows neither sampling nor requests.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.generation.lexicon.phrases import Phrases, Place
from engine.generation.lexicon.spelling import is_joined
from engine.generation.lexicon.vocabulary import Vocabulary

# What is allowed only on the way to a longer word is this much less likely, in nats.
DETOUR = 12.0
MAX_REMEMBERED = 2_000


@dataclass(frozen=True, slots=True)
class Forbidden:
    """Token ids: `never` must not be chosen here, `hardly` only make sense where a longer word follows. `is_in_word`:
    only what goes on with the word may be."""

    never: Tensor
    hardly: Tensor
    is_in_word: bool


class Bans:
    """What is forbidden at each place, found once and remembered."""

    def __init__(self, vocabulary: Vocabulary, texts: Iterable[str], *, device: torch.device) -> None:
        self.phrases = Phrases(texts)
        self._vocabulary = vocabulary
        self._device = device
        # Tokens in which one stands whole, whatever comes before.
        self._whole = {
            token
            for folded in self.phrases.folded
            for token in vocabulary.containing(folded)
            if _is_word_in(folded, vocabulary.texts[token])
        }
        others = set(range(vocabulary.size)) - vocabulary.joined_starts if self.phrases.folded else set()
        self._boundaries = self._ids(others)
        self._known: dict[Place, Forbidden] = {}
        self._dead: dict[Place, bool] = {}

    def at(self, place: Place) -> Forbidden:
        """What is forbidden behind a text that stands at `place`."""
        if place not in self._known:
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
                self._dead.clear()
            never, hardly = map(self._ids, self._look(place))
            self._known[place] = Forbidden(never, hardly, bool(place.ended))
        return self._known[place]

    def restrain(self, logits: Tensor, place: Place, *, is_last: bool) -> None:
        """Change `logits: (v,)` for the token behind `place`. After the last one no longer word can follow."""
        forbidden = self.at(place)
        logits[forbidden.never] = -torch.inf
        if forbidden.is_in_word:
            logits[self._boundaries] = -torch.inf
        if len(forbidden.hardly):
            logits[forbidden.hardly] = -torch.inf if is_last else logits[forbidden.hardly] - DETOUR

    def _look(self, place: Place) -> tuple[set[int], set[int]]:
        """The tokens that make something whole here, and those behind which that depends on what follows."""
        never, hardly = set(), set()
        for token in set(self._candidates(place)):
            after, found = self.phrases.walk(place, self._vocabulary.pieces[token])
            if found or (after.ended and self._is_dead(after)):
                never.add(token)
            elif after.ended:
                hardly.add(token)
        return never, hardly

    def _candidates(self, place: Place) -> Iterator[int]:
        """Tokens that may make something whole; all others are harmless."""
        yield from self._whole
        if place.pending:
            yield from self._vocabulary.going_on
        for number, length in place.active:
            rest = self.phrases.folded[number][length:]
            yield from self._vocabulary.beginning_with(rest)
            if place.is_space:
                yield from self._vocabulary.beginning_with(f" {rest}")

    def _is_dead(self, place: Place) -> bool:
        """Whether no longer word can follow. This ends: no phrase is endless, and each further letter leaves fewer."""
        if place not in self._dead:
            self._dead[place] = not self._may_go_on(place)
        return self._dead[place]

    def _may_go_on(self, place: Place) -> bool:
        """Whether any token goes on with the word. With many phrases it would take minutes to look at all of them: the
        first that makes nothing whole will do, and nearly always one does."""
        starts = self._vocabulary.joined_starts
        candidates = starts.intersection(self._candidates(place))
        if len(candidates) < len(starts):
            return True
        ended = []
        for token in candidates:
            after, found = self.phrases.walk(place, self._vocabulary.pieces[token])
            if not found and not after.ended:
                return True
            if not found:
                ended.append(after)
        return any(not self._is_dead(after) for after in ended)

    def _ids(self, tokens: set[int]) -> Tensor:
        return torch.tensor(sorted(tokens), dtype=torch.long, device=self._device)


def _is_word_in(folded: str, text: str) -> bool:
    """Whether the phrase stands in a token's text, at its edges perhaps, and not within a longer word there."""
    place = text.find(folded)
    while place >= 0:
        end = place + len(folded)
        is_begun = place == 0 or not (is_joined(text[place - 1]) and is_joined(text[place]))
        if is_begun and (end == len(text) or not (is_joined(text[end - 1]) and is_joined(text[end]))):
            return True
        place = text.find(folded, place + 1)
    return False
