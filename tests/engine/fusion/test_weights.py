import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import ConfigurationError
from engine.fusion import weights as weights_module
from engine.fusion.config import FORMAT_VERSION, FusionConfig
from engine.fusion.model import FusionModel
from engine.fusion.weights import bind, read_fusion, save_fusion, shipped_folder
from tests.engine.fusion.tiny import CONFIG, NAMES, a_turn, tiny_fusion
from tests.engine.tiny import tiny_language_model


def saved(folder: Path, **changes: object) -> Path:
    save_fusion(tiny_fusion(**changes), NAMES, folder)
    return folder


def bound(folder: Path) -> FusionModel:
    decoder = tiny_language_model()
    return bind(
        read_fusion(folder),
        tokenize=lambda text: list(decoder.prompts.tokenise(text)),
        embeddings=decoder.model.get_input_embeddings().weight,
        device=torch.device("cpu"),
    )


def edit(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_what_was_saved_comes_back_in_half_precision(tmp_path: Path) -> None:
    model, loaded = tiny_fusion(), bound(saved(tmp_path))
    assert loaded.config == CONFIG
    for name, tensor in model.state_dict().items():
        assert torch.allclose(loaded.state_dict()[name], tensor, atol=2e-3, rtol=2e-3), name
    assert load_file(tmp_path / "model.safetensors")["meanings"].dtype == torch.float16


def test_class_names_are_spelled_with_the_decoders_embeddings(tmp_path: Path) -> None:
    decoder = tiny_language_model()
    spelled = bound(saved(tmp_path)).names[7]
    ids = decoder.prompts.tokenise(" thing 7")[: CONFIG.num_lexical_tokens]
    assert torch.equal(spelled, decoder.embed(ids))


def test_a_model_without_a_lexical_path_comes_back(tmp_path: Path) -> None:
    loaded = bound(saved(tmp_path, num_lexical_tokens=0))
    assert loaded.lexical_path is None
    assert loaded([a_turn()]).prefix.any()


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    edit(saved(tmp_path), format_version=FORMAT_VERSION + 1)
    with pytest.raises(ConfigurationError, match="update Commedia"):
        read_fusion(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "config.json").write_text("[]"),
        lambda folder: edit(folder, policy="sometimes"),
        lambda folder: edit(folder, colour="red"),
        lambda folder: edit(folder, width="24"),
        lambda folder: edit(folder, num_heads=0),
        lambda folder: edit(folder, num_heads=5),
        lambda folder: edit(folder, has_steering="yes"),
        lambda folder: edit(folder, embedding_scale=float("nan")),
        lambda folder: edit(folder, decoder=None),
        lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 30),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "classes.json").write_text("["),
    ],
)
def test_a_damaged_folder_is_refused(tmp_path: Path, damage) -> None:
    damage(saved(tmp_path))
    with pytest.raises(ConfigurationError):
        read_fusion(tmp_path)


def test_another_decoders_width_is_refused(tmp_path: Path) -> None:
    save_fusion(tiny_fusion(decoder_width=48), NAMES, tmp_path)
    with pytest.raises(ConfigurationError, match=r"width 48.*width 32"):
        bound(tmp_path)


@pytest.mark.parametrize("fields", [{"width": 48}, {"num_layers": 3}, {"num_classes": 999}, {"text_width": 8}])
def test_weights_that_do_not_fit_their_configuration_are_refused(tmp_path: Path, fields: dict[str, int]) -> None:
    edit(saved(tmp_path), **fields)
    with pytest.raises(ConfigurationError, match="train it again"):
        bound(tmp_path)


def test_missing_names_are_refused(tmp_path: Path) -> None:
    (saved(tmp_path) / "classes.json").write_text('["dog"]')
    with pytest.raises(ConfigurationError, match="1000 classes"):
        bound(tmp_path)


def test_missing_tensors_are_refused(tmp_path: Path) -> None:
    tensors = load_file(saved(tmp_path) / "model.safetensors")
    save_file({"meanings": tensors["meanings"]}, tmp_path / "model.safetensors")
    with pytest.raises(ConfigurationError, match="do not fit"):
        bound(tmp_path)


def test_weights_that_are_no_numbers_are_refused_before_a_reply_needs_them(tmp_path: Path) -> None:
    tensors = load_file(saved(tmp_path) / "model.safetensors")
    tensors["readout.queries"][0, 0] = float("inf")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ConfigurationError, match=r"no numbers \(readout\.queries\)"):
        bound(tmp_path)


def test_shipped_weights_are_found_by_what_they_say(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(weights_module, "SHIPPED", tmp_path)
    saved(tmp_path / "some-folder")
    (tmp_path / "empty").mkdir()
    assert shipped_folder("tiny") == tmp_path / "some-folder"
    assert shipped_folder("another/model") is None


def test_a_configuration_survives_the_disk(tmp_path: Path) -> None:
    CONFIG.save(tmp_path)
    assert FusionConfig.load(tmp_path) == CONFIG
