"""The image encoder: an EfficientNet-Lite2, giving a map of patches and the classes that a picture most likely shows.

Owns the preprocessing that the network was trained with. Does not know what its classes are called: names and their
meaning belong to the fusion's vocabulary. Shapes: `b` pictures, `n_p` patches, `n_c` concepts, `d_i` = 1280.
"""

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from efficientnet_lite_pytorch import EfficientNet
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from engine.encoders.types import ImageFeatures
from engine.errors import RequestError, WeightsError

INPUT_SIZE = 260
GRID_SIZE = 5
NUM_CONCEPTS = 10
WEIGHTS_FILE = "model.safetensors"
# What Pillow's readers raise over damaged files.
UNDECODABLE = (
    OSError, EOFError, ValueError, SyntaxError, ArithmeticError, RuntimeError, LookupError, TypeError, AttributeError,
    struct.error, zlib.error, PIL.Image.DecompressionBombError,
)  # fmt: skip


def read_picture(data: bytes) -> Tensor:
    """A JPEG or PNG file as network input `(3, INPUT_SIZE, INPUT_SIZE)`.

    The whole picture is squeezed into a square: nothing at its edges is lost, and patch positions map back to it.
    """
    try:
        with PIL.Image.open(io.BytesIO(data)) as picture:
            square = picture.convert("RGB").resize((INPUT_SIZE, INPUT_SIZE), PIL.Image.Resampling.BICUBIC)
    except UNDECODABLE as error:
        raise RequestError("The picture cannot be decoded; send it again as a JPEG or PNG file.") from error
    pixels = torch.from_numpy(np.asarray(square, dtype=np.float32).copy())
    # The Lite variants were trained on (pixel - 127) / 128, not on ImageNet's mean and deviation.
    return ((pixels - 127.0) / 128.0).permute(2, 0, 1).contiguous()


class ImageEncoder:
    """Pictures into patch tokens and concept weights."""

    patch_width = 1280
    num_patches = GRID_SIZE * GRID_SIZE
    num_classes = 1000

    def __init__(self, backbone: Any) -> None:  # noqa: ANN401 - an untyped library's network
        self.backbone = backbone.eval().requires_grad_(False)

    @classmethod
    def load(cls, folder: Path, *, device: str | torch.device = "cpu") -> "ImageEncoder":
        """The encoder whose state dict lies in `folder`."""
        backbone = EfficientNet.from_name("efficientnet-lite2")
        try:
            backbone.load_state_dict(load_file(folder / WEIGHTS_FILE))
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise WeightsError(
                f"The image encoder in {folder} is damaged ({type(error).__name__}); "
                "delete that folder and run `commedia models fetch`."
            ) from error
        return cls(backbone.to(device))

    @torch.no_grad()
    def encode(self, pictures: Sequence[bytes]) -> list[ImageFeatures]:
        """Encode files; an empty sequence gives an empty list."""
        if not pictures:
            return []
        device = next(self.backbone.parameters()).device
        return self.encode_pixels(torch.stack([read_picture(data) for data in pictures]).to(device))

    @torch.no_grad()
    def encode_pixels(self, pixels: Tensor) -> list[ImageFeatures]:
        """Encode what `read_picture` gave, `(b, 3, INPUT_SIZE, INPUT_SIZE)`."""
        patches, probabilities = self.run(pixels)
        weights, ids = probabilities.topk(NUM_CONCEPTS, dim=-1)
        # Of a busy photo no class is likely: what counts is how the best guesses compare.
        weights = weights / weights.sum(dim=-1, keepdim=True)
        return [ImageFeatures(*one) for one in zip(patches, ids, weights, strict=True)]

    def run(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """`pixels: (b, 3, h, w)` → patches `(b, n_p, d_i)` and class probabilities `(b, 1000)`."""
        maps: Tensor = self.backbone.extract_features(pixels)
        logits: Tensor = self.backbone._fc(maps.mean(dim=(2, 3)))
        patches = functional.adaptive_avg_pool2d(maps, GRID_SIZE).flatten(2).transpose(1, 2)
        return patches, logits.softmax(dim=-1)
