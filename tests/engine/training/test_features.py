from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import engine.training.features
from engine.encoders.image import ImageEncoder, read_picture
from engine.encoders.types import ImageFeatures
from engine.errors import ConfigurationError
from engine.training.datasets import CaptionedPicture
from engine.training.features import FeatureSet, encode_set, encoder_key
from tests.engine.encoders.tiny import picture


class FakeImageEncoder(ImageEncoder):
    """The mean colour as features."""

    def __init__(self) -> None:
        self.num_encoded = 0

    def encode(self, pictures: list[bytes]) -> list[ImageFeatures]:
        means = [read_picture(data).mean(dim=(1, 2)) for data in pictures]
        self.num_encoded += len(pictures)
        return [ImageFeatures(mean[None], torch.tensor([len(means)]), torch.tensor([1.0])) for mean in means]


def a_set(folder: Path, files: dict[str, bytes], *, listed: list[str] | None = None) -> list[CaptionedPicture]:
    (folder / "pets").mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / "pets" / name).write_bytes(data)
    return [CaptionedPicture(name, ("a dog",)) for name in listed or files]


def encode(folder: Path, pictures: list[CaptionedPicture], encoder: Callable[[], ImageEncoder]) -> FeatureSet:
    return encode_set(
        folder, "pets", pictures=pictures, encoder=encoder, key="k", cache=folder / "cache", advance=lambda *_: None
    )


def test_features_are_computed_once_and_kept(tmp_path: Path) -> None:
    pictures, encoder = a_set(tmp_path, {"a.png": picture("red"), "b.png": picture("blue")}), FakeImageEncoder()
    first = encode(tmp_path, pictures, lambda: encoder)
    again = encode(tmp_path, pictures, lambda: pytest.fail("encoded again"))
    assert encoder.num_encoded == 2
    assert first.images == again.images == ("a.png", "b.png")
    assert torch.allclose(again.row(1).patches[0], read_picture(picture("blue")).mean(dim=(1, 2)), atol=1e-3)
    assert again.row(1).patches.dtype == torch.float32


def test_only_what_is_new_is_encoded_and_rows_keep_their_order(tmp_path: Path) -> None:
    encoder = FakeImageEncoder()
    encode(tmp_path, a_set(tmp_path, {"a.png": picture("red"), "b.png": picture("blue")}), lambda: encoder)
    more = a_set(tmp_path, {"b.png": picture("blue"), "c.png": picture("green"), "same.png": picture("red")})
    features = encode(tmp_path, more, lambda: encoder)
    assert encoder.num_encoded == 3
    assert features.images == ("b.png", "c.png", "same.png")
    for row, colour in enumerate(("blue", "green", "red")):
        mean = read_picture(picture(colour)).mean(dim=(1, 2))
        assert torch.allclose(features.row(row).patches[0], mean, atol=1e-3)


def test_a_changed_file_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    encode(tmp_path, a_set(tmp_path, {"a.png": picture("red")}), FakeImageEncoder)
    features = encode(tmp_path, a_set(tmp_path, {"a.png": picture("blue")}), FakeImageEncoder)
    assert torch.allclose(features.row(0).patches[0], read_picture(picture("blue")).mean(dim=(1, 2)), atol=1e-3)


def test_a_damaged_cache_is_encoded_anew(tmp_path: Path) -> None:
    pictures = a_set(tmp_path, {"a.png": picture("red")})
    encode(tmp_path, pictures, FakeImageEncoder)
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(b"half")
    assert encode(tmp_path, pictures, FakeImageEncoder).images == ("a.png",)


def test_features_are_kept_file_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed run has kept what it encoded."""
    monkeypatch.setattr(engine.training.features, "PICTURES_PER_FILE", 2)
    files = {f"{colour}.png": picture(colour) for colour in ("red", "blue", "green", "yellow", "black")}
    pictures, done = a_set(tmp_path, files), []

    class Killed(Exception):
        pass

    def advance(number: int, total: int) -> None:
        done.append((number, total))
        if number == 4:
            raise Killed

    told = {"pictures": pictures, "key": "k", "cache": tmp_path / "cache"}
    with pytest.raises(Killed):
        encode_set(tmp_path, "pets", **told, encoder=FakeImageEncoder, advance=advance)
    assert done == [(2, 5), (4, 5)]
    encoder = FakeImageEncoder()
    assert encode(tmp_path, pictures, lambda: encoder).images == tuple(files)
    assert encoder.num_encoded == 3


def test_other_pictures_are_encoded_anew(tmp_path: Path) -> None:
    encoder = FakeImageEncoder()
    encode(tmp_path, a_set(tmp_path, {"a.png": picture("red")}), lambda: encoder)
    assert encode(tmp_path, a_set(tmp_path, {"b.png": picture("blue")}), lambda: encoder).images == ("b.png",)


def test_broken_and_missing_pictures_are_left_out_and_listed(tmp_path: Path) -> None:
    files = {"a.png": picture("red"), "broken.png": b"broken", "c.png": picture("blue")}
    pictures = a_set(tmp_path, files, listed=["a.png", "broken.png", "gone.png", "c.png"])
    features = encode(tmp_path, pictures, FakeImageEncoder)
    assert features.images == ("a.png", "c.png")
    assert features.skipped == ("broken.png", "gone.png")
    assert torch.allclose(features.row(1).patches[0], read_picture(picture("blue")).mean(dim=(1, 2)), atol=1e-3)


def test_a_set_without_a_readable_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no picture of the set pets"):
        encode(tmp_path, a_set(tmp_path, {"broken.png": b"broken"}), FakeImageEncoder)
    assert not list((tmp_path / "cache").glob("*"))


def test_the_key_changes_with_the_encoder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"one")
    first = encoder_key(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"two")
    assert encoder_key(tmp_path) != first
