"""A persona's stickers as Telegram takes them: a small still picture as a sticker, a moving one as an animation.

Owns the conversion, and remembers what Telegram has already. Sends nothing.
"""

import asyncio
import io
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from PIL import Image

from bot.errors import DeliveryError

MAX_SIDE = 512


class StickerKind(StrEnum):
    """How a file is shown."""

    STICKER = "sticker"
    ANIMATION = "animation"
    PHOTO = "photo"


@dataclass(frozen=True, slots=True)
class StickerFile:
    """A file that is ready to be sent, as bytes or as the id that Telegram gave it. `key` tells it from others."""

    kind: StickerKind
    name: str
    key: tuple[str, int, int]
    source: bytes | str = field(repr=False)


class Stickers:
    """Prepares stickers. Each is uploaded once."""

    def __init__(self) -> None:
        self._file_ids: dict[tuple[str, int, int], tuple[StickerKind, str]] = {}

    async def prepare(self, path: Path) -> StickerFile:
        """The file at `path`. Raises `DeliveryError` where it is no picture."""
        try:
            return await asyncio.to_thread(self._prepare, path)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise DeliveryError(f"the sticker {path.name} is no picture: {type(error).__name__}") from None

    def remember(self, file: StickerFile, file_id: str) -> None:
        """Telegram has that file."""
        self._file_ids[file.key] = file.kind, file_id

    def forget(self, file: StickerFile) -> None:
        """Telegram does not know that id any more."""
        self._file_ids.pop(file.key, None)

    def _prepare(self, path: Path) -> StickerFile:
        about = path.stat()
        key = str(path), about.st_size, about.st_mtime_ns
        if key in self._file_ids:
            kind, file_id = self._file_ids[key]
            return StickerFile(kind, path.name, key, file_id)
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            if getattr(image, "is_animated", False) and image.format == "GIF":
                return StickerFile(StickerKind.ANIMATION, path.name, key, data)
            if max(image.size) > MAX_SIDE:
                return StickerFile(StickerKind.PHOTO, path.name, key, data)
            if image.format != "WEBP":
                data = _as_webp(image)
        return StickerFile(StickerKind.STICKER, f"{path.stem}.webp", key, data)


def _as_webp(image: Image.Image) -> bytes:
    """Stickers are sent as WEBP alone."""
    written = io.BytesIO()
    image.convert("RGBA").save(written, "WEBP", quality=90)
    return written.getvalue()
