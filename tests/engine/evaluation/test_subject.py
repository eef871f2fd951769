"""The fast paths of measuring (batches by length, padding in front) against one plain pass a sample."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from engine.decoder.language_model import LanguageModel
from engine.evaluation.pictures import in_character
from engine.evaluation.subject import Subject, _Reading
from engine.fusion.kinds import COATTENTION, LATE
from engine.training.samples import TrainingSample, caption_sample
from engine.types import Role, Turn
from tests.engine.evaluation.tiny import tiny_subject
from tests.engine.fusion.tiny import an_image


def samples() -> list[TrainingSample]:
    plain = TrainingSample("dialogues", "Be kind.", ("I am kind.",), (Turn(Role.USER, "Hi"),), (), "Hello, dear friend")
    return [
        plain,
        caption_sample("a dog", an_image(seed=1)),
        replace(plain, system_prompt="You are somebody else entirely.", reply="No"),
        in_character(an_image(seed=2), "a cat in a box"),
    ]


def plain_loss(subject: Subject, sample: TrainingSample, *, has_prefix: bool) -> float:
    decoder, model = subject.workshop.decoder, subject.model
    assert model is not None
    head, tail = decoder.prompt(sample.system_prompt, sample.turns)
    reply = decoder.tokenize(sample.reply + (decoder.tokenizer.eos_token if sample.has_end else ""))
    words = [
        functional.embedding(torch.tensor(ids, dtype=torch.long), decoder.embeddings) for ids in (head, tail, reply)
    ]
    fused = model(subject.workshop.encoder.turns([sample]))
    prefixes = fused.prefixes if has_prefix else [None]
    shares = fused.mixture[0] if has_prefix else torch.ones(1)
    logits = sum(
        share
        * decoder.model(
            inputs_embeds=torch.cat([words[0], *([] if prefix is None else [prefix[0]]), *words[1:]])[None]
        ).logits[0, -len(reply) - 1 : -1]
        for prefix, share in zip(prefixes, shares, strict=True)
    )
    return functional.cross_entropy(logits, torch.tensor(reply)).item()


@pytest.mark.parametrize("kind", [COATTENTION, LATE])
@pytest.mark.parametrize("has_prefix", [True, False])
@torch.no_grad()
def test_losses_equal_a_plain_pass(kind: str, has_prefix: bool) -> None:
    subject = tiny_subject(kind=kind)
    losses = subject.losses(samples(), has_prefix=has_prefix)
    expected = [plain_loss(subject, sample, has_prefix=has_prefix) for sample in samples()]
    assert losses == pytest.approx(expected, abs=1e-4)


def test_the_prefix_changes_the_loss_and_no_model_means_no_prefix() -> None:
    subject = tiny_subject()
    alone = Subject(subject.workshop, None)
    with_prefix, without = subject.losses(samples()), subject.losses(samples(), has_prefix=False)
    assert abs(with_prefix - without).max() > 1e-3
    assert alone.losses(samples()) == pytest.approx(without, abs=1e-6)


@torch.no_grad()
def plain_reply(subject: Subject, sample: TrainingSample, *, max_new_tokens: int) -> str:
    """One sample, no cache, no padding."""
    decoder, model = subject.workshop.decoder, subject.model
    assert model is not None
    head, tail = decoder.prompt(sample.system_prompt, sample.turns)
    fused = model(subject.workshop.encoder.turns([sample]))
    ids: list[int] = []
    for _ in range(max_new_tokens):
        before, behind = (
            functional.embedding(torch.tensor(part, dtype=torch.long), decoder.embeddings)
            for part in (head, [*tail, *ids])
        )
        logits = sum(
            share * decoder.model(inputs_embeds=torch.cat([before, prefix[0], behind])[None]).logits[0, -1]
            for prefix, share in zip(fused.prefixes, fused.mixture[0], strict=True)
        )
        token = int(logits.argmax())
        if token == decoder.tokenizer.eos_token_id:
            break
        ids.append(token)
    return decoder.tokenizer.decode(ids, skip_special_tokens=True).strip()


@pytest.mark.parametrize("kind", [COATTENTION, LATE])
def test_replies_equal_a_plain_loop(kind: str) -> None:
    subject = tiny_subject(kind=kind)
    said = subject.replies(samples(), max_new_tokens=6)
    assert said == [plain_reply(subject, sample, max_new_tokens=6) for sample in samples()]
    assert len(set(said)) > 1


def test_a_sentence_ends_the_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = tiny_subject()
    whole = subject.replies(samples()[:1], max_new_tokens=12)[0]
    mark = whole[2]
    monkeypatch.setattr("engine.evaluation.subject.SENTENCE_ENDS", mark)
    cut = subject.replies(samples()[:1], max_new_tokens=12, is_one_sentence=True)[0]
    assert cut == whole[: whole.index(mark) + 1].strip()
    assert len(cut) < len(whole)


@torch.no_grad()
def test_steering_adds_to_what_is_said_what_the_engine_adds() -> None:
    """Also where the head has a bias of its own, which must count once."""
    decoder = tiny_subject().workshop.decoder
    decoder.model.lm_head.bias = torch.nn.Parameter(torch.linspace(-3, 3, 260), requires_grad=False)
    sample = samples()[0]
    prefix, steering = torch.randn(2, 3, 32), torch.randn(2, 32)
    reading = _Reading(decoder, [sample, sample], prefix, steering)
    engine = LanguageModel(decoder.model, decoder.tokenizer, name="tiny")
    pieces = engine.prompts.write(sample.system_prompt, sample.turns, places={0})
    for row, logits in enumerate(reading.next_logits()):
        prompt = engine.encode(pieces, [prefix[row]], steering=steering[row])
        expected = engine.prefill(prompt, engine.new_state())
        torch.testing.assert_close(logits, expected.clone(), atol=1e-3, rtol=1e-3)
