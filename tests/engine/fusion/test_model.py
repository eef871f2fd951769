from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from engine.encoders.types import ImageFeatures
from engine.fusion.model import TurnFeatures
from engine.fusion.streams import STREAMS
from tests.engine.fusion.tiny import CONFIG, a_turn, an_image, tiny_fusion


def test_the_prefix_has_the_decoders_width() -> None:
    fused = tiny_fusion()([a_turn(), a_turn(seed=5)])
    assert fused.prefix.shape == (2, CONFIG.num_prefix_tokens, CONFIG.decoder_width)


@pytest.mark.parametrize("num_images", [0, 1, 3])
def test_attention_covers_all_tokens_and_sums_to_one(num_images: int) -> None:
    fused = tiny_fusion()([a_turn(num_images=num_images)])
    assert [fused.attention[name].shape[-1] for name in STREAMS] == [num_images * (6 + 10), 4, 3]
    total = sum(fused.attention[name].sum(dim=-1) for name in STREAMS)
    assert torch.allclose(total, torch.ones(1, CONFIG.num_prefix_tokens), atol=1e-5)


def test_a_batch_gives_what_single_turns_give() -> None:
    """Whatever else is in the batch, and however it is padded."""
    model = tiny_fusion()
    turns = [a_turn(), a_turn(num_images=0, seed=2), a_turn(num_images=3, num_words=0, seed=3), a_turn(num_facets=9)]
    together = model(turns).prefix
    for turn, prefix in zip(turns, together, strict=True):
        assert torch.allclose(model([turn]).prefix[0], prefix, atol=1e-5)


@pytest.mark.parametrize("stream", ["images", "text", "persona"])
def test_every_stream_changes_the_prefix(stream: str) -> None:
    model, one, other = tiny_fusion(), a_turn(), a_turn(seed=50)
    fields = {name: getattr(one, name) for name in ("images", "text", "persona")} | {stream: getattr(other, stream)}
    assert not torch.allclose(model([TurnFeatures(**fields)]).prefix, model([one]).prefix, atol=1e-4)


def test_each_of_several_pictures_counts() -> None:
    model = tiny_fusion()
    turn = a_turn(num_images=2)
    changed = TurnFeatures((turn.images[0], an_image(seed=77)), turn.text, turn.persona)
    assert not torch.allclose(model([changed]).prefix, model([turn]).prefix, atol=1e-4)


def test_an_unlikely_concept_hardly_counts_and_an_impossible_one_not_at_all() -> None:
    model, image = tiny_fusion(), an_image(num_patches=0)

    def prefix_with(concept: int, weight: float) -> torch.Tensor:
        weights = image.concept_weights.clone()
        ids = image.concept_ids.clone()
        weights[-1], ids[-1] = weight, concept
        return model([TurnFeatures((ImageFeatures(image.patches, ids, weights),), *texts)]).prefix

    texts = (a_turn().text, a_turn().persona)
    changes = {weight: (prefix_with(1, weight) - prefix_with(2, weight)).abs().max() for weight in (0.0, 1e-4, 1.0)}
    assert changes[0.0] == 0
    assert 0 < changes[1e-4] < changes[1.0] / 20


def test_an_untrained_fusion_is_silent() -> None:
    model = tiny_fusion(is_trained=False)
    assert model.is_untrained
    assert not model([a_turn()]).prefix.any()


@pytest.mark.parametrize("gate", ["readout.gate", "lexical_path.gate", "quoting_path.gate"])
def test_one_open_gate_is_enough(gate: str) -> None:
    model = tiny_fusion(is_trained=False)
    with torch.no_grad():
        model.get_parameter(gate)[..., 0, :] = 0.1
    assert not model.is_untrained
    assert model([a_turn()]).prefix[:, 0].any()


def test_shut_gates_learn_first() -> None:
    """Nothing behind a shut gate gets a gradient yet, but the gates do: training can start."""
    model = tiny_fusion(is_trained=False)
    functional.mse_loss(model([a_turn()]).prefix, torch.ones(1, 3, 32)).backward()
    assert model.readout.gate.grad is not None
    assert model.readout.gate.grad.all()
    assert model.readout.prefix.weight.grad is None or not model.readout.prefix.weight.grad.any()


