"""Packed layers against plain ones."""

import pytest
import torch
from torch import nn

from engine.decoder.packing import PackedLinear, can_pack, pack_linear_layers
from tests.engine.tiny import tiny_llama

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"), reason="this torch was built without oneDNN"
)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 64), (1, 7, 64), (2, 40, 64)])
def test_a_packed_layer_computes_the_same(has_bias: bool, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 96, bias=has_bias).to(torch.bfloat16)
    inputs = torch.randn(shape).to(torch.bfloat16)
    with torch.inference_mode():
        torch.testing.assert_close(PackedLinear(linear)(inputs), linear(inputs), atol=2e-2, rtol=2e-2)


def test_a_packed_backbone_computes_the_same() -> None:
    plain, packed = (tiny_llama().to(torch.bfloat16) for _ in range(2))
    assert pack_linear_layers(packed) == 2 * 7 + 1
    ids = torch.tensor([[1, 50, 60, 70, 80]])
    with torch.inference_mode():
        expected, got = plain(ids).logits, packed(ids).logits
    torch.testing.assert_close(got, expected, atol=5e-2, rtol=5e-2)
    assert packed.get_input_embeddings().weight.equal(plain.get_input_embeddings().weight)


def test_only_bfloat16_of_a_known_family_is_packed() -> None:
    assert not can_pack(tiny_llama())
    model = tiny_llama().to(torch.bfloat16)
    assert can_pack(model) == torch.backends.mkldnn.is_available()
    model.config.model_type = "unheard-of"
    assert not can_pack(model)


@pytest.mark.parametrize("has_bias", [True, False])
def test_a_packed_layer_passes_its_inputs_gradient_on(has_bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 96, bias=has_bias).to(torch.bfloat16).requires_grad_(False)
    plain = torch.randn(2, 7, 64).to(torch.bfloat16).requires_grad_()
    packed = plain.detach().clone().requires_grad_()
    above = torch.randn(2, 7, 96).to(torch.bfloat16)
    (linear(plain) * above).sum().backward()
    (PackedLinear(linear)(packed) * above).sum().backward()
    assert packed.grad is not None
    torch.testing.assert_close(packed.grad, plain.grad, atol=2e-2, rtol=2e-2)
