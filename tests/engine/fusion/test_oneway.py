"""One-way cross-attention and late fusion against plain loops in float64."""

import math

import pytest
import torch
from torch import Tensor

from engine.fusion.oneway import READERS, CrossAttention, CrossAttentionLayer, FeedForwards, LateFusion
from engine.fusion.streams import STREAMS
from tests.engine.fusion.references import (
    CASES,
    DOUBLE,
    NUM_HEADS,
    WIDTH,
    attend,
    layer_norm,
    randomise,
    streams_of,
    there,
)


def fed_forward(layer: FeedForwards, name: str, token: Tensor) -> Tensor:
    return token + layer.layer[name](layer_norm(token, layer.norm[name]))


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_cross_attention_equals_plain_loops(case: str) -> None:
    layer = CrossAttentionLayer(WIDTH, num_heads=NUM_HEADS, num_parameters=4000)
    randomise(layer)
    streams = streams_of(CASES[case])
    fused = layer(streams)
    for name in STREAMS:
        for row in range(len(streams[name].tokens)):
            picture = streams["image"]
            normed = {j: layer_norm(picture.tokens[row, j], layer.norm["image"]) for j in there(picture, row)}
            keys = {j: layer.key(token) for j, token in normed.items()}
            values = {j: layer.value(token) for j, token in normed.items()}
            for place, token in enumerate(streams[name].tokens[row]):
                told = token
                if name in READERS:
                    query = layer.query[name](layer_norm(token, layer.norm[name]))
                    told = token + layer.output[name](attend(query, keys, values, picture.weights[row], NUM_HEADS))
                expected = fed_forward(layer.feed_forwards, name, told)
                assert torch.allclose(fused[name].tokens[row, place], expected, rtol=1e-9, atol=1e-9)


def test_the_picture_looks_at_nothing() -> None:
    fusion = CrossAttention(WIDTH, num_layers=2, num_heads=NUM_HEADS, num_parameters=8000)
    randomise(fusion)
    one, other = streams_of(CASES["all there"]), streams_of(CASES["all there"], seed=7)
    changed = fusion({**other, "image": one["image"]})
    assert torch.equal(fusion(one).streams["image"].tokens, changed.streams["image"].tokens)
    assert not torch.allclose(fusion(one).streams["text"].tokens, changed.streams["text"].tokens)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_late_fusion_equals_plain_loops(case: str) -> None:
    fusion = LateFusion(WIDTH, num_layers=2, num_parameters=4000)
    randomise(fusion)
    streams = streams_of(CASES[case])
    fused = fusion(streams)
    for name in STREAMS:
        for row in range(len(streams[name].tokens)):
            for place, token in enumerate(streams[name].tokens[row]):
                for layer in fusion.layers:
                    token = fed_forward(layer, name, token)
                assert torch.allclose(fused.streams[name].tokens[row, place], token, rtol=1e-9, atol=1e-9)
    for row, shares in enumerate(fusion.mixture(streams)):
        amounts = [
            math.exp(float(fusion.scores[j])) if there(streams[name], row) else 0.0 for j, name in enumerate(STREAMS)
        ]
        expected = torch.tensor([amount / sum(amounts) for amount in amounts], dtype=DOUBLE)
        assert torch.allclose(shares, expected)


def test_late_fusion_lets_no_stream_know_of_another() -> None:
    fusion = LateFusion(WIDTH, num_layers=2, num_parameters=4000)
    randomise(fusion)
    one, other = streams_of(CASES["all there"]), streams_of(CASES["all there"], seed=7)
    for name in STREAMS:
        changed = fusion({**other, name: one[name]})
        assert torch.equal(fusion(one).streams[name].tokens, changed.streams[name].tokens)
