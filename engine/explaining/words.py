"""Puts the text encoder's word pieces together to the words that a person wrote.

Owns which pieces belong to one word. Knows no tensors.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tokenizers import Encoding

_APOSTROPHES = "'’"


@dataclass(frozen=True, slots=True)
class Word:
    """A word as it was written, `text[start:stop]`, and the rows of the text stream that stand for it."""

    text: str
    start: int
    stop: int
    rows: tuple[int, ...]


def words_of(text: str, encoding: Encoding) -> list[Word]:
    """The words of `text` in order, marks left out. `encoding` is the text encoder's of that very text."""
    return [word for word in _joined(text, _whole(text, encoding)) if any(map(_is_told, word.text))]


def _whole(text: str, encoding: Encoding) -> Iterator[Word]:
    """Pieces of one word put together."""
    word: Word | None = None
    number: int | None = None
    row = 0
    columns = zip(encoding.word_ids, encoding.offsets, encoding.special_tokens_mask, strict=True)
    for word_id, (start, stop), is_special in columns:
        if is_special:
            continue
        if word is not None and word_id is not None and word_id == number:
            word = replace(word, text=text[word.start : stop], stop=stop, rows=(*word.rows, row))
        else:
            if word is not None:
                yield word
            word = Word(text[start:stop], start, stop, (row,))
        number = word_id
        row += 1
    if word is not None:
        yield word


def _joined(text: str, words: Iterator[Word]) -> list[Word]:
    """ "what", "'" and "s" without a gap are one word."""
    joined: list[Word] = []
    for word in words:
        if _belongs_to_last(joined, word):
            last = joined.pop()
            word = Word(text[last.start : word.stop], last.start, word.stop, (*last.rows, *word.rows))
        joined.append(word)
    return joined


def _belongs_to_last(words: Sequence[Word], word: Word) -> bool:
    if not words or words[-1].stop != word.start:
        return False
    last = words[-1].text
    return (last[-1:] in _APOSTROPHES and last[:-1].isalpha()) or (word.text in _APOSTROPHES and last.isalpha())


def _is_told(char: str) -> bool:
    """Letters, digits and pictograms; not punctuation."""
    return char.isalnum() or ord(char) > 0x2FFF or 0x2190 <= ord(char) <= 0x2BFF
