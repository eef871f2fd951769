from pathlib import Path

import pytest
import torch

from engine.encoders.image import GRID_SIZE, INPUT_SIZE, NUM_CONCEPTS, ImageEncoder, read_picture
from engine.errors import RequestError, WeightsError
from tests.engine.encoders.tiny import picture, random_image_encoder


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    return random_image_encoder()


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "RGB"), ("PNG", "P"), ("PNG", "L"), ("PNG", "RGBA"), ("JPEG", "RGB")]
)
def test_every_kind_of_picture_is_read(kind: str, mode: str) -> None:
    assert read_picture(picture("blue", kind=kind, mode=mode)).shape == (3, INPUT_SIZE, INPUT_SIZE)


def test_pixels_are_scaled_as_the_network_was_trained() -> None:
    red = read_picture(picture("red"))
    assert torch.allclose(red[0], torch.tensor(1.0))
    assert torch.allclose(red[1], torch.tensor(-127 / 128))


@pytest.mark.parametrize("data", [b"", b"no picture", picture()[:60]])
def test_a_broken_picture_is_refused_with_a_remedy(data: bytes) -> None:
    with pytest.raises(RequestError, match="JPEG or PNG"):
        read_picture(data)


def test_features_have_the_documented_shapes(encoder: ImageEncoder) -> None:
    (features,) = encoder.encode([picture()])
    assert features.patches.shape == (GRID_SIZE**2, encoder.patch_width)
    assert features.concept_ids.shape == features.concept_weights.shape == (NUM_CONCEPTS,)
    assert not features.patches.requires_grad


def test_concepts_come_in_order_of_their_probability(encoder: ImageEncoder) -> None:
    (features,) = encoder.encode([picture("green")])
    weights = features.concept_weights
    assert weights.tolist() == sorted(weights.tolist(), reverse=True)
    assert weights.sum() == pytest.approx(1)


def test_a_batch_gives_what_single_pictures_give(encoder: ImageEncoder) -> None:
    files = [picture("red"), picture("blue", size=(10, 90))]
    together = encoder.encode(files)
    for file, features in zip(files, together, strict=True):
        (alone,) = encoder.encode([file])
        scale = features.patches.abs().max()
        assert (alone.patches - features.patches).abs().max() < 1e-3 * scale
    assert (together[0].patches - together[1].patches).abs().max() > 1e-2 * scale


def test_no_pictures_give_no_features(encoder: ImageEncoder) -> None:
    assert encoder.encode([]) == []


def test_patches_lie_row_by_row(encoder: ImageEncoder) -> None:
    pixels = torch.zeros(1, 3, INPUT_SIZE, INPUT_SIZE)
    pixels[..., -INPUT_SIZE // GRID_SIZE :] = 1  # something at the right edge
    plain, _ = encoder.run(torch.zeros_like(pixels))
    marked, _ = encoder.run(pixels)
    change = (marked - plain).abs().sum(dim=-1).view(GRID_SIZE, GRID_SIZE).sum(dim=0)
    assert change[-1] > change[0]


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="commedia models fetch"):
        ImageEncoder.load(tmp_path)


def test_what_an_odd_reader_raises_is_a_broken_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("AVIF: truncated")

    monkeypatch.setattr("PIL.Image.open", fail)
    with pytest.raises(RequestError, match="JPEG or PNG"):
        read_picture(b"avif")
