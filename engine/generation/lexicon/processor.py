"""Puts a persona's wishes together to one logits processor for each reply.

Owns what is remembered of a reply while it grows, and what is kept from one reply to the next: all that depends on the
persona alone. Lives on the engine's thread.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor

from engine.generation.lexicon.bans import Bans
from engine.generation.lexicon.emoji import EmojiRate, EmojiTokens, NoEmoji
from engine.generation.lexicon.lengths import PROMISED_SENTENCES, Ending
from engine.generation.lexicon.logits import copied, highest
from engine.generation.lexicon.phrases import Place
from engine.generation.lexicon.sentences import Sentences
from engine.generation.lexicon.vocabulary import Vocabulary, read
from engine.generation.lexicon.wishes import Catchphrase, Liking, Spellings
from engine.generation.processors import LogitsProcessor, MakeProcessors
from engine.persona import Lexicon, Persona
from engine.types import GenerationRequest, Role

# Personas may come from anybody; nobody needs more than so many of each.
MAX_BANNED, MAX_PREFERRED, MAX_CATCHPHRASES = 400, 100, 40
MAX_PERSONAS = 32
# Replies in which a catchphrase rests once it was said.
NUM_REPLIES_TO_REST = 3


class Reply:
    """What has been said of one reply, as text."""

    def __init__(self, start: str) -> None:
        self.sentences = Sentences(start)
        self.pending = b""

    def add(self, piece: bytes) -> str:
        """Take the bytes of a token, and give the signs that they make whole."""
        text, self.pending = read(self.pending, piece)
        self.sentences.add(text)
        return text


class PersonaLexicon:
    """What a persona's lexicon is to one vocabulary."""

    def __init__(self, lexicon: Lexicon, vocabulary: Vocabulary, emoji: EmojiTokens, *, device: torch.device) -> None:
        self.bans = Bans(vocabulary, lexicon.banned[:MAX_BANNED], device=device)
        self.preferred = Spellings(vocabulary, lexicon.preferred[:MAX_PREFERRED])
        self.catchphrases = Spellings(vocabulary, lexicon.catchphrases[:MAX_CATCHPHRASES])
        self.emoji = emoji
        self.emoji_rate = lexicon.emoji_rate


