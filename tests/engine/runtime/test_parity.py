"""Runtimes compute what the model computes by itself, however sequences are packed, cut and ordered."""

import pytest

from engine.decoder.language_model import LanguageModel
from engine.runtime.paged import PagedRuntime
from engine.runtime.types import Runtime, Unsupported
from tests.engine.runtime.tiny import (
    NUM_BLOCKS,
    a_language_model,
    a_model,
    a_torch_runtime,
    an_openvino_runtime,
    by_itself,
    by_runtime,
    some_sequences,
)
from tests.engine.tiny import tiny_tokenizer

PACKABLE = ("llama", "qwen2", "qwen3", "mistral, sliding", "gemma3, sliding", "gpt-neox", "opt", "llama, dynamic rope")
EXPORTABLE = ("llama", "qwen2", "qwen3", "mistral, sliding", "gemma3, sliding", "gpt-neox")
LENGTHS = (1, 33, 70, 5, 150)
FLOAT32 = 2e-3


def largest_difference(runtime: Runtime, name: str, *, seed: int) -> float:
    model = a_language_model(name)
    everybody = some_sequences(model, LENGTHS, seed=seed)
    found = by_runtime(runtime, model, everybody, seed=seed)
    return max(float((rows - by_itself(model, told)).abs().max()) for rows, told in zip(found, everybody, strict=True))


@pytest.mark.parametrize("name", PACKABLE)
def test_packed_calls_compute_what_the_model_computes(name: str) -> None:
    runtime = a_torch_runtime(name)
    for seed in range(3):
        assert largest_difference(runtime, name, seed=seed) < FLOAT32


@pytest.mark.parametrize("name", ["llama", "mistral, sliding", "gpt-neox"])
def test_padded_decode_steps_compute_what_the_model_computes(name: str) -> None:
    """As they are recorded where the device has graphs."""
    runtime = a_torch_runtime(name)
    runtime.use_graphs()
    for seed in range(3):
        assert largest_difference(runtime, name, seed=seed) < FLOAT32


@pytest.mark.parametrize("name", EXPORTABLE)
def test_openvino_computes_what_the_model_computes(name: str) -> None:
    runtime = an_openvino_runtime(name)
    for seed in range(3):
        assert largest_difference(runtime, name, seed=seed) < FLOAT32


def test_positions_that_change_with_the_length_are_not_packed() -> None:
    """A short conversation would be told other positions beside a long one than alone."""
    with pytest.raises(Unsupported, match=r"beyond 64: engine\.max_context_tokens = 64"):
        a_torch_runtime("phi3, long rope")
    short = LanguageModel(a_model("phi3, long rope"), tiny_tokenizer(), name="phi3", max_context_tokens=64)
    PagedRuntime(short, num_blocks=NUM_BLOCKS)
