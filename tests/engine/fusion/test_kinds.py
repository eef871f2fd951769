"""What every kind of fusion has in common."""

from dataclasses import replace

import pytest
import torch

from engine.errors import ConfigurationError
from engine.fusion.kinds import KINDS, build_fusion
from engine.fusion.model import TurnFeatures
from engine.fusion.streams import STREAMS
from tests.engine.fusion.tiny import CONFIG, a_turn, tiny_fusion


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_are_of_one_size(kind: str, num_layers: int) -> None:
    """Within five hundredths, at the width that ships."""
    sizes = [count(build_fusion(name, 256, num_layers=num_layers, num_heads=4)) for name in ("coattention", kind)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_whole_models_are_of_one_size_with_the_words_that_they_spell_and_quote(kind: str) -> None:
    sizes = [
        count(tiny_fusion(kind=name, width=256, decoder_width=576, text_width=384, num_prefix_tokens=8))
        for name in ("coattention", kind)
    ]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match=r"'magic'.*coattention"):
        build_fusion("magic", 8, num_layers=1, num_heads=2)


@pytest.mark.parametrize("kind", KINDS)
def test_prefixes_have_the_decoders_width_and_shares_sum_to_one(kind: str) -> None:
    fused = tiny_fusion(kind=kind)([a_turn(), a_turn(num_images=0, seed=5)])
    assert len(fused.prefixes) == (3 if kind == "late" else 1)
    for prefix in fused.prefixes:
        assert prefix.shape == (2, CONFIG.num_prefix_tokens, CONFIG.decoder_width)
    assert torch.allclose(fused.mixture.sum(dim=-1), torch.ones(2))
    total = sum(fused.attention[name].sum(dim=-1) for name in STREAMS)
    assert torch.allclose(total, torch.ones(2, CONFIG.num_prefix_tokens), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_gives_what_single_turns_give(kind: str) -> None:
    model = tiny_fusion(kind=kind)
    turns = [a_turn(), a_turn(num_images=0, seed=2), a_turn(num_images=3, num_words=0, seed=3), a_turn(num_facets=0)]
    together = model(turns)
    for row, turn in enumerate(turns):
        alone = model([turn])
        for one, many in zip(alone.prefixes, together.prefixes, strict=True):
            assert torch.allclose(one[0], many[row], atol=1e-5)
        assert torch.allclose(alone.mixture[0], together.mixture[row], atol=1e-6)


@pytest.mark.parametrize("stream", ["images", "text", "persona"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_stream_changes_what_the_decoder_gets(kind: str, stream: str) -> None:
    model, one, other = tiny_fusion(kind=kind), a_turn(), a_turn(seed=50)
    fields = {name: getattr(one, name) for name in ("images", "text", "persona")} | {stream: getattr(other, stream)}
    before, after = model([one]).prefixes, model([TurnFeatures(**fields)]).prefixes
    assert any(not torch.allclose(a, b, atol=1e-4) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_token_of_weight_zero_is_as_good_as_missing(kind: str, stream: str) -> None:
    """Masking all tokens of a stream gives what a turn without it gives."""
    model, turn = tiny_fusion(kind=kind), a_turn()
    without = {
        "image": replace(turn, images=()),
        "text": replace(turn, text=turn.text[:0]),
        "persona": replace(turn, persona=turn.persona[:0], facet_ids=None),
    }
    num_tokens = model([turn]).attention[stream].shape[-1]
    masked = model([turn], token_weights={stream: torch.zeros(1, num_tokens)})
    missing = model([without[stream]])
    assert not masked.attention[stream].any()
    for j, share in enumerate(masked.mixture[0].tolist()):
        if share:
            assert torch.allclose(masked.prefixes[j], missing.prefixes[j], atol=1e-5)
    assert torch.allclose(masked.mixture, missing.mixture)


def test_only_the_picture_is_spelled_in_late_fusion() -> None:
    """The class names' embeddings reach the picture's prefix and no other."""
    model = tiny_fusion(kind="late")
    before = model([a_turn()]).prefixes
    model.names.mul_(3)
    changed = [not torch.allclose(a, b) for a, b in zip(before, model([a_turn()]).prefixes, strict=True)]
    assert changed == [True, False, False]
