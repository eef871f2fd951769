"""The block against a reference in plain loops and float64, with everything that a batch can hold."""

import pytest
import torch
from torch import Tensor

from engine.fusion.attention import attention_shares
from engine.fusion.coattention import CoAttention, CoAttentionLayer
from engine.fusion.streams import STREAMS, Stream
from tests.engine.fusion.references import CASES, NUM_HEADS, WIDTH, attend, layer_norm, randomise, streams_of, there


def a_layer(seed: int = 0) -> CoAttentionLayer:
    layer = CoAttentionLayer(WIDTH, num_heads=NUM_HEADS)
    randomise(layer, seed=seed)
    return layer


@torch.no_grad()
def reference(layer: CoAttentionLayer, streams: dict[str, Stream]) -> dict[str, Tensor]:
    """One token after the other, one head after the other."""
    results = {}
    for name in STREAMS:
        tokens = streams[name].tokens
        result = torch.zeros_like(tokens)
        for b in range(tokens.shape[0]):
            for i in range(tokens.shape[1]):
                query = layer.query[name](layer_norm(tokens[b, i], layer.norm[name]))
                seen = torch.zeros(WIDTH, dtype=torch.float64)
                for other in STREAMS:
                    if other == name:
                        continue
                    stream = streams[other]
                    normed = {j: layer_norm(stream.tokens[b, j], layer.norm[other]) for j in there(stream, b)}
                    keys = {j: layer.key[other](token) for j, token in normed.items()}
                    values = {j: layer.value[other](token) for j, token in normed.items()}
                    seen += attend(query, keys, values, stream.weights[b], NUM_HEADS)
                middle = tokens[b, i] + layer.output[name](seen)
                result[b, i] = middle + layer.feed_forward[name](layer_norm(middle, layer.feed_forward_norm[name]))
        results[name] = result
    return results


@pytest.mark.parametrize("case", CASES)
def test_the_block_equals_plain_loops(case: str) -> None:
    layer, streams = a_layer(), streams_of(CASES[case])
    fused = layer(streams)
    for name, expected in reference(layer, streams).items():
        assert torch.allclose(fused[name].tokens, expected, rtol=1e-9, atol=1e-9), name
        assert fused[name].weights is streams[name].weights


def test_padding_reaches_nobody() -> None:
    layer, streams = a_layer(), streams_of(CASES["a padded batch, one without a picture"])
    spoilt = {
        name: Stream(torch.where(stream.weights[..., None] > 0, stream.tokens, 1e3), stream.weights)
        for name, stream in streams.items()
    }
    for name in STREAMS:
        is_there = streams[name].weights > 0
        assert torch.allclose(layer(streams)[name].tokens[is_there], layer(spoilt)[name].tokens[is_there])


def test_a_stack_is_its_layers_in_order() -> None:
    torch.manual_seed(0)
    stack = CoAttention(WIDTH, num_layers=2, num_heads=NUM_HEADS).double()
    streams = streams_of(CASES["all there"])
    expected = stack.layers[1](stack.layers[0](streams))
    fused = stack(streams)
    assert torch.equal(fused.streams["text"].tokens, expected["text"].tokens)
    assert torch.equal(fused.tokens, torch.cat([expected[name].tokens for name in STREAMS], dim=1))


def test_gradients_stay_finite_where_a_stream_is_missing() -> None:
    layer, streams = a_layer(), streams_of(CASES["a padded batch, one without a picture"])
    sum(stream.tokens.sum() for stream in layer(streams).values()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in layer.parameters() if parameter.grad is not None)


def test_shares_sum_to_one_or_to_nothing() -> None:
    torch.manual_seed(0)
    queries, keys = torch.randn(3, 2, 4, 8), torch.randn(3, 2, 5, 8)
    weights = torch.tensor([[1.0] * 5, [0.5, 0, 0, 0.1, 0], [0.0] * 5])
    sums = attention_shares(queries, keys, weights).sum(dim=-1)
    assert torch.allclose(sums[:2], torch.ones(2, 2, 4))
    assert not sums[2].any()


def test_a_weight_multiplies_its_share() -> None:
    shares = attention_shares(torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, 3, 4), torch.tensor([[1.0, 0.5, 0.0]]))
    assert torch.allclose(shares.flatten(), torch.tensor([2 / 3, 1 / 3, 0.0]))
