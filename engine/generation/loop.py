"""The generation loop: prompts are read, tokens chosen, texts handed out, for several sequences in turns.

Owns what a running sequence needs on the device. Knows neither threads nor asyncio; `engine.service` calls `step` again
and again on the engine's one thread.
"""

import logging
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.decoder.language_model import DecoderState, EncodedPrompt, LanguageModel
from engine.decoder.prompt import TokenPieces, num_turns_to_drop
from engine.device import is_out_of_memory
from engine.errors import DeviceError, EngineError, RequestError
from engine.fusion.types import FusedContext, TurnFuser
from engine.generation.prefix_cache import Key, PrefixCache
from engine.generation.sampler import Sampler
from engine.generation.scheduler import MAX_RUNNING, Scheduler
from engine.generation.sequence import Sequence
from engine.generation.text import ReplyText
from engine.types import FinishReason, ReplyChunk, Role, Turn

logger = logging.getLogger(__name__)

DEFAULT_PREFIX_CACHE_BYTES = 256 << 20
NUM_REPLIES_NOT_TO_REPEAT = 2


@dataclass(slots=True)
class _Running:
    """What a sequence holds between two steps. `position_keys` says what each position of its KV cache stands for.
    `others` are the memories of the same prompt with other prefixes, mixed in the proportion `shares`."""

    state: DecoderState
    others: list[DecoderState]
    shares: tuple[float, ...]
    sampler: Sampler
    text: ReplyText
    next_token: int
    max_new_tokens: int
    position_keys: list[object]


