"""Low-rank adapters: merged as peft merges them, and refused where they belong to something else."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from engine.config import EngineConfig
from engine.decoder import adapter as module
from engine.decoder.adapter import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    adapter_digest,
    adapter_folder,
    merge_adapter,
    read_adapter,
    save_adapter,
)
from engine.decoder.language_model import LanguageModel
from engine.decoder.packing import pack_linear_layers
from engine.errors import ConfigurationError
from engine.models.store import ModelStore
from engine.training.decoder import FrozenDecoder
from tests.engine.tiny import save_tiny, tiny_llama

# peft asks transformers by a name that transformers is about to drop.
BY_AN_OLD_NAME = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
IDS = torch.tensor([[1, 50, 60, 70, 80]])
QUERY = "model.layers.0.self_attn.q_proj"


def an_adapter(folder: Path, *, layer: str = QUERY, shape: tuple[int, int] = (32, 32), base: str = "tiny") -> Path:
    chance = torch.Generator().manual_seed(3)
    updates = {layer: (torch.randn(4, shape[1], generator=chance), torch.randn(shape[0], 4, generator=chance))}
    save_adapter(updates, folder, base=base, rank=4, alpha=8)
    return folder


def change(folder: Path, **settings: object) -> Path:
    path = folder / CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    return model(IDS).logits


def test_only_the_named_layer_changes_by_scale_times_b_a(tmp_path: Path) -> None:
    model, before = tiny_llama(), tiny_llama().state_dict()
    merge_adapter(model, an_adapter(tmp_path), decoder="tiny")
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    down, up = (tensors[f"base_model.model.{QUERY}.lora_{half}.weight"].float() for half in "AB")
    after = model.state_dict()
    torch.testing.assert_close(after[f"{QUERY}.weight"], before[f"{QUERY}.weight"] + 8 / 4 * up @ down)
    assert all(torch.equal(after[name], before[name]) for name in before if name != f"{QUERY}.weight")


def test_the_sum_is_made_in_float32_and_then_rounded(tmp_path: Path) -> None:
    exact, short = tiny_llama(), tiny_llama().to(torch.bfloat16)
    rounded = short.get_submodule(QUERY).weight.detach().float()
    merge_adapter(short, an_adapter(tmp_path), decoder="tiny")
    exact.get_submodule(QUERY).weight.data = rounded
    merge_adapter(exact, tmp_path, decoder="tiny")
    assert torch.equal(short.get_submodule(QUERY).weight, exact.get_submodule(QUERY).weight.to(torch.bfloat16))


@BY_AN_OLD_NAME
@pytest.mark.parametrize(
    "settings",
    [
        {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"},
        {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "use_rslora": True},
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": ["q_proj", "v_proj"],
            "rank_pattern": {"v_proj": 2},
            "alpha_pattern": {"layers.1.self_attn.q_proj": 32},
        },
    ],
)
def test_what_peft_writes_is_merged_as_peft_merges_it(tmp_path: Path, settings: dict[str, Any]) -> None:
    peft = pytest.importorskip("peft", reason="comes with commedia[train]")
    trained = peft.get_peft_model(tiny_llama(), peft.LoraConfig(**settings, task_type="CAUSAL_LM"))
    torch.manual_seed(1)
    for name, parameter in trained.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.3)
    trained.save_pretrained(tmp_path)
    model = tiny_llama()
    merge_adapter(model, tmp_path, decoder="tiny")
    torch.testing.assert_close(logits(model), logits(trained.eval()), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits(model), logits(tiny_llama()), atol=1e-2)


@BY_AN_OLD_NAME
def test_peft_reads_what_is_written_here(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="comes with commedia[train]")
    merged = tiny_llama()
    merge_adapter(merged, an_adapter(tmp_path), decoder="tiny")
    loaded = peft.PeftModel.from_pretrained(tiny_llama(), str(tmp_path)).eval()
    torch.testing.assert_close(logits(merged), logits(loaded), atol=1e-4, rtol=1e-4)


def test_weights_that_lie_the_other_way_round_are_merged(tmp_path: Path) -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=260, n_embd=32, n_layer=1, n_head=4))
    layer = "transformer.h.0.attn.c_attn"
    before = model.get_submodule(layer).weight.detach().clone()
    change(an_adapter(tmp_path, layer=layer, shape=(96, 32)), fan_in_fan_out=True)
    merge_adapter(model, tmp_path, decoder="tiny")
    update = read_adapter(tmp_path).updates[layer]
    expected = before + (update.scale * update.up.float() @ update.down.float()).T
    torch.testing.assert_close(model.get_submodule(layer).weight, expected)


def test_the_engine_and_training_load_it(tmp_path: Path) -> None:
    folder, merged = save_tiny(tmp_path / "tiny"), tiny_llama()
    adapter = an_adapter(tmp_path / "adapter")
    merge_adapter(merged, adapter, decoder="tiny")
    config = EngineConfig(
        cache_dir=tmp_path, decoder=str(folder), decoder_adapter=str(adapter), dtype="float32", device="cpu"
    )
    loaded = LanguageModel.load(config, models=ModelStore(tmp_path))
    trained_on = FrozenDecoder.load(folder, name=str(folder), dtype=torch.float32, device="cpu", adapter=adapter)
    torch.testing.assert_close(logits(loaded.model), logits(merged))
    torch.testing.assert_close(logits(trained_on.model), logits(merged), atol=1e-5, rtol=1e-5)
    assert loaded.adapter == adapter_digest(adapter) != ""


def test_packed_layers_hold_the_adapter(tmp_path: Path) -> None:
    plain, packed = (tiny_llama().to(torch.bfloat16) for _ in range(2))
    for model in (plain, packed):
        merge_adapter(model, an_adapter(tmp_path), decoder="tiny")
    if not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        pytest.skip("this torch was built without oneDNN")
    pack_linear_layers(packed)
    torch.testing.assert_close(logits(packed), logits(plain), atol=5e-2, rtol=5e-2)


def test_which_adapter_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHIPPED", tmp_path)
    shipped = an_adapter(tmp_path / "small-model")
    own = an_adapter(tmp_path / "own")
    assert adapter_folder(None, decoder="small-model") == shipped
    assert adapter_folder(None, decoder="another") is None
    assert adapter_folder(None, decoder="../small-model") is None
    assert adapter_folder("none", decoder="small-model") is None
    assert adapter_folder(str(own), decoder="small-model") == own
    with pytest.raises(ConfigurationError, match=r"engine\.decoder_adapter .*none"):
        adapter_folder(str(tmp_path / "nowhere"), decoder="small-model")


def test_a_digest_tells_adapters_apart_wherever_they_lie(tmp_path: Path) -> None:
    first = an_adapter(tmp_path / "first")
    copy = shutil.copytree(first, tmp_path / "copy")
    assert adapter_digest(first) == adapter_digest(copy)
    assert adapter_digest(change(copy, lora_alpha=9)) != adapter_digest(first)
    other = an_adapter(tmp_path / "other", layer="model.layers.1.self_attn.q_proj")
    assert adapter_digest(other) != adapter_digest(first)
    assert adapter_digest(None) == ""


@pytest.mark.parametrize(
    ("base", "decoder", "is_taken"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2-135m-instruct", True),
        ("unsloth/SmolLM2-135M-Instruct-bnb-4bit", "HuggingFaceTB/SmolLM2-135M-Instruct", True),
        ("HuggingFaceTB/SmolLM2-135M", "smollm2-135m-instruct", False),
        ("/home/somebody/models/mine", "smollm2-135m-instruct", True),
        ("", "smollm2-135m-instruct", True),
    ],
)
def test_the_name_of_the_base_must_be_the_decoders(tmp_path: Path, base: str, decoder: str, is_taken: bool) -> None:
    an_adapter(tmp_path, base=base)
    if is_taken:
        merge_adapter(tiny_llama(), tmp_path, decoder=decoder)
    else:
        with pytest.raises(ConfigurationError, match=f"trained on {base}, and engine.decoder is {decoder}"):
            merge_adapter(tiny_llama(), tmp_path, decoder=decoder)


def test_nothing_is_merged_of_an_adapter_that_fits_in_part(tmp_path: Path) -> None:
    updates = {
        QUERY: (torch.ones(4, 32), torch.ones(32, 4)),
        "model.layers.1.mlp.up_proj": (torch.ones(4, 32), torch.ones(100, 4)),
    }
    save_adapter(updates, tmp_path, base="tiny", rank=4, alpha=8)
    model = tiny_llama()
    with pytest.raises(ConfigurationError, match=r"changes model\.layers\.1\.mlp\.up_proj as \(100, 32\)"):
        merge_adapter(model, tmp_path, decoder="tiny")
    assert torch.equal(model.get_submodule(QUERY).weight, tiny_llama().get_submodule(QUERY).weight)


def refuse(folder: Path, message: str, model: LlamaForCausalLM | None = None) -> None:
    with pytest.raises(ConfigurationError, match=message):
        merge_adapter(model or tiny_llama(), folder, decoder="tiny")


def test_a_layer_that_the_decoder_lacks_is_refused(tmp_path: Path) -> None:
    refuse(an_adapter(tmp_path, layer="model.layers.9.self_attn.q_proj"), "layer model.layers.9.self_attn.q_proj that")


def test_a_head_that_is_also_the_table_of_embeddings_is_refused(tmp_path: Path) -> None:
    model = tiny_llama()
    model.lm_head.weight = model.model.embed_tokens.weight
    refuse(an_adapter(tmp_path, layer="lm_head", shape=(260, 32)), "shares its weight", model)


def test_a_quantised_layer_is_refused(tmp_path: Path) -> None:
    model = tiny_llama()
    layer = model.get_submodule(QUERY)
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    refuse(an_adapter(tmp_path), "unquantised", model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "IA3"}, "is a IA3 adapter"),
        ({"use_dora": True}, "uses use_dora"),
        ({"modules_to_save": ["lm_head"]}, "uses modules_to_save"),
        ({"bias": "all"}, "uses bias"),
        ({"r": 8}, "has rank 4"),
        ({"lora_alpha": "much"}, "lora_alpha as numbers"),
        ({"r": None}, "as numbers"),
    ],
)
def test_what_cannot_be_merged_says_so(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    refuse(change(an_adapter(tmp_path), **settings), message)


def test_damaged_files_say_so(tmp_path: Path) -> None:
    folder = an_adapter(tmp_path / "config")
    (folder / CONFIG_FILE).write_text("{")
    refuse(folder, "is damaged")
    (folder / CONFIG_FILE).write_text("[]")
    refuse(folder, "is no adapter's configuration")
    folder = an_adapter(tmp_path / "weights")
    (folder / WEIGHTS_FILE).write_bytes((folder / WEIGHTS_FILE).read_bytes()[:100])
    refuse(folder, "is damaged")
    (folder / WEIGHTS_FILE).unlink()
    refuse(folder, "has no adapter_model.safetensors")


def test_odd_tensors_are_refused(tmp_path: Path) -> None:
    folder = an_adapter(tmp_path)
    tensors = load_file(folder / WEIGHTS_FILE)
    name = f"base_model.model.{QUERY}.lora_B.weight"
    save_file({key: value for key, value in tensors.items() if key != name}, folder / WEIGHTS_FILE)
    refuse(folder, "has no matching pair")
    embedding = {"base_model.model.model.embed_tokens.lora_embedding_A": torch.ones(4, 260)}
    save_file(tensors | embedding, folder / WEIGHTS_FILE)
    refuse(folder, "more than linear layers")


@pytest.mark.parametrize(
    "settings", [{"rank_pattern": {"(": 4}}, {"alpha_pattern": ["q_proj"]}, {"lora_alpha": float("nan")}, {"r": "four"}]
)
def test_settings_that_mean_nothing_are_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="copy or train the adapter again"):
        read_adapter(change(an_adapter(tmp_path), **settings))


def test_an_adapter_that_is_no_numbers_changes_nothing(tmp_path: Path) -> None:
    tensors = load_file(an_adapter(tmp_path) / WEIGHTS_FILE)
    tensors[f"base_model.model.{QUERY}.lora_A.weight"][0, 0] = float("nan")
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    model = tiny_llama()
    with pytest.raises(ConfigurationError, match="no number"):
        merge_adapter(model, tmp_path, decoder="tiny")
    assert torch.equal(logits(model), logits(tiny_llama()))
