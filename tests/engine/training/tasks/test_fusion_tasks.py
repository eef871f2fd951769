"""Each task on tiny models: its loss is what it says, it can be split, and learning lowers it."""

import pytest
import torch
from torch.nn import functional

from engine.errors import ConfigurationError
from engine.fusion.kinds import KINDS
from engine.fusion.model import FusionModel
from engine.training.tasks.base import Task
from engine.training.tasks.language import CaptioningTask, PersonaTask, reply_means
from engine.training.tasks.masked import MaskedTask
from engine.training.tasks.matching import MatchingTask, PairSamples, contrastive_loss
from tests.engine.encoders.tiny import tiny_text_encoder
from tests.engine.fusion.tiny import tiny_fusion
from tests.engine.training.tiny import (
    a_source,
    frozen_decoder,
    persona_samples,
    picture_samples,
    sample_encoder,
)

NAMES = ("captioning", "persona", "matching", "masked")


def a_task(name: str, model: FusionModel, *, batch_size: int = 4) -> Task:
    decoder = frozen_decoder()
    encoder = sample_encoder(decoder)
    pairs = PairSamples(seed=0, things=[a_source("a photo of a dog", "an apple")], scenes=[a_source("A dog on a bed.")])
    match name:
        case "captioning":
            return CaptioningTask(
                model, picture_samples(), encoder=encoder, decoder=decoder, batch_size=batch_size, focus_weight=3.0
            )
        case "persona":
            return PersonaTask(
                model, persona_samples(), encoder=encoder, decoder=decoder, batch_size=batch_size, contrast_weight=0.5
            )
        case "matching":
            return MatchingTask(model, pairs, encoder=encoder, seed=0, batch_size=batch_size)
    return MaskedTask(model, pairs, encoder=encoder, text=tiny_text_encoder(), seed=0, batch_size=batch_size)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_has_the_same_loss_each_time_and_another_one_another(name: str) -> None:
    task = a_task(name, tiny_fusion(has_heads=True))
    losses = [task.loss(step).total.item() for step in range(8)]
    assert [task.loss(step).total.item() for step in range(8)] == losses
    assert len(set(losses)) > 1


@pytest.mark.parametrize("name", ["captioning", "masked"])
def test_slices_make_up_the_whole(name: str) -> None:
    """Gradient accumulation sees every sample once."""
    task = a_task(name, tiny_fusion(has_heads=True))
    if name == "captioning":
        parts = [task.loss(0, part=part, num_parts=2).total.item() for part in range(2)]
        assert task.loss(0).total.item() == pytest.approx(sum(parts) / 2, abs=1e-4)
    else:
        guessed = [task.loss(0, part=part, num_parts=4).total for part in range(4)]
        assert len({loss.item() for loss in guessed}) > 1


@pytest.mark.parametrize("name", NAMES)
def test_learning_lowers_the_loss(name: str) -> None:
    torch.manual_seed(0)
    model = tiny_fusion(has_heads=True)
    task = a_task(name, model)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = task.loss(0).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_fusion_learns_every_task(kind: str) -> None:
    model = tiny_fusion(kind=kind, has_heads=True)
    for name in NAMES:
        loss = a_task(name, model, batch_size=3).loss(0).total
        assert torch.isfinite(loss)
        loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_late_fusion_mixes_logits() -> None:
    """Against a sum over streams of the language model's logits behind each prefix alone."""
    model, decoder = tiny_fusion(kind="late"), frozen_decoder()
    encoder = sample_encoder(decoder)
    samples = [picture_samples().draw(j) for j in range(3)]
    examples, fused = [encoder.example(sample) for sample in samples], model(encoder.turns(samples))
    means = reply_means(decoder, examples, fused)
    for row, example in enumerate(examples):
        mixed = 0.0
        for j, prefix in enumerate(fused.prefixes):
            logits, targets, _ = decoder._reply_logits([example], prefix[row : row + 1])
            mixed = mixed + fused.mixture[row, j] * logits
        assert means[row].item() == pytest.approx(functional.cross_entropy(mixed, targets).item(), abs=1e-4)


def test_the_contrast_is_how_surely_the_right_persona_is_found() -> None:
    model = tiny_fusion(has_heads=True)
    task = a_task("persona", model, batch_size=1)
    assert isinstance(task, PersonaTask)
    step = next(j for j in range(20) if len(task._samples.draw(j)) > 1)
    group = task._samples.draw(step)
    examples = [task._encoder.example(sample) for sample in group]
    means = reply_means(task._decoder, examples, model(task._encoder.turns(group)))
    totals = torch.tensor([-mean.item() * len(one.reply_ids) for mean, one in zip(means, examples, strict=True)])
    told = task.loss(step)
    assert told.parts["contrast"] == pytest.approx(-totals.log_softmax(dim=0)[0].item(), abs=1e-4)
    assert told.total.item() == pytest.approx(means[0].item() + 0.5 * told.parts["contrast"], abs=1e-4)
    assert told.parts["wins"] == float(totals.argmax() == 0)


def test_equal_captions_are_no_wrong_pair() -> None:
    alike = torch.tensor([[2.0, 2.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, 2.0]])
    is_other = torch.tensor([[False, False, True], [False, False, True], [True, True, False]])
    expected = -torch.tensor([2.0, 0.0]).log_softmax(dim=0)[0]
    loss = contrastive_loss(alike, is_other)
    # Two pictures have one wrong caption each, the third has two.
    third = -torch.tensor([2.0, 0.0, 0.0]).log_softmax(dim=0)[0]
    assert loss.item() == pytest.approx(((2 * expected + third) / 3).item(), abs=1e-5)


def test_a_batch_of_one_caption_has_nothing_to_contrast() -> None:
    model = tiny_fusion(has_heads=True)
    pairs = PairSamples(seed=0, things=[a_source("a dog", "a dog")], scenes=[])
    loss = MatchingTask(model, pairs, encoder=sample_encoder(), seed=0, batch_size=4).loss(0)
    assert torch.isfinite(loss.total)
    assert loss.parts["contrast"] == pytest.approx(0, abs=1e-6)


def test_pairs_need_pictures() -> None:
    with pytest.raises(ConfigurationError, match="pictures with captions"):
        PairSamples(seed=0, things=[], scenes=[])
