"""The low-rank adapter's layers, what it learns from, and that it learns."""

from pathlib import Path
from random import Random

import pytest
import torch
from torch import nn

from bot.personas.prompt import build_request
from engine.decoder.adapter import CONFIG_FILE, merge_adapter
from engine.decoder.checkpoint import Checkpoint
from engine.errors import ConfigurationError
from engine.persona import Example
from engine.training.characters import characters
from engine.training.datasets import Conversation, DataSets, PersonaDialogue, StyledAnswers, TrainingData
from engine.training.decoder import FrozenDecoder
from engine.training.options import TrainingOptions, default_options
from engine.training.tasks import lora as module
from engine.training.tasks.character_lines import LINES
from engine.training.tasks.lora import (
    LoraTask,
    LowRankLinear,
    RoleTalk,
    TalkSamples,
    add_low_rank,
    first_sentences,
    open_lora,
    reply_losses,
    tell,
    tokenise,
    with_anybody,
    with_character,
    with_person,
    with_role,
    with_style,
)
from engine.types import Role, SamplingSettings, Turn
from tests.engine.tiny import save_tiny, tiny_llama, tiny_tokenizer

DIALOGUE = PersonaDialogue(
    (("I ski.", "I am six."), ("I cook.",)),
    ((0, "Hi!"), (1, "Hello, do you ski?"), (0, "I do."), (1, "Fine."), (0, "And you?"), (1, "I cook.")),
)
STYLED = StyledAnswers("Are you well?", {"witty": "Ha!", "friendly": "Yes, thanks!", "professional": "I am."})
ROLE = Conversation(
    (), (Turn(Role.USER, "You are a pirate. Describe your ship."), Turn(Role.ASSISTANT, "It is big. It leaks. Arr!"))
)
OTHER = Conversation(
    ("I am Mo.", "I paint."),
    (Turn(Role.USER, "Hi"), Turn(Role.ASSISTANT, "Hello!"), Turn(Role.USER, "So?"), Turn(Role.ASSISTANT, "I paint.")),
)
DATA = DataSets(answers=(STYLED,), dialogues=(DIALOGUE,), conversations=(ROLE, OTHER))
SHARES = {"characters": 0.2, "people": 0.2, "styles": 0.2, "roles": 0.2, "conversations": 0.2}


def a_decoder() -> FrozenDecoder:
    model = tiny_llama(max_position_embeddings=2048)
    model.config._attn_implementation = "eager"
    return FrozenDecoder(model, tiny_tokenizer(), name="tiny")


def samples(data: DataSets = DATA, *, seed: int = 0, shares: dict[str, float] | None = None) -> TalkSamples:
    return TalkSamples(data, characters(), seed=seed, shares=shares or SHARES)


def a_task(decoder: FrozenDecoder, *, batch_size: int = 6, max_tokens: int = 900) -> LoraTask:
    return LoraTask(decoder, samples(), batch_size=batch_size, max_tokens=max_tokens)


