"""Pictures, friendly and hostile. The tests make the files themselves."""

import asyncio
import io
import struct
import threading
import zlib

import pytest
from PIL import Image, ImageCms

from bot.errors import MediaError
from bot.media.pictures import NormalisedPicture, PictureLimits, PictureReader, normalise_picture
from bot.types import IncomingFile

LIMITS = PictureLimits(max_bytes=2_000_000, max_pixels=4_000_000)
SECRET = b"GPS 52.5 N 13.4 E"


def saved(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def photo(width: int = 300, height: int = 200, mode: str = "RGB") -> Image.Image:
    """Red above, blue below: which way is up can be seen."""
    image = Image.new("RGB", (width, height), "blue")
    image.paste("red", (0, 0, width, height // 2))
    return image.convert(mode)


def opened(picture: NormalisedPicture) -> Image.Image:
    image = Image.open(io.BytesIO(picture.data))
    image.load()
    assert (image.width, image.height) == (picture.width, picture.height)
    assert image.mode == "RGB"
    assert Image.MIME[image.format or ""] == picture.mime
    return image


def is_near(pixel: tuple[int, ...], colour: tuple[int, int, int], tolerance: int = 12) -> bool:
    return all(abs(one - other) <= tolerance for one, other in zip(pixel, colour, strict=True))


def normalise(data: bytes, name: str = "cat.jpg") -> NormalisedPicture:
    return normalise_picture(data, limits=LIMITS, name=name)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_common_formats_are_accepted(kind: str) -> None:
    image = opened(normalise(saved(photo(), kind)))
    assert image.size == (300, 200)
    assert is_near(image.getpixel((150, 50)), (254, 0, 0))
    assert is_near(image.getpixel((150, 150)), (0, 0, 254))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    grey = Image.new("L", (40, 30), 0 if mode == "1" else 200)
    if mode == "I;16":
        image = Image.new(mode, grey.size, 200 * 257)
    elif mode == "P":
        image = grey.quantize(8)
    else:
        image = grey.convert("RGB").convert(mode)
    expected = grey.getpixel((0, 0))
    picture = opened(normalise(saved(image, "JPEG" if mode == "CMYK" else "PNG")))
    assert all(is_near(pixel, (expected,) * 3) for pixel in picture.get_flattened_data())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_pictures_are_turned_upright(kind: str, orientation: int) -> None:
    turns = Image.Transpose
    back = {
        2: turns.FLIP_LEFT_RIGHT, 3: turns.ROTATE_180, 4: turns.FLIP_TOP_BOTTOM, 5: turns.TRANSPOSE,
        6: turns.ROTATE_90, 7: turns.TRANSVERSE, 8: turns.ROTATE_270,
    }  # fmt: skip
    image = photo()
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = image.transpose(back[orientation]) if orientation in back else image
    upright = opened(normalise(saved(stored, kind, exif=exif)))
    assert upright.size == (300, 200)
    assert is_near(upright.getpixel((150, 20)), (254, 0, 0))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"])
def test_broken_metadata_does_not_spoil_a_picture(exif: bytes) -> None:
    assert opened(normalise(saved(photo(), "JPEG", exif=exif))).size == (300, 200)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("size", [(300, 200), (30, 20)])
def test_metadata_is_left_behind(kind: str, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x010E] = SECRET.decode()
    exif.get_ifd(0x8825)[29] = SECRET.decode()
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    options = {"comment": SECRET} if kind in {"GIF", "JPEG"} else {}
    mode = "P" if kind in {"GIF", "PNG"} else "RGB"
    data = saved(photo(*size, mode=mode), kind, exif=exif, icc_profile=icc, xmp=SECRET, dpi=(72, 72), **options)
    assert SECRET in data
    picture = normalise(data)
    assert SECRET not in picture.data
    for mark in (b"Exif", b"ICC_PROFILE", b"iCCP", b"eXIf", b"XMP", b"GPS", b"tEXt", b"iTXt", b"pHYs"):
        assert mark not in picture.data


def test_transparency_shows_white() -> None:
    image = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 20, 40))
    for data in (
        saved(image, "PNG"),
        saved(image, "WEBP", lossless=True),
        saved(image.convert("P"), "PNG", transparency=image.convert("P").getpixel((30, 10))),
        saved(image.convert("RGB"), "PNG", transparency=(0, 0, 0)),
        saved(image.convert("RGBA"), "GIF"),
    ):
        flat = opened(normalise(data))
        assert is_near(flat.getpixel((5, 5)), (255, 0, 0))
        assert is_near(flat.getpixel((30, 10)), (255, 255, 255))


def test_the_first_frame_of_an_animation_is_seen() -> None:
    frames = [Image.new("RGB", (30, 30), colour) for colour in ("lime", "red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
        assert is_near(opened(normalise(data)).getpixel((10, 10)), (0, 255, 0))


def test_a_wide_gamut_is_brought_to_srgb() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()  # fits no RGB picture: left out
    assert opened(normalise(saved(photo(), "PNG", icc_profile=profile))).size == (300, 200)
    assert opened(normalise(saved(photo(), "PNG", icc_profile=b"not a profile"))).size == (300, 200)
    swapped = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for entry in range(128 + 4, 128 + 4 + 12 * swapped[131], 12):  # red and green change places
        swapped[entry : entry + 4] = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}.get(
            bytes(swapped[entry : entry + 4]), bytes(swapped[entry : entry + 4])
        )
    image = opened(normalise(saved(Image.new("RGB", (300, 300), (255, 0, 0)), "JPEG", icc_profile=bytes(swapped))))
    assert is_near(image.getpixel((9, 9)), (0, 255, 0), tolerance=40)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((2048, 1000), (1024, 500)),
        ((1000, 2048), (500, 1024)),
        ((1024, 1024), (1024, 1024)),
        ((3000, 1), (1024, 1)),
        ((1, 3000), (1, 1024)),
        ((1, 1), (1, 1)),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_pictures_are_scaled_to_the_longest_side(kind: str, size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert opened(normalise(saved(Image.new("RGB", size, "teal"), kind))).size == expected


def test_small_flat_pictures_stay_exact() -> None:
    sticker = Image.new("P", (64, 64), 3)
    sticker.putpalette([value for number in range(256) for value in (number, 255 - number, 77)])
    picture = normalise(saved(sticker, "GIF"))
    assert picture.mime == "image/png"
    assert opened(picture).getpixel((10, 10)) == (3, 252, 77)
    assert normalise(saved(photo(), "PNG")).mime == "image/jpeg"


def test_the_same_bytes_give_the_same_picture() -> None:
    data = saved(photo(1500, 700), "PNG")
    assert normalise(data) == normalise(data)


def test_colours_keep_their_resolution() -> None:
    picture = opened(normalise(saved(photo(), "PNG")))
    assert [component[1:3] for component in picture.layer] == [(1, 1)] * 3


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, body: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(2001, 2000), (20_000, 20_000), (2**31 - 1, 2**31 - 1), (60_000, 2000)])
def test_bombs_are_refused_before_they_are_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(MediaError, match=r"“cat\.jpg” has .*more than 4 million.*smaller"):
        normalise(png(*size, zlib.compress(b"\0" * 1000)))


def test_a_text_bomb_is_refused() -> None:
    bomb = chunk(b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 80_000_000, 9))
    data = png(1, 1, zlib.compress(b"\0\0\0\0"))
    with pytest.raises(MediaError, match="damaged"):
        normalise(data[:33] + bomb + data[33:])


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"<?xml version='1.0'?>\n<!-- x --><svg/>", "an SVG drawing"),
        (b"\xef\xbb\xbf <!DOCTYPE html><html></html>", "a web page"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "in HEIC format"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "in AVIF format"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "a video"),
        (b"\x1a\x45\xdf\xa3webm", "a video"),
        (b"OggS\0", "a sound"),
        (b"II*\0\0\0", "in TIFF format"),
        (b"PK\x03\x04", "not a picture that I know"),
        (b"hello", "not a picture that I know"),
        (b"\xff\xd8", "not a picture that I know"),
    ],
)
def test_other_files_are_refused_with_advice(data: bytes, kind: str) -> None:
    with pytest.raises(MediaError, match=rf"“cat\.jpg” is {kind}.*JPEG, PNG, WEBP, GIF or BMP\."):
        normalise(data)


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(MediaError, match="empty"):
        normalise(b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.8])
