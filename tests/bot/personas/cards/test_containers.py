"""Where cards lie: every container that the specifications and their users know."""

import base64
import json
import zlib
from typing import Any

import pytest

from bot.personas.cards.card import Card, parse_card
from bot.personas.cards.containers import CardError, NoCard, json_bytes, png_chunks, unpack
from bot.personas.cards.convert import BESIDE, ICON_PATH, write_card
from tests.bot.personas.cards.making import (
    ALL,
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
    texts_in,
    zip_of,
)

OTHER = {**V1, "name": "Other"}


def raw_of(data: bytes) -> Any:
    return unpack(data).raw


# Reading


@pytest.mark.parametrize("raw", ALL)
def test_a_card_lies_in_json_png_or_charx(raw: dict[str, Any]) -> None:
    for data in (json.dumps(raw).encode(), png_of(raw, "ccv3"), png_of(raw), charx_of(raw)):
        assert raw_of(data) == raw


def test_json_may_begin_with_a_byte_order_mark() -> None:
    assert raw_of(b"\xef\xbb\xbf" + json.dumps(V2).encode()) == V2


def test_ccv3_is_preferred_to_chara_wherever_it_stands() -> None:
    older, newer = text("chara", encoded(OTHER)), text("ccv3", encoded(V3))
    assert raw_of(png_with(older, newer)) == V3
    assert raw_of(png_with(newer, older)) == V3


@pytest.mark.parametrize("keyword", ["chara", "CHARA", "Chara", "CCV3", "cCv3"])
def test_keywords_are_compared_in_any_case(keyword: str) -> None:
    assert raw_of(png_of(V2, keyword)) == V2


def test_of_several_chunks_of_one_keyword_the_first_counts() -> None:
    assert raw_of(png_with(text("chara", encoded(V2)), text("chara", encoded(OTHER)))) == V2


def test_a_damaged_newer_card_leaves_the_older_one() -> None:
    assert raw_of(png_with(text("ccv3", b"!!!"), text("chara", encoded(V2)))) == V2
    with pytest.raises(CardError, match="base64"):
        raw_of(png_with(text("ccv3", b"!!!")))


def test_base64_may_lack_padding_or_have_line_ends() -> None:
    for name in ("W", "Wr", "Wre"):
        raw = {**V1, "name": name}
        plain = base64.b64encode(json.dumps(raw).encode())
        assert raw_of(png_with(text("chara", plain.rstrip(b"=")))) == raw
        assert raw_of(png_with(text("chara", b"\n".join([plain[:40], plain[40:]])))) == raw


def test_a_card_may_be_compressed_or_international_text() -> None:
    packed = zlib.compress(encoded(V2))
    assert raw_of(png_with(chunk(b"zTXt", b"chara\0\0" + packed))) == V2
    assert raw_of(png_with(chunk(b"iTXt", b"ccv3\0\1\0en\0Karte\0" + packed))) == V2
    assert raw_of(png_with(chunk(b"iTXt", b"ccv3\0\0\0\0\0" + json.dumps(V3).encode()))) == V3


def test_assets_in_png_are_found_by_their_path() -> None:
    happy = picture("gold")
    data = png_with(
        text("ccv3", encoded(V3)),
        text("chara-ext-asset_:0", base64.b64encode(happy)),
        text("chara-ext-asset_1", base64.b64encode(b"one")),
    )
    assert unpack(data).assets == {"0": happy, "1": b"one"}


def test_assets_in_charx_are_all_files_but_the_card() -> None:
    files = {"assets/emotion/images/happy.png": picture(), "risu.json": b"{}"}
    contents = unpack(charx_of(V3, **files))
    assert contents.assets == files
    assert contents.image is None


def test_a_picture_may_stand_before_the_zip() -> None:
    assert raw_of(picture(form="JPEG") + charx_of(V3)) == V3