class GenerationLoop:
    """Serves sequences side by side, each by one token a step."""

    def __init__(
        self,
        language_model: LanguageModel,
        fuser: TurnFuser | None = None,
        *,
        max_running: int = MAX_RUNNING,
        prefix_cache_bytes: int = DEFAULT_PREFIX_CACHE_BYTES,
    ) -> None:
        self._language_model = language_model
        self._fuser = fuser if language_model.takes_prefix else None
        self._scheduler = Scheduler(max_running=max_running)
        self._running: dict[Sequence, _Running] = {}
        self._prefix_cache = PrefixCache(max_bytes=prefix_cache_bytes) if language_model.is_cache_plain else None

    @property
    def language_model(self) -> LanguageModel:
        """What it decodes with, for work beside replies."""
        return self._language_model

    @property
    def fuser(self) -> TurnFuser | None:
        """What makes prefixes, if anything does."""
        return self._fuser

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return self._scheduler.has_work

    def add(self, sequence: Sequence) -> None:
        """Let `sequence` wait for its turn."""
        self._scheduler.add(sequence)

    @torch.inference_mode()
    def step(self) -> None:
        """Admit one waiting sequence at most, and advance each running one by one token.

        A sequence whose own part fails is told why, and the others go on.
        """
        for sequence in self._scheduler.remove_cancelled():
            self._running.pop(sequence, None)
            sequence.finish(FinishReason.CANCELLED, "", now=time.monotonic())
        admitted = self._scheduler.admit()
        for sequence in self._scheduler.running:
            try:
                if sequence is admitted:
                    self._running[sequence] = self._begin(sequence)
                else:
                    self._decode(sequence)
                self._show(sequence)
            except Exception as error:  # noqa: BLE001 - the boundary: one sequence's failure is told to its caller
                self._fail(sequence, error)

    def fail_all(self, error: EngineError) -> None:
        """Tell everybody who waits or runs that there will be no reply."""
        for sequence in self._scheduler.clear():
            self._running.pop(sequence, None)
            sequence.emit(type(error)(str(error)))

    def cancel_all(self) -> None:
        """End every reply where it is."""
        for sequence in self._scheduler.clear():
            self._running.pop(sequence, None)
            sequence.finish(FinishReason.CANCELLED, "", now=time.monotonic())

    def _begin(self, sequence: Sequence) -> _Running:
        """Fuse, read the prompt, and choose the first token."""
        request, model = sequence.request, self._language_model
        prompts, shares, position_keys = self._prompts(sequence)
        prompt = prompts[0]
        sequence.num_prompt_tokens = prompt.num_tokens
        sequence.has_fused_prefix = bool(prompt.prefixes)
        state = model.new_state()
        # Read in parts, a prompt rounds differently, enough for another token: what a seed repeats is read whole.
        if self._prefix_cache is not None and request.sampling.seed is None:
            self._prefix_cache.fill(state.cache, tuple(position_keys))
        others = [model.new_state() for _ in prompts[1:]]
        logits = _mix([model.prefill(one, held) for one, held in zip(prompts, [state, *others], strict=True)], shares)
        sampler = Sampler(
            request.sampling,
            vocab_size=len(logits),
            device=logits.device,
            penalised_ids=self._said_before(request.turns),
            exempt_ids=model.end_token_ids,
        )
        text = ReplyText(model.tokenizer.backend_tokenizer, stop=request.sampling.stop)
        room = model.max_context_tokens - prompt.num_tokens
        max_new_tokens = min(request.sampling.max_new_tokens, room)
        first_token = sampler.choose(logits)
        # Only now: a prompt that gave no numbers would spoil every later one that begins alike.
        if self._prefix_cache is not None:
            self._prefix_cache.keep(state.cache, tuple(position_keys))
        return _Running(state, others, shares, sampler, text, first_token, max_new_tokens, position_keys)

    def _decode(self, sequence: Sequence) -> None:
        running = self._running[sequence]
        states = [running.state, *running.others]
        logits = _mix([self._language_model.decode(running.next_token, held) for held in states], running.shares)
        running.position_keys.append(running.next_token)
        running.next_token = running.sampler.choose(logits)

    def _show(self, sequence: Sequence) -> None:
        """Hand out what the newest token makes readable, and end the reply where it ends."""
        running = self._running[sequence]
        now = time.monotonic()
        if sequence.first_token_at is None:
            sequence.first_token_at = now
        if running.next_token in self._language_model.end_token_ids:
            self._finish(sequence, FinishReason.STOP, running.text.finish())
            return
        sequence.num_new_tokens += 1
        text = running.text.add(running.next_token)
        if running.text.is_stopped:
            self._finish(sequence, FinishReason.STOP, text)
        elif sequence.num_new_tokens >= running.max_new_tokens:
            self._finish(sequence, FinishReason.LENGTH, text + running.text.finish())
        elif text:
            sequence.emit(ReplyChunk(text))

    def _finish(self, sequence: Sequence, reason: FinishReason, text: str) -> None:
        self._scheduler.remove(sequence)
        running = self._running.pop(sequence)
        sequence.finish(reason, text, now=time.monotonic())
        if self._prefix_cache is not None:
            self._prefix_cache.keep(running.state.cache, tuple(running.position_keys))

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        self._scheduler.remove(sequence)
        self._running.pop(sequence, None)
        if is_out_of_memory(error):
            if self._prefix_cache is not None:
                self._prefix_cache.clear()
            sequence.emit(_out_of_memory())
        elif isinstance(error, EngineError):
            sequence.emit(error)
        else:
            logger.error("a reply failed", exc_info=error)
            failure = EngineError(f"the engine failed on this reply ({type(error).__name__}); the log says more")
            failure.__cause__ = error
            sequence.emit(failure)

    def _prompts(self, sequence: Sequence) -> tuple[list[EncodedPrompt], tuple[float, ...], list[object]]:
        """The prompt that fits, with each of the prefixes that are to be mixed; the share of each; and what stands at
        each position of the first."""
        request, model = sequence.request, self._language_model
        if not request.turns:
            raise RequestError("there is no turn to answer: send at least one")
        # A reply may be long, but never at the price of everything that was said before.
        max_tokens = model.max_context_tokens - min(request.sampling.max_new_tokens, model.max_context_tokens // 2)
        sequence.num_dropped_turns = num_turns_to_drop(
            request.turns,
            lambda num: self._num_tokens(request.system_prompt, request.turns[num:]),
            max_tokens=max_tokens,
        )
        turns = request.turns[sequence.num_dropped_turns :]
        if model.takes_pictures:
            return [model.encode_with_pictures(request.system_prompt, turns)], (1.0,), []
        contexts = self._fuse(sequence, turns)
        pieces = model.prompts.write(request.system_prompt, turns, places=contexts)
        shares = contexts[max(contexts)].shares if contexts else (1.0,)
        answered = contexts.get(len(turns) - 1)
        steering = answered.steering if answered is not None else ()
        prompts = [
            model.encode(
                pieces,
                [contexts[place].prefixes[number] for place in pieces.places],
                steering=steering[number] if steering else None,
            )
            for number in range(len(shares))
        ]
        return prompts, shares, _position_keys(pieces, contexts, sequence, turns)

    def _num_tokens(self, system_prompt: str, turns: tuple[Turn, ...]) -> int:
        """How long the prompt would be, at most."""
        model = self._language_model
        if model.takes_pictures:
            return model.encode_with_pictures(system_prompt, turns).num_tokens
        num_prefix_tokens = self._fuser.num_prefix_tokens if self._fuser is not None else 0
        num_user_turns = sum(turn.role is Role.USER for turn in turns)
        return model.prompts.write(system_prompt, turns).num_tokens + num_prefix_tokens * num_user_turns

    def _fuse(self, sequence: Sequence, turns: tuple[Turn, ...]) -> dict[int, FusedContext]:
        """The fused context of each user turn that has one. Those of earlier turns come from the fuser's cache."""
        if self._fuser is None:
            return {}
        persona = sequence.request.persona
        contexts = {
            index: self._fuser.fuse(persona, turn.text, turn.images)
            for index, turn in enumerate(turns)
            if turn.role is Role.USER
        }
        return {index: context for index, context in contexts.items() if context is not None}

    def _said_before(self, turns: tuple[Turn, ...]) -> set[int]:
        """Tokens of the latest replies, so that the next one does not repeat them."""
        replies = [turn.text for turn in turns if turn.role is Role.ASSISTANT][-NUM_REPLIES_NOT_TO_REPEAT:]
        return {token for text in replies for token in self._language_model.prompts.tokenise(text)}


def _mix(logits: list[Tensor], shares: tuple[float, ...]) -> Tensor:
    """Logits `(v,)` of the same prompt with several prefixes, in the proportion `shares`; one alone stays as it is."""
    if len(logits) == 1:
        return logits[0]
    return sum((share * one for share, one in zip(shares[1:], logits[1:], strict=True)), shares[0] * logits[0])


def _position_keys(
    pieces: TokenPieces, contexts: dict[int, FusedContext], sequence: Sequence, turns: tuple[Turn, ...]
) -> list[object]:
    """Token ids; at a fused position everything that it was made from, and its place in the prefix."""
    keys: list[object] = list(pieces.pieces[0])
    for place, piece in zip(pieces.places, pieces.pieces[1:], strict=True):
        turn = turns[place]
        digests = tuple(image.digest for image in turn.images)
        origin: Key = (sequence.request.persona.digest(), turn.text, digests)
        keys += [(*origin, index) for index in range(len(contexts[place].prefix))]
        keys += piece
    return keys


def _out_of_memory() -> DeviceError:
    return DeviceError(
        "the device ran out of memory in the middle of a reply: lower engine.max_context_tokens, name a smaller model "
        'as engine.decoder, or set engine.dtype = "bfloat16"'
    )
