"""Cards made by the tests: our own, for every version and container."""

import base64
import io
import json
import struct
import zipfile
import zlib
from typing import Any

from PIL import Image

from bot.personas.cards.containers import PNG_SIGNATURE, png_chunks

V1: dict[str, Any] = {
    "name": "Wren",
    "description": "{{char}} mends clocks in a tower. She is never late, and never early.",
    "personality": "patient, exact, a little lonely",
    "scenario": "{{user}} has climbed the tower stairs.",
    "first_mes": "Mind the pendulum, {{user}}.",
    "mes_example": "<START>\n{{user}}: Is it late?\n{{char}}: It is exactly now.",
}
V2: dict[str, Any] = {
    "spec": "chara_card_v2",
    "spec_version": "2.0",
    "data": {
        **V1,
        "creator_notes": "Best with a patient model.",
        "system_prompt": "Write as {{char}}. {{original}}",
        "post_history_instructions": "Keep time.",
        "alternate_greetings": ["Twelve already?", "You are early."],
        "tags": ["clocks", "tower"],
        "creator": "Ada",
        "character_version": "1.3",
        "character_book": {
            "name": "Tower",
            "scan_depth": 3,
            "token_budget": 300,
            "recursive_scanning": True,
            "extensions": {"own": [1, {"a": None}]},
            "entries": [
                {
                    "keys": ["bell", "chime"],
                    "content": "The bell cracked in 1911.",
                    "extensions": {"agnai/weight": 2},
                    "enabled": True,
                    "insertion_order": 7,
                    "case_sensitive": True,
                    "name": "Bell",
                    "priority": 3,
                    "id": 12,
                    "comment": "the old one",
                    "selective": True,
                    "secondary_keys": ["crack"],
                    "constant": False,
                    "position": "before_char",
                }
            ],
        },
        "extensions": {"talkativeness": "0.8", "fav": True, "somebody/else": {"deep": [None, 1.5, "x"]}},
    },
}
V3: dict[str, Any] = {
    "spec": "chara_card_v3",
    "spec_version": "3.0",
    "data": {
        **V2["data"],
        "nickname": "Wrenny",
        "creator_notes_multilingual": {"en": "Be patient.", "de": "Hab Geduld."},
        "source": ["https://example.org/wren"],
        "group_only_greetings": ["So many of you!"],
        "creation_date": 1700000000,
        "modification_date": 0,
        "assets": [
            {"type": "icon", "uri": "ccdefault:", "name": "main", "ext": "png"},
            {"type": "emotion", "uri": "embeded://assets/emotion/images/happy.png", "name": "happy", "ext": "png"},
            {"type": "x_song", "uri": "embeded://assets/other/audio/tick.mp3", "name": "tick", "ext": "mp3"},
        ],
    },
}
ALL = (V1, V2, V3)


def picture(colour: str = "teal", size: tuple[int, int] = (8, 12), form: str = "PNG") -> bytes:
    """A plain picture file."""
    written = io.BytesIO()
    Image.new("RGB", size, colour).save(written, form)
    return written.getvalue()


def chunk(kind: bytes, data: bytes, *, crc: int | None = None) -> bytes:
    """A chunk of a PNG file."""
    return (
        struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data) if crc is None else crc)
    )


def text(keyword: str, content: bytes) -> bytes:
    """A tEXt chunk."""
    return chunk(b"tEXt", keyword.encode() + b"\0" + content)


def encoded(raw: Any) -> bytes:
    """JSON as a picture holds it."""
    return base64.b64encode(json.dumps(raw, ensure_ascii=False).encode())


def png_with(*chunks: bytes, base: bytes | None = None) -> bytes:
    """A picture with these chunks before its end."""
    parts = [part.packed() for part in png_chunks(base or picture())]
    return PNG_SIGNATURE + b"".join([*parts[:-1], *chunks, parts[-1]])


def png_of(raw: Any, keyword: str = "chara") -> bytes:
    """A picture with a card in it."""
    return png_with(text(keyword, encoded(raw)))


def charx_of(raw: Any, **files: bytes) -> bytes:
    """A zip with a card in it; `files` by their paths."""
    return zip_of({"card.json": json.dumps(raw).encode(), **files})


def zip_of(files: dict[str, bytes]) -> bytes:
    """A zip with these files."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return written.getvalue()


def texts_in(png: bytes) -> dict[str, bytes]:
    """The tEXt chunks of a picture, by keyword."""
    parts = (part.data.partition(b"\0") for part in png_chunks(png) if part.kind == b"tEXt")
    return {keyword.decode(): content for keyword, _, content in parts}
