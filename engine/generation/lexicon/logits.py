"""What is done with a whole row of logits, once a token.

On a CPU by numpy: torch would wake all its threads for it, and wait for the slowest. Shapes: `v` vocabulary.
"""

import torch
from torch import Tensor


def copied(logits: Tensor) -> Tensor:
    """Another `(v,)` with the same values."""
    return torch.from_numpy(logits.numpy().copy()) if logits.device.type == "cpu" else logits.clone()


def highest(logits: Tensor) -> Tensor:
    """The highest of `(v,)`, `()`."""
    return torch.as_tensor(logits.numpy().max()) if logits.device.type == "cpu" else logits.max()
