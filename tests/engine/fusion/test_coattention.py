"""The block against a reference in plain loops and float64, with everything that a batch can hold."""

import math

import pytest
import torch
from torch import Tensor, nn

from engine.fusion.attention import attention_shares
from engine.fusion.coattention import CoAttention, CoAttentionLayer
from engine.fusion.streams import STREAMS, Stream

WIDTH, NUM_HEADS = 8, 2


def a_layer(seed: int = 0) -> CoAttentionLayer:
    torch.manual_seed(seed)
    layer = CoAttentionLayer(WIDTH, num_heads=NUM_HEADS).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


def streams_of(sizes: dict[str, list[list[float]]], *, seed: int = 0) -> dict[str, Stream]:
    """Random tokens; `sizes[stream]` are the weights of each row of the batch."""
    torch.manual_seed(seed)
    made = {}
    for name in STREAMS:
        weights = torch.tensor(sizes[name], dtype=torch.float64)
        made[name] = Stream(torch.randn(*weights.shape, WIDTH, dtype=torch.float64), weights)
    return made


def layer_norm(row: Tensor, norm: nn.LayerNorm) -> Tensor:
    mean = sum(row) / len(row)
    variance = sum((x - mean) ** 2 for x in row) / len(row)
    return torch.stack([(x - mean) / math.sqrt(variance + norm.eps) for x in row]) * norm.weight + norm.bias


@torch.no_grad()
def reference(layer: CoAttentionLayer, streams: dict[str, Stream]) -> dict[str, Tensor]:
    """One token after the other, one head after the other."""
    size = WIDTH // NUM_HEADS
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
                    other_tokens, weights = streams[other].tokens[b], streams[other].weights[b]
                    there = [j for j in range(len(weights)) if weights[j] > 0]
                    normed = {j: layer_norm(other_tokens[j], layer.norm[other]) for j in there}
                    for head in range(NUM_HEADS):
                        part = slice(head * size, (head + 1) * size)
                        shares = {
                            j: float(weights[j])
                            * math.exp(float(query[part] @ layer.key[other](normed[j])[part]) / math.sqrt(size))
                            for j in there
                        }
                        for j in there:
                            seen[part] += shares[j] / sum(shares.values()) * layer.value[other](normed[j])[part]
                middle = tokens[b, i] + layer.output[name](seen)
                result[b, i] = middle + layer.feed_forward[name](layer_norm(middle, layer.feed_forward_norm[name]))
        results[name] = result
    return results


CASES = {
    "all there": {"image": [[1, 1, 1]], "text": [[1, 1]], "persona": [[1]]},
    "weighted concepts": {"image": [[1, 0.7, 0.05]], "text": [[1, 1]], "persona": [[1, 1]]},
    "no picture": {"image": [[]], "text": [[1, 1]], "persona": [[1, 1]]},
    "no words": {"image": [[1, 1]], "text": [[]], "persona": [[1, 1]]},
    "only a persona": {"image": [[]], "text": [[]], "persona": [[1, 1]]},
    "several pictures": {"image": [[1] * 7], "text": [[1]], "persona": [[1, 1, 1]]},
    "a padded batch, one without a picture": {
        "image": [[1, 1, 0.5], [0, 0, 0], [1, 0, 0]],
        "text": [[1, 1], [1, 0], [0, 0]],
        "persona": [[1, 1], [1, 1], [1, 0]],
    },
}


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
    assert torch.equal(stack(streams).streams["text"].tokens, expected["text"].tokens)


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
