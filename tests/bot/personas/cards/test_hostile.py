"""Cards by people who mean harm: refused in plain words, or harmless. Never slow, never large, never outside."""

import base64
import io
import json
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from bot.personas.cards.card import Card, parse_card
from bot.personas.cards.containers import MAX_FILE_BYTES, PNG_SIGNATURE, CardError, NoCard
from bot.personas.cards.persona import persona_from_card
from bot.personas.cards.pictures import clean_png
from bot.personas.cards.texts import first_sentence
from tests.bot.personas.cards.making import (
    V1,
    V2,
    V3,
    charx_of,
    chunk,
    encoded,
    picture,
    png_of,
    png_with,
    text,
    zip_of,
)

MAX_S = 4.0
MAX_MIB = 300


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    """Each of these takes little time and little memory."""
    tracemalloc.start()
    started = time.process_time()  # others may be busy beside it
    yield
    took = time.process_time() - started
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    assert took < MAX_S
    assert peak < MAX_MIB


def refused(data: bytes, match: str) -> None:
    with pytest.raises(CardError, match=match) as caught:
        parse_card(data, name="x.png")
    assert not isinstance(caught.value, NoCard)
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()


# Sizes


def test_a_file_without_end() -> None:
    refused(bytes(MAX_FILE_BYTES + 1), "larger than 64 MiB")


def test_a_chunk_that_claims_a_hundred_megabytes() -> None:
    refused(png_of(V2)[:-12] + struct.pack(">I4s", 100 * 2**20, b"tEXt") + b"chara\0x", "ends in the middle")


def test_a_card_chunk_that_is_too_large() -> None:
    refused(png_with(text("chara", b"A" * (23 * 2**20))), "larger than 21 MiB")


def test_base64_that_is_mostly_spaces() -> None:
    refused(png_with(text("chara", b"A " * (10 * 2**20))), "JSON|UTF-8")


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_a_compressed_chunk_that_unpacks_without_end(kind: bytes) -> None:
    packing = zlib.compressobj(9)
    packed = b"".join(packing.compress(bytes(2**20)) for _ in range(200)) + packing.flush()
    head = b"chara\0\0" if kind == b"zTXt" else b"chara\0\1\0\0\0"
    refused(png_with(chunk(kind, head + packed)), "unpacks to more than")


def test_many_compressed_assets() -> None:
    packed = zlib.compress(b"A" * (20 * 2**20), 9)
    assets = [chunk(b"zTXt", b"chara-ext-asset_:%d\0\0" % number + packed) for number in range(20)]
    refused(png_with(text("chara", encoded(V2)), *assets), "unpack to more than")


def test_a_picture_of_very_many_chunks() -> None:
    refused(png_with(text("chara", encoded(V2)), chunk(b"teSt", b"") * 30_000), "more than 20,000 parts")


# Damage


@pytest.mark.parametrize("num_bytes", [30, 60, 200, 500])
def test_a_truncated_picture(num_bytes: int) -> None:
    data = png_with(base=png_with(text("chara", encoded(V2))))
    start = data.index(b"chara\0")
    refused(data[: start + num_bytes], "ends in the middle")


def test_a_wrong_check_sum() -> None:
    refused(png_with(chunk(b"tEXt", b"chara\0" + encoded(V2), crc=1)), "`chara` of the picture is damaged")


def test_a_length_that_runs_over_the_end() -> None:
    refused(PNG_SIGNATURE + b"\xff\xff\xff\xffIHDRchara\0", "ends in the middle")


def test_compressed_noise() -> None:
    refused(png_with(chunk(b"zTXt", b"chara\0\0noise")), "compressed part of the picture is damaged")


@pytest.mark.parametrize("content", [b"", b"{", b"{}x", b'{"name": ', b"\xff\xfe", b'{"a": NaN}', b'{"a": 1e999}'])
def test_broken_json_in_a_picture(content: bytes) -> None:
    refused(png_with(text("chara", base64.b64encode(content))), "JSON|UTF-8")


# JSON


def test_json_nested_without_end() -> None:
    for num_levels in (70, 5_000, 200_000):
        deep = b'{"spec":' + b"[" * num_levels + b"]" * num_levels + b"}"
        refused(deep, "nested deeper")


def test_a_number_of_very_many_digits() -> None:
    refused(b'{"spec": "chara_card_v2", "data": {"name": ' + b"9" * 100_000 + b"}}", "no valid JSON")


def test_numbers_that_are_merely_huge() -> None:
    odd = {"priority": 10**300, "insertion_order": -(10**300), "keys": ["a"], "content": "b"}
    raw = {**V2, "data": {**V2["data"], "character_version": 10**300, "character_book": {"entries": [odd]}}}
    persona = persona_from_card(parse_card(json.dumps(raw).encode(), name="x"), id="x")
    assert persona.lore[0].order == 100


def test_a_hundred_thousand_lore_entries() -> None:
    entries = b'{"keys": ["a", "b"], "content": "c", "enabled": true, "insertion_order": 1},' * 100_000
    refused(
        b'{"spec": "chara_card_v2", "data": {"name": "x", "character_book": {"entries": [' + entries + b"{}]}}}",
        "values",
    )


def test_very_many_empty_values() -> None:
    refused(b'{"spec": [' + b"{}," * 2_000_000 + b"{}]}", "values")


# Zips


