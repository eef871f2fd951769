"""Plain loops over single tokens and numbers, against which the fusions are held."""

import math

import torch
from torch import Tensor, nn

from engine.fusion.streams import STREAMS, Stream

WIDTH, NUM_HEADS = 8, 2
DOUBLE = torch.float64

# Weights of each row's tokens, for everything that a batch can hold.
CASES: dict[str, dict[str, list[list[float]]]] = {
    "all there": {"image": [[1, 1, 1]], "text": [[1, 1]], "persona": [[1]]},
    "weighted concepts": {"image": [[1, 0.7, 0.05]], "text": [[1, 1]], "persona": [[1, 1]]},
    "no picture": {"image": [[]], "text": [[1, 1]], "persona": [[1, 1]]},
    "no words": {"image": [[1, 1]], "text": [[]], "persona": [[1, 1]]},
    "no persona": {"image": [[1, 1]], "text": [[1, 1, 1]], "persona": [[]]},
    "only a persona": {"image": [[]], "text": [[]], "persona": [[1, 1]]},
    "several pictures": {"image": [[1] * 7], "text": [[1]], "persona": [[1, 1, 1]]},
    "a padded batch, one without a picture": {
        "image": [[1, 1, 0.5], [0, 0, 0], [1, 0, 0]],
        "text": [[1, 1], [1, 0], [0, 0]],
        "persona": [[1, 1], [1, 1], [1, 0]],
    },
}


def streams_of(sizes: dict[str, list[list[float]]], *, seed: int = 0) -> dict[str, Stream]:
    """Random tokens; `sizes[stream]` are the weights of each row of the batch."""
    torch.manual_seed(seed)
    made = {}
    for name in STREAMS:
        weights = torch.tensor(sizes[name], dtype=DOUBLE)
        made[name] = Stream(torch.randn(*weights.shape, WIDTH, dtype=DOUBLE), weights)
    return made


def randomise(module: nn.Module, *, seed: int = 0) -> nn.Module:
    """Float64, and every parameter away from its start."""
    torch.manual_seed(seed)
    module = module.double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def layer_norm(row: Tensor, norm: nn.LayerNorm) -> Tensor:
    """One token."""
    mean = sum(row) / len(row)
    variance = sum((x - mean) ** 2 for x in row) / len(row)
    return torch.stack([(x - mean) / math.sqrt(variance + norm.eps) for x in row]) * norm.weight + norm.bias


def attend(query: Tensor, keys: dict[int, Tensor], values: dict[int, Tensor], weights: Tensor, heads: int) -> Tensor:
    """One query over the keys that are there, head by head; nothing where there is none."""
    size = WIDTH // heads
    seen = torch.zeros(WIDTH, dtype=DOUBLE)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        amounts = {j: float(weights[j]) * math.exp(float(query[part] @ keys[j][part]) / math.sqrt(size)) for j in keys}
        for j in keys:
            seen[part] += amounts[j] / sum(amounts.values()) * values[j][part]
    return seen


def there(stream: Stream, row: int) -> list[int]:
    """Tokens of one row that are not padding."""
    return [j for j in range(stream.weights.shape[1]) if stream.weights[row, j] > 0]