@pytest.mark.parametrize(
    "data",
    [
        picture(),
        picture(form="JPEG"),
        picture(form="WEBP"),
        picture(form="GIF"),
        png_with(text("Comment", b"nothing")),
        b"[1, 2]",
        b'{"name": "package", "version": "1"}',
        b"not json",
        zip_of({"other.json": b"{}"}),
        zip_of({"inner/card.json": b"{}"}),
    ],
)
def test_what_is_no_card_is_told_from_a_broken_one(data: bytes) -> None:
    with pytest.raises(NoCard):
        parse_card(data, name="x")


def test_a_lorebook_alone_is_told() -> None:
    for raw in ({"entries": {"0": {}}}, {"spec": "lorebook_v3", "data": {"entries": []}}):
        with pytest.raises(NoCard, match="lorebook without a character"):
            parse_card(json.dumps(raw).encode(), name="x")


# Writing


def test_a_v3_card_in_a_picture_goes_with_one_for_older_programs() -> None:
    written = texts_in(write_card(Card(3, V3, {}, picture()), "png"))
    assert list(written) == ["chara", "ccv3"]
    assert json.loads(base64.b64decode(written["ccv3"])) == V3
    older = json.loads(base64.b64decode(written["chara"]))
    assert older["spec"] == "chara_card_v2"
    assert older["data"]["creator_notes"] == f"{BESIDE}\n\nBest with a patient model."


@pytest.mark.parametrize(("spec", "raw"), [(1, V1), (2, V2)])
def test_an_older_card_is_written_as_what_it_is(spec: Any, raw: dict[str, Any]) -> None:
    written = texts_in(write_card(Card(spec, raw, {}, png_of(V3, "ccv3")), "png"))
    assert list(written) == ["chara"]
    assert json.loads(base64.b64decode(written["chara"])) == raw


def test_writing_replaces_the_card_and_leaves_all_other_chunks() -> None:
    frame = chunk(b"fcTL", bytes(26))
    old = png_with(text("Title", b"kept"), text("ccv3", encoded(OTHER)), chunk(b"zTXt", b"CHARA\0\0x"), frame)
    new = write_card(Card(3, V3, {"a/b.png": b"1"}, old), "png")
    kinds = [part.kind for part in png_chunks(new)]
    assert kinds.count(b"fcTL") == 1
    assert b"zTXt" not in kinds
    assert kinds[-1] == b"IEND"
    assert list(texts_in(new)) == ["Title", "chara", "ccv3", "chara-ext-asset_:a/b.png"]
    assert texts_in(new)["Title"] == b"kept"
    assert all(part.is_whole() for part in png_chunks(new))


@pytest.mark.parametrize("raw", ALL)
@pytest.mark.parametrize("container", ["json", "png", "charx"])
def test_what_is_written_is_read_back_equal(raw: dict[str, Any], container: Any) -> None:
    card = parse_card(json.dumps(raw).encode(), name="x")
    again = parse_card(write_card(card, container), name="x")
    assert (again.raw, again.spec) == (card.raw, card.spec)


@pytest.mark.parametrize("container", ["png", "charx"])
def test_assets_go_from_container_to_container(container: Any) -> None:
    files = {"assets/emotion/images/happy.png": picture("gold"), "assets/other/audio/très.mp3": bytes(range(256))}
    card = parse_card(charx_of(V3, **files), name="x")
    again = parse_card(write_card(card, container), name="x")
    assert {path: again.assets[path] for path in files} == files


def test_a_zip_keeps_the_picture_that_a_card_lay_in() -> None:
    card = parse_card(png_of(V3, "ccv3"), name="x")
    again = parse_card(write_card(card, "charx"), name="x")
    assert again.assets[ICON_PATH] == picture()  # and no card is left in it
    assert again.raw == V3


def test_a_card_without_a_picture_gets_a_plain_one() -> None:
    data = write_card(Card(2, V2), "png")
    assert parse_card(data, name="x").raw == V2


def test_halves_of_a_sign_survive() -> None:
    raw = json.loads('{"name": "Wren \\ud83d", "description": "x", "first_mes": ""}')
    for container in ("json", "png", "charx"):
        assert parse_card(write_card(Card(1, raw), container), name="x").raw == raw  # type: ignore[arg-type]


def test_json_is_written_for_people_to_read() -> None:
    assert "Grüße" in json_bytes({"a": "Grüße"}, indent=2).decode()
