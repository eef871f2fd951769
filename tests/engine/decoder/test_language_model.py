"""The wrapper against the plain backbone, on tiny random models."""

import io
import struct
from pathlib import Path

import pytest
import torch
from PIL import Image as PillowImage
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from engine.config import EngineConfig
from engine.decoder import language_model as module
from engine.decoder.checkpoint import Checkpoint
from engine.decoder.language_model import EncodedPrompt, LanguageModel
from engine.errors import ConfigurationError, DeviceError, EngineError, RequestError, WeightsError
from engine.models.store import ModelStore
from engine.types import Image, Role, Turn
from tests.engine.tiny import save_tiny, tiny_language_model, tiny_tokenizer

MODEL = tiny_language_model()
TURNS = (Turn(Role.USER, "Hi!"), Turn(Role.ASSISTANT, "Ahoy."), Turn(Role.USER, "Who are you?"))
PROMPT = MODEL.encode(MODEL.prompts.write("Be kind.", TURNS))
PREFIX = torch.randn(4, MODEL.hidden_size, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def plain_logits(model: PreTrainedModel, **inputs: torch.Tensor) -> torch.Tensor:
    return model(**inputs, logits_to_keep=1).logits[0, -1]


def load(folder: Path, tmp_path: Path, **settings: object) -> LanguageModel:
    config = EngineConfig(cache_dir=tmp_path / "cache", decoder=str(folder), dtype="float32", **settings)  # type: ignore[arg-type]
    return LanguageModel.load(config, models=ModelStore(config.cache_dir))


def picture(colour: str = "red") -> Image:
    buffer = io.BytesIO()
    PillowImage.new("RGB", (40, 30), colour).save(buffer, "PNG")
    return Image(colour, buffer.getvalue())


def test_without_prefix_the_backbone_is_untouched_bit_for_bit() -> None:
    logits = MODEL.prefill(PROMPT, MODEL.new_state())
    assert torch.equal(logits, plain_logits(MODEL.model, input_ids=torch.tensor([PROMPT.pieces[0]])))


def test_decode_steps_equal_reading_everything_again() -> None:
    state = MODEL.new_state()
    MODEL.prefill(PROMPT, state)
    for token in (50, 60, 70):
        logits = MODEL.decode(token, state)
    again = plain_logits(MODEL.model, input_ids=torch.tensor([[*PROMPT.pieces[0], 50, 60, 70]]))
    torch.testing.assert_close(logits, again, atol=1e-4, rtol=1e-4)


def test_a_prefix_stands_where_its_turn_begins() -> None:
    pieces = MODEL.prompts.write("Be kind.", TURNS, places={2})
    prompt = MODEL.encode(pieces, [PREFIX])
    assert prompt.num_tokens == pieces.num_tokens + len(PREFIX)
    logits = MODEL.prefill(prompt, MODEL.new_state())
    before, after = (MODEL.model.get_input_embeddings()(torch.tensor(piece)) for piece in pieces.pieces)
    expected = plain_logits(MODEL.model, inputs_embeds=torch.cat([before, PREFIX, after]).unsqueeze(0))
    assert torch.equal(logits, expected)
    assert not torch.allclose(logits, MODEL.prefill(PROMPT, MODEL.new_state()), atol=1e-2)


@pytest.mark.parametrize("num_cached", [5, 40, 60])
def test_what_the_cache_holds_is_not_read_again(num_cached: int) -> None:
    prompt = MODEL.encode(MODEL.prompts.write("Be kind.", TURNS, places={2}), [PREFIX])
    whole = MODEL.new_state()
    logits = MODEL.prefill(prompt, whole)
    state = MODEL.new_state()
    MODEL.prefill(prompt, state)
    state.cache.crop(num_cached - prompt.num_tokens)
    torch.testing.assert_close(MODEL.prefill(prompt, state), logits, atol=1e-4, rtol=1e-4)
    assert state.cache.get_seq_length() == prompt.num_tokens


def test_the_ends_of_a_turn_are_known() -> None:
    assert MODEL.end_token_ids == {0, 2}


def test_a_folder_is_loaded(tmp_path: Path) -> None:
    model = load(save_tiny(tmp_path / "model"), tmp_path, max_context_tokens=100)
    assert (model.hidden_size, model.max_context_tokens, model.takes_pictures) == (32, 100, False)
    logits = model.prefill(PROMPT, model.new_state())
    assert torch.equal(logits, MODEL.prefill(PROMPT, MODEL.new_state()))


def test_the_context_is_never_longer_than_the_model_allows() -> None:
    assert tiny_language_model(max_context_tokens=100_000).max_context_tokens == 512


def broken_folder(tmp_path: Path, what: str) -> Path:
    folder = save_tiny(tmp_path / "model", chat_template=None if what == "no template" else "{{ messages }}")
    weights = folder / "model.safetensors"
    match what:
        case "no config":
            (folder / "config.json").unlink()
        case "no weights":
            weights.unlink()
        case "cut weights":
            weights.write_bytes(weights.read_bytes()[:2000])
        case "damaged header":
            weights.write_bytes(b"\xff" * 2000)
        case "strange header":
            weights.write_bytes(struct.pack("<Q", 7) + b'{"a":1}')
        case "missing weights":
            kept = {name: value for name, value in load_file(weights).items() if "layers.1.mlp" not in name}
            save_file(kept, weights, metadata={"format": "pt"})
        case "damaged tokenizer":
            (folder / "tokenizer.json").write_text('{"model":')
        case "unknown kind":
            (folder / "config.json").write_text('{"model_type": "nobody-knows"}')
        case "own code":
            (folder / "config.json").write_text('{"model_type": "x", "auto_map": {"AutoConfig": "a.B"}}')
            (folder / "a.py").write_text("raise SystemExit")
        case "no language model":
            (folder / "config.json").write_text('{"model_type": "vit"}')
    return folder


@pytest.mark.parametrize(
    ("what", "kind", "words"),
    [
        ("no config", WeightsError, "config.json is missing"),
        ("no weights", WeightsError, "no \\*.safetensors"),
        ("cut weights", WeightsError, "damaged"),
        ("damaged header", WeightsError, "damaged"),
        ("strange header", WeightsError, "damaged"),
        ("missing weights", WeightsError, "lacks 3 of the model's weights"),
        ("damaged tokenizer", WeightsError, "the tokenizer in"),
        ("unknown kind", ConfigurationError, "docs/models.md"),
        ("own code", ConfigurationError, "docs/models.md"),
        ("no language model", ConfigurationError, "docs/models.md"),
        ("no template", ConfigurationError, "instruction-tuned"),
    ],
)
def test_a_folder_that_cannot_be_used_says_why(
    tmp_path: Path, what: str, kind: type[EngineError], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = broken_folder(tmp_path, what)
    capsys.readouterr()
    with pytest.raises(kind, match=words):
        load(folder, tmp_path)
    # No progress bar, no report, and nobody is asked whether foreign code may run.
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["no such model", "~nobody-of-that-name/model", "x" * 300])
def test_a_name_that_means_nothing_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"engine\.decoder"):
        load(Path(name), tmp_path)


