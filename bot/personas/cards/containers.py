"""Where a character card lies: the text inside a picture, a plain JSON file, a zip with its pictures.

Owns chunks, zips and their limits, both ways. Knows what JSON is, and nothing of what a card says in it. Nothing here
touches a disk. A card comes from a stranger: whatever is larger, deeper or odder than a card has to be is refused.
"""

import base64
import binascii
import io
import json
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from bot.errors import PersonaError

MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_JSON_BYTES = 16 * 1024 * 1024
MAX_JSON_DEPTH = 64
# Each value beside its text takes up to about 200 bytes of memory.
MAX_JSON_VALUES = 500_000
MAX_ASSET_BYTES = 16 * 1024 * 1024
MAX_UNPACKED_BYTES = 64 * 1024 * 1024
MAX_FILES_IN_ZIP = 1_000
MAX_ZIP_DIRECTORY_BYTES = 512 * 1024
# Deflate reaches about 1,000; text and pictures of characters stay far below this.
MAX_ZIP_RATIO = 200
MIN_BYTES_FOR_RATIO = 1024 * 1024
MAX_KEYWORD_BYTES = 1_000
# Also in damaged pictures: each chunk is a step of a loop.
MAX_CHUNKS = 20_000

Container = Literal["json", "png", "charx"]
CARD_NAME = "card.json"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ZIP_SIGNATURE = b"PK\x03\x04"
_ZIP_END = b"PK\x05\x06"
_ZIP64_END = b"PK\x06\x07"
_JPEG_SIGNATURE = b"\xff\xd8\xff"
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
_CARD_KEYWORDS = ("ccv3", "chara")
_ANY_CARD = re.compile(rb"(?:ccv3|chara)\0", re.IGNORECASE)
# What says of a text that is no valid JSON that it was meant for a card.
_CLAIM = re.compile(rb'"(?:spec|first_mes|char_name)"\s*:')
# The specification writes a colon and a path; some programs leave the underscore and the colon out.
_ASSET_KEYWORD = re.compile(r"chara-ext-asset_:?(.+)", re.IGNORECASE | re.DOTALL)
_ENCRYPTED = 0x1
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)

Json = dict[str, Any]


class CardError(PersonaError):
    """A character card cannot be read or written. The text says why, and what to do."""


class NoCard(CardError):
    """The file is none: a picture without a card in it, or a JSON file about something else."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a container holds. `image` is the PNG that the card lies in, with the card still in it."""

    raw: Json
    assets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    image: bytes | None = field(default=None, repr=False)


class Chunk(NamedTuple):
    """A piece of a PNG file."""

    kind: bytes
    data: bytes
    crc: int

    def is_whole(self) -> bool:
        """Whether its check sum holds."""
        return zlib.crc32(self.kind + self.data) == self.crc

    def packed(self) -> bytes:
        """The chunk as it stands in the file."""
        return struct.pack(">I4s", len(self.data), self.kind) + self.data + struct.pack(">I", self.crc)


def unpack(data: bytes) -> Contents:
    """The card in `data`, whatever it lies in. Raises `CardError`, `NoCard` where there is none."""
    if len(data) > MAX_FILE_BYTES:
        raise CardError(f"the file is larger than {_mib(MAX_FILE_BYTES)}; leave some of its pictures out")
    if data.startswith(PNG_SIGNATURE):
        return _from_png(data)
    if data.startswith(_ZIP_SIGNATURE):
        return _from_zip(data)
    if data.startswith(_JPEG_SIGNATURE):
        if _ZIP_END in data[-65_557:]:
            return _from_zip(data)
        raise NoCard("this is a JPEG picture, which holds no card; use the PNG that was downloaded, unchanged")
    if data[:4] == b"RIFF" or data[:4] == b"GIF8":
        raise NoCard("this is a picture of a kind that holds no card; use the PNG that was downloaded, unchanged")
    try:
        return Contents(parse_json(data))
    except CardError as error:
        if _CLAIM.search(data) or isinstance(error, NoCard):
            raise
        raise NoCard(f"this file holds no character card: {error}") from None