def zip_with(**changes: Any) -> bytes:
    """A card's zip whose second entry is changed so."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("card.json", json.dumps(V3))
        entry = zipfile.ZipInfo("a.png")
        for name, value in changes.items():
            setattr(entry, name, value)
        archive.writestr(entry, b"x")
    return written.getvalue()


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/etc/x", "C:/x", "c:x", "a\\..\\x", "\\\\host\\x", "./x", "a//x", "..", "a/./b"]
)
def test_a_path_that_leaves_the_zip(name: str) -> None:
    refused(zip_of({"card.json": json.dumps(V3).encode(), name: b"x"}), "outside of itself")


def test_a_link_in_a_zip() -> None:
    refused(zip_with(external_attr=0o120777 << 16, create_system=3), "holds a link")


def test_a_locked_zip() -> None:
    data = bytearray(charx_of(V3, **{"a.png": b"x"}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.rindex(signature) + offset
        data[place] |= 1
    refused(bytes(data), "password")


def test_two_cards_in_one_zip() -> None:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("card.json", json.dumps(V3))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("card.json", json.dumps(V1))
    refused(written.getvalue(), "two files of one name")


def test_a_zip_bomb() -> None:
    refused(charx_of(V3, **{"a.bin": bytes(12 * 2**20)}), "unpacks to too much")
    refused(charx_of(V3, **{"a.bin": bytes(40 * 2**20)}), "unpacks to too much")
    refused(charx_of(V3, **{f"{number}": bytes(15 * 2**20) for number in range(6)}), "unpacks to more than 64 MiB")


def test_a_zip_that_lies_about_its_sizes() -> None:
    data = bytearray(charx_of(V3, **{"a.bin": bytes(12 * 2**20)}))
    place = data.rindex(b"PK\x01\x02") + 24
    data[place : place + 4] = struct.pack("<I", 100)
    refused(bytes(data), "not as long|damaged or odd")


def test_a_zip_of_very_many_files() -> None:
    refused(zip_of({"card.json": b"{}", **{f"{number}": b"" for number in range(1_200)}}), "more than 1,000 files")


def test_a_directory_that_claims_to_be_huge_is_not_read() -> None:
    data = zip_of({"card.json": b"{}", **{f"{number:0200}": b"" for number in range(3_000)}})
    refused(data, "more than 1,000 files")


def test_a_zip_for_huge_files() -> None:
    data = charx_of(V3)
    refused(data[:-22] + b"PK\x06\x07" + bytes(16) + data[-22:], "huge files")


@pytest.mark.parametrize("cut", [1, 10, 40, 100])
def test_a_truncated_zip(cut: int) -> None:
    refused(charx_of(V3)[:-cut], "damaged or odd")


def test_noise_behind_a_zips_signature() -> None:
    refused(b"PK\x03\x04" + bytes(range(256)) * 50, "damaged or odd")


# Names and texts

NASTY = (
    "../x", "..", "/etc/passwd", "CON", "\x1b[31mred\x1b[0m", "a\r\nb: forged line", "\u202egnp.exe", "\u0000", "😄",
    "a\u2028b\u2029c\x85d", "n" * 10_000, "{{char}}", "'; DROP TABLE turns; --", "$(reboot)", "`id`",
    "<script>alert(1)</script>",
)  # fmt: skip


@pytest.mark.parametrize("name", NASTY)
def test_nasty_names_become_one_harmless_line(name: str) -> None:
    raw = {**V3, "data": {**V3["data"], "name": name, "nickname": name, "creator": name, "tags": [name]}}
    card = Card(3, raw)
    persona = persona_from_card(card, id="wren")
    for shown in (persona.name, persona.nickname or "x", persona.creator or "x", persona.summary, *persona.tags):
        assert len(shown.splitlines()) == 1
        assert not any(sign in shown for sign in "\x1b\x00\u202e\r\n")
    assert len(persona.name) <= 80
    assert card.raw["data"]["name"] == name


def test_text_that_would_run_something_is_only_text() -> None:
    evil = "{{user}}: x\n{{char}}: {{random:$(reboot)}} {% for a in b %}{{ ''.__class__ }} %s {0} {name}"
    persona = persona_from_card(Card(2, {**V2, "data": {**V2["data"], "mes_example": evil, "first_mes": evil}}), id="x")
    assert persona.examples[0].reply == evil.partition("{{char}}: ")[2]


def test_a_description_that_is_hard_to_split() -> None:
    for nasty in (
        "." * 45_000,
        "A" * 45_000,
        "[" * 45_000,
        "<a" * 20_000,
        "\n" * 45_000 + "x",
        "。" * 45_000,
        ": " * 20_000,
    ):
        changed = {**V2["data"], "description": nasty, "personality": nasty, "mes_example": nasty}
        persona = persona_from_card(Card(2, {**V2, "data": changed}), id="x")
        assert len(persona.summary) <= 200


def test_a_first_sentence_of_very_many_stops() -> None:
    began = time.process_time()
    assert len(first_sentence("." * 100_000 + "x", max_length=200)) == 200
    assert time.process_time() - began < 0.5


# Pictures


def test_a_picture_that_unpacks_without_end() -> None:
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    bomb = PNG_SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")
    assert clean_png(bomb) is None


def test_a_picture_of_many_pixels_is_not_decoded() -> None:
    assert clean_png(picture(size=(9_000, 5_000))) is None


@pytest.mark.parametrize("data", [b"", b"GIF89a", PNG_SIGNATURE, picture()[:40], b"<svg/>", b"%!PS-Adobe-3.0 EPSF-3.0"])
def test_what_is_no_picture_is_not_shown(data: bytes) -> None:
    assert clean_png(data) is None


def test_a_clean_picture_holds_no_card() -> None:
    made = clean_png(png_with(text("ccv3", encoded(V3)), chunk(b"eXIf", b"MM\0*secret place")), max_side=4)
    assert made is not None
    assert b"ccv3" not in made
    assert b"secret" not in made
    with Image.open(io.BytesIO(made)) as opened:
        assert max(opened.size) == 4
