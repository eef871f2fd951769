"""The generation loop: schedule, run, postprocess.

A step asks the scheduler what is to be computed, has a runtime compute it in one call, and makes a token of each row of
logits. Owns what a running sequence needs on the device. Knows neither threads nor asyncio; `engine.service` calls
`step` again and again on the engine's one thread.
"""

import logging
import time
from collections.abc import Iterator
from collections.abc import Sequence as SequenceOf
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.decoder.language_model import LanguageModel
from engine.decoder.seen import positions_after
from engine.device import is_out_of_memory
from engine.errors import DeviceError, EngineBusy, EngineError, PromptTooLong, RequestError
from engine.fusion.types import TurnFuser
from engine.generation.blocks import BlockPool, Lane
from engine.generation.processors import LogitsProcessor, MakeProcessors, no_processors
from engine.generation.prompts import Prompt, PromptMaker
from engine.generation.sampler import Sampler, choose_all, no_numbers
from engine.generation.scheduler import MAX_RUNNING, Scheduler, StepBudget, Work
from engine.generation.sequence import Sequence
from engine.generation.text import ReplyText
from engine.runtime.types import Runtime, Span
from engine.types import EngineLoad, FinishReason, ReplyChunk, TokenMeasure

logger = logging.getLogger(__name__)

# Preparing a prompt may mean looking at pictures; a step that begins a reply takes no longer for it than this.
MAX_PREPARATION_S = 0.05
WHOLE = StepBudget(mixed=1 << 30, reading=1 << 30, alone=1 << 30)


@dataclass(slots=True)
class _Running:
    """What a sequence holds between two steps. `embeddings[j]: (n, d_lm)` is the prompt of its lane `j`; `num_known` is
    how many prompts had been read when what is known of this one was looked up."""

    prompt: Prompt
    embeddings: list[Tensor]
    sampler: Sampler
    processors: SequenceOf[LogitsProcessor]
    text: ReplyText
    max_new_tokens: int
    max_duration_s: float
    deadline: float = 0.0
    num_known: int = 0
    new_tokens: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Counts:
    """What has been done since the start."""

    num_replies: int = 0
    num_failures: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_new_tokens: int = 0
    num_steps: int = 0