def test_memory_that_runs_out_while_loading_is_not_taken_for_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "load_model", lambda *_, **__: torch.empty(1 << 50))
    with pytest.raises(DeviceError, match="smaller model"):
        load(save_tiny(tmp_path / "model"), tmp_path)


def test_a_repository_out_of_reach_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="copy the repository's files into a folder"):
        load(Path("nobody/nothing"), tmp_path)


def test_a_model_that_does_not_fit_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tiny(tmp_path / "model")
    monkeypatch.setattr(module, "free_bytes", lambda device: 50_000)
    monkeypatch.setattr(module, "load_model", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(DeviceError, match="smaller model"):
        load(folder, tmp_path)


def test_weights_are_measured_from_the_header(tmp_path: Path) -> None:
    checkpoint = Checkpoint("tiny", save_tiny(tmp_path / "model"), {})
    expected = sum(parameter.numel() for parameter in MODEL.model.parameters())
    assert checkpoint.num_parameters == expected
    assert checkpoint.num_bytes(2) == 2 * expected


@pytest.mark.parametrize("is_sharded", [False, True])
def test_weights_that_lie_there_twice_count_once(tmp_path: Path, is_sharded: bool) -> None:
    folder = tmp_path / "model"
    MODEL.model.save_pretrained(folder, max_shard_size="20KB" if is_sharded else "5GB")
    assert (folder / "model.safetensors").exists() != is_sharded
    save_file({"a": torch.zeros(10_000)}, folder / "consolidated.safetensors")
    expected = sum(parameter.numel() for parameter in MODEL.model.parameters())
    assert Checkpoint("tiny", folder, {}).num_parameters == expected


PICTURE_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% for p in m['content'] %}"
    "{% if p['type'] == 'image' %}<image>{% else %}{{ p['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = {
    "vocab_size": 260,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A whole LLaVA, saved and loaded as a user would name it; its pictures need no torchvision."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("llava")
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
    )
    config = LlavaConfig(
        vision_config=vision, text_config=LlamaConfig(**TEXT), image_token_index=3, vision_feature_layer=-1
    )
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    model.save_pretrained(folder)
    LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        tiny_tokenizer(),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=PICTURE_CHATML,
        image_token="<image>",
    ).save_pretrained(folder)
    return load(folder, folder)