class LexiconProcessor:
    """One reply's `LogitsProcessor`."""

    def __init__(
        self,
        request: GenerationRequest,
        lexicon: PersonaLexicon,
        vocabulary: Vocabulary,
        *,
        end_ids: Collection[int],
        device: torch.device,
    ) -> None:
        chance = Random(request.sampling.seed)  # noqa: S311 - it decides how to speak
        replies = [turn.text for turn in request.turns if turn.role is Role.ASSISTANT]
        start = request.reply_start.rstrip()
        self._vocabulary = vocabulary
        self._max_new_tokens = request.sampling.max_new_tokens
        self._num_seen = 0
        self._reply = Reply(start)
        self._bans = lexicon.bans
        self._liking = Liking(
            lexicon.preferred, said_before=f"{replies[-1] if replies else ''}\n{start}", device=device
        )
        self._catchphrase = Catchphrase(
            lexicon.catchphrases, said_before=[*replies[-NUM_REPLIES_TO_REST:], start], chance=chance, device=device
        )
        rate = lexicon.emoji_rate
        self._no_emoji = NoEmoji(lexicon.emoji) if rate == 0 else None
        self._emoji_rate = EmojiRate(lexicon.emoji, rate=rate, chance=chance) if rate else None
        num_sentences = promised_sentences(request.persona)
        self._ending = Ending(end_ids, num_sentences=num_sentences, device=device) if num_sentences else None
        self._end_ids = torch.tensor(sorted(end_ids), dtype=torch.long, device=device)
        # Each has phrases of its own to follow; what has begun in `reply_start` may end behind it.
        self._followed = (lexicon.bans.phrases, lexicon.preferred.phrases, lexicon.catchphrases.phrases)
        self._places = [phrases.walk(Place(), start.encode("utf-8", "ignore"))[0] for phrases in self._followed]
        # A word that stands there whole may be as it is, if nobody but its author minds.
        self._places[0] = without_ended(self._places[0])

    def __call__(self, logits: Tensor, new_tokens: Sequence[int]) -> Tensor:
        """The logits `(v,)` to choose from."""
        for token in new_tokens[self._num_seen :]:
            self._note(token)
        self._num_seen = len(new_tokens)
        changed = self._changed(copied(logits))
        return changed if highest(changed) > -torch.inf else self._where_nothing_is_left(copied(logits))

    def _note(self, token: int) -> None:
        piece = self._vocabulary.pieces[token] if token < self._vocabulary.size else b""
        was_in_word = self._places[1].is_joined
        text = self._reply.add(piece)
        found: list[tuple[int, ...]] = []
        for number, phrases in enumerate(self._followed):
            self._places[number], hits = phrases.walk(self._places[number], piece)
            found.append(hits)
        sentences = self._reply.sentences
        self._liking.note(token, found[1], sentences, was_in_word=was_in_word)
        self._catchphrase.note(token, found[2])
        if self._emoji_rate is not None:
            self._emoji_rate.note(text, sentences)

    def _changed(self, logits: Tensor) -> Tensor:
        """What is wished for first, what is forbidden last: no wish goes over that."""
        sentences, pending = self._reply.sentences, self._reply.pending
        self._liking.wish(logits, sentences, self._places[1])
        self._catchphrase.wish(logits, sentences, self._places[2])
        if self._ending is not None:
            self._ending.push(logits, sentences)
        if self._emoji_rate is not None:
            self._emoji_rate.steer(logits, sentences, pending)
        if self._no_emoji is not None:
            self._no_emoji.restrain(logits, pending)
        self._bans.restrain(logits, self._places[0], is_last=self._num_seen + 1 >= self._max_new_tokens)
        return logits

    def _where_nothing_is_left(self, logits: Tensor) -> Tensor:
        """What the bans alone leave: an emoji was begun, and every one that it could become is banned. Where that is
        nothing either, the reply ends."""
        self._bans.restrain(logits, self._places[0], is_last=False)
        if not highest(logits) > -torch.inf:
            logits[self._end_ids] = 0.0
        return logits


def without_ended(place: Place) -> Place:
    """The same where nothing is minded that stands there whole."""
    return Place(place.active, (), place.is_joined, place.is_space, place.pending)


def promised_sentences(persona: Persona) -> int | None:
    """How many sentences the persona's author asks for, if anybody has asked."""
    return PROMISED_SENTENCES[persona.voice.length] if "length" in persona.voice.model_fields_set else None


def lexicon_processors(
    tokenizer: Tokenizer, *, vocab_size: int, end_ids: Iterable[int], device: torch.device
) -> MakeProcessors:
    """What makes the processors of each reply. A persona that asks for nothing gets none."""
    vocabulary = Vocabulary(tokenizer, size=vocab_size)
    vocabulary.prepare()
    emoji = EmojiTokens(vocabulary, device=device)
    ends = tuple(sorted(end_ids))
    known: OrderedDict[Lexicon, PersonaLexicon] = OrderedDict()

    def lexicon_of(persona: Persona) -> PersonaLexicon:
        if persona.lexicon not in known:
            known[persona.lexicon] = PersonaLexicon(persona.lexicon, vocabulary, emoji, device=device)
            if len(known) > MAX_PERSONAS:
                known.popitem(last=False)
        known.move_to_end(persona.lexicon)
        return known[persona.lexicon]

    def make(request: GenerationRequest) -> Sequence[LogitsProcessor]:
        persona = request.persona
        if persona.lexicon == _EMPTY and promised_sentences(persona) is None:
            return ()
        return (LexiconProcessor(request, lexicon_of(persona), vocabulary, end_ids=ends, device=device),)

    return make


_EMPTY = Lexicon()