def test_a_truncated_file_is_refused(kind: str, share: float) -> None:
    noise = Image.effect_noise((200, 200), 80).convert("RGB")
    data = saved(noise, kind)
    with pytest.raises(MediaError, match=r"damaged|not a picture"):
        normalise(data[: max(3, int(len(data) * share))])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_damage_never_escapes_as_another_error(kind: str) -> None:
    data = saved(photo(60, 40), kind)
    for position in range(3, min(len(data), 400), 7):
        damaged = data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]
        try:
            normalise(damaged)
        except MediaError as refusal:
            assert "cat.jpg" in str(refusal)  # noqa: PT017 - both outcomes are right


def test_too_many_bytes_are_refused() -> None:
    with pytest.raises(MediaError, match=r"larger than 1\.\d+ MiB"):
        normalise(b"\xff\xd8\xff" + b"\0" * 2_000_000)


def test_names_cannot_write_lines_of_their_own() -> None:
    with pytest.raises(MediaError) as refusal:
        normalise(b"x", name="a\n\x1b[31mADMIN: all is well\u202e" + "b" * 500)
    assert "\n" not in str(refusal.value)
    assert "\x1b" not in str(refusal.value)
    assert "\u202e" not in str(refusal.value)
    assert len(str(refusal.value)) < 200


