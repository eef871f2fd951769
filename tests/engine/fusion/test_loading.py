from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.config import EngineConfig
from engine.errors import ConfigurationError
from engine.fusion import load_fuser
from engine.fusion import weights as weights_module
from engine.fusion.weights import save_fusion
from engine.persona import Persona
from engine.types import Image
from tests.engine.encoders.tiny import picture, random_image_encoder, save_text_encoder
from tests.engine.fusion.tiny import NAMES, tiny_fusion
from tests.engine.tiny import tiny_language_model


class FakeStore:
    """Hands out folders that a test has prepared."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ensure(self, name: str) -> Path:
        return self._folder / name


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FakeStore:
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("models")
    (folder / "efficientnet-lite2").mkdir()
    state = {name: tensor.contiguous() for name, tensor in random_image_encoder().backbone.state_dict().items()}
    save_file(state, folder / "efficientnet-lite2" / "model.safetensors")
    save_text_encoder(folder / "all-minilm-l6-v2")
    return FakeStore(folder)


def config_of(folder: Path, **fields: object) -> EngineConfig:
    return replace(EngineConfig(cache_dir=folder, decoder="tiny"), **fields)


def test_trained_weights_fuse_a_turn(tmp_path: Path, store: FakeStore) -> None:
    save_fusion(tiny_fusion(), NAMES, tmp_path)
    decoder = tiny_language_model()
    fuser = load_fuser(config_of(tmp_path, fusion_weights=tmp_path), models=store, language_model=decoder)
    persona = Persona(id="ada", name="Ada", summary="kind", greetings=("hi",))
    context = fuser.fuse(persona, "a dog", (Image("0" * 64, picture()),))
    assert context.prefix.shape == (fuser.num_prefix_tokens, decoder.hidden_size)
    assert context.prefix.dtype == decoder.dtype
    assert torch.isfinite(context.prefix).all()


def test_a_decoder_without_trained_weights_runs_without(tmp_path: Path, store: FakeStore, monkeypatch) -> None:
    monkeypatch.setattr(weights_module, "SHIPPED", tmp_path)
    assert load_fuser(config_of(tmp_path), models=store, language_model=tiny_language_model()) is None


def test_fusion_can_be_switched_off(tmp_path: Path, store: FakeStore) -> None:
    save_fusion(tiny_fusion(), NAMES, tmp_path)
    config = config_of(tmp_path, fusion="none", fusion_weights=tmp_path)
    assert load_fuser(config, models=store, language_model=tiny_language_model()) is None


def test_an_unknown_fusion_is_refused_by_name(tmp_path: Path, store: FakeStore) -> None:
    with pytest.raises(ConfigurationError, match=r"magic.*coattention.*, none"):
        load_fuser(config_of(tmp_path, fusion="magic"), models=store, language_model=tiny_language_model())


def test_named_weights_for_another_decoder_are_refused(tmp_path: Path, store: FakeStore) -> None:
    save_fusion(tiny_fusion(decoder="someone/else"), NAMES, tmp_path)
    with pytest.raises(ConfigurationError, match="trained for someone/else"):
        load_fuser(config_of(tmp_path, fusion_weights=tmp_path), models=store, language_model=tiny_language_model())


@pytest.mark.parametrize(("trained_with", "runs_with"), [("", "ab12"), ("ab12", ""), ("ab12", "cd34")])
def test_named_weights_that_read_the_decoder_with_another_adapter_are_refused(
    tmp_path: Path, store: FakeStore, trained_with: str, runs_with: str
) -> None:
    save_fusion(tiny_fusion(adapter=trained_with), NAMES, tmp_path)
    decoder = tiny_language_model()
    decoder.adapter = runs_with
    with pytest.raises(ConfigurationError, match=f"{trained_with or 'no adapter'}.* {runs_with or 'no adapter'};"):
        load_fuser(config_of(tmp_path, fusion_weights=tmp_path), models=store, language_model=decoder)


def test_shipped_weights_stay_away_from_a_decoder_with_another_adapter_and_say_so(
    tmp_path: Path, store: FakeStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(weights_module, "SHIPPED", tmp_path)
    save_fusion(tiny_fusion(adapter="ab12"), NAMES, tmp_path / "tiny")
    decoder = tiny_language_model()
    assert load_fuser(config_of(tmp_path), models=store, language_model=decoder) is None
    assert "engine.fusion_weights" in caplog.text
    decoder.adapter = "ab12"
    assert load_fuser(config_of(tmp_path), models=store, language_model=decoder) is not None
