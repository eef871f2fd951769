"""Whether a reply has the right answer to a question about the persona. Pure: it compares words.

Owns how answers are made comparable: in any case, without accents, numbers as digits, plurals as singulars. An answer
counts where it stands as whole words and no negation stands shortly before it in its clause. `docs/persona-tests.md`
tells authors the same in their words.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from bot.scoring.judges.numbers import digits_of
from bot.words import UNSPACED
from engine.persona import Fact

# How many words, or signs where words are not spaced, a negation reaches over.
NEGATION_REACH = 4
_PART = re.compile(rf"\d+|{UNSPACED.pattern}|[^\W\d_]+(?:'[^\W\d_]+)*|[^\w\s]|_")
_GROUPED_DIGITS = re.compile(r"(?<=\d)[,.'\u00a0\u202f](?=\d{3}(?!\d))")
_NEGATIONS = {
    "en": "not no never nor neither none nobody nothing without cannot hardly isnt dont doesnt didnt wasnt arent cant",
    "es": "no nunca jamas ni nadie nada sin tampoco ningun ninguna",
    "de": "nicht nie niemals kein keine keinen keinem keiner ohne weder nirgends",
    "zh": "不 没 沒 无 無 非 别 未",
}
# Where one of these stands between a negation and an answer, the answer is meant: nobody but Ember, not only tea.
_EXCEPTIONS = {
    "en": "but except only just forget besides",
    "es": "solo salvo sino excepto olvides",
    "de": "nur ausser vergiss sondern",
    "zh": "只 仅 除 但 忘",
}
_NEGATED_AFTERWARDS = {"de": frozenset({"nicht"})}


@dataclass(frozen=True, slots=True)
class FactVerdict:
    """`found` is the expected answer that stands there, `avoided` the wrong one, if any."""

    is_right: bool
    found: str | None = None
    avoided: str | None = None


@dataclass(frozen=True, slots=True)
class Words:
    """A text as comparable words. `clause_of` has the number of each word's clause."""

    words: tuple[str, ...]
    clause_of: tuple[int, ...]


def judge_fact(reply: str, fact: Fact, *, language: str = "en") -> FactVerdict:
    """Whether `reply` says one of `fact.expect` and none of `fact.avoid`."""
    said, code = comparable(reply, language), language.split("-")[0]
    found = next((answer for answer in fact.expect if _says(said, answer, code)), None)
    avoided = next((answer for answer in fact.avoid if _says(said, answer, code)), None)
    return FactVerdict(found is not None and avoided is None, found, avoided)


def mentions(text: str, answer: str, *, language: str = "en") -> bool:
    """Whether `text` says `answer`, as `judge_fact` would find it."""
    return _says(comparable(text, language), answer, language.split("-")[0])


@lru_cache(maxsize=4096)
def comparable(text: str, language: str = "en") -> Words:
    """`text` as words that compare."""
    clause, words, clause_of = 0, [], []
    for part in _PART.findall(_folded(text)):
        if part[0].isalnum():
            words.append(part.removesuffix("'s"))
            clause_of.append(clause)
        elif part != "'":
            clause += 1
    return _with_digits(words, clause_of, language.split("-")[0])


def _folded(text: str) -> str:
    text = _GROUPED_DIGITS.sub("", unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'"))
    text = text.replace("\u3007", "\u96f6")  # the round zero of years
    # A hyphen or a time's colon joins words, and ends no clause.
    text = re.sub(r"(?<=\w)[-\u2010\u2011](?=\w)|(?<=\d)[:.](?=\d)|[*\"\u201c\u201d~`]", " ", text)
    decomposed = unicodedata.normalize("NFD", text)
    return unicodedata.normalize("NFC", "".join(sign for sign in decomposed if not unicodedata.combining(sign)))


def _with_digits(words: Sequence[str], clause_of: Sequence[int], code: str) -> Words:
    kept = list(digits_of(words, clause_of, code))
    return Words(tuple(word for word, _ in kept), tuple(clause for _, clause in kept))


def _says(said: Words, answer: str, code: str) -> bool:
    wanted = comparable(answer, code).words
    has_negation = any(_is_negation(word, code) for word in wanted)
    return any(has_negation or not _is_negated(said, place, len(wanted), code) for place in _places(said, wanted))


def _places(said: Words, wanted: Sequence[str]) -> Iterator[int]:
    for place in range(len(said.words) - len(wanted) + 1 if wanted else 0):
        if all(_is_same(word, other) for word, other in zip(said.words[place:], wanted, strict=False)):
            yield place


def _is_same(word: str, wanted: str) -> bool:
    if word == wanted:
        return True
    # Short words have other relatives: "a" and "as", "it" and "its".
    long, short = (word, wanted) if len(word) > len(wanted) else (wanted, word)
    return len(short) > 2 and short.isalpha() and long in (f"{short}s", f"{short}es")


def _is_negated(said: Words, place: int, num_words: int, code: str) -> bool:
    clause, after = said.clause_of[place], place + num_words
    before = range(max(0, place - NEGATION_REACH), place)
    negations = [i for i in before if said.clause_of[i] == clause and _is_negation(said.words[i], code)]
    if negations:
        between = said.words[negations[-1] + 1 : place]
        return not any(word in _listed(_EXCEPTIONS, code) for word in between)
    following = said.words[after : after + 2]
    is_same_clause = after < len(said.words) and said.clause_of[after] == clause
    return is_same_clause and any(word in _NEGATED_AFTERWARDS.get(code, ()) for word in following)


def _is_negation(word: str, code: str) -> bool:
    return word in _listed(_NEGATIONS, code) or word.endswith("n't")


@lru_cache(maxsize=64)
def _words_of(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _listed(table: dict[str, str], code: str) -> frozenset[str]:
    return _words_of(table.get(code, table["en"]))
