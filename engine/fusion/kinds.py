"""All fusions by name. They take the same streams and have the same number of parameters, within a few hundredths, so
that what they are worth can be compared."""

from torch import nn

from engine.errors import ConfigurationError
from engine.fusion.coattention import CoAttention
from engine.fusion.oneway import CrossAttention, LateFusion
from engine.fusion.pooling import Concat, Gated, PoolingFusion, Sum, Weighted

COATTENTION, CROSS, LATE = "coattention", "cross", "late"
POOLING: dict[str, type[PoolingFusion]] = {"gated": Gated, "concat": Concat, "weighted": Weighted, "sum": Sum}
KINDS = (COATTENTION, CROSS, *POOLING, LATE)


def build_fusion(kind: str, width: int, *, num_layers: int, num_heads: int, num_paths: int = 0) -> nn.Module:
    """An untrained `Fusion`. Raises `ConfigurationError` for an unknown kind.

    `num_paths` is how many paths beside the readout choose words by attention. Pooling fusions do not choose, and get
    the two layers that each choice takes as layers of their own.
    """
    coattention = CoAttention(width, num_layers=num_layers, num_heads=num_heads)
    if kind == COATTENTION:
        return coattention
    num_parameters = sum(parameter.numel() for parameter in coattention.parameters())
    if kind == CROSS:
        return CrossAttention(width, num_layers=num_layers, num_heads=num_heads, num_parameters=num_parameters)
    if kind == LATE:
        return LateFusion(width, num_layers=num_layers, num_parameters=num_parameters)
    if kind in POOLING:
        num_parameters += num_paths * 2 * width * (width + 1)
        return POOLING[kind](width, num_layers=num_layers, num_parameters=num_parameters)
    raise ConfigurationError(f"there is no fusion {kind!r}; known are {', '.join(KINDS)}")
