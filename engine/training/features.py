"""Image features kept on disk, so that an epoch costs no image encoder.

One safetensors file a picture set (half precision), named by the encoder's weights and preprocessing, so that a changed
encoder never meets stale features. Pictures that cannot be decoded are left out and listed.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from engine.encoders import image as image_encoder
from engine.encoders.image import ImageEncoder
from engine.encoders.types import ImageFeatures
from engine.errors import ConfigurationError, RequestError
from engine.training.datasets import CaptionedPicture, ReadPicture, open_pictures

BATCH_SIZE = 32
# To be raised where the encoder's way of computing features changes, so that old ones are not used.
FORMAT = 2
Advance = Callable[[int, int], None]
"""Told how many pictures are done, of how many."""


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """Features of one picture set: row `j` is picture `images[j]`; `skipped` could not be decoded.

    `patches: (n, n_p, d_i)`, `concept_ids: (n, n_c)`, `concept_weights: (n, n_c)`.
    """

    images: tuple[str, ...]
    skipped: tuple[str, ...]
    patches: Tensor
    concept_ids: Tensor
    concept_weights: Tensor

    def row(self, index: int) -> ImageFeatures:
        """One picture's features in single precision."""
        return ImageFeatures(
            self.patches[index].float(), self.concept_ids[index].long(), self.concept_weights[index].float()
        )


def encoder_key(weights: Path) -> str:
    """Sixteen hex digits that change with the encoder's weights or its preprocessing."""
    digest = hashlib.sha256((weights / image_encoder.WEIGHTS_FILE).read_bytes())
    settings = (FORMAT, image_encoder.INPUT_SIZE, image_encoder.GRID_SIZE, image_encoder.NUM_CONCEPTS)
    digest.update(repr(settings).encode())
    return digest.hexdigest()[:16]


def load_features(path: Path) -> FeatureSet:
    """Features that `encode_set` wrote."""
    with safe_open(path, framework="pt") as file:
        names = json.loads(file.metadata()["names"])
        tensors = {name: file.get_tensor(name) for name in ("patches", "concept_ids", "concept_weights")}
    return FeatureSet(tuple(names["images"]), tuple(names["skipped"]), **tensors)


def encode_set(
    folder: Path, name: str, *, pictures: list[CaptionedPicture], encoder: Callable[[], ImageEncoder], key: str,
    cache: Path, advance: Advance,
) -> FeatureSet:  # fmt: skip
    """Features of the set `name`, from the cache where they are complete, else computed and kept. `encoder` is called
    only where it is needed."""
    images = [picture.image for picture in pictures]
    content = hashlib.sha256("\n".join(images).encode()).hexdigest()[:8]
    path = cache / f"{name}-{key}-{content}.safetensors"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with open_pictures(folder, name) as read:
            features = _collect(_encode(images, read=read, encoder=encoder(), advance=advance), name=name)
        _save(features, path)
    return load_features(path)


def _encode(
    images: list[str], *, read: ReadPicture, encoder: ImageEncoder, advance: Advance
) -> Iterator[tuple[str, ImageFeatures | None]]:
    """Each picture with its features, or `None` where it cannot be decoded."""
    for start in range(0, len(images), BATCH_SIZE):
        batch = images[start : start + BATCH_SIZE]
        files = [(image, _read(image, read=read)) for image in batch]
        try:
            whole = encoder.encode([data for _, data in files if data is not None])
            found = iter(whole)
            yield from ((image, next(found) if data is not None else None) for image, data in files)
        except RequestError:
            yield from ((image, _encode_one(data, encoder=encoder)) for image, data in files)
        advance(min(start + BATCH_SIZE, len(images)), len(images))


def _encode_one(data: bytes | None, *, encoder: ImageEncoder) -> ImageFeatures | None:
    try:
        return encoder.encode([data])[0] if data is not None else None
    except RequestError:
        return None


def _read(image: str, *, read: ReadPicture) -> bytes | None:
    try:
        return read(image)
    except (KeyError, OSError):
        return None


def _collect(encoded: Iterable[tuple[str, ImageFeatures | None]], *, name: str) -> FeatureSet:
    images, skipped, rows = [], [], []
    for image, features in encoded:
        if features is None:
            skipped.append(image)
        else:
            images.append(image)
            rows.append((features.patches.half(), features.concept_ids.int(), features.concept_weights.half()))
    if not rows:
        raise ConfigurationError(f"no picture of the set {name} can be read; check that its files match its rows")
    patches, ids, weights = (torch.stack(column).cpu() for column in zip(*rows, strict=True))
    return FeatureSet(tuple(images), tuple(skipped), patches, ids, weights)


def _save(features: FeatureSet, path: Path) -> None:
    """Write beside and rename, so that a killed run leaves no half file."""
    tensors = {
        "patches": features.patches,
        "concept_ids": features.concept_ids,
        "concept_weights": features.concept_weights,
    }
    names = json.dumps({"images": features.images, "skipped": features.skipped})
    unfinished = path.with_suffix(".part")
    save_file(tensors, unfinished, metadata={"names": names})
    unfinished.rename(path)
