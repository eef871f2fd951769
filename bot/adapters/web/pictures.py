"""Pictures as the browser gets them: their type told from their bytes, and a drawn face for whoever has none.

Knows neither sessions nor the store.
"""

import hashlib
from html import escape

from bot.types import PersonaCard

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
)


def picture_type(data: bytes) -> str | None:
    """The type of a picture that browsers can show safely; `None` for anything else, SVG and HTML above all."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((mime for signature, mime in _SIGNATURES if data.startswith(signature)), None)


def drawn_face(card: PersonaCard) -> str:
    """An SVG with the persona's initial, in colours of its own."""
    hue = hashlib.sha256(card.id.encode()).digest()[0] * 360 // 256
    initial = escape(card.name.strip()[:1].upper())
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 96 96"><defs>'
        f'<linearGradient id="g" x2="1" y2="1"><stop stop-color="hsl({hue} 42% 52%)"/>'
        f'<stop offset="1" stop-color="hsl({(hue + 40) % 360} 46% 34%)"/></linearGradient></defs>'
        '<rect width="96" height="96" fill="url(#g)"/>'
        '<text x="48" y="51" fill="#fff" font-family="Georgia,serif" font-size="46" text-anchor="middle" '
        f'dominant-baseline="middle">{initial}</text></svg>'
    )
