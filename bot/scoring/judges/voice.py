"""Whose voice a text is in: the one whose examples use the most similar runs of letters.

Owns the comparison: runs of three to five letters (one to three signs where words are not spaced), weighted by how rare
they are, and the nearest centre of several texts. Besides the cast there is always a plain assistant's voice, so that
a reply without any voice is told from the only persona of a language. Pure; it hears topics as well as manners.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from bot.scoring.judges.assistant import ASSISTANT_LINES
from bot.words import UNSPACED, find_word, fold
from engine.persona import Persona

ASSISTANT = ""
"""The id of the plain assistant's voice; no persona has it."""
MAX_LETTERS = 2000
# A text is a copy where so much of it stands in one run in an example, and so many letters.
COPIED_SHARE = 0.7
MIN_COPIED_LETTERS = 20
# A Chinese character says about as much as three letters.
_LETTERS_PER_SIGN = 3

Vector = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Heard:
    """`closest` is whose voice it is; `closeness` to the own examples runs from 0 to 1; `is_copy` of one of them."""

    closest: str
    closeness: float
    is_copy: bool


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """How often a line of somebody's own is told to be theirs by all other lines."""

    num_right: int
    num_lines: int
    num_voices: int


class Voices:
    """The voices of a cast, of one language."""

    def __init__(self, lines: Mapping[str, Sequence[str]], *, unheard: Sequence[str] = ()) -> None:
        """`lines` are everybody's own. Words `unheard`, such as names, say nothing about a voice."""
        self._unheard = tuple(fold(word) for word in unheard)
        counted = {name: [self._runs(line) for line in texts] for name, texts in lines.items() if texts}
        self._lines = {name: tuple(texts) for name, texts in lines.items()}
        self._rarity = _rarity(counts for texts in counted.values() for counts in texts)
        self._examples = {name: [self._weighed(counts) for counts in texts] for name, texts in counted.items()}
        self._centres = {name: _centre(vectors) for name, vectors in self._examples.items()}

    @property
    def num_voices(self) -> int:
        """How many there are to choose from; guessing is right once in so many."""
        return len(self._centres)

    def closest(self, text: str) -> str:
        """Whose voice `text` is in."""
        vector = self._weighed(self._runs(text))
        return max(self._centres, key=lambda name: _similarity(vector, self._centres[name]))

    def hear(self, text: str, own: str) -> Heard:
        """How `text` sounds beside the voice of `own`."""
        vector = self._weighed(self._runs(text))
        closeness = max((_similarity(vector, example) for example in self._examples.get(own, [])), default=0.0)
        return Heard(self.closest(text), closeness, is_copy(text, self._lines.get(own, ())))

    def _runs(self, text: str) -> Counter[str]:
        folded = fold(text[:MAX_LETTERS])
        for word in self._unheard:
            for begin, end in reversed(list(find_word(folded, word))):
                folded = f"{folded[:begin]} {folded[end:]}"
        return _runs(folded)

    def _weighed(self, counts: Counter[str]) -> Vector:
        weights = {
            run: (1 + math.log(number)) * self._rarity[run] for run, number in counts.items() if run in self._rarity
        }
        length = math.sqrt(sum(weight * weight for weight in weights.values()))
        return {run: weight / length for run, weight in weights.items()} if length else {}


def voices_of(cast: Iterable[Persona], language: str) -> Voices:
    """The voices of all in `cast` who speak `language`, a code without region, and the plain assistant's."""
    speakers = [persona for persona in cast if persona.language.split("-")[0] == language]
    own = {persona.id: own_lines(persona) for persona in speakers}
    lines = {**own, ASSISTANT: ASSISTANT_LINES.get(language, ASSISTANT_LINES["en"])}
    return Voices(lines, unheard=_names(speakers))


def own_lines(persona: Persona) -> list[str]:
    """What the author lets `persona` say."""
    examples = (example.reply for example in persona.examples)
    others = (*persona.group_greetings, *persona.guard.deflections)
    return list(dict.fromkeys((*examples, *persona.greetings, *others)))


def leave_one_out(cast: Sequence[Persona], language: str) -> LeaveOneOut:
    """How well the voices are told apart: each line of the cast by all the other lines."""
    speakers = [persona for persona in cast if persona.language.split("-")[0] == language]
    own = {persona.id: own_lines(persona) for persona in speakers}
    assistant = ASSISTANT_LINES.get(language, ASSISTANT_LINES["en"])
    return leave_one_line_out({**own, ASSISTANT: assistant}, unheard=_names(speakers))


def leave_one_line_out(lines: Mapping[str, Sequence[str]], *, unheard: Sequence[str] = ()) -> LeaveOneOut:
    """Each of `lines`, but for the plain assistant's, by all the others."""
    num_right = num_lines = 0
    for name, texts in lines.items():
        if name == ASSISTANT:
            continue
        for number, text in enumerate(texts):
            others = [*texts[:number], *texts[number + 1 :]]
            num_right += Voices({**lines, name: others}, unheard=unheard).closest(text) == name
            num_lines += 1
    return LeaveOneOut(num_right, num_lines, len(lines))


def _names(cast: Iterable[Persona]) -> list[str]:
    """A name is no voice: everybody can say it."""
    return [name for persona in cast for name in (persona.name, *persona.name.split()) if len(name) > 1]


def is_copy(text: str, examples: Iterable[str]) -> bool:
    """Whether `text` mostly stands in one of `examples`, letter by letter."""
    letters = _letters(text)
    size = sum(_LETTERS_PER_SIGN if UNSPACED.match(letter) else 1 for letter in letters)
    if size < MIN_COPIED_LETTERS:
        return False
    return any(_longest_run(letters, _letters(example)) >= COPIED_SHARE * len(letters) for example in examples)


def _longest_run(letters: str, others: str) -> int:
    return SequenceMatcher(None, letters, others, autojunk=False).find_longest_match().size


def _letters(text: str) -> str:
    return "".join(sign for sign in fold(text[:MAX_LETTERS]) if sign.isalnum())


def _runs(folded: str) -> Counter[str]:
    padded = f" {' '.join(folded.split())} "
    lengths = range(1, 4) if UNSPACED.search(padded) else range(3, 6)
    return Counter(padded[at : at + length] for length in lengths for at in range(len(padded) - length + 1))


def _rarity(texts: Iterable[Counter[str]]) -> dict[str, float]:
    num_texts, num_with = 0, Counter[str]()
    for counts in texts:
        num_texts += 1
        num_with.update(counts.keys())
    return {run: math.log((1 + num_texts) / (1 + number)) + 1 for run, number in num_with.items()}


def _centre(vectors: Sequence[Vector]) -> Vector:
    total = Counter[str]()
    for vector in vectors:
        for run, weight in vector.items():
            total[run] += weight  # type: ignore[assignment]
    length = math.sqrt(sum(weight * weight for weight in total.values()))
    return {run: weight / length for run, weight in total.items()} if length else {}


def _similarity(one: Vector, other: Vector) -> float:
    small, large = (one, other) if len(one) <= len(other) else (other, one)
    return sum(weight * large.get(run, 0.0) for run, weight in small.items())
