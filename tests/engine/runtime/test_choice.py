"""Which runtime is taken, on real folders with tiny models, and what happens to exports that are damaged or stale."""

import logging
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import BloomConfig, BloomForCausalLM, MambaConfig, MambaForCausalLM, PreTrainedModel

from engine.config import EngineConfig
from engine.decoder.language_model import LanguageModel
from engine.errors import ConfigurationError
from engine.generation.loop import GenerationLoop
from engine.models.store import ModelStore
from engine.runtime import choice
from engine.runtime.choice import choose_runtime
from engine.runtime.paged import BLOCK_SIZE, PagedRuntime
from engine.runtime.types import Runtime, Span, Unsupported
from engine.types import ReplyChunk
from tests.engine.generation.loops import OneRuntime, serve
from tests.engine.generation.requests import request
from tests.engine.runtime.tiny import a_language_model, a_model
from tests.engine.tiny import tiny_tokenizer


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="engine.runtime.choice")
    return caplog


def save(model: PreTrainedModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def a_config(folder: Path, cache: Path, **changes: object) -> EngineConfig:
    settings = {"device": "cpu", "dtype": "float32", "max_running": 2, **changes}
    return EngineConfig(cache_dir=cache, decoder=str(folder), **settings)


def chosen(config: EngineConfig) -> tuple[LanguageModel, Runtime]:
    models = ModelStore(config.cache_dir)
    language_model = LanguageModel.load(config, models=models)
    return language_model, choose_runtime(config, language_model, models)


def is_served(language_model: LanguageModel, runtime: Runtime) -> bool:
    (caller,) = serve(GenerationLoop(language_model, runtime), request("Hi!"))
    return isinstance(caller.answers[-1], ReplyChunk)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model's folder, and a cache in which its export lies."""
    pytest.importorskip("openvino")
    root = tmp_path_factory.mktemp("exported")
    folder, cache = save(a_model("llama"), root / "model"), root / "cache"
    assert chosen(a_config(folder, cache))[1].name == "openvino"
    return folder, cache


@pytest.fixture
def cache(exported: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of that cache, to be spoilt."""
    return Path(shutil.copytree(exported[1], tmp_path / "cache"))


def exports(cache: Path) -> list[Path]:
    return sorted((cache / "openvino").glob("*.xml"))


def num_preparations(told: pytest.LogCaptureFixture) -> int:
    return sum("preparing" in record.getMessage() for record in told.records)


# --- which


def test_a_cpu_computes_by_openvino(exported: tuple[Path, Path], cache: Path, told: pytest.LogCaptureFixture) -> None:
    model, runtime = chosen(a_config(exported[0], cache))
    assert runtime.name == "openvino"
    assert is_served(model, runtime)
    assert num_preparations(told) == 0
    assert f"computed by openvino; its cache holds {runtime.num_blocks * BLOCK_SIZE} positions" in told.text


def test_torch_computes_where_it_is_asked_for(exported: tuple[Path, Path], tmp_path: Path) -> None:
    model, runtime = chosen(a_config(exported[0], tmp_path, runtime="torch"))
    assert runtime.name == "torch"
    assert is_served(model, runtime)
    assert not (tmp_path / "openvino").exists()


def test_what_openvino_cannot_do_torch_does_and_the_log_says_why(
    tmp_path: Path, told: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("openvino")
    config = a_config(save(a_model("llama, dynamic rope"), tmp_path / "model"), tmp_path)
    model, runtime = chosen(config)
    assert runtime.name == "torch"
    assert "OpenVINO is not used: its rotary positions are of the kind dynamic" in told.text
    assert is_served(model, runtime)


def test_openvino_is_insisted_on_in_vain(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    config = a_config(save(a_model("llama, dynamic rope"), tmp_path / "model"), tmp_path, runtime="openvino")
    with pytest.raises(ConfigurationError, match=r'kind dynamic.*engine\.runtime = "auto"'):
        chosen(config)


UNPACKABLE = {
    "mamba, without attention": lambda: MambaForCausalLM(
        MambaConfig(vocab_size=260, hidden_size=32, num_hidden_layers=2, state_size=4, bos_token_id=1, eos_token_id=2)
    ),
    "bloom, whose attention is its own": lambda: BloomForCausalLM(
        BloomConfig(vocab_size=260, hidden_size=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2)
    ),
}


@pytest.mark.parametrize("name", UNPACKABLE)
def test_what_cannot_be_packed_runs_one_after_the_other(
    name: str, tmp_path: Path, told: pytest.LogCaptureFixture
) -> None:
    model, runtime = chosen(a_config(save(UNPACKABLE[name](), tmp_path / "model"), tmp_path, max_context_tokens=256))
    assert runtime.name == "plain"
    assert "runs one reply at a time" in told.text
    assert is_served(model, runtime) == ("mamba" not in name)


def test_without_openvino_torch_computes(
    exported: tuple[Path, Path], cache: Path, monkeypatch: pytest.MonkeyPatch, told: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    _, runtime = chosen(a_config(exported[0], cache))
    assert runtime.name == "torch"
    assert "OpenVINO is not used" in told.text


# --- the proof


MODEL = a_language_model("llama")


def swapped(spans: Sequence[Span], logits: Tensor) -> Tensor:
    """Each gets the other's answer."""
    return logits.flip(0)


def no_numbers(spans: Sequence[Span], logits: Tensor) -> Tensor:
    return logits * torch.nan


def a_little_off(spans: Sequence[Span], logits: Tensor) -> Tensor:
    return logits * 3


@pytest.mark.parametrize("after", [swapped, no_numbers, a_little_off])
def test_a_runtime_that_computes_something_else_is_found_out(after: object) -> None:
    right = PagedRuntime(MODEL, num_blocks=64)
    choice._prove(right, MODEL)
    with pytest.raises(Unsupported, match="something else than the model"):
        choice._prove(OneRuntime(right, after=after), MODEL)


def test_a_runtime_that_forgets_positions_is_found_out() -> None:
    right = PagedRuntime(MODEL, num_blocks=64)

    def forget(spans: Sequence[Span]) -> None:
        if spans[0].start > 0:
            right._keys[:, : 8 * BLOCK_SIZE] = 0

    with pytest.raises(Unsupported):
        choice._prove(OneRuntime(right, before=forget), MODEL)


@given(num_blocks=st.integers(1, 40), num_positions=st.integers(2, 4096))
def test_the_proof_fits_into_any_cache(num_blocks: int, num_positions: int) -> None:
    lengths = choice._proof_lengths(num_blocks, num_positions)
    assert lengths
    assert all(0 < length < num_positions for length in lengths)
    assert sum(-(-length // BLOCK_SIZE) for length in lengths) <= num_blocks


def test_the_smallest_cache_is_proved() -> None:
    for num_blocks in (1, 2, 3):
        choice._prove(PagedRuntime(MODEL, num_blocks=num_blocks), MODEL)


# --- exports


def test_an_export_is_made_once(exported: tuple[Path, Path], cache: Path, told: pytest.LogCaptureFixture) -> None:
    before = [path.with_suffix(".bin").stat().st_mtime_ns for path in exports(cache)]
    chosen(a_config(exported[0], cache))
    assert [path.with_suffix(".bin").stat().st_mtime_ns for path in exports(cache)] == before
    assert num_preparations(told) == 0


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "half a description": lambda xml: cut(xml),
    "no description": lambda xml: xml.write_text(""),
    "half the weights": lambda xml: cut(xml.with_suffix(".bin")),
    "no weights": lambda xml: xml.with_suffix(".bin").unlink(),
    "of something else": lambda xml: xml.write_text(xml.read_text().replace("commedia", "tragedia")),
    "half of what is beside": lambda xml: xml.write_text(xml.read_text().replace("num_heads", "number")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_export_is_replaced(
    exported: tuple[Path, Path], cache: Path, told: pytest.LogCaptureFixture, damage: str
) -> None:
    (xml,) = exports(cache)
    DAMAGES[damage](xml)
    model, runtime = chosen(a_config(exported[0], cache))
    assert runtime.name == "openvino"
    assert is_served(model, runtime)
    assert "is damaged, and is prepared again" in told.text
    told.clear()
    assert chosen(a_config(exported[0], cache))[1].name == "openvino"
    assert num_preparations(told) == 0


def test_other_weights_make_another_export(
    exported: tuple[Path, Path], cache: Path, tmp_path: Path, told: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(exported[0], tmp_path / "changed"))
    model = a_model("llama")
    chosen(a_config(folder, cache))
    with torch.no_grad():
        model.lm_head.weight.mul_(-1)
    save(model, folder)
    told.clear()
    language_model, runtime = chosen(a_config(folder, cache))
    assert num_preparations(told) == 1
    assert runtime.name == "openvino"
    assert is_served(language_model, runtime)


def test_of_many_exports_those_used_last_stay(
    exported: tuple[Path, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And those of other models, whose names may begin alike. Nothing half-written stays."""
    monkeypatch.setattr(choice, "MAX_EXPORTS", 2)
    (first,) = exports(cache)
    name, folder = first.stem.rpartition("-")[0], first.parent
    oldest, of_another = (folder / f"{one}-0123456789abcdef.xml" for one in (name, f"{name}-large"))
    left_behind = [folder / "unfinished-0123456789abcdef.xml", folder / "unfinished-0123456789abcdef.bin"]
    for path in (oldest, oldest.with_suffix(".bin"), of_another, of_another.with_suffix(".bin"), *left_behind):
        path.write_text("")
        os.utime(path, (0, 0))
    chosen(a_config(exported[0], cache, max_context_tokens=256))
    assert first.exists()
    assert of_another.exists()
    assert of_another.with_suffix(".bin").exists()
    assert not any(path.exists() for path in (oldest, oldest.with_suffix(".bin"), *left_behind))
    assert len(exports(cache)) == 3


@pytest.mark.parametrize("change", [{"weights": "int8"}, {"max_context_tokens": 256}])
def test_other_settings_make_another_export(
    exported: tuple[Path, Path], cache: Path, told: pytest.LogCaptureFixture, change: dict[str, object]
) -> None:
    model, runtime = chosen(a_config(exported[0], cache, **change))
    assert num_preparations(told) == 1
    assert runtime.name == "openvino"
    assert is_served(model, runtime)


def test_without_memory_to_export_torch_computes(
    exported: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: pytest.LogCaptureFixture
) -> None:
    config = a_config(exported[0], tmp_path)
    models = ModelStore(tmp_path)
    language_model = LanguageModel.load(config, models=models)
    monkeypatch.setattr(choice, "free_bytes", lambda device: 100_000)
    assert choose_runtime(config, language_model, models).name == "torch"
    assert "exporting it takes about" in told.text


def test_where_nothing_can_be_written_torch_computes(
    exported: tuple[Path, Path], tmp_path: Path, told: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "openvino").write_text("a file where a folder should be")
    assert chosen(a_config(exported[0], tmp_path))[1].name == "torch"
    assert "OpenVINO is not used" in told.text


def test_one_thread_computes_in_float32() -> None:
    model = a_language_model("llama", torch.bfloat16)
    assert choice._openvino_dtype(model, 1) is torch.float32
    assert choice._openvino_dtype(model, 2) is torch.bfloat16


# --- the cache


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_a_cache_too_small_says_which_is_large_enough(exported: tuple[Path, Path], cache: Path, runtime: str) -> None:
    """One conversation of 512 positions takes 16 blocks. Those of the tiny model are so small that 1 MiB is plenty."""
    model = a_language_model("llama")
    config = a_config(exported[0], cache, kv_cache_mb=3, runtime=runtime)
    with pytest.raises(ConfigurationError, match=r"holds 96 tokens.*set it to 16 or more, or lower engine.max_context"):
        choice.num_blocks_for(config, model, 1 << 20)
    enough = a_config(exported[0], cache, kv_cache_mb=16, runtime=runtime)
    assert choice.num_blocks_for(enough, model, 1 << 20) == 16
    language_model, chosen_one = chosen(a_config(exported[0], cache, kv_cache_mb=1, runtime=runtime))
    assert chosen_one.name == runtime
    assert chosen_one.num_blocks == (1 << 20) // (2 * 2 * 2 * 16 * BLOCK_SIZE * 4)
    assert is_served(language_model, chosen_one)


def test_the_cache_takes_a_share_of_what_is_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model, config = a_language_model("llama"), a_config(tmp_path, tmp_path)
    for free, expected in ((1 << 20, 16), (80 << 20, 20), (1 << 40, 16 * 2 * 2)):
        monkeypatch.setattr(choice, "free_bytes", lambda device, free=free: free)
        assert choice.num_blocks_for(config, model, 1 << 20) == expected
