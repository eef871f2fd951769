"""Runtimes compute what the model computes by itself, however sequences are packed, cut and ordered."""

import pytest

from engine.runtime.types import Runtime
from tests.engine.runtime.tiny import (
    a_language_model,
    a_torch_runtime,
    an_openvino_runtime,
    by_itself,
    by_runtime,
    some_sequences,
)

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