def test_the_prefix_is_as_large_as_the_decoders_embeddings() -> None:
    small, large = (
        tiny_fusion(num_lexical_tokens=0, num_quoted_tokens=0, embedding_scale=scale)([a_turn()]).prefix
        for scale in (0.1, 0.5)
    )
    assert torch.allclose(large, 5 * small, atol=1e-5)


def test_the_lexical_path_hands_over_the_decoders_own_embeddings() -> None:
    """With the readout's gate shut, the prefix is a mixture of the class names' embeddings."""
    model = tiny_fusion(is_trained=False)
    torch.nn.init.constant_(model.lexical_path.gate, 20.0)  # tanh = 1
    model.names.fill_(0)
    image = an_image()
    model.names[image.concept_ids] = 1.0
    turn = TurnFeatures((image,), a_turn().text, a_turn().persona)
    assert torch.allclose(model([turn]).prefix, torch.ones(1, 3, 32), atol=1e-5)
    assert not model([a_turn(num_images=0)]).prefix.any()


def test_name_tokens_that_are_not_there_are_never_spelled() -> None:
    model = tiny_fusion(is_trained=False)
    torch.nn.init.constant_(model.lexical_path.gate, 20.0)
    model.names[:, 0], model.names[:, 1] = 1.0, 9.0
    model.is_token[:, 1] = False
    assert torch.allclose(model([a_turn()]).prefix, torch.ones(1, 3, 32), atol=1e-5)


def test_the_quoting_path_hands_over_words_of_the_facets() -> None:
    """With the other gates shut, the prefix is a mixture of the embeddings of the facets' words."""
    model = tiny_fusion(is_trained=False)
    torch.nn.init.constant_(model.quoting_path.gate, 20.0)  # tanh = 1
    turn = a_turn()
    model.table.fill_(0)
    model.table[turn.facet_ids.flatten()] = 1.0
    assert torch.allclose(model([turn]).prefix, torch.ones(1, 3, 32), atol=1e-5)
    assert not model([replace(turn, facet_ids=None)]).prefix.any()
    assert not model([a_turn(num_facets=0)]).prefix.any()


def test_masked_facets_and_missing_words_are_never_quoted() -> None:
    model = tiny_fusion(is_trained=False)
    torch.nn.init.constant_(model.quoting_path.gate, 20.0)
    model.table[:10], model.table[10:] = 1.0, 9.0
    ids = torch.tensor([[3, 4, -1], [20, 21, 22], [5, -1, -1]])
    only = torch.tensor([[1.0, 0.0, 1.0]])
    fused = model([replace(a_turn(), facet_ids=ids)], token_weights={"persona": only})
    assert torch.allclose(fused.prefix, torch.ones(1, 3, 32), atol=1e-5)


def test_which_facet_is_quoted_depends_on_the_users_words() -> None:
    model = tiny_fusion(is_trained=False)
    torch.nn.init.constant_(model.quoting_path.gate, 20.0)
    one = a_turn()
    other = replace(one, text=a_turn(seed=9).text)
    assert not torch.allclose(model([one]).prefix, model([other]).prefix, atol=1e-4)


def test_steering_starts_at_nothing_and_comes_from_the_whole_turn() -> None:
    model = tiny_fusion(has_steering=True)
    assert not model([a_turn()]).steering[0].any()
    torch.nn.init.normal_(model.steering.output.weight)
    steered = [model([turn]).steering[0] for turn in (a_turn(), a_turn(seed=3))]
    assert steered[0].shape == (1, CONFIG.decoder_width)
    assert not torch.allclose(*steered)
    assert tiny_fusion()([a_turn()]).steering == ()


def test_the_steering_is_the_last_row_beside_its_prefix() -> None:
    model = tiny_fusion(kind="late", has_steering=True)
    torch.nn.init.normal_(model.steering.output.weight)
    model.fusion.scores.data.copy_(torch.tensor([0.0, 0.0, 2.0]))
    fused = model([a_turn()])
    rows = fused.prefix_and_steering
    assert torch.equal(rows[:, :-1], fused.prefixes[2])
    assert torch.equal(rows[:, -1], fused.steering[2])
    assert torch.equal(tiny_fusion()([a_turn()]).prefix_and_steering, tiny_fusion()([a_turn()]).prefix)
