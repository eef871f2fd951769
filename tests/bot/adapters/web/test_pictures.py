"""Types are told from bytes; whoever has no picture gets a drawn one."""

import xml.etree.ElementTree as ET

import pytest

from bot.adapters.web.pictures import drawn_face, picture_type
from bot.types import PersonaCard


@pytest.mark.parametrize(
    ("data", "mime"),
    [
        (b"\x89PNG\r\n\x1a\n...", "image/png"),
        (b"\xff\xd8\xff\xe0...", "image/jpeg"),
        (b"GIF89a...", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", None),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", None),
        (b"<html>", None),
        (b"", None),
    ],
)
def test_the_type_is_in_the_bytes(data: bytes, mime: str | None) -> None:
    assert picture_type(data) == mime


@pytest.mark.parametrize("name", ["Mina", "<script>", "&", "林小满", " "])
def test_a_drawn_face_is_well_formed(name: str) -> None:
    text = ET.fromstring(drawn_face(PersonaCard("x", name, "", "en"))).find("{http://www.w3.org/2000/svg}text")
    assert text is not None
    assert (text.text or "") == name.strip()[:1].upper()


def test_faces_differ_by_persona() -> None:
    assert drawn_face(PersonaCard("a", "A", "", "en")) != drawn_face(PersonaCard("b", "A", "", "en"))
