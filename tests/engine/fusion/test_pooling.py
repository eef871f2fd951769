"""The pooling fusions against plain loops in float64."""

import math

import pytest
import torch
from torch import Tensor

from engine.fusion.kinds import POOLING
from engine.fusion.pooling import Concat, Gated, Pool, PoolingFusion, Sum, Weighted
from engine.fusion.streams import STREAMS, Stream
from tests.engine.fusion.references import CASES, DOUBLE, WIDTH, attend, layer_norm, randomise, streams_of, there


def a_fusion(kind: str) -> PoolingFusion:
    fusion = randomise(POOLING[kind](WIDTH, num_layers=2, num_parameters=4000))
    assert isinstance(fusion, PoolingFusion)
    return fusion


def pooled(pool: Pool, stream: Stream, row: int) -> Tensor:
    normed = {j: layer_norm(stream.tokens[row, j], pool.norm) for j in there(stream, row)}
    keys = {j: pool.key(token) for j, token in normed.items()}
    values = {j: pool.value(token) for j, token in normed.items()}
    return attend(pool.query[0, 0, 0], keys, values, stream.weights[row], 1)


def mixed(fusion: PoolingFusion, vectors: dict[str, Tensor], present: list[str]) -> Tensor:
    side_by_side = torch.cat([vectors[name] for name in STREAMS])
    match fusion:
        case Sum():
            return sum((vectors[name] for name in present), torch.zeros(WIDTH, dtype=DOUBLE))
        case Weighted():
            amounts = {name: math.exp(float(fusion.scores[STREAMS.index(name)])) for name in present}
            return sum(amounts[name] / sum(amounts.values()) * vectors[name] for name in present)
        case Concat():
            return fusion.projection(side_by_side)
        case Gated():
            gates = 1 / (1 + (-fusion.gates(side_by_side)).exp())
            total = torch.zeros(WIDTH, dtype=DOUBLE)
            for name in present:
                j = STREAMS.index(name)
                total = total + gates[j * WIDTH : (j + 1) * WIDTH] * fusion.contents[j](vectors[name]).tanh()
            return total
    raise AssertionError(type(fusion))


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", POOLING)
def test_pooling_equals_plain_loops(kind: str, case: str) -> None:
    fusion, streams = a_fusion(kind), streams_of(CASES[case])
    fused = fusion(streams)
    for row in range(len(fused.tokens)):
        vectors = {name: pooled(fusion.pools[name], streams[name], row) for name in STREAMS}
        vector = mixed(fusion, vectors, [name for name in STREAMS if there(streams[name], row)])
        for norm, layer in zip(fusion.norms, fusion.layers, strict=True):
            vector = vector + layer(layer_norm(vector, norm))
        assert torch.allclose(fused.tokens[row, 0], vector, rtol=1e-9, atol=1e-9)
        for name in STREAMS:
            told = streams[name].tokens[row] + vector
            assert torch.allclose(fused.streams[name].tokens[row], told, rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("kind", POOLING)
def test_origins_sum_to_one_and_leave_out_what_is_missing(kind: str) -> None:
    streams = streams_of(CASES["a padded batch, one without a picture"])
    fused = a_fusion(kind)(streams)
    total = sum(fused.origins[name].sum(dim=-1) for name in STREAMS)
    assert torch.allclose(total, torch.ones(3, 1, dtype=DOUBLE))
    for name in STREAMS:
        assert not fused.origins[name][:, 0][streams[name].weights == 0].any()


@pytest.mark.parametrize("kind", POOLING)
def test_gradients_stay_finite_where_a_stream_is_missing(kind: str) -> None:
    fusion = a_fusion(kind)
    fusion(streams_of(CASES["a padded batch, one without a picture"])).tokens.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in fusion.parameters() if p.grad is not None)
