"""What is particular about computing by OpenVINO: formats, far positions, what it refuses."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.device import num_physical_cores
from engine.runtime.types import Runtime, Unsupported
from tests.engine.runtime.tiny import (
    MAX_POSITIONS,
    NUM_THREADS,
    a_language_model,
    a_model,
    an_openvino_runtime,
    by_itself,
    by_runtime,
    some_sequences,
)

pytest.importorskip("openvino")

from engine.runtime.openvino_export import Export, export

MODEL = a_language_model("llama")


def divergence(expected: Tensor, found: Tensor) -> float:
    """The largest of all rows `(n, v)`, in nats."""
    p, q = expected.log_softmax(-1), found.log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).max())


def largest_divergence(runtime: Runtime, lengths: tuple[int, ...]) -> float:
    """From what the model computes in float32."""
    everybody = some_sequences(MODEL, lengths, num_chosen=6)
    found = by_runtime(runtime, MODEL, everybody)
    return max(divergence(by_itself(MODEL, told), rows) for rows, told in zip(found, everybody, strict=True))


@pytest.mark.skipif(num_physical_cores() < NUM_THREADS, reason="OpenVINO computes bfloat16 on two threads and more")
def test_far_positions_are_right_in_bfloat16() -> None:
    """bfloat16 has eight bits: beyond 256 it knows even positions only, and the angles of one in two would be wrong."""
    runtime = an_openvino_runtime("llama", torch.bfloat16)
    assert largest_divergence(runtime, (450, 301)) < 3 * largest_divergence(runtime, (60, 61)) < 0.05


def test_eight_bits_diverge_a_little() -> None:
    found = largest_divergence(an_openvino_runtime("llama", is_int8=True), (60, 33))
    assert 1e-6 < found < 0.02


def test_every_product_is_kept_in_eight_bits() -> None:
    assert export(a_model("llama"), max_positions=MAX_POSITIONS).quantise() == 2 * 7 + 1


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    exported = export(a_model("mistral, sliding"), max_positions=MAX_POSITIONS)
    exported.save(tmp_path / "folder" / "model.xml")
    loaded = Export.load(tmp_path / "folder" / "model.xml")
    assert (loaded.shape, loaded.layers) == (exported.shape, exported.layers)
    assert {layer.window for layer in loaded.layers} == {24}


def test_positions_that_change_with_the_length_are_refused() -> None:
    with pytest.raises(Unsupported, match="dynamic"):
        export(a_model("llama, dynamic rope"), max_positions=MAX_POSITIONS)


def test_nobody_is_told_of_conversions() -> None:
    from openvino.tools.ovc import telemetry_stub, telemetry_utils

    assert telemetry_utils.tm is telemetry_stub
