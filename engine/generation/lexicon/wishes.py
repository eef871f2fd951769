"""Words that are liked, and phrases that a character is known for: likelier now and then, never forced into a text.

A wish is only ever granted to a token that the model itself would hardly mind, and each word gets its due once a reply:
a character that says its favourite word in every sentence is a parrot.

Owns how much likelier what becomes, and when. Knows neither sampling nor requests.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from engine.generation.lexicon.logits import highest
from engine.generation.lexicon.phrases import Phrases, Place
from engine.generation.lexicon.sentences import Sentences
from engine.generation.lexicon.spelling import phrase
from engine.generation.lexicon.vocabulary import Vocabulary

# In nats: how much likelier a liked word's beginning and the rest of it become, where the token is not further than the
# margin behind the likeliest one. With a push of 2 and a margin of 5, answers to questions of fact were right in 0.43
# of 144 replies, with these in 0.56, without any in 0.58.
BEGINNING, REST, MARGIN = 1.0, 2.0, 3.0
MAX_WORDS_A_REPLY = 2
# Of a word that several tokens spell, the first is only wished for where it is so much of the word.
LEAST_BEGINNING = 0.6
# Catchphrases: in how many of the replies one is wished for, and how it is.
CATCHPHRASE_RATE = 0.35
FIRST_PUSH, MORE_PUSH = 2.0, 8.0
FIRST_MARGIN, MORE_MARGIN = 4.0, 8.0


@dataclass(frozen=True, slots=True)
class Spelling:
    """One way of writing the wish `number` in tokens; `share` is how much of it the first one writes."""

    number: int
    tokens: tuple[int, ...]
    share: float
    has_space: bool


class Spellings:
    """Words or phrases and all ways of writing them, which depend on the vocabulary alone."""

    def __init__(self, vocabulary: Vocabulary, texts: Iterable[str]) -> None:
        self.phrases = Phrases(texts)
        self.vocabulary = vocabulary
        by_folded = {phrase(text): text for text in texts}
        self.all = [
            Spelling(number, tokens, _share(vocabulary, tokens), vocabulary.pieces[tokens[0]][:1].isspace())
            for number, folded in enumerate(self.phrases.folded)
            for tokens in sorted({*_all_spellings(vocabulary, by_folded[folded])})
        ]
        self.by_first: dict[int, list[Spelling]] = {}
        for one in self.all:
            self.by_first.setdefault(one.tokens[0], []).append(one)


class Liking:
    """The liked words of one reply. `said_before` is what was said last: its words have had their due."""

    def __init__(self, words: Spellings, *, said_before: str, device: torch.device) -> None:
        self._words = words
        self._device = device
        self._due = set(range(len(words.phrases.folded))) - set(_found(words.phrases, said_before))
        self._num_said = 0
        self._begun: list[tuple[Spelling, int]] = []
        self._rests_at = -1
        self._wished: dict[bool, tuple[Tensor, Tensor]] = {}

    def note(self, token: int, found: Collection[int], sentences: Sentences, *, was_in_word: bool) -> None:
        """`token` was said, which has made the words `found` whole."""
        firsts = self._words.by_first.get(token, ())
        begun = [(one, 1) for one in firsts if one.has_space or not was_in_word]
        begun += [(one, length + 1) for one, length in self._begun if one.tokens[length] == token]
        self._begun = [(one, length) for one, length in begun if length < len(one.tokens) and one.number in self._due]
        if found:
            self._due -= set(found)
            self._num_said += 1
            self._rests_at = sentences.num
            self._wished.clear()

    def wish(self, logits: Tensor, sentences: Sentences, place: Place) -> None:
        """Change `logits: (v,)` for the token that follows."""
        if self._num_said >= MAX_WORDS_A_REPLY:
            return
        if self._begun:
            ids = torch.tensor(sorted({one.tokens[length] for one, length in self._begun}), device=self._device)
            _lift(logits, ids, REST, MARGIN)
        elif sentences.num != self._rests_at and not place.pending:
            _lift(logits, *self._beginnings(place.is_joined), MARGIN)

    def _beginnings(self, is_in_word: bool) -> tuple[Tensor, Tensor]:
        if is_in_word not in self._wished:
            wished: dict[int, float] = {}
            for one in self._words.all:
                if one.number in self._due and one.share >= LEAST_BEGINNING and (one.has_space or not is_in_word):
                    wished[one.tokens[0]] = max(wished.get(one.tokens[0], 0.0), BEGINNING * one.share)
            ids = torch.tensor(list(wished), dtype=torch.long, device=self._device)
            self._wished[is_in_word] = ids, torch.tensor(list(wished.values()), device=self._device)
        return self._wished[is_in_word]


class Catchphrase:
    """One phrase in some replies, at the beginning of a sentence but the first, which is the answer's; what has begun
    is said to its end."""

    def __init__(self, phrases: Spellings, *, said_before: Sequence[str], chance: Random, device: torch.device) -> None:
        self._phrases = phrases
        self._device = device
        said = {number for text in said_before for number in _found(phrases.phrases, text)}
        due = [one for one in phrases.all if one.number not in said]
        self._due = due if chance.random() < CATCHPHRASE_RATE else []
        self._begun: list[tuple[Spelling, int]] = []
        self._is_open = False

    def note(self, token: int, found: Collection[int]) -> None:
        """`token` was said, which has made the phrases `found` whole."""
        begun = [(one, 1) for one in self._due if one.tokens[0] == token] if self._is_open else []
        begun = begun or [(one, length + 1) for one, length in self._begun if one.tokens[length] == token]
        self._begun = [(one, length) for one, length in begun if length < len(one.tokens)]
        if found or len(self._begun) < len(begun):
            self._due, self._begun = [], []

    def wish(self, logits: Tensor, sentences: Sentences, place: Place) -> None:
        """Change `logits: (v,)` for the token that follows."""
        self._is_open = sentences.is_at_start and sentences.num > 0 and not place.pending
        if self._begun:
            pushes = {one.tokens[length]: length / len(one.tokens) for one, length in self._begun}
            for token, share in pushes.items():
                ids = torch.tensor([token], device=self._device)
                _lift(logits, ids, FIRST_PUSH + MORE_PUSH * share, FIRST_MARGIN + MORE_MARGIN * share)
        elif self._is_open and self._due:
            firsts = {one.tokens[0] for one in self._due if one.has_space or not place.is_joined}
            ids = torch.tensor(sorted(firsts), dtype=torch.long, device=self._device)
            _lift(logits, ids, FIRST_PUSH, FIRST_MARGIN)


def _lift(logits: Tensor, ids: Tensor, push: float | Tensor, margin: float) -> None:
    """Make `ids` likelier that are within `margin` of the likeliest token."""
    if len(ids):
        values = logits[ids]
        logits[ids] = torch.where(values >= highest(logits) - margin, values + push, values)


def _all_spellings(vocabulary: Vocabulary, text: str) -> Iterable[tuple[int, ...]]:
    """As it is written, and as it is at the beginning of a sentence."""
    for form in {text, text[:1].upper() + text[1:]}:
        yield from vocabulary.spellings(form)


def _share(vocabulary: Vocabulary, tokens: tuple[int, ...]) -> float:
    lengths = [len(vocabulary.pieces[token].strip()) for token in tokens]
    return lengths[0] / max(1, sum(lengths))


def _found(phrases: Phrases, text: str) -> list[int]:
    place, found = phrases.walk(Place(), text.encode("utf-8", "ignore"))
    return [*found, *phrases.finish(place)]
