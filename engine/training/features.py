"""Image features kept on disk, so that an epoch costs no image encoder.

Safetensors files (half precision), named by the encoder's weights and preprocessing, so that a changed encoder never
meets stale features; inside, a picture is known by the SHA-256 of its bytes, so that it is encoded once, whatever sets
hold it. Pictures that cannot be decoded are left out and listed.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from engine.encoders import image as image_encoder
from engine.encoders.image import ImageEncoder
from engine.encoders.types import ImageFeatures
from engine.errors import ConfigurationError, RequestError
from engine.training.datasets import UNREADABLE, CaptionedPicture, FilesOnDisk, PictureSet, ReadPicture

BATCH_SIZE = 32
PICTURES_PER_FILE = 2048
# To be raised where the encoder's way of computing features changes, so that old ones are not used.
FORMAT = 2
TENSORS = ("patches", "concept_ids", "concept_weights")
_FILE_NAME = re.compile(r"[^\w.]+")
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
    """All features of one file, the pictures named by their digests."""
    with safe_open(path, framework="pt") as file:
        kept = json.loads(file.metadata()["pictures"])
        tensors = {name: file.get_tensor(name) for name in TENSORS}
    return FeatureSet(tuple(kept["encoded"]), tuple(kept["skipped"]), **tensors)


def encode_set(
    folder: Path, name: str, *, pictures: Sequence[CaptionedPicture], encoder: Callable[[], ImageEncoder], key: str,
    cache: Path, advance: Advance,
) -> FeatureSet:  # fmt: skip
    """Features of pictures of the set `name` in `folder`; see `encode_pictures`."""
    picture_set = PictureSet(name, "scenes", tuple(pictures), FilesOnDisk(folder, name))
    return encode_pictures(picture_set, encoder=encoder, key=key, cache=cache, advance=advance)


def encode_pictures(
    pictures: PictureSet, *, encoder: Callable[[], ImageEncoder], key: str, cache: Path, advance: Advance
) -> FeatureSet:
    """Features of a set, in its order: from the cache those that are there, the others computed and kept. `encoder` is
    called only where it is needed. Raises `ConfigurationError` where no picture can be read."""
    with pictures.files.open() as read:
        digests = {one.image: one.digest or _digest(read, one.image) for one in pictures.pictures}
        known = _Cache(cache, key=key)
        missing = {digest: image for image, digest in digests.items() if digest and digest not in known}
        if missing:
            _encode_missing(missing, name=pictures.name, read=read, encoder=encoder(), known=known, advance=advance)
    encoded = [image for image, digest in digests.items() if known.has_features(digest)]
    if not encoded:
        raise ConfigurationError(f"no picture of the set {pictures.name} can be read; check its rows and files")
    skipped = tuple(image for image, digest in digests.items() if not known.has_features(digest))
    return FeatureSet(tuple(encoded), skipped, **known.read([digests[image] for image in encoded]))


def _encode_missing(
    missing: Mapping[str, str],
    *,
    name: str,
    read: ReadPicture,
    encoder: ImageEncoder,
    known: "_Cache",
    advance: Advance,
) -> None:
    """Encode and keep pictures, digest → name, file by file: what a killed run has written is not done again."""
    digests = list(missing)
    for start in range(0, len(digests), PICTURES_PER_FILE):
        chosen = digests[start : start + PICTURES_PER_FILE]

        def tell(done: int, _: int, start: int = start) -> None:
            advance(start + done, len(digests))

        found = _encode([missing[digest] for digest in chosen], read=read, encoder=encoder, advance=tell)
        known.add(name, [(digest, features) for digest, (_, features) in zip(chosen, found, strict=True)])


class _Cache:
    """The files that one encoder's features are kept in."""

    def __init__(self, folder: Path, *, key: str) -> None:
        self._folder = folder
        self._key = key
        self._places: dict[str, tuple[Path, int]] = {}
        self._skipped: set[str] = set()
        for path in sorted(folder.glob(f"*-{key}-*.safetensors")):
            self._learn(path)

    def __contains__(self, digest: str) -> bool:
        return digest in self._places or digest in self._skipped

    def has_features(self, digest: str) -> bool:
        """Whether the picture was encoded, and not only tried."""
        return digest in self._places

    def add(self, name: str, encoded: Sequence[tuple[str, ImageFeatures | None]]) -> None:
        """Keep newly encoded pictures in a file of their own. Written beside and renamed, so that a killed run leaves
        no half file."""
        kept = [(digest, features) for digest, features in encoded if features is not None]
        if not kept:
            return
        skipped = [digest for digest, features in encoded if features is None]
        content = hashlib.sha256("\n".join(digest for digest, _ in encoded).encode()).hexdigest()[:8]
        path = self._folder / f"{_FILE_NAME.sub('-', name)}-{self._key}-{content}.safetensors"
        self._folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}.part")
        names = json.dumps({"encoded": [digest for digest, _ in kept], "skipped": skipped})
        save_file(_stack([features for _, features in kept]), unfinished, metadata={"pictures": names})
        unfinished.replace(path)
        self._learn(path)

    def read(self, digests: Sequence[str]) -> dict[str, Tensor]:
        """The features of these pictures, in this order, by the tensors' names."""
        rows: dict[Path, list[tuple[int, int]]] = {}
        for row, digest in enumerate(digests):
            path, place = self._places[digest]
            rows.setdefault(path, []).append((row, place))
        parts, order = [], []
        for path, places in rows.items():
            features = load_features(path)
            chosen = torch.tensor([place for _, place in places])
            parts.append({name: getattr(features, name)[chosen] for name in TENSORS})
            order += [row for row, _ in places]
        back = torch.tensor(order).argsort()
        return {name: torch.cat([part[name] for part in parts])[back] for name in TENSORS}

    def _learn(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                kept = json.loads((file.metadata() or {}).get("pictures", "{}"))
        except (OSError, ValueError, SafetensorError):
            return  # damaged: its pictures are encoded anew
        self._places.update((digest, (path, place)) for place, digest in enumerate(kept.get("encoded", ())))
        self._skipped.update(kept.get("skipped", ()))


def _digest(read: ReadPicture, image: str) -> str:
    """SHA-256 in hex, or nothing where the file cannot be read."""
    data = _read(image, read=read)
    return hashlib.sha256(data).hexdigest() if data is not None else ""


def _stack(rows: Sequence[ImageFeatures]) -> dict[str, Tensor]:
    return {
        "patches": torch.stack([row.patches.half() for row in rows]).cpu(),
        "concept_ids": torch.stack([row.concept_ids.int() for row in rows]).cpu(),
        "concept_weights": torch.stack([row.concept_weights.half() for row in rows]).cpu(),
    }


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
    except UNREADABLE:
        return None
