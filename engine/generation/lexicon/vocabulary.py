"""A tokenizer's tokens as the bytes that each adds to a text.

Owns how that is found out for any kind of tokenizer: byte-level, with bytes to fall back on, or in pieces of words.
Knows no lexicon and no tensor.
"""

import codecs
import json
import re
from bisect import bisect_left
from collections.abc import Iterator
from functools import cached_property

from tokenizers import Tokenizer

from engine.generation.lexicon.spelling import fold, is_joined

_SPACES = re.compile("  +")
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# No folded text has it: what is folded away nobody sees, and this is.
_BETWEEN = "\x00"


class Vocabulary:
    """`pieces[t]` are the bytes of token `t`: none of special tokens, and of ids that mean nothing."""

    def __init__(self, tokenizer: Tokenizer, *, size: int) -> None:
        self.size = size
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.pieces = _pieces(self._tokenizer, size)

    def prepare(self) -> None:
        """Do now what would otherwise be done when it is first asked for."""
        _ = self.joined_starts, self.going_on, self._sorted, self._joined

    @cached_property
    def texts(self) -> list[str]:
        """Each token's whole signs, folded, with single spaces; of half a sign nothing."""
        return [_SPACES.sub(" ", fold(read(b"", piece)[0])) if piece else "" for piece in self.pieces]

    @cached_property
    def joined_starts(self) -> frozenset[int]:
        """Tokens that go on with a word."""
        return frozenset(token for token, text in enumerate(self.texts) if text and is_joined(text[0]))

    @cached_property
    def going_on(self) -> tuple[int, ...]:
        """Tokens that begin within a sign."""
        return tuple(token for token, piece in enumerate(self.pieces) if piece and 0x80 <= piece[0] < 0xC0)

    def spellings(self, text: str) -> Iterator[tuple[int, ...]]:
        """The tokens that `text` is written with, after a space and where there is none."""
        for before, between in (("a", " "), ("(", ""), ("\n", "")):
            head = self._encode(before)
            whole = self._encode(before + between + text)
            if len(whole) > len(head) and whole[: len(head)] == head:
                yield tuple(whole[len(head) :])

    def beginning_with(self, text: str) -> Iterator[int]:
        """Tokens whose folded text begins with `text`."""
        texts, ids = self._sorted
        for place in range(bisect_left(texts, text), len(texts)):
            if not texts[place].startswith(text):
                return
            yield ids[place]

    def containing(self, text: str) -> Iterator[int]:
        """Tokens in whose folded text `text` stands."""
        everything, starts = self._joined
        place = everything.find(text)
        while place >= 0:
            token = bisect_left(starts, place + 1) - 1
            yield token
            place = everything.find(text, starts[token + 1] if token + 1 < len(starts) else len(everything))

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    @cached_property
    def _sorted(self) -> tuple[list[str], list[int]]:
        pairs = sorted((text, token) for token, text in enumerate(self.texts) if text)
        return [text for text, _ in pairs], [token for _, token in pairs]

    @cached_property
    def _joined(self) -> tuple[str, list[int]]:
        starts, length = [], 0
        for text in self.texts:
            starts.append(length)
            length += len(text) + 1
        return _BETWEEN.join(self.texts), starts


def read(pending: bytes, piece: bytes) -> tuple[str, bytes]:
    """The signs that are whole once `piece` follows `pending`, and the bytes of one that is not."""
    if not pending:
        try:
            return piece.decode(), b""
        except UnicodeDecodeError:
            pass
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(pending + piece)
    return text, decoder.getstate()[0]


def _pieces(tokenizer: Tokenizer, size: int) -> list[bytes]:
    pieces = [b""] * size
    special = _special_ids(tokenizer)
    known = {token: text for text, token in tokenizer.get_vocab().items() if token < size and token not in special}
    kinds = set(_kinds(json.loads(tokenizer.to_str()).get("decoder")))
    if "ByteLevel" in kinds:
        letters = {letter: bytes([byte]) for byte, letter in _byte_letters().items()}
        for token, text in known.items():
            is_bytes = all(letter in letters for letter in text)
            pieces[token] = b"".join(letters[letter] for letter in text) if is_bytes else text.encode()
        return pieces
    for token, text in _decoded(tokenizer, list(known)):
        pieces[token] = text.encode("utf-8", "ignore")
    if "ByteFallback" in kinds:
        for token, text in known.items():
            if match := _BYTE.fullmatch(text):
                pieces[token] = bytes([int(match[1], 16)])
    return pieces


def _decoded(tokenizer: Tokenizer, tokens: list[int]) -> Iterator[tuple[int, str]]:
    """What each token adds behind a word: some decoders take a space from the beginning of a text."""
    anchors = tokenizer.encode("a", add_special_tokens=False).ids[-1:]
    before = tokenizer.decode(anchors)
    texts = tokenizer.decode_batch([[*anchors, token] for token in tokens])
    for token, text in zip(tokens, texts, strict=True):
        yield token, text[len(before) :] if text.startswith(before) else tokenizer.decode([token])


def _special_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Tokens that are no part of a text."""
    return frozenset(token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special)


def _kinds(decoder: object) -> Iterator[str]:
    if isinstance(decoder, dict):
        yield str(decoder.get("type"))
        for part in decoder.get("decoders") or ():
            yield from _kinds(part)


def _byte_letters() -> dict[int, str]:
    """The letter that stands for each byte in byte-level vocabularies: itself where it can be printed, else the next
    one from U+0100 on."""
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printed]
    return {byte: chr(byte) for byte in printed} | {byte: chr(0x100 + place) for place, byte in enumerate(others)}
