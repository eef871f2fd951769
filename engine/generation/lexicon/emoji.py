"""How many emoji are said: none at all, or so many a sentence.

A sign of several bytes may be spelled in several tokens, whose first bytes emoji share with other scripts. So what a
token begins counts as an emoji where most of what it can become is one, and is let be otherwise.

Owns which tokens those are, and when one is wanted. Knows neither sampling nor requests.
"""

from collections.abc import Iterable
from functools import lru_cache
from random import Random

import regex
import torch
from torch import Tensor

from engine.generation.lexicon.logits import highest
from engine.generation.lexicon.sentences import Sentences
from engine.generation.lexicon.vocabulary import Vocabulary, read

# In nats: so much likelier than the likeliest token, if that takes no more than `MAX_LIFT`; where none is wanted, so
# much less likely.
AHEAD, MAX_LIFT, DAMPING = 3.0, 12.0, 6.0
MAX_WANTED = 3
MAX_REMEMBERED = 4_096
_EMOJI = regex.compile(
    r"[\p{Emoji_Presentation}\p{Regional_Indicator}\u20e3]|(?![\u0000-\u25ff])\p{Extended_Pictographic}"
)
# Parts of the sign before.
_MODIFIER = regex.compile(r"[\p{Emoji_Modifier}\ufe0f\u200d\u20e3]")
_JOINER = "\u200d"
# Nearly every emoji begins with this byte, and hardly anything else that is said does.
_FIRST_BYTE = b"\xf0"


class EmojiTokens:
    """Which of a vocabulary's tokens are emoji, or become some."""

    def __init__(self, vocabulary: Vocabulary, *, device: torch.device) -> None:
        self._vocabulary = vocabulary
        self._device = device
        beyond_ascii = [token for token, piece in enumerate(vocabulary.pieces) if not piece.isascii()]
        self._said = self._ids(token for token in beyond_ascii if _says_emoji(b"", vocabulary.pieces[token]))
        self._rests: dict[bytes, Tensor] = {}
        self.starts = self._ids(token for token in beyond_ascii if _starts_emoji(vocabulary.pieces[token]))

    def forbidden(self, pending: bytes) -> Tensor:
        """Tokens that say an emoji, or begin one, behind the bytes `pending` of a sign."""
        return torch.cat([self._said, self.rests(pending)]) if pending else self._said

    def rests(self, pending: bytes) -> Tensor:
        """Tokens that make an emoji of the bytes `pending`, or more of one."""
        if pending not in self._rests:
            if len(self._rests) >= MAX_REMEMBERED:
                self._rests.clear()
            self._rests[pending] = self._ids(self._going_on(pending))
        return self._rests[pending]

    def _going_on(self, pending: bytes) -> set[int]:
        pieces = self._vocabulary.pieces
        return {token for token in self._vocabulary.going_on if _says_emoji(pending, pieces[token])}

    def _ids(self, tokens: Iterable[int]) -> Tensor:
        return torch.tensor(sorted(tokens), dtype=torch.long, device=self._device)


class NoEmoji:
    """Forbids them all."""

    def __init__(self, tokens: EmojiTokens) -> None:
        self._tokens = tokens

    def restrain(self, logits: Tensor, pending: bytes) -> None:
        """Change `logits: (v,)` for the token behind a text that ends with the bytes `pending` of a sign."""
        logits[self._tokens.forbidden(pending)] = -torch.inf


class EmojiRate:
    """Steers towards `rate` emoji a sentence: at each sentence's end it is drawn whether some are due."""

    def __init__(self, tokens: EmojiTokens, *, rate: float, chance: Random) -> None:
        self._tokens = tokens
        self._rate = rate
        self._chance = chance
        self._num_wanted = 0
        self._num_sentences = 0
        self._last = ""

    def note(self, text: str, sentences: Sentences) -> None:
        """`text` was said, which brings the reply to `sentences`."""
        for sign in text:
            if is_emoji(sign) and self._last != _JOINER and not _MODIFIER.match(sign):
                self._num_wanted = max(0, self._num_wanted - 1)
            self._last = sign
        while self._num_sentences < sentences.num:
            self._num_sentences += 1
            due = int(self._rate) + (self._chance.random() < self._rate % 1)
            self._num_wanted = min(self._num_wanted + due, MAX_WANTED)

    def steer(self, logits: Tensor, sentences: Sentences, pending: bytes) -> None:
        """Change `logits: (v,)` for the token that follows."""
        if pending:
            if _is_mostly_emoji(pending) or (pending == _FIRST_BYTE and self._num_wanted):
                _keep_only(logits, self._tokens.rests(pending))
            return
        starts = self._tokens.starts
        if not len(starts):
            return
        if not self._num_wanted:
            logits[starts] -= DAMPING
        elif sentences.is_at_end:
            emoji = logits[starts]
            lift = highest(logits) + AHEAD - emoji.max()
            logits[starts] = emoji + lift.clamp(0.0, MAX_LIFT)


def _keep_only(logits: Tensor, ids: Tensor) -> None:
    """Forbid all but these, if there are any."""
    if len(ids):
        kept = logits[ids]
        logits.fill_(-torch.inf)
        logits[ids] = kept


def is_emoji(sign: str) -> bool:
    """Whether a sign is shown as a picture."""
    return _EMOJI.match(sign) is not None


def _starts_emoji(piece: bytes) -> bool:
    """Whether a token begins with an emoji, or with most of one, behind a space perhaps."""
    text, pending = read(b"", piece.lstrip(b" "))
    return is_emoji(text[0]) if text else pending == _FIRST_BYTE or (bool(pending) and _is_mostly_emoji(pending))


def _says_emoji(pending: bytes, piece: bytes) -> bool:
    text, rest = read(pending, piece)
    return any(map(is_emoji, text)) or (bool(rest) and _is_mostly_emoji(rest))


@lru_cache(maxsize=4_096)
def _is_mostly_emoji(pending: bytes) -> bool:
    """Whether half of the signs that begin with these bytes, or more, are emoji."""
    signs = _signs_beginning_with(pending)
    return bool(signs) and 2 * sum(map(is_emoji, signs)) >= len(signs)


def _signs_beginning_with(pending: bytes) -> list[str]:
    """All of them, or none where they are too many to be emoji."""
    length = 4 if pending[0] >= 0xF0 else 3 if pending[0] >= 0xE0 else 2
    num_free = length - len(pending)
    if num_free > 2:
        return []
    signs = []
    for number in range(64**num_free):
        last = bytes(0x80 + (number >> 6 * place) % 64 for place in reversed(range(num_free)))
        try:
            signs.append((pending + last).decode())
        except UnicodeDecodeError:
            continue
    return signs
