"""The pictures of a card: which one is whose, checked and made anew before anything is shown.

Owns decoding with limits, the folder where made pictures wait to be used, and a plain picture for characters without
one. Metadata goes: a card's whole text lies in its picture's, and an avatar is for everybody.
"""

import base64
import binascii
import hashlib
import io
import logging
import os
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from bot.media.pictures import DECODER_ERRORS
from bot.personas.cards.card import Asset, Card
from bot.personas.cards.containers import MAX_ASSET_BYTES, PNG_SIGNATURE, CardError, bare_png
from bot.personas.cards.texts import clean_line

MAX_PIXELS = 40_000_000
MAX_SIDE = 1024
MAX_FACE_SIDE = 512
MAX_FACES = 64
MAX_FACE_NAME_LENGTH = 80
MAX_CACHE_BYTES = 512 * 1024 * 1024
FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
PLAIN_SIZE = (400, 600)

_log = logging.getLogger(__name__)


class CardPictures:
    """A folder of pictures that were made from cards, each called by its content. The oldest go when it is full."""

    def __init__(self, folder: Path, *, max_bytes: int = MAX_CACHE_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def keep(self, data: bytes, *, max_side: int = MAX_SIDE) -> Path | None:
        """The picture in `data` as a clean PNG file of at most `max_side`; `None` where it is no good picture."""
        path = self._folder / f"{hashlib.sha256(data).hexdigest()[:40]}-{max_side}.png"
        try:
            if path.is_file():
                os.utime(path)
                return path
            made = clean_png(data, max_side=max_side)
            if made is None:
                return None
            self._folder.mkdir(parents=True, exist_ok=True)
            self._make_room(len(made))
            with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".part", delete=False) as file:
                file.write(made)
            Path(file.name).replace(path)
        except OSError as error:
            _log.warning("pictures of cards cannot be kept in %s: %s", self._folder, error.strerror)
            return None
        return path

    def _make_room(self, num_bytes: int) -> None:
        files = [(path.stat(), path) for path in self._folder.glob("*.png")]
        total = num_bytes + sum(status.st_size for status, _ in files)
        for status, path in sorted(files, key=lambda item: item[0].st_mtime):
            if total <= self._max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= status.st_size


def avatar_data(card: Card) -> bytes | None:
    """The file that shows the character: its main icon, else the picture that the card lies in."""
    icons = [asset for asset in card.listed_assets() if asset.type == "icon"]
    icons.sort(key=lambda asset: asset.name != "main")
    for asset in icons:
        if data := asset_data(card, asset):
            return data
    packed = (data for path, data in card.assets.items() if path.startswith("assets/icon/"))
    return card.image or next(packed, None)


def face_assets(card: Card) -> dict[str, Asset]:
    """The emotions that the card has a picture of, by the author's names for them: the first of each."""
    faces: dict[str, Asset] = {}
    for asset in card.listed_assets():
        emotion = clean_line(asset.name.rsplit("/", 1)[-1])[:MAX_FACE_NAME_LENGTH].strip()
        if asset.type == "emotion" and emotion and not asset.is_elsewhere() and len(faces) < MAX_FACES:
            faces.setdefault(emotion, asset)
    return faces


def asset_data(card: Card, asset: Asset) -> bytes | None:
    """The file behind `asset`; `None` where it does not come with the card."""
    if asset.is_default():
        return card.image
    if (path := asset.path()) is not None:
        return find_file(card, path)
    if asset.is_elsewhere() or len(asset.uri) > MAX_ASSET_BYTES * 4 // 3 + 200:
        return None
    try:
        return base64.b64decode(asset.uri.partition(",")[2])
    except (binascii.Error, ValueError):
        return None


def find_file(card: Card, path: str) -> bytes | None:
    """The file at `path` among the card's, in any case of letters."""
    if path in card.assets:
        return card.assets[path]
    wanted = path.casefold()
    return next((data for name, data in card.assets.items() if name.casefold() == wanted), None)


def png_from(card: Card) -> bytes | None:
    """The character's picture as a PNG file, to write the card into."""
    data = avatar_data(card)
    return clean_png(data) if data else None


def clean_png(data: bytes, *, max_side: int = MAX_SIDE) -> bytes | None:
    """The first frame of the picture in `data`, made smaller where it is large, as a PNG without metadata."""
    if len(data) > MAX_ASSET_BYTES * 4:
        return None
    try:
        # Pillow refuses large texts, and the card is one.
        bare = bare_png(data) if data.startswith(PNG_SIGNATURE) else data
        with Image.open(io.BytesIO(bare), formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                return None
            picture.draft("RGB", (max_side, max_side))
            has_alpha = "A" in picture.getbands() or "transparency" in picture.info
            made = picture.convert("RGBA" if has_alpha else "RGB")
        made.thumbnail((max_side, max_side))
        made.info.clear()
        written = io.BytesIO()
        made.save(written, "PNG")
        return written.getvalue()
    except (*DECODER_ERRORS, CardError):
        return None


def plain_picture(name: str) -> bytes:
    """A picture for a character that has none: its initial on a colour of its own."""
    digest = hashlib.sha256(name.encode(errors="replace")).digest()
    colour = (60 + digest[0] % 120, 60 + digest[1] % 120, 60 + digest[2] % 120)
    picture = Image.new("RGB", PLAIN_SIZE, colour)
    initial = next((sign.upper() for sign in name if sign.isascii() and sign.isalnum()), "?")
    middle = (PLAIN_SIZE[0] // 2, PLAIN_SIZE[1] // 2)
    ImageDraw.Draw(picture).text(middle, initial, fill="white", font=ImageFont.load_default(220), anchor="mm")
    written = io.BytesIO()
    picture.save(written, "PNG")
    return written.getvalue()
