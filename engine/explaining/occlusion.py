"""A picture without one of its regions, for every region.

Owns how a region is taken away: it fades into the picture's mean colour, so that the image encoder finds no new edge.
Knows neither the fusion nor the reply. Leaving patch tokens out instead says nothing: each patch has seen most of the
picture, and the concept words come from all of it (docs/why.md has the figures). Shapes: `n` regions, `h`, `w` sides in
pixels.
"""

import torch
from torch import Tensor

from engine.encoders.image import GRID_SIZE, ImageEncoder, read_picture
from engine.encoders.types import ImageFeatures

BATCH_SIZE = 5
# Width of the fade at a region's edge, as a part of the region's side.
SOFTNESS = 0.1


def without_each_region(picture: bytes, encoder: ImageEncoder, *, grid_size: int = GRID_SIZE) -> list[ImageFeatures]:
    """The features of a picture once a region, without it; row by row from the upper left."""
    versions = occlude(read_picture(picture), grid_size=grid_size)
    device = next(encoder.backbone.parameters()).device
    starts = range(0, len(versions), BATCH_SIZE)
    return [one for start in starts for one in encoder.encode_pixels(versions[start : start + BATCH_SIZE].to(device))]


def occlude(pixels: Tensor, *, grid_size: int) -> Tensor:
    """`(3, h, w)` → `(n, 3, h, w)` with `n = grid_size²`."""
    down, across = (_bands(size, grid_size) for size in pixels.shape[1:])
    hidden = (down[:, None, :, None] * across[None, :, None, :]).flatten(0, 1)[:, None]
    mean = pixels.mean(dim=(1, 2), keepdim=True)
    return pixels * (1 - hidden) + mean * hidden


def _bands(size: int, count: int) -> Tensor:
    """`(count, size)`: row `j` is near 1 in the `j`-th of `count` equal parts, and fades to 0 outside."""
    places = (torch.arange(size) + 0.5) * count / size
    starts = torch.arange(count)[:, None]
    return torch.sigmoid((places - starts) / SOFTNESS * 2) * torch.sigmoid((starts + 1 - places) / SOFTNESS * 2)
