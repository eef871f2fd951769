"""What tests of the loop share: a tiny model with a runtime of each kind, fake fusers, callers who collect answers."""

import time
from collections.abc import Callable, Sequence
from functools import cache

import pytest
import torch
from torch import Tensor

from engine.decoder.language_model import LanguageModel
from engine.device import num_physical_cores
from engine.errors import EngineError
from engine.fusion.types import AttentionMaps, FusedContext, TurnFuser
from engine.generation.blocks import Lane
from engine.generation.loop import GenerationLoop
from engine.generation.sequence import Sequence as Running
from engine.persona import Persona
from engine.runtime.paged import PagedRuntime
from engine.runtime.plain import PlainRuntime
from engine.runtime.types import Runtime, Span
from engine.types import GenerationRequest, Image, ReplyChunk
from tests.engine.tiny import tiny_language_model, tiny_llama

MODEL = tiny_language_model()
BFLOAT16_MODEL = tiny_language_model(dtype=torch.bfloat16, head_dim=32)
# With one alone, OpenVINO dies of bfloat16 on a CPU with AMX.
NUM_THREADS = 2
NUM_BLOCKS = 128
KINDS = ("plain", "torch", "openvino")
PAGED_KINDS = KINDS[1:]
RED, BLUE = Image("red", b""), Image("blue", b"")
NO_ATTENTION = AttentionMaps(torch.zeros(3, 0), torch.zeros(3, 0), torch.zeros(3, 0))


@cache
def a_runtime(kind: str, model: LanguageModel = MODEL) -> Runtime:
    """One for all tests: a loop finds in its blocks what loops before it left there, and has to bear that."""
    if kind == "plain":
        return PlainRuntime(model, num_blocks=NUM_BLOCKS)
    if kind == "torch":
        return PagedRuntime(model, num_blocks=NUM_BLOCKS)
    pytest.importorskip("openvino")
    from engine.runtime.openvino_export import export
    from engine.runtime.openvino_paged import OpenVINORuntime

    if model.dtype is torch.bfloat16 and num_physical_cores() < NUM_THREADS:
        pytest.skip("OpenVINO computes bfloat16 on two threads and more")
    exported = export(tiny_llama(head_dim=model.model.config.head_dim), max_positions=model.max_context_tokens)
    return OpenVINORuntime(
        exported.paged(), num_blocks=NUM_BLOCKS, dtype=model.dtype, num_threads=NUM_THREADS, width=model.hidden_size
    )


class OneRuntime:
    """A runtime with something else about it: fewer blocks, calls that are watched, calls that go wrong."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        num_blocks: int | None = None,
        before: Callable[[Sequence[Span]], None] = lambda spans: None,
        after: Callable[[Sequence[Span], Tensor], Tensor] = lambda spans, logits: logits,
    ) -> None:
        self._runtime = runtime
        self.name, self.block_size, self.is_paged = runtime.name, runtime.block_size, runtime.is_paged
        self.num_blocks = num_blocks or runtime.num_blocks
        self.before, self.after = before, after
        self.calls: list[list[Span]] = []

    def run(self, spans: Sequence[Span]) -> Tensor:
        self.calls.append(list(spans))
        self.before(spans)
        return self.after(spans, self._runtime.run(spans))

    def copy_block(self, source: int, target: int) -> None:
        self._runtime.copy_block(source, target)

    def release(self, lane: Lane) -> None:
        self._runtime.release(lane)


def a_loop(runtime: Runtime, fuser: TurnFuser | None = None, **settings: object) -> GenerationLoop:
    """A loop of the tiny model."""
    return GenerationLoop(MODEL, runtime, fuser, **settings)


def a_prefix(seed: int) -> Tensor:
    return torch.randn(3, MODEL.hidden_size, generator=torch.Generator().manual_seed(seed))


class FakeFuser:
    """A prefix for each turn with a picture, drawn from what it is made of."""

    num_prefix_tokens = 3

    def __init__(self) -> None:
        self.fused: list[str] = []

    def fuse(self, persona: Persona, text: str, images: tuple[Image, ...]) -> FusedContext | None:
        self.fused.append(text)
        if not images:
            return None
        # No two pictures, texts or personas of these tests give the same number.
        name = "\n".join([persona.id, text, *(image.digest for image in images)])
        return FusedContext((a_prefix(int.from_bytes(name.encode()) % (2**61 - 1)),), NO_ATTENTION)


class Caller:
    """Collects what one sequence hands out."""

    def __init__(self, asked: GenerationRequest) -> None:
        self.answers: list[ReplyChunk | EngineError] = []
        self.sequence = Running(asked, self.answers.append, time.monotonic())

    @property
    def text(self) -> str:
        return "".join(answer.text for answer in self.answers if isinstance(answer, ReplyChunk))

    @property
    def last(self) -> ReplyChunk:
        last = self.answers[-1]
        assert isinstance(last, ReplyChunk), repr(last)
        return last

    @property
    def error(self) -> EngineError:
        last = self.answers[-1]
        assert isinstance(last, EngineError)
        return last

    @property
    def num_cached_tokens(self) -> int:
        assert self.last.stats is not None
        return self.last.stats.num_cached_tokens


def serve(loop: GenerationLoop, *asked: GenerationRequest) -> list[Caller]:
    """Ask all at once, and wait for the end."""
    callers = [Caller(one) for one in asked]
    for caller in callers:
        loop.add(caller.sequence)
    run(loop)
    return callers


def run(loop: GenerationLoop, max_steps: int = 2000) -> None:
    """Until nothing is left to do."""
    for _ in range(max_steps):
        if not loop.has_work:
            return
        loop.step()
    raise AssertionError("the loop does not end")