def pack(contents: Contents, container: Container, *, older: Json | None = None) -> bytes:
    """A file of the kind `container`. A PNG needs `contents.image`; `older` is what goes beside the card for programs
    that read only an earlier version. Raises `CardError`."""
    if container == "json":
        return json_bytes(contents.raw, indent=2)
    if container == "charx":
        return _to_zip(contents)
    if contents.image is None:
        raise CardError("there is no picture to write the card into")
    return _to_png(contents, older)


# JSON


def parse_json(data: bytes) -> Json:
    """The JSON object in `data`. Raises `CardError`, `NoCard` where it is no object at all."""
    if len(data) > MAX_JSON_BYTES:
        raise CardError(f"its text is larger than {_mib(MAX_JSON_BYTES)}; split its lorebook")
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MAX_JSON_VALUES:
        raise CardError(f"it has more than {MAX_JSON_VALUES:,} values, far more than a character needs; shorten it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CardError(f"its text is not UTF-8 at byte {error.start}; save it as UTF-8") from None
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise CardError(f"it is no valid JSON: {error.msg} in line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # a number that is none, or of thousands of digits
        raise CardError(f"it is no valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise NoCard("this JSON file holds no card: it has to begin with `{`")
    _require_shallow(value)
    return value


def json_bytes(value: Json, *, indent: int | None = None) -> bytes:
    """`value` as UTF-8. Halves of a sign, which UTF-8 cannot say, stay as they were written."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent).encode()
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False, indent=indent).encode()
    except ValueError:
        raise CardError("a number in it is infinite or none, which JSON cannot say") from None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("a number is too large")
    return value


def _require_shallow(value: Json) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_JSON_DEPTH):
        inner = [child for one in level for child in (one.values() if isinstance(one, dict) else one)]
        level = [child for child in inner if isinstance(child, dict | list)]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> CardError:
    return CardError(f"its values are nested deeper than {MAX_JSON_DEPTH} levels, which no card has to be")


# PNG


def png_chunks(data: bytes) -> Iterator[Chunk]:
    """The chunks of a PNG file. Raises `CardError` where it ends too early."""
    place = len(PNG_SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if place + 12 > len(data):
            raise CardError("the picture ends in the middle; download it again")
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):
            raise CardError("the picture ends in the middle, or a part of it is damaged; download it again")
        (crc,) = struct.unpack_from(">I", data, end - 4)
        yield Chunk(kind, data[place + 8 : end - 4], crc)
        if kind == b"IEND":
            return
        place = end
    raise CardError(f"the picture has more than {MAX_CHUNKS:,} parts; save it again with another program")


def bare_png(data: bytes) -> bytes:
    """The picture without its texts. Raises `CardError` where it ends too early."""
    return PNG_SIGNATURE + b"".join(chunk.packed() for chunk in png_chunks(data) if chunk.kind not in _TEXT_CHUNKS)


def _from_png(data: bytes) -> Contents:
    if _ANY_CARD.search(data) is None:
        raise NoCard("this picture holds no character card; it may have been lost where a program saved it anew")
    texts: dict[str, bytes] = {}
    assets: dict[str, bytes] = {}
    num_bytes = 0
    for chunk in png_chunks(data):
        if chunk.kind not in _TEXT_CHUNKS:
            continue
        keyword = _keyword_of(chunk)
        asset = _ASSET_KEYWORD.fullmatch(keyword)
        if asset is None and keyword.lower() not in _CARD_KEYWORDS:
            continue
        if not chunk.is_whole():
            raise CardError(f"the part `{_shown(keyword)}` of the picture is damaged; download it again")
        text = _text_of(chunk, MAX_ASSET_BYTES * 4 // 3 + 4 if asset else MAX_JSON_BYTES * 4 // 3 + 4)
        num_bytes += len(text)
        if num_bytes > 2 * MAX_UNPACKED_BYTES:
            raise CardError(f"its texts and pictures unpack to more than {_mib(2 * MAX_UNPACKED_BYTES)}")
        if asset is None:
            texts.setdefault(keyword.lower(), text)  # of several, the first one counts
        elif (decoded := _decoded(text)) is not None:
            assets.setdefault(asset[1], decoded)
    return Contents(_card_in(texts), assets, data)


def _keyword_of(chunk: Chunk) -> str:
    # PNG says Latin-1 and at most 79 signs; programs that keep pictures in chunks write longer paths in UTF-8.
    return chunk.data[:MAX_KEYWORD_BYTES].partition(b"\0")[0].decode(errors="replace")


def _card_in(texts: Mapping[str, bytes]) -> Json:
    """The newest card of those in a picture, or the one before it where the newest is damaged."""
    found = [texts[keyword] for keyword in _CARD_KEYWORDS if keyword in texts]
    if not found:
        raise NoCard("this picture holds no character card, only pictures of one; export it again")
    for number, text in enumerate(found, start=1):
        try:
            return _card_text(text)
        except CardError:
            if number == len(found):
                raise
    raise AssertionError


def _card_text(text: bytes) -> Json:
    decoded = text if text.lstrip()[:1] == b"{" else _decoded(text)
    if decoded is None:
        raise CardError("the card in the picture is no valid base64; download it again")
    return parse_json(decoded)


def _text_of(chunk: Chunk, max_bytes: int) -> bytes:
    """The text of a text chunk, unpacked where it is compressed."""
    rest = chunk.data.partition(b"\0")[2]
    is_packed = chunk.kind == b"zTXt"
    if chunk.kind == b"zTXt":
        rest = rest[1:]
    elif chunk.kind == b"iTXt":
        is_packed = rest[:1] == b"\1"
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    if is_packed:
        return _inflated(rest, max_bytes)
    if len(rest) > max_bytes:
        raise CardError(f"a part of the picture is larger than {_mib(max_bytes)}; leave something out of the card")
    return rest


def _inflated(data: bytes, max_bytes: int) -> bytes:
    unpacking = zlib.decompressobj()
    try:
        text = unpacking.decompress(data, max_bytes + 1)
    except zlib.error:
        raise CardError("a compressed part of the picture is damaged; download it again") from None
    if len(text) > max_bytes:
        raise CardError(f"a part of the picture unpacks to more than {_mib(max_bytes)}; leave something out")
    return text


def _decoded(text: bytes) -> bytes | None:
    """What base64 means, also without its padding or with line ends inside."""
    bare = text.translate(None, b" \t\r\n\v\f").rstrip(b"=")
    try:
        return base64.b64decode(bare + b"=" * (-len(bare) % 4), validate=True)
    except binascii.Error:
        return None


def _to_png(contents: Contents, older: Json | None) -> bytes:
    image = contents.image or b""
    if not image.startswith(PNG_SIGNATURE):
        raise CardError("a card can be written into a PNG picture only")
    written = [_text_chunk("chara", json_bytes(contents.raw if older is None else older))]
    if older is not None:
        written.append(_text_chunk("ccv3", json_bytes(contents.raw)))
    written += [_text_chunk(f"chara-ext-asset_:{path}", data) for path, data in contents.assets.items()]
    data = bytearray(PNG_SIGNATURE)
    for chunk in png_chunks(image):
        if chunk.kind == b"IEND":
            data += b"".join(written)
        if not _is_of_card(chunk):
            data += chunk.packed()
    return _within_limit(bytes(data))


def _is_of_card(chunk: Chunk) -> bool:
    if chunk.kind not in _TEXT_CHUNKS:
        return False
    keyword = _keyword_of(chunk)
    return keyword.lower() in _CARD_KEYWORDS or _ASSET_KEYWORD.fullmatch(keyword) is not None


def _text_chunk(keyword: str, content: bytes) -> bytes:
    data = keyword.encode(errors="replace") + b"\0" + base64.b64encode(content)
    return Chunk(b"tEXt", data, zlib.crc32(b"tEXt" + data)).packed()


# Zip


def _from_zip(data: bytes) -> Contents:
    _require_small_directory(data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            _require_harmless(entries)
            if CARD_NAME not in archive.namelist():
                raise NoCard(f"this zip holds no card: there is no `{CARD_NAME}` at its top")
            files = {entry.filename: _read_entry(archive, entry) for entry in entries}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        raise CardError(f"the zip is damaged or odd ({_shown(str(error))}); download it again") from None
    return Contents(parse_json(files.pop(CARD_NAME)), files)


def _require_small_directory(data: bytes) -> None:
    """Before the standard library reads it: each of its entries costs memory, and the file says how many there are."""
    tail = data[-(65_557 + 20) :]
    if _ZIP64_END in tail:
        raise CardError("the zip is of a kind for huge files; pack it anew")
    ends = [match.start() for match in re.finditer(re.escape(_ZIP_END), tail)]
    sizes = [struct.unpack_from("<I", tail, end + 12)[0] for end in ends if end + 22 <= len(tail)]
    if any(size > MAX_ZIP_DIRECTORY_BYTES for size in sizes):
        raise CardError(f"the zip holds more than {MAX_FILES_IN_ZIP:,} files; leave some of its pictures out")


def _require_harmless(entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MAX_FILES_IN_ZIP:
        raise CardError(f"the zip holds more than {MAX_FILES_IN_ZIP:,} files; leave some of its pictures out")
    if sum(entry.file_size for entry in entries) > MAX_UNPACKED_BYTES:
        raise CardError(f"the zip unpacks to more than {_mib(MAX_UNPACKED_BYTES)}; leave some of its pictures out")
    names = [entry.filename for entry in entries]
    if len(set(names)) != len(names):
        raise CardError("the zip holds two files of one name; pack it anew")
    for entry in entries:
        if not is_plain_path(entry.orig_filename):
            raise CardError(f"the zip names a file outside of itself, `{_shown(entry.filename)}`; it may be harmful")
        if entry.flag_bits & _ENCRYPTED:
            raise CardError("the zip is locked with a password; pack it anew without one")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise CardError(f"the zip holds a link, `{_shown(entry.filename)}`; pack the file itself")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise CardError("the zip is packed in an unusual way; pack it anew with Deflate")
        is_bomb = entry.file_size > MIN_BYTES_FOR_RATIO and entry.file_size > MAX_ZIP_RATIO * entry.compress_size
        if is_bomb or entry.file_size > max(MAX_ASSET_BYTES, MAX_JSON_BYTES):
            raise CardError(f"`{_shown(entry.filename)}` in the zip unpacks to too much; leave it out")


def is_plain_path(path: str) -> bool:
    """Whether `path` names something below the place where it is written, on every system."""
    parts = path.split("/")
    return bool(path) and not (
        "\\" in path or "\0" in path or ":" in parts[0] or any(part in ("", ".", "..") for part in parts)
    )


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    with archive.open(entry) as file:
        data = file.read(entry.file_size + 1)
    if len(data) != entry.file_size:
        raise CardError(f"`{_shown(entry.filename)}` in the zip is not as long as it says; download it again")
    return data


def _to_zip(contents: Contents) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {CARD_NAME: json_bytes(contents.raw, indent=2), **contents.assets}.items():
            archive.writestr(zipfile.ZipInfo(name, _ZIP_TIME), data, zipfile.ZIP_DEFLATED)
    return _within_limit(packed.getvalue())


def _within_limit(data: bytes) -> bytes:
    if len(data) > MAX_FILE_BYTES:
        raise CardError(f"the card would be larger than {_mib(MAX_FILE_BYTES)}; leave some of its pictures out")
    return data


def _shown(text: str) -> str:
    """`text` as a short piece of one line."""
    return "".join(sign if sign.isprintable() else "�" for sign in text[:60])


def _mib(num_bytes: int) -> str:
    return f"{num_bytes // 2**20} MiB"
