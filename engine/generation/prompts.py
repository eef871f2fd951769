"""A request becomes what the decoder reads: the turns that fit, fused and written as tokens, and what each position
stands for.

Owns that way from words to positions. Knows neither scheduling nor the KV cache.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache

from engine.decoder.language_model import EncodedPrompt, LanguageModel
from engine.decoder.prompt import TokenPieces, num_turns_to_drop
from engine.decoder.seen import keys_of, see
from engine.errors import RequestError
from engine.fusion.types import FusedContext, TurnFuser
from engine.measure import TokenizerMeasure
from engine.persona import Persona
from engine.types import ContextSize, GenerationRequest, Role, TokenMeasure, Turn

NUM_REPLIES_NOT_TO_REPEAT = 2


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt in as many versions as there are prefixes to mix, in the proportion `shares`.

    `keys[j][i]` is all that position `i` of version `j` was made from: a token id; at a fused position the persona, the
    words and the pictures; at a picture's own tokens the picture. `said_before` are tokens of the latest replies, and
    of what this one begins with.
    """

    encoded: tuple[EncodedPrompt, ...]
    shares: tuple[float, ...]
    keys: tuple[tuple[Hashable, ...], ...]
    said_before: frozenset[int]
    num_dropped_turns: int

    @property
    def num_tokens(self) -> int:
        """Positions of each version."""
        return self.encoded[0].num_tokens

    @property
    def has_prefix(self) -> bool:
        """Whether anything fused is in it."""
        return bool(self.encoded[0].prefixes)


class PromptMaker:
    """Makes prompts of at most `max_tokens` positions, room for a reply included. With `sees_ahead`, a vision-language
    model's pictures become embeddings here; otherwise that is left to who reads the prompt."""

    def __init__(
        self, language_model: LanguageModel, fuser: TurnFuser | None, *, max_tokens: int, sees_ahead: bool
    ) -> None:
        self._language_model = language_model
        self._fuser = fuser
        self._sees_ahead = sees_ahead
        # Of most prompts all turns fit, and what was written to count them is the prompt itself.
        self._write = lru_cache(maxsize=1)(language_model.prompts.write)
        self._encode_with_pictures = lru_cache(maxsize=1)(language_model.encode_with_pictures)
        self.max_tokens = max_tokens

    def make(self, request: GenerationRequest) -> Prompt:
        """The prompt that fits. Raises `RequestError`, `PromptTooLong` where even the last turn does not fit."""
        if not request.turns:
            raise RequestError("there is no turn to answer: send at least one")
        # A reply may be long, but never at the price of everything that was said before.
        room = self.max_tokens - min(request.sampling.max_new_tokens, self.max_tokens // 2)
        num_dropped = num_turns_to_drop(
            request.turns,
            lambda num: self._num_tokens(request, request.turns[num:]),
            max_tokens=room,
        )
        turns = request.turns[num_dropped:]
        encoded, shares, keys = self._encode(request, turns)
        return Prompt(encoded, shares, keys, self._said_before(request), num_dropped)

    def measure(self) -> TokenMeasure:
        """What texts cost in these prompts."""
        model = self._language_model
        num_prefix_tokens = self._fuser.num_prefix_tokens if self._fuser is not None else 0
        size = ContextSize(
            max_tokens=self.max_tokens,
            per_turn=model.prompts.num_tokens_per_turn() + num_prefix_tokens,
            per_picture=model.num_tokens_per_picture() if model.takes_pictures else 0,
        )
        return TokenizerMeasure(model.prompts.tokenizer_json(), size)

    def _encode(
        self, request: GenerationRequest, turns: tuple[Turn, ...]
    ) -> tuple[tuple[EncodedPrompt, ...], tuple[float, ...], tuple[tuple[Hashable, ...], ...]]:
        model = self._language_model
        if model.takes_pictures:
            prompt = self._encode_with_pictures(
                request.system_prompt, turns, reply_start=request.reply_start, insertions=request.insertions
            )
            if not self._sees_ahead:
                return (prompt,), (1.0,), (prompt.pieces[0],)
            prompt = see(model, prompt)
            return (prompt,), (1.0,), (keys_of(model, prompt),)
        contexts = self._fuse(request.persona, turns)
        if contexts:
            pieces = model.prompts.write(
                request.system_prompt,
                turns,
                places=contexts,
                reply_start=request.reply_start,
                insertions=request.insertions,
            )
        else:
            pieces = self._write(
                request.system_prompt, turns, reply_start=request.reply_start, insertions=request.insertions
            )
        shares = contexts[max(contexts)].shares if contexts else (1.0,)
        answered = contexts.get(len(turns) - 1)
        steering = answered.steering if answered is not None else ()
        encoded = tuple(
            model.encode(
                pieces,
                [contexts[place].prefixes[number] for place in pieces.places],
                steering=steering[number] if steering else None,
            )
            for number in range(len(shares))
        )
        keys = tuple(_keys(pieces, contexts, request.persona, turns, number) for number in range(len(shares)))
        return encoded, shares, keys

    def _num_tokens(self, request: GenerationRequest, turns: tuple[Turn, ...]) -> int:
        """How long the prompt would be with these of its turns, at most."""
        measure = self._encode_with_pictures if self._language_model.takes_pictures else self._write
        written = measure(request.system_prompt, turns, reply_start=request.reply_start, insertions=request.insertions)
        if self._language_model.takes_pictures:
            return written.num_tokens
        num_prefix_tokens = self._fuser.num_prefix_tokens if self._fuser is not None else 0
        num_user_turns = sum(turn.role is Role.USER for turn in turns)
        return written.num_tokens + num_prefix_tokens * num_user_turns

    def _fuse(self, persona: Persona, turns: tuple[Turn, ...]) -> dict[int, FusedContext]:
        """The fused context of each user turn that has one. Those of earlier turns come from the fuser's cache."""
        if self._fuser is None:
            return {}
        contexts = {
            index: self._fuser.fuse(persona, turn.text, turn.images)
            for index, turn in enumerate(turns)
            if turn.role is Role.USER
        }
        return {index: context for index, context in contexts.items() if context is not None}

    def _said_before(self, request: GenerationRequest) -> frozenset[int]:
        """Tokens of the latest replies and of what this one begins with, so that what is to come does not repeat
        them."""
        replies = [turn.text for turn in request.turns if turn.role is Role.ASSISTANT][-NUM_REPLIES_NOT_TO_REPEAT:]
        said = [*replies, request.reply_start]
        return frozenset(token for text in said for token in self._language_model.prompts.tokenise(text))


def _keys(
    pieces: TokenPieces, contexts: dict[int, FusedContext], persona: Persona, turns: tuple[Turn, ...], number: int
) -> tuple[Hashable, ...]:
    """Token ids; at a fused position everything that it was made from, and its place in the prefix `number`."""
    keys: list[Hashable] = list(pieces.pieces[0])
    for place, piece in zip(pieces.places, pieces.pieces[1:], strict=True):
        turn = turns[place]
        digests = tuple(image.digest for image in turn.images)
        origin = (persona.digest(), turn.text, digests, number)
        keys += [(*origin, index) for index in range(len(contexts[place].prefixes[number]))]
        keys += piece
    return tuple(keys)