class GenerationLoop:
    """Serves sequences side by side."""

    def __init__(
        self,
        language_model: LanguageModel,
        runtime: Runtime,
        fuser: TurnFuser | None = None,
        *,
        max_running: int = MAX_RUNNING,
        max_wait_s: float = 300.0,
        max_reply_s: float = 300.0,
        budget: StepBudget | None = None,
        make_processors: MakeProcessors = no_processors,
    ) -> None:
        self._language_model = language_model
        self._runtime = runtime
        self._fuser = fuser if language_model.takes_prefix else None
        budget = (budget or StepBudget()) if runtime.is_paged else WHOLE
        self._scheduler = Scheduler(max_running=max_running, max_wait_s=max_wait_s, budget=budget)
        self._pool = BlockPool(num_blocks=runtime.num_blocks, block_size=runtime.block_size, remembers=runtime.is_paged)
        self._prompts = PromptMaker(
            language_model,
            self._fuser,
            max_tokens=min(language_model.max_context_tokens, self._num_positions),
            sees_ahead=runtime.is_paged,
        )
        self._max_reply_s = max_reply_s
        self._make_processors = make_processors
        self._prepared: dict[Sequence, _Running] = {}
        self._running: dict[Sequence, _Running] = {}
        self._most_together = self._max_together = max_running
        self._num_read = 0
        self._counts = _Counts()

    @property
    def language_model(self) -> LanguageModel:
        """What it decodes with, for work beside replies."""
        return self._language_model

    @property
    def fuser(self) -> TurnFuser | None:
        """What makes prefixes, if anything does."""
        return self._fuser

    @property
    def runtime(self) -> Runtime:
        """What computes its steps."""
        return self._runtime

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return self._scheduler.has_work

    @property
    def _num_positions(self) -> int:
        return self._runtime.num_blocks * self._runtime.block_size

    def add(self, sequence: Sequence) -> None:
        """Let `sequence` wait for its turn."""
        self._scheduler.add(sequence)

    def load(self) -> EngineLoad:
        """How busy it is."""
        counts, model = self._counts, self._language_model
        num_used = self._runtime.num_blocks - self._pool.num_free
        return EngineLoad(
            num_running=len(self._scheduler.running),
            num_waiting=len(self._scheduler.queue),
            num_replies=counts.num_replies,
            num_failures=counts.num_failures,
            num_prompt_tokens=counts.num_prompt_tokens,
            num_cached_tokens=counts.num_cached_tokens,
            num_new_tokens=counts.num_new_tokens,
            num_steps=counts.num_steps,
            kv_used=num_used / self._runtime.num_blocks,
            device=f"{model.device.type} ({self._runtime.name}, {str(model.dtype).removeprefix('torch.')})",
        )

    def measure(self) -> TokenMeasure:
        """What texts cost here, to be asked from any thread."""
        return self._prompts.measure()

    @torch.inference_mode()
    def step(self) -> None:
        """Let in who may begin, and compute the next token, or the next part of the prompt, of everybody who runs.

        A sequence whose own part fails is told why, and the others go on.
        """
        now = time.monotonic()
        self._let_go(now)
        self._let_in(now)
        self._look_again()
        works, began_at = self._scheduler.schedule(), time.monotonic()
        for batch in self._batches(works):
            for computed, logits in self._compute(batch):
                self._advance(computed, logits)
        self._scheduler.note_step(works, time.monotonic() - began_at)
        self._counts.num_steps += 1
        self._scheduler.queue.tell(time.monotonic())

    def fail_all(self, error: EngineError) -> None:
        """Tell everybody who waits or runs that there will be no reply."""
        for sequence in self._scheduler.clear():
            self._release(sequence)
            sequence.emit(type(error)(str(error)))

    def cancel_all(self) -> None:
        """End every reply where it is."""
        for sequence in self._scheduler.clear():
            self._release(sequence)
            sequence.finish(FinishReason.CANCELLED, "", now=time.monotonic())

    # --- who runs

    def _let_go(self, now: float) -> None:
        """Those whom nobody wants any more, and those who have waited for too long."""
        for sequence in self._scheduler.remove_cancelled():
            self._release(sequence)
            sequence.finish(FinishReason.CANCELLED, "", now=now)
        for sequence in self._scheduler.remove_expired(now):
            self._release(sequence)
            sequence.emit(EngineBusy("this reply has waited for too long: try again when less is going on"))

    def _let_in(self, now: float) -> None:
        """Begin replies while there are places and memory, and while it takes no time that others wait for."""
        while not self._scheduler.has_enough_to_read and (sequence := self._scheduler.next(now)) is not None:
            try:
                if sequence not in self._prepared:
                    self._prepared[sequence] = self._prepare(sequence)
                running = self._prepared[sequence]
                if not self._open(sequence, running):
                    return
            except Exception as error:  # noqa: BLE001 - the boundary: one sequence's failure is told to its caller
                self._fail(sequence, error)
                continue
            del self._prepared[sequence]
            self._running[sequence] = running
            self._scheduler.admit(sequence, time.monotonic())
            running.deadline = time.monotonic() + running.max_duration_s
            if time.monotonic() - now > MAX_PREPARATION_S:
                return

    def _prepare(self, sequence: Sequence) -> _Running:
        """Fuse, and make the prompt."""
        request, model = sequence.request, self._language_model
        max_duration_s = request.sampling.max_duration_s
        if request.adapter is not None:
            raise RequestError(
                f"there is no adapter {request.adapter!r} here: this engine has the one of engine.decoder_adapter in "
                "its weights. Leave the name out, or use a vLLM server that knows it"
            )
        prompt = self._prompts.make(request)
        sequence.num_dropped_turns = prompt.num_dropped_turns
        sequence.num_prompt_tokens = prompt.num_tokens
        sequence.has_fused_prefix = prompt.has_prefix
        sequence.lanes = [Lane(list(keys)) for keys in prompt.keys]
        sampler = Sampler(
            request.sampling,
            vocab_size=model.vocab_size,
            device=model.device,
            penalised_ids=prompt.said_before,
            exempt_ids=model.end_token_ids,
        )
        return _Running(
            prompt,
            [
                model.embedded(one) if self._runtime.is_paged else torch.empty(one.num_tokens, 0)
                for one in prompt.encoded
            ],
            sampler,
            self._make_processors(request),
            ReplyText(model.tokenizer.backend_tokenizer, stop=request.sampling.stop, reply_start=request.reply_start),
            min(request.sampling.max_new_tokens, self._room_for(prompt)),
            self._max_reply_s if max_duration_s is None else min(max_duration_s, self._max_reply_s),
        )

    def _room_for(self, prompt: Prompt) -> int:
        """How long a reply to `prompt` may be, which stands in the cache once for each of its versions."""
        num_versions = len(prompt.encoded)
        num_positions = self._runtime.num_blocks // num_versions * self._runtime.block_size
        room = min(self._prompts.max_tokens, num_positions) - prompt.num_tokens
        if room <= 0:
            raise PromptTooLong(
                f"this message is read in {num_versions} versions, and the cache has no room for them: write a shorter "
                "one, or raise engine.kv_cache_mb"
            )
        return room

    def _open(self, sequence: Sequence, running: _Running) -> bool:
        """Room in the cache for prompt and reply, with what is known of the prompt; false where there is none now."""
        num_positions = running.prompt.num_tokens + running.max_new_tokens
        # What differs in its prefix only would be found in parts of different length, and has to move in step.
        is_fresh = sequence.is_alone or len(sequence.lanes) > 1
        # Before the first of several lanes drives out what is remembered, for nothing.
        if is_fresh and self._pool.num_blocks_for(num_positions) * len(sequence.lanes) > self._pool.num_free:
            return False
        for lane in sequence.lanes:
            found = self._pool.open(lane, num_positions=num_positions, is_fresh=is_fresh)
            if found is None:
                self._close(sequence)
                return False
            if found.partial is not None:
                self._runtime.copy_block(found.partial, lane.blocks[len(found.blocks)])
        sequence.num_cached_tokens = sequence.lanes[0].num_computed
        running.num_known = self._num_read
        return True

    def _look_again(self) -> None:
        """Somebody may have read more of a prompt's beginning than its own reader, since it was let in."""
        for sequence, running in list(self._running.items()):
            is_reading = sequence.is_prefilling and not sequence.is_alone and len(sequence.lanes) == 1
            if not is_reading or running.num_known == self._num_read:
                continue
            running.num_known = self._num_read
            (lane,) = sequence.lanes
            if self._pool.num_known(lane) >= lane.num_computed + self._runtime.block_size:
                with self._told_to(sequence):
                    self._close(sequence)
                    self._open(sequence, running)

    # --- what is computed

    def _batches(self, works: list[Work]) -> Iterator[list[Work]]:
        """The calls of a step: everybody in one, in several where memory has proved to be short. Who has to be alone
        is, and so is everybody where a call packs nothing: such a call could not be repeated in parts."""
        most = self._max_together  # which changes while the calls are made
        together = [work for work in works if self._runtime.is_paged and not work.sequence.is_alone]
        for start in range(0, len(together), most):
            yield together[start : start + most]
        yield from ([work] for work in works if work.sequence.is_alone or not self._runtime.is_paged)

    def _compute(self, batch: list[Work]) -> list[tuple[list[Work], Tensor]]:
        """Run a call: its works, and a row of logits `(v,)` for each that has some. Of a call that fails, each half is
        tried again by itself, down to the one sequence that is at fault."""
        if not batch:
            return []
        try:
            spans = self._spans(batch)
            logits = self._runtime.run([span for of_one in spans for span in of_one])
            if any(len(of_one) > 1 for of_one in spans):
                logits = self._mixed(batch, logits)
            return [(batch, logits)]
        except Exception as error:  # noqa: BLE001 - the boundary: whoever it is about is told
            if is_out_of_memory(error):
                self._pool.forget()
                self._max_together = max(1, len(batch) // 2)
            if len(batch) == 1:
                self._fail(batch[0].sequence, error)
                return []
            logger.warning("a step of %d replies failed (%s); trying them apart", len(batch), type(error).__name__)
            half = len(batch) // 2
            # What the first half computed has to outlast the second.
            first = [(computed, logits.clone()) for computed, logits in self._compute(batch[:half])]
            return [*first, *self._compute(batch[half:])]

    def _spans(self, batch: list[Work]) -> list[list[Span]]:
        """What each lane of each sequence has to compute."""
        tokens = [self._running[work.sequence].new_tokens[-1:] for work in batch]
        newest = iter(self._language_model.embed([token for one in tokens for token in one]))
        return [
            [self._span(work, number, embedding) for number in range(len(work.sequence.lanes))]
            for work, token in zip(batch, tokens, strict=True)
            for embedding in [next(newest) if token else None]
        ]

    def _span(self, work: Work, number: int, newest: Tensor | None) -> Span:
        """Of lane `number`: the newest token, whose embedding is `newest: (d_lm,)`, or a part of the prompt."""
        running = self._running[work.sequence]
        lane, prompt = work.sequence.lanes[number], running.prompt.encoded[number]
        start = lane.num_computed
        if newest is not None:
            positions = positions_after(prompt, start)
            return Span(lane, start, newest[None], True, prompt.steering, positions, token_id=running.new_tokens[-1])
        end = start + work.num_tokens
        positions = None if prompt.positions is None else prompt.positions[..., start:end]
        embeddings = running.embeddings[number][start:end]
        return Span(lane, start, embeddings, work.has_logits, prompt.steering, positions, prompt=prompt)

    def _mixed(self, batch: list[Work], logits: Tensor) -> Tensor:
        """A row for each sequence, of the rows for each lane `(s, v)`."""
        rows = iter(logits)
        wanted = [work.sequence for work in batch if work.has_logits]
        mixed = [_mix([next(rows) for _ in one.lanes], self._running[one].prompt.shares) for one in wanted]
        return torch.stack(mixed) if mixed else logits

    def _advance(self, computed: list[Work], logits: Tensor) -> None:
        """What was computed stands in the cache; choose the next tokens where there are logits, `(s, v)`."""
        for work in computed:
            for lane in work.sequence.lanes:
                lane.num_computed += work.num_tokens
        sequences = [work.sequence for work in computed if work.has_logits]
        for sequence, row in zip(sequences, logits, strict=True):
            with self._told_to(sequence):
                self._process(sequence, row)
        if len(going_on := [number for number, one in enumerate(sequences) if one in self._running]) < len(sequences):
            logits = logits[going_on]
        sequences = [sequences[number] for number in going_on]
        try:
            chosen = choose_all([self._running[one].sampler for one in sequences], logits)
        except Exception as error:  # noqa: BLE001 - the boundary: penalised twice, a second try would choose otherwise
            for sequence in sequences:
                self._fail(sequence, error)
            return
        for sequence, token_id in zip(sequences, chosen, strict=True):
            with self._told_to(sequence):
                if token_id is None:
                    raise no_numbers()
                self._add(sequence, token_id)

    def _process(self, sequence: Sequence, row: Tensor) -> None:
        running = self._running[sequence]
        for process in running.processors:
            row.copy_(process(row, running.new_tokens))

    def _add(self, sequence: Sequence, token_id: int) -> None:
        # Only now: a prompt that gave no numbers would spoil every later one that begins alike.
        for lane in sequence.lanes:
            self._pool.remember(lane)
            lane.keys.append(token_id)
        running = self._running[sequence]
        running.new_tokens.append(token_id)
        self._show(sequence, running, token_id)

    @contextmanager
    def _told_to(self, sequence: Sequence) -> Iterator[None]:
        """The boundary: one sequence's failure is told to its caller, and the others go on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001
            self._fail(sequence, error)

    def _show(self, sequence: Sequence, running: _Running, token_id: int) -> None:
        """Hand out what the newest token makes readable, and end the reply where it ends."""
        now = time.monotonic()
        if sequence.first_token_at is None:
            sequence.first_token_at = now
            self._num_read += 1
            self._counts.num_prompt_tokens += sequence.num_prompt_tokens
            self._counts.num_cached_tokens += sequence.num_cached_tokens
        if token_id in self._language_model.end_token_ids:
            self._finish(sequence, FinishReason.STOP, running.text.finish(), now)
            return
        sequence.num_new_tokens += 1
        self._counts.num_new_tokens += 1
        text = running.text.add(token_id)
        if running.text.is_stopped:
            self._finish(sequence, FinishReason.STOP, text, now)
        elif sequence.num_new_tokens >= running.max_new_tokens:
            self._finish(sequence, FinishReason.LENGTH, text + running.text.finish(), now)
        elif now > running.deadline:
            self._finish(sequence, FinishReason.TIME, text + running.text.finish(), now)
        elif text:
            sequence.emit(ReplyChunk(text))

    def _finish(self, sequence: Sequence, reason: FinishReason, text: str, now: float) -> None:
        self._scheduler.remove(sequence, now)
        for lane in sequence.lanes:
            self._pool.remember(lane, is_ended=True)
        self._release(sequence)
        self._counts.num_replies += 1
        self._max_together = min(self._max_together + 1, self._most_together)
        sequence.finish(reason, text, now=now)

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        self._scheduler.remove(sequence)
        self._release(sequence)
        self._counts.num_failures += 1
        if is_out_of_memory(error):
            sequence.emit(_out_of_memory())
        elif isinstance(error, EngineError):
            sequence.emit(error)
        else:
            logger.error("a reply failed", exc_info=error)
            failure = EngineError(f"the engine failed on this reply ({type(error).__name__}); the log says more")
            failure.__cause__ = error
            sequence.emit(failure)

    def _release(self, sequence: Sequence) -> None:
        """Give back all that it holds, whatever it has come to."""
        self._prepared.pop(sequence, None)
        self._running.pop(sequence, None)
        self._close(sequence)

    def _close(self, sequence: Sequence) -> None:
        for lane in sequence.lanes:
            self._pool.close(lane)
            self._runtime.release(lane)


def _mix(logits: list[Tensor], shares: tuple[float, ...]) -> Tensor:
    """Logits `(v,)` of the same prompt with several prefixes, in the proportion `shares`; one alone stays as it is."""
    if len(logits) == 1:
        return logits[0]
    return sum((share * one for share, one in zip(shares[1:], logits[1:], strict=True)), shares[0] * logits[0])


def _out_of_memory() -> DeviceError:
    return DeviceError(
        "the device ran out of memory in the middle of a reply: lower engine.kv_cache_mb or engine.max_running, name a "
        'smaller model as engine.decoder, or set engine.dtype = "bfloat16"'
    )
