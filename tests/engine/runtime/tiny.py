"""Tiny random decoders of several architectures, and calls of a runtime beside what the model computes by itself."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from engine.decoder.language_model import LanguageModel
from engine.decoder.prompt import TokenPieces
from engine.generation.blocks import Lane
from engine.runtime.paged import PagedRuntime
from engine.runtime.types import Runtime, Span
from tests.engine.tiny import tiny_tokenizer

NUM_BLOCKS = 64
MAX_POSITIONS = 512
# With one alone, OpenVINO dies of bfloat16 on a CPU with AMX.
NUM_THREADS = 2
WINDOW = 24
SIZES = {
    "vocab_size": 260,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": MAX_POSITIONS,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
SHARED_HEADS = {**SIZES, "num_key_value_heads": 2, "head_dim": 16}
LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [8.0] * 4,
    "original_max_position_embeddings": 64,
    "factor": 8.0,
}
DYNAMIC_ROPE = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}

MAKERS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHARED_HEADS)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**{**SHARED_HEADS, "head_dim": 8})),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHARED_HEADS)),
    "mistral, sliding": lambda: MistralForCausalLM(MistralConfig(**SHARED_HEADS, sliding_window=WINDOW)),
    "gemma3, sliding": lambda: Gemma3ForCausalLM(
        Gemma3TextConfig(**SHARED_HEADS, sliding_window=WINDOW, layer_types=["sliding_attention", "full_attention"])
    ),
    "gpt-neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES)),
    "opt": lambda: OPTForCausalLM(OPTConfig(**SIZES, ffn_dim=64, word_embed_proj_dim=32)),
    "phi3, long rope": lambda: Phi3ForCausalLM(
        Phi3Config(**SIZES, num_key_value_heads=2, original_max_position_embeddings=64, rope_parameters=LONG_ROPE)
    ),
    "llama, dynamic rope": lambda: LlamaForCausalLM(LlamaConfig(**SHARED_HEADS, rope_parameters=DYNAMIC_ROPE)),
}


def a_model(name: str) -> PreTrainedModel:
    """Always the same weights, large enough that its predictions differ."""
    torch.manual_seed(0)
    model = MAKERS[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    return model.train(False)


@cache
def a_language_model(name: str, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """The model as the engine sees it."""
    return LanguageModel(a_model(name).to(dtype), tiny_tokenizer(), name=name, max_context_tokens=MAX_POSITIONS)


def an_openvino_runtime(name: str, dtype: torch.dtype = torch.float32, *, is_int8: bool = False) -> Runtime:
    """Exported in memory."""
    pytest.importorskip("openvino")
    from engine.runtime.openvino_export import export
    from engine.runtime.openvino_paged import OpenVINORuntime

    exported = export(a_model(name), max_positions=MAX_POSITIONS)
    if is_int8:
        exported.quantise()
    width = a_language_model(name).hidden_size
    return OpenVINORuntime(exported.paged(), num_blocks=NUM_BLOCKS, dtype=dtype, num_threads=NUM_THREADS, width=width)


def a_torch_runtime(name: str, dtype: torch.dtype = torch.float32) -> PagedRuntime:
    return PagedRuntime(a_language_model(name, dtype), num_blocks=NUM_BLOCKS)


@dataclass
class Told:
    """A sequence whose tokens are all given: its prompt, and what is said to have been chosen after it."""

    lane: Lane
    tokens: list[int]
    num_prompt_tokens: int
    steering: Tensor | None = None


def some_sequences(model: LanguageModel, lengths: Sequence[int], *, num_chosen: int = 3, seed: int = 0) -> list[Told]:
    """Of random tokens, in blocks that lie anywhere. Every other one is steered."""
    draw = random.Random(seed)
    free = draw.sample(range(NUM_BLOCKS), NUM_BLOCKS)
    told = []
    for number, length in enumerate(lengths):
        tokens = [draw.randrange(3, model.vocab_size) for _ in range(length + num_chosen)]
        blocks = [free.pop() for _ in range(-(-len(tokens) // 32))]
        steering = torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(number))
        told.append(Told(Lane(list(tokens), blocks), tokens, length, steering if number % 2 else None))
    return told


@torch.inference_mode()
def by_itself(model: LanguageModel, told: Told) -> Tensor:
    """The logits after the prompt and after each chosen token, `(1 + num_chosen, v)`."""
    state, num = model.new_state(), told.num_prompt_tokens
    prompt = model.encode(TokenPieces((tuple(told.tokens[:num]),)), steering=told.steering)
    return torch.stack([model.prefill(prompt, state), *(model.decode(token, state) for token in told.tokens[num:])])


@torch.inference_mode()
def by_runtime(runtime: Runtime, model: LanguageModel, everybody: Sequence[Told], *, seed: int = 0) -> list[Tensor]:
    """The same logits of each: who takes part in a call, in which order and with how much, is drawn."""
    draw, found = random.Random(seed), [[] for _ in everybody]
    while left := [
        one for one in range(len(everybody)) if everybody[one].lane.num_computed < len(everybody[one].tokens)
    ]:
        chosen = draw.sample(left, draw.randint(1, len(left)))
        spans = [_next_span(model, everybody[number], draw) for number in chosen]
        rows = iter(runtime.run(spans))
        for number, span in zip(chosen, spans, strict=True):
            everybody[number].lane.num_computed += span.num_tokens
            if span.has_logits:
                found[number].append(next(rows).clone())
        assert next(rows, None) is None
    return [torch.stack(rows) for rows in found]


def _next_span(model: LanguageModel, told: Told, draw: random.Random) -> Span:
    start = told.lane.num_computed
    num_unread = told.num_prompt_tokens - start
    num_tokens = draw.randint(1, num_unread) if num_unread > 0 else 1
    embeddings = model.embed(told.tokens[start : start + num_tokens])
    return Span(told.lane, start, embeddings, num_tokens >= num_unread, told.steering)
