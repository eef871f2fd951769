"""The fast path of training (kept heads, padding, rows flattened) against one plain pass a sequence."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import CLIPVisionConfig, LlavaConfig

from engine.errors import ConfigurationError, WeightsError
from engine.training.decoder import FrozenDecoder
from engine.types import Role, Turn
from tests.engine.tiny import save_tiny, tiny_llama, tiny_tokenizer

SHORT = ("Be kind.", (Turn(Role.USER, "Look!"),), "A dog!")
LONG = (
    "You are Ada, who likes dogs.",
    (Turn(Role.USER, "Hi"), Turn(Role.ASSISTANT, "Hello"), Turn(Role.USER, "")),
    "I see",
)


@pytest.fixture(scope="module")
def decoder() -> FrozenDecoder:
    model = tiny_llama()
    model.config._attn_implementation = "eager"
    return FrozenDecoder(model, tiny_tokenizer(), name="tiny")


def plain_losses(decoder: FrozenDecoder, sample: tuple, prefix: torch.Tensor | None) -> torch.Tensor:
    """The whole sequence through an untouched model, no cache, no padding."""
    system, turns, reply = sample
    head, tail = decoder.prompt(system, turns)
    answer = decoder.tokenize(reply + decoder.tokenizer.eos_token)
    model = tiny_llama()
    words = [model.get_input_embeddings()(torch.tensor(ids, dtype=torch.long)) for ids in (head, tail, answer)]
    parts = [words[0], *([] if prefix is None else [prefix]), *words[1:]]
    logits = model(inputs_embeds=torch.cat(parts)[None]).logits[0, -len(answer) - 1 : -1]
    return functional.cross_entropy(logits, torch.tensor(answer), reduction="none")


@pytest.mark.parametrize("has_prefix", [True, False])
def test_losses_equal_a_plain_pass(decoder: FrozenDecoder, has_prefix: bool) -> None:
    torch.manual_seed(3)
    prefix = torch.randn(2, 3, 32) if has_prefix else None
    examples = [decoder.example(system, turns, reply=reply) for system, turns, reply in (SHORT, LONG)]
    losses, rows = decoder.reply_losses(examples, prefix)
    for row, sample in enumerate((SHORT, LONG)):
        expected = plain_losses(decoder, sample, None if prefix is None else prefix[row])
        assert torch.allclose(losses[rows == row], expected, atol=1e-4)


def test_gradients_reach_the_prefix_and_equal_a_plain_pass(decoder: FrozenDecoder) -> None:
    torch.manual_seed(4)
    fast, plain = (torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2))
    decoder.reply_losses([decoder.example(SHORT[0], SHORT[1], reply=SHORT[2])], fast)[0].sum().backward()
    plain_losses(decoder, SHORT, plain[0]).sum().backward()
    assert fast.grad.abs().max() > 0
    assert torch.allclose(fast.grad, plain.grad, atol=1e-3)


def test_the_prefix_lies_right_before_the_users_words(decoder: FrozenDecoder) -> None:
    head, tail = decoder.prompt(*SHORT[:2])
    assert decoder.tokenizer.decode(head).endswith("<|im_start|>user\n")
    assert decoder.tokenizer.decode(tail).startswith("Look!<|im_end|>")


def test_focus_weighs_its_tokens_only(decoder: FrozenDecoder) -> None:
    example = decoder.example("", SHORT[1], reply="A Dog!", focus="dog", focus_weight=3.0)
    assert example.reply_weights == (1, 1, 3, 3, 3, 1, 1)  # a byte a token, and the end


def test_a_reply_that_may_go_on_has_no_end(decoder: FrozenDecoder) -> None:
    ended, open_ended = (decoder.example("", SHORT[1], reply="A dog!", has_end=end) for end in (True, False))
    assert ended.reply_ids[:-1] == open_ended.reply_ids
    assert ended.reply_ids[-1] == decoder.tokenizer.eos_token_id


def test_heads_are_kept_and_the_oldest_forgotten(decoder: FrozenDecoder, monkeypatch) -> None:
    first = decoder.example(*SHORT[:2], reply="a").head
    assert decoder.example(*SHORT[:2], reply="b").head is first
    monkeypatch.setattr("engine.training.decoder.MAX_KEPT_HEAD_TOKENS", 10)
    decoder.example(*LONG[:2], reply="c")
    assert decoder.example(*SHORT[:2], reply="b").head is not first


def test_a_decoder_that_sees_by_itself_is_refused(tmp_path: Path) -> None:
    vision = CLIPVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    LlavaConfig(vision_config=vision, text_config=tiny_llama().config).save_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match="sees pictures by itself"):
        FrozenDecoder.load(tmp_path, name="llava", dtype=torch.float32, device="cpu")


def test_code_of_a_decoders_folder_is_never_run_nor_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: object) -> str:
        pytest.fail("somebody was asked on the terminal")

    monkeypatch.setattr("builtins.input", ask)
    (tmp_path / "config.json").write_text('{"model_type": "odd", "auto_map": {"AutoConfig": "odd.OddConfig"}}')
    (tmp_path / "odd.py").write_text("raise SystemExit\n")
    with pytest.raises(ConfigurationError, match="without code of its own"):
        FrozenDecoder.load(tmp_path, name="odd", dtype=torch.float32, device="cpu")


def test_a_decoder_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    weights = load_file(save_tiny(tmp_path) / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in weights.items() if "q_proj" not in name}, tmp_path / "model.safetensors"
    )
    with pytest.raises(WeightsError, match="lacks 2 of the model's weights"):
        FrozenDecoder.load(tmp_path, name="tiny", dtype=torch.float32, device="cpu")
