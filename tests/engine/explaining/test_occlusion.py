"""What is left of a picture without one of its regions."""

import torch

from engine.explaining.occlusion import occlude, without_each_region
from tests.engine.encoders.tiny import picture
from tests.engine.explaining.tiny import ColourEncoder


def test_each_version_lacks_its_own_region_alone() -> None:
    pixels = torch.rand(3, 50, 100, generator=torch.Generator().manual_seed(0))
    versions = occlude(pixels, grid_size=5)
    assert versions.shape == (25, 3, 50, 100)
    mean = pixels.mean(dim=(1, 2))
    for region, version in enumerate(versions):
        row, column = divmod(region, 5)
        centre = (slice(None), row * 10 + 5, column * 20 + 10)
        assert torch.allclose(version[centre], mean, atol=1e-3)
        away = (slice(None), ((row + 2) % 5) * 10 + 5, slice(None))
        assert torch.allclose(version[away], pixels[away], atol=1e-3)


def test_every_region_is_encoded_in_order() -> None:
    versions = without_each_region(picture("red"), ColourEncoder())
    assert len(versions) == 25
    assert all(version.patches.shape == (25, 1280) for version in versions)
