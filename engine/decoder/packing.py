"""Linear layers whose bfloat16 weights are laid out once for the CPU's matrix units.

Owns the layout. Knows nothing of what is computed. torch lays a plain weight out anew in every call; for the single row
of a decode step that costs more than the product. A step's numbers are the same bit for bit, those of many rows up to
rounding. For inference: a packed layer passes a gradient on to its inputs, slowly, and has none of its own, so training
loads its model without.
"""

from typing import Any

import torch
from torch import Tensor, nn

# Model families that only ever call their linear layers; others may look at the weights, which are gone after this.
PACKABLE_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3", "smollm3"})


class PackedLinear(nn.Module):
    """`nn.Linear` with a packed weight. `(…, d_in)` to `(…, d_out)`."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), 1)
        self._bias = linear.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """`inputs: (…, d_in)`."""
        if torch.is_grad_enabled() and inputs.requires_grad:
            passed: Tensor = _WithGradient.apply(inputs, self._packed, self._bias)  # type: ignore[no-untyped-call]
            return passed
        return _product(inputs, self._packed, self._bias)


class _WithGradient(torch.autograd.Function):
    """The packed product, with the gradient of its inputs: the weight is laid out plainly again for as long as that
    takes."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ANN401 - torch's own
        """As without a gradient."""
        ctx.packed = packed
        return _product(inputs, packed, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401 - torch's own
        """`(…, d_out)` to `(…, d_in)`."""
        return gradients[0] @ ctx.packed.to_dense(), None, None


def _product(inputs: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    output: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, packed, bias, "none", [], "")
    return output


def can_pack(model: Any) -> bool:  # noqa: ANN401 - whatever transformers has built
    """Whether packing is known to help: bfloat16 on a CPU, a family that allows it, and a torch that has it."""
    return (
        model.device.type == "cpu"
        and model.dtype is torch.bfloat16
        and model.config.model_type in PACKABLE_TYPES
        and "quantization_config" not in model.config.to_dict()
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


@torch.no_grad()
def pack_linear_layers(module: nn.Module) -> int:
    """Replace every linear layer below `module`, and give their number."""
    num_packed = 0
    for name, child in list(module.named_children()):
        if type(child) is nn.Linear:
            setattr(module, name, PackedLinear(child))
            num_packed += 1
        else:
            num_packed += pack_linear_layers(child)
    return num_packed
