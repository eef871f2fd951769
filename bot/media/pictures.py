"""Pictures: bytes that anybody sent in, a small clean picture out.

Owns what is accepted, the limits and the texts of refusals. Knows neither platforms nor the store. The type is read
from the bytes, never from a name; metadata (places, devices, thumbnails) never leaves this room; the same bytes always
give the same picture.
"""

import asyncio
import io
import struct
import zlib
from dataclasses import dataclass, field

from PIL import ExifTags, Image, ImageCms

from bot.errors import MediaError
from bot.types import IncomingFile

ADVICE = "Please send it as JPEG, PNG, WEBP, GIF or BMP"

# What Pillow's decoders raise for files that are damaged, by accident or on purpose.
DECODER_ERRORS = (
    ArithmeticError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
    LookupError,
    MemoryError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
_SMALL_SIDE = 256
# Cameras and editors write about ten. Every scan goes over the whole picture, and can be a few bytes short.
_MAX_SCANS = 500
_SMALLER = "Please send a smaller version."
_TURNS = {  # by the orientation that a camera noted
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """What is accepted, and how large a picture is kept."""

    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 50_000_000
    max_side: int = 1024
    download_timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class NormalisedPicture:
    """A complete JPEG or PNG file in sRGB, upright, without metadata. Sizes in pixels."""

    data: bytes = field(repr=False)
    mime: str
    width: int
    height: int


class PictureReader:
    """Downloads and normalises pictures, a few at a time so that a flood of them leaves memory for the rest."""

    def __init__(self, limits: PictureLimits, *, max_concurrent: int = 2) -> None:
        self._limits = limits
        self._slots = asyncio.Semaphore(max_concurrent)

    async def read(self, file: IncomingFile) -> NormalisedPicture:
        """The picture in `file`. Raises `MediaError`."""
        limits = self._limits
        if file.num_bytes is not None and file.num_bytes > limits.max_bytes:
            raise _too_many_bytes(file.name, limits)
        try:
            async with asyncio.timeout(limits.download_timeout_s):
                data = await file.read(limits.max_bytes)
        except TimeoutError:
            raise MediaError(f"{_label(file.name)} took too long to download. Please send it again.") from None
        async with self._slots:
            return await asyncio.to_thread(normalise_picture, data, limits=limits, name=file.name)


def normalise_picture(data: bytes, *, limits: PictureLimits, name: str = "") -> NormalisedPicture:
    """A picture as the engine takes it. Raises `MediaError` with a text for its sender. Slow: call it in a thread."""
    if len(data) > limits.max_bytes:
        raise _too_many_bytes(name, limits)
    accepted = _sniff(data, name)
    try:
        with Image.open(io.BytesIO(data), formats=[accepted]) as source:
            _check_pixels(source.size, limits, name)
            return _normalise(source, limits)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise MediaError(f"{_label(name)} has more than {_millions(limits)} million pixels. {_SMALLER}") from None
    except MemoryError:
        raise MediaError(f"{_label(name)} needs more memory than there is. {_SMALLER}") from None
    except DECODER_ERRORS:
        raise MediaError(f"{_label(name)} is damaged or incomplete. Please send it again.") from None


def _label(name: str) -> str:
    shown = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    if len(shown) > 60:
        shown = f"{shown[:40]}…{shown[-15:]}"
    return f"The picture “{shown}”" if shown else "The picture"


def _millions(limits: PictureLimits) -> str:
    return f"{limits.max_pixels / 1e6:g}"


def _too_many_bytes(name: str, limits: PictureLimits) -> MediaError:
    return MediaError(f"{_label(name)} is larger than {limits.max_bytes / 2**20:g} MiB. {_SMALLER}")


def _check_pixels(size: tuple[int, int], limits: PictureLimits, name: str) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise MediaError(f"{_label(name)} has no pixels. Please send another one.")
    if width * height > limits.max_pixels:
        raise MediaError(
            f"{_label(name)} has {width} × {height} pixels, more than {_millions(limits)} million. {_SMALLER}"
        )


def _sniff(data: bytes, name: str) -> str:
    """Pillow's name of the picture's format."""
    if not data:
        raise MediaError(f"{_label(name)} is empty (0 bytes). Please send it again.")
    if data.startswith(b"\xff\xd8\xff"):
        if data.count(b"\xff\xda") > _MAX_SCANS:
            raise MediaError(f"{_label(name)} would take too long to read. Please save it anew and send it again.")
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"BM"):
        return "BMP"
    raise MediaError(f"{_label(name)} is {_kind_of(data)}: I cannot look at that. {ADVICE}.")


def _kind_of(data: bytes) -> str:
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if data.startswith(b"%PDF"):
        return "a PDF"
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        if brand in {b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"}:
            return "in HEIC format"
        return "in AVIF format" if brand in {b"avif", b"avis"} else "a video"
    if b"<svg" in head:
        return "an SVG drawing"
    if head.startswith((b"<!doctype html", b"<html")) or b"<html" in head:
        return "a web page"
    if data.startswith((b"II*\0", b"MM\0*")):
        return "in TIFF format"
    if data.startswith(b"\x1a\x45\xdf\xa3"):
        return "a video"
    if data.startswith((b"OggS", b"ID3", b"fLaC")) or (data.startswith(b"RIFF") and data[8:12] == b"WAVE"):
        return "a sound"
    if head.startswith(b"{"):
        return "a JSON file: a character card goes with /persona add"
    return "not a picture that I know"


def _normalise(source: Image.Image, limits: PictureLimits) -> NormalisedPicture:
    if source.format == "JPEG":
        # Decodes at a half, a quarter or an eighth where that is still large enough: a fraction of memory and time.
        source.draft(None, (limits.max_side, limits.max_side))
    source.load()
    orientation = _orientation(source)  # after the pixels: a PNG may note it at its end
    has_flat_colours = source.mode in {"P", "PA", "1"} or source.has_transparency_data
    picture = _to_srgb(source)
    picture = _fit(picture, limits.max_side)
    picture = _upright(picture, orientation)
    picture.info.clear()  # Pillow would write some of it into the new file
    return _encode(picture, as_png=has_flat_colours and max(picture.size) <= _SMALL_SIDE)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (UserWarning, *DECODER_ERRORS):
        return 1  # a picture with broken metadata is still a picture
    return value if isinstance(value, int) else 1


def _to_srgb(image: Image.Image) -> Image.Image:
    """`image` in RGB, over white where it is transparent."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        image = _from_16_bit(image)
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        alpha = colours.getchannel("A")
        opaque = _apply_profile(colours.convert("RGB"), profile)
        picture = Image.new("RGB", image.size, "white")
        picture.paste(opaque, mask=alpha)
        return picture
    if image.mode in {"P", "1"}:
        image = image.convert("RGB")
    return _apply_profile(image, profile)


def _from_16_bit(image: Image.Image) -> Image.Image:
    return image.convert("I").point(lambda value: value * (1 / 257)).convert("L")


def _apply_profile(image: Image.Image, profile: bytes | None) -> Image.Image:
    if profile:
        try:
            own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, own, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, *DECODER_ERRORS):
            converted = None  # a profile that does not fit its picture is left out, as browsers do
        if converted is not None:
            return converted
    return image.convert("RGB")


def _fit(image: Image.Image, max_side: int) -> Image.Image:
    longest = max(image.size)
    if longest <= max_side:
        return image
    width, height = (max(1, round(side * max_side / longest)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    method = _TURNS.get(orientation)
    return image if method is None else image.transpose(method)


def _encode(image: Image.Image, *, as_png: bool) -> NormalisedPicture:
    out = io.BytesIO()
    if as_png:
        image.save(out, "PNG", optimize=True)
    else:
        image.save(out, "JPEG", quality=90, subsampling=0)
    return NormalisedPicture(out.getvalue(), "image/png" if as_png else "image/jpeg", image.width, image.height)