def is_asked_and_answered(talk: RoleTalk) -> bool:
    roles = [turn.role for turn in talk.turns]
    return roles == [Role.USER, Role.ASSISTANT] * (len(roles) // 2) and len(roles) > 0


# --- layers


@pytest.mark.parametrize("has_bias", [True, False])
def test_an_adapted_layer_and_its_gradients_equal_the_plain_sum(has_bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(6, 5, bias=has_bias, dtype=torch.float64).requires_grad_(False)
    layer = LowRankLinear(linear, rank=2, alpha=6).double()
    nn.init.normal_(layer.up)
    inputs = torch.randn(3, 4, 6, dtype=torch.float64, requires_grad=True)
    above = torch.randn(3, 4, 5, dtype=torch.float64)
    wanted = [inputs, layer.down, layer.up]
    expected = linear(inputs) + 3 * inputs @ layer.down.T @ layer.up.T
    torch.testing.assert_close(layer(inputs), expected)
    got = torch.autograd.grad((layer(inputs) * above).sum(), wanted)
    torch.testing.assert_close(got, torch.autograd.grad((expected * above).sum(), wanted))


def test_before_it_has_learnt_an_adapter_changes_nothing() -> None:
    model, ids = tiny_llama().requires_grad_(False), torch.tensor([[1, 50, 60, 70]])
    before = model(ids).logits
    layers = add_low_rank(model, rank=4, alpha=8)
    assert len(layers) == 2 * 7
    torch.testing.assert_close(model(ids).logits, before)


def test_only_the_adapters_learn_and_the_head_has_none() -> None:
    model = tiny_llama().requires_grad_(False)
    add_low_rank(model, rank=4, alpha=8)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning
    assert all(name.endswith((".down", ".up")) and "lm_head" not in name for name in learning)


def test_layers_are_chosen_by_name() -> None:
    assert {name.rpartition(".")[2] for name in add_low_rank(tiny_llama(), rank=2, alpha=2, targets=["q_proj"])} == {
        "q_proj"
    }
    with pytest.raises(ConfigurationError, match=r"lora\.targets .* down_proj, gate_proj"):
        add_low_rank(tiny_llama(), rank=2, alpha=2, targets=["query"])


# --- what is learnt from


def test_every_character_has_lines_of_its_own() -> None:
    assert {one.persona.name for one in characters()} == LINES.keys()
    assert all(len(lines) >= 10 and len(set(lines)) == len(lines) for lines in LINES.values())


def test_a_character_is_told_as_the_bot_tells_a_persona() -> None:
    for character in characters():
        examples = LINES[character.persona.name][:4]
        persona = character.persona.model_copy(
            update={"examples": tuple(Example(user=user, reply=reply) for user, reply in examples)}
        )
        turns = [Turn(Role.USER, "Hi")]
        request = build_request(persona, turns, sampling=SamplingSettings(), user_name="Ana")
        assert tell(character.persona, examples, user_name="Ana") == request.system_prompt


@pytest.mark.parametrize("seed", range(30))
def test_each_kind_is_a_question_and_an_answer_by_turns(seed: int) -> None:
    talks = [
        with_character(characters()[seed % 24], Random(seed)),
        with_person(DIALOGUE, Random(seed)),
        with_style(STYLED, Random(seed)),
        with_role(ROLE, Random(seed)),
        with_anybody(OTHER, Random(seed)),
    ]
    assert [talk.kind for talk in talks] == list(SHARES)
    assert all(is_asked_and_answered(talk) for talk in talks)


def test_a_character_is_not_asked_for_what_is_told_as_an_example() -> None:
    for seed in range(30):
        talk = with_character(characters()[0], Random(seed))
        assert not any(turn.text in talk.system_prompt for turn in talk.turns if turn.role is Role.ASSISTANT)


def test_a_person_speaks_for_the_side_whose_sentences_are_told() -> None:
    for seed in range(30):
        talk = with_person(DIALOGUE, Random(seed))
        replies = {turn.text for turn in talk.turns if turn.role is Role.ASSISTANT}
        said = {words for speaker, words in DIALOGUE.turns if speaker == 1}
        assert replies <= said or not replies & said
        if "I cook." in talk.system_prompt:
            assert replies <= said
        if "I ski." in talk.system_prompt:
            assert not replies & said


def test_a_style_is_told_or_not() -> None:
    told = with_style(STYLED, Random(0), style="witty", is_told=True)
    untold = with_style(STYLED, Random(0), style="witty", is_told=False)
    assert "witty" in told.system_prompt
    assert "witty" not in untold.system_prompt
    assert told.turns[1].text == untold.turns[1].text == "Ha!"


def test_a_role_may_go_into_the_system_prompt_and_its_answer_is_as_long_as_asked() -> None:
    talks = [with_role(ROLE, Random(seed)) for seed in range(60)]
    assert {"a pirate." in talk.system_prompt for talk in talks} == {True, False}
    for talk in talks:
        assert ("pirate" in talk.system_prompt) != ("pirate" in talk.turns[0].text)
        is_short = "in one or two short sentences" in talk.system_prompt
        assert talk.turns[1].text == ("It is big. It leaks." if is_short else "It is big. It leaks. Arr!")


def test_a_conversation_tells_everything_of_its_speaker() -> None:
    assert with_anybody(OTHER, Random(0)).system_prompt == "I am Mo. I paint."


def test_an_answer_ends_with_a_sentence() -> None:
    text = "One two. Three four! Five six? Seven."
    assert first_sentences(text, num_sentences=2) == "One two. Three four!"
    assert first_sentences(text, num_sentences=9, max_words=5) == "One two. Three four!"
    assert first_sentences("A b c d e f.", num_sentences=1, max_words=2) == "A b c d e f."


def test_a_draw_depends_on_seed_and_number_alone() -> None:
    first = [samples().draw(index) for index in range(40)]
    assert [samples().draw(index) for index in reversed(range(40))][::-1] == first
    assert [samples(seed=1).draw(index) for index in range(40)] != first
    assert {talk.kind for talk in first} == set(SHARES)


def test_only_kinds_that_there_are_get_drawn() -> None:
    only = samples(DataSets(dialogues=(DIALOGUE,)), shares=SHARES | {"characters": 0.0})
    assert {only.draw(index).kind for index in range(20)} == {"people"}
    with pytest.raises(ConfigurationError, match="nothing for lora"):
        samples(DataSets(), shares=SHARES | {"characters": 0.0})


# --- tokens and loss


def test_replies_and_their_ends_are_learnt_and_nothing_else() -> None:
    decoder = a_decoder()
    talk = with_anybody(OTHER, Random(1))
    found = tokenise(talk, decoder.prompts, end=decoder.end_of_reply, max_tokens=900)
    learnt = [token for token, is_reply in zip(found.ids, found.is_reply, strict=True) if is_reply]
    replies = [turn.text + "<|im_end|>" for turn in talk.turns if turn.role is Role.ASSISTANT]
    assert decoder.tokenizer.decode(learnt) == "".join(replies)
    whole = decoder.prompts.write(talk.system_prompt, talk.turns[:-1]).pieces[0]
    assert found.ids[: len(whole)] == whole


def test_too_long_a_talk_ends_before_the_reply_that_does_not_fit() -> None:
    decoder = a_decoder()
    turns = (*OTHER.turns, Turn(Role.USER, "Tell me more"), Turn(Role.ASSISTANT, "x" * 300))
    talk = RoleTalk("conversations", "Be kind.", turns)
    found = tokenise(talk, decoder.prompts, end=decoder.end_of_reply, max_tokens=250)
    assert decoder.tokenizer.decode(list(found.ids)).endswith("I paint.<|im_end|>")
    alone = RoleTalk("conversations", "Be kind. " * 90, OTHER.turns[:2])
    cut = tokenise(alone, decoder.prompts, end=decoder.end_of_reply, max_tokens=100)
    assert len(cut.ids) == len(cut.is_reply) == 100
    assert decoder.tokenizer.decode(list(cut.ids)).endswith("Hello!<|im_end|>")
    assert sum(cut.is_reply) == len("Hello!") + 1


def test_the_loss_is_that_of_each_conversation_read_alone() -> None:
    decoder = a_decoder()
    talks = [
        tokenise(samples().draw(index), decoder.prompts, end=decoder.end_of_reply, max_tokens=900) for index in range(4)
    ]
    losses, rows = reply_losses(decoder.model, talks)
    for row, talk in enumerate(talks):
        logits = decoder.model(torch.tensor([talk.ids])).logits[0]
        places = [place for place, is_reply in enumerate(talk.is_reply) if is_reply]
        alone = nn.functional.cross_entropy(
            logits[[place - 1 for place in places]],
            torch.tensor([talk.ids[place] for place in places]),
            reduction="none",
        )
        torch.testing.assert_close(losses[rows == row], alone, atol=1e-4, rtol=1e-4)


def test_slices_of_a_step_add_up_to_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TOGETHER", 2)
    task = a_task(a_decoder())
    whole = task.loss(3)
    parts = [task.loss(3, part=part, num_parts=2).total for part in range(2)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole.total, atol=1e-4, rtol=1e-4)
    assert parts[0].item() != pytest.approx(parts[1].item(), abs=1e-3)
    assert whole.parts.keys() <= SHARES.keys()


# --- the whole


def test_what_was_learnt_is_written_and_merged(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "tiny")
    options = TrainingOptions.model_validate(
        {"task": "lora", "lora": {"rank": 4, "alpha": 8, "batch_size": 2, "max_tokens": 300}}
    )
    setup = open_lora(
        Checkpoint(str(folder), folder, {}),
        TrainingData(DATA, DATA),
        options,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    optimizer = torch.optim.Adam([p for p in setup.module.parameters() if p.requires_grad], lr=0.01)
    before = setup.held_out[0].loss(0).total.item()
    for _ in range(8):
        optimizer.zero_grad()
        setup.tasks[0].loss(0).total.backward()
        optimizer.step()
    assert setup.tasks[0].loss(0).total.item() < before
    setup.save(tmp_path / "adapter")
    assert (tmp_path / "adapter" / CONFIG_FILE).is_file()
    merged, ids = tiny_llama(), torch.tensor([[1, 50, 60, 70, 80]])
    untrained = merged(ids).logits
    merge_adapter(merged, tmp_path / "adapter", decoder=str(folder))
    torch.testing.assert_close(merged(ids).logits, setup.module(ids).logits, atol=2e-2, rtol=2e-2)
    assert not torch.allclose(merged(ids).logits, untrained, atol=5e-2)


def test_characters_kept_back_are_not_learnt_from(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "tiny")
    setup = open_lora(
        Checkpoint(str(folder), folder, {}),
        TrainingData(DataSets(), DataSets()),
        default_options("lora"),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    (learning,), (watching,) = setup.tasks, setup.held_out
    assert isinstance(learning, LoraTask)
    assert isinstance(watching, LoraTask)

    def met(task: LoraTask) -> set[str]:
        return {task._samples.draw(index).system_prompt.split(".")[0] for index in range(300)}

    assert len(met(watching)) == 3
    assert not met(learning) & met(watching)