def incoming(data: bytes, *, num_bytes: int | None = None, delay_s: float = 0.0) -> IncomingFile:
    async def read(max_bytes: int) -> bytes:
        await asyncio.sleep(delay_s)
        assert max_bytes == LIMITS.max_bytes
        return data

    return IncomingFile("cat.jpg", None, num_bytes, read)


async def test_a_file_is_downloaded_and_normalised() -> None:
    picture = await PictureReader(LIMITS).read(incoming(saved(photo(), "PNG")))
    assert (picture.width, picture.height) == (300, 200)


async def test_a_file_that_says_it_is_too_large_is_not_downloaded() -> None:
    with pytest.raises(MediaError, match="larger than"):
        await PictureReader(LIMITS).read(incoming(saved(photo(), "PNG"), num_bytes=2_000_001))


async def test_a_download_that_takes_too_long_is_given_up() -> None:
    limits = PictureLimits(max_bytes=LIMITS.max_bytes, download_timeout_s=0.01)
    with pytest.raises(MediaError, match="took too long"):
        await PictureReader(limits).read(incoming(b"", delay_s=5))


async def test_only_a_few_pictures_are_decoded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, running, most = threading.Lock(), 0, 0
    release = threading.Event()

    def slow(data: bytes, *, limits: PictureLimits, name: str) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        release.wait(0.05)
        with lock:
            running -= 1

    monkeypatch.setattr("bot.media.pictures.normalise_picture", slow)
    reader = PictureReader(LIMITS, max_concurrent=2)
    await asyncio.gather(*(reader.read(incoming(b"")) for _ in range(6)))
    assert most == 2


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    data = saved(photo(), "JPEG", progressive=True)
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    assert normalise(data[:-2] + last_scan * 20 + data[-2:]).mime == "image/jpeg"
    with pytest.raises(MediaError, match="too long to read"):
        normalise(data[:-2] + last_scan * 1000 + data[-2:])
