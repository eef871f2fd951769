"""Finds words and phrases in a text that grows, as whole words.

Owns how far each of them has come. Knows neither tokens' ids nor what is to happen where one is found.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from engine.generation.lexicon.spelling import fold_sign, is_joined, phrase
from engine.generation.lexicon.vocabulary import read


@dataclass(frozen=True, slots=True)
class Place:
    """Where a text is. `active` are those of which a part stands there, with its length; `ended` those that stand there
    whole, so that the next sign tells whether it is one word. `pending` are bytes of a sign that is not whole."""

    active: tuple[tuple[int, int], ...] = ()
    ended: tuple[int, ...] = ()
    is_joined: bool = False
    is_space: bool = True
    pending: bytes = b""


class Phrases:
    """The phrases, each by its number."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.folded = tuple(dict.fromkeys(filter(None, map(phrase, texts))))
        self._by_first: dict[str, list[int]] = {}
        for number, folded in enumerate(self.folded):
            self._by_first.setdefault(folded[0], []).append(number)

    def walk(self, place: Place, piece: bytes) -> tuple[Place, tuple[int, ...]]:
        """Go on by the bytes of a token: the new place, and the phrases that were found on the way."""
        text, pending = read(place.pending, piece)
        found: tuple[int, ...] = ()
        if place.pending or pending:
            place = replace(place, pending=b"")
        for sign in text:
            for folded in fold_sign(sign):
                place, hits = self._step(place, folded)
                found += hits
        if pending:
            # Most likely no part of the word before it; what it will be, nobody knows yet.
            found += place.ended
            place = replace(place, ended=(), pending=pending)
        return place, found

    def finish(self, place: Place) -> tuple[int, ...]:
        """The phrases that are whole where the text ends here."""
        return place.ended

    def _step(self, place: Place, sign: str) -> tuple[Place, tuple[int, ...]]:
        if sign == " " and place.is_space:
            return place, ()
        joins = is_joined(sign)
        is_boundary = not (place.is_joined and joins)
        found = place.ended if is_boundary else ()
        active = [(number, length + 1) for number, length in place.active if self.folded[number][length] == sign]
        if is_boundary:
            active += [(number, 1) for number in self._by_first.get(sign, ())]
        whole = tuple(number for number, length in active if length == len(self.folded[number]))
        going_on = tuple(sorted({one for one in active if one[1] < len(self.folded[one[0]])}))
        if not joins:
            # Nothing that follows makes it a part of a longer word.
            return Place(going_on, (), joins, sign == " "), found + whole
        return Place(going_on, whole, joins, False), found