def test_a_vision_language_model_sees_the_picture(llava: LanguageModel) -> None:
    assert llava.takes_pictures
    assert not llava.takes_prefix
    logits = {}
    for colour in ("red", "blue"):
        prompt = llava.encode_with_pictures("Be kind.", [Turn(Role.USER, "What <image> is it?", (picture(colour),))])
        assert prompt.pieces[0].count(3) == 4
        logits[colour] = llava.prefill(prompt, llava.new_state())
    assert not torch.allclose(logits["red"], logits["blue"], atol=1e-3)


def test_a_vision_language_model_decodes_like_its_backbone(llava: LanguageModel) -> None:
    turns = [
        Turn(Role.USER, "one", (picture(),)),
        Turn(Role.ASSISTANT, "ok"),
        Turn(Role.USER, "two", (picture("blue"),)),
    ]
    prompt = llava.encode_with_pictures("", turns)
    state = llava.new_state()
    llava.prefill(prompt, state)
    logits = llava.decode(60, state)
    ids = torch.tensor([[*prompt.pieces[0], 60]])
    torch.testing.assert_close(
        logits, plain_logits(llava.model, input_ids=ids, **prompt.pictures), atol=1e-4, rtol=1e-4
    )


def test_a_picture_that_cannot_be_decoded_is_said(llava: LanguageModel) -> None:
    with pytest.raises(RequestError, match="send it again"):
        llava.encode_with_pictures("", [Turn(Role.USER, "what?", (Image("x", b"no picture"),))])


def test_a_vision_language_model_talks_without_pictures(llava: LanguageModel) -> None:
    prompt = llava.encode_with_pictures("Be kind.", [Turn(Role.USER, "Hi")])
    expected = plain_logits(llava.model, input_ids=torch.tensor([prompt.pieces[0]]))
    assert torch.equal(llava.prefill(prompt, llava.new_state()), expected)


def test_two_generations_of_a_qwen_vl_keep_their_own_positions() -> None:
    torch.manual_seed(0)
    text = TEXT | {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10_000.0}}
    vision = {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 1, "patch_size": 8}
    backbone = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision, image_token_id=3))
    model = LanguageModel(backbone, tiny_tokenizer(), name="tiny-qwen")
    grid = torch.tensor([[1, 4, 4]])
    ids = (1, 9, *[3] * 4, 20, 21)
    pictures = {
        "pixel_values": torch.randn(16, 3 * 2 * 8 * 8),
        "image_grid_thw": grid,
        "mm_token_type_ids": torch.tensor([[0, 0, 1, 1, 1, 1, 0, 0]]),
    }
    with_picture = EncodedPrompt((ids,), pictures=pictures)

    def run(*, is_interleaved: bool) -> torch.Tensor:
        state, other = model.new_state(), model.new_state()
        model.prefill(with_picture, state)
        if is_interleaved:
            model.prefill(EncodedPrompt(((1, 30, 31, 32),)), other)
            model.decode(33, other)
            assert other.rope_deltas is None
        assert state.rope_deltas is not None
        return model.decode(40, state)

    assert torch.equal(run(is_interleaved=False), run(is_interleaved=True))
