"""Card files among the personas: which they are, what they are called, and how one comes into a folder.

Owns names of files, and writing them so that no half of one is ever seen. Nothing is written outside the folder.
"""

import hashlib
import os
import re
import tempfile
import unicodedata
from pathlib import Path, PurePath

from bot.personas.cards.card import Card, parse_card
from bot.personas.cards.containers import MAX_FILE_BYTES, PNG_SIGNATURE, CardError

SUFFIXES = (".png", ".apng", ".json", ".charx")
MAX_ID_LENGTH = 64
_ID = re.compile(rf"[a-z0-9][a-z0-9_-]{{0,{MAX_ID_LENGTH - 1}}}")
# Windows takes these for devices, whatever their ending.
_RESERVED = re.compile(r"con|prn|aux|nul|(?:com|lpt)[0-9]")


class NameTaken(CardError):
    """Something of that name is there already."""


def is_card_file(path: PurePath) -> bool:
    """Whether a file of this name may hold a card."""
    return path.suffix.lower() in SUFFIXES


def card_id(name: str) -> str:
    """A persona's id made of any `name`: "Amy Smith" becomes `amy-smith`; other scripts become a number that stays."""
    latin = unicodedata.normalize("NFKD", name[:1_000]).encode("ascii", "ignore").decode().lower()
    made = name if _ID.fullmatch(name) else re.sub(r"[^a-z0-9_]+", "-", latin).strip("-_")[:MAX_ID_LENGTH].strip("-_")
    if _RESERVED.fullmatch(made):
        return f"{made}-card"
    return made or f"card-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:8]}"


def read_card(path: Path) -> Card:
    """The card in the file at `path`. Raises `CardError`, `NoCard` where it is none."""
    return parse_card(read_bytes(path), name=path.name)


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, no more than show that it is too large. Raises `CardError`."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CardError(f"the file cannot be read: {error.strerror or error}") from None


def suffix_for(data: bytes) -> str:
    """The ending that suits a card's file."""
    if data.startswith(PNG_SIGNATURE):
        return ".png"
    return ".charx" if data.startswith((b"PK", b"\xff\xd8")) else ".json"


def write_file(path: Path, data: bytes, *, overwrite: bool = False) -> None:
    """Write the whole of `data`, or nothing. Raises `CardError` where the file is there, unless it may be replaced."""
    part: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".part", delete=False) as file:
            part = file.name
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(part).chmod(0o644)
        _put(part, path, overwrite=overwrite)
    except OSError as error:
        raise CardError(f"{path.name} cannot be written: {error.strerror or error}") from None
    finally:
        if part is not None:
            Path(part).unlink(missing_ok=True)


def _put(part: str, path: Path, *, overwrite: bool) -> None:
    if overwrite:
        Path(part).replace(path)
        return
    try:
        os.link(part, path)  # which fails where something is there, unlike a rename
    except OSError:  # something is there, or it is a disk without links
        _copy(part, path)


def _copy(part: str, path: Path) -> None:
    try:
        with path.open("xb") as file:
            file.write(Path(part).read_bytes())
    except FileExistsError:
        raise NameTaken(f"{path.name} is there already; choose another name") from None
