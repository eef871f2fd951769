"""The pictures of a card: which is whose, and a clean copy of each."""

import base64
import io
import os
import zlib
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bot.personas.cards.card import Card
from bot.personas.cards.pictures import CardPictures, asset_data, avatar_data, clean_png, face_assets, plain_picture
from tests.bot.personas.cards.making import V2, V3, chunk, picture, png_of, png_with

RED, BLUE, GOLD = picture("red"), picture("blue"), picture("gold")


def card_with(*assets: dict[str, str], files: dict[str, bytes] | None = None, image: bytes | None = None) -> Card:
    raw = deepcopy(V3)
    raw["data"]["assets"] = list(assets)
    return Card(3, raw, files or {}, image)


def icon(uri: str, name: str = "main", kind: str = "icon") -> dict[str, str]:
    return {"type": kind, "uri": uri, "name": name, "ext": "png"}


@pytest.mark.parametrize(
    "uri", ["embeded://a/b.png", "embedded://a/b.png", "__asset:a/b.png", "EMBEDED://a/b.png", "embeded://A/B.png"]
)
def test_an_embedded_asset_is_found_by_its_path(uri: str) -> None:
    assert avatar_data(card_with(icon(uri), files={"a/b.png": RED})) == RED


def test_a_data_address_is_the_asset_itself() -> None:
    assert avatar_data(card_with(icon(f"data:image/png;base64,{base64.b64encode(RED).decode()}"))) == RED


def test_the_default_icon_is_the_picture_that_the_card_lies_in() -> None:
    image = png_of(V3)
    assert avatar_data(card_with(icon("ccdefault:"), image=image)) == image
    assert avatar_data(Card(2, V2, {}, image)) == image


def test_the_main_icon_counts_and_else_the_first() -> None:
    files = {"r": RED, "b": BLUE}
    assert avatar_data(card_with(icon("embeded://r", "x"), icon("embeded://b"), files=files)) == BLUE
    assert avatar_data(card_with(icon("embeded://r", "x"), icon("embeded://b", "y"), files=files)) == RED


@pytest.mark.parametrize(
    "uri", ["https://example.org/a.png", "http://10.0.0.1/a", "file:///etc/passwd", "embeded://no"]
)
def test_what_does_not_come_with_the_card_is_not_fetched(uri: str) -> None:
    image = png_of(V3)
    assert avatar_data(card_with(icon(uri), image=image)) == image


def test_a_card_without_a_picture_has_none() -> None:
    assert avatar_data(Card(2, V2)) is None


def test_emotions_are_faces() -> None:
    card = card_with(
        icon("embeded://r", "Happy", "emotion"),
        icon("embeded://b", "happy", "emotion"),
        icon("embeded://b", "set/sad", "emotion"),
        icon("https://example.org/a.png", "angry", "emotion"),
        icon("embeded://r", "forest", "background"),
        files={"r": RED, "b": BLUE},
    )
    faces = face_assets(card)
    assert {name: asset_data(card, asset) for name, asset in faces.items()} == {"happy": RED, "sad": BLUE}


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_clean_copy_is_a_small_png(form: str) -> None:
    made = clean_png(picture(size=(300, 200), form=form), max_side=60)
    assert made is not None
    with Image.open(io.BytesIO(made)) as opened:
        assert (opened.format, opened.size, opened.info) == ("PNG", (60, 40), {})


def test_pictures_are_kept_once_by_what_is_in_them(tmp_path: Path) -> None:
    pictures = CardPictures(tmp_path / "cache")
    first = pictures.keep(RED)
    assert first is not None
    assert pictures.keep(RED) == first != pictures.keep(BLUE)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert pictures.keep(b"nonsense") is None


def test_the_oldest_go_when_the_folder_is_full(tmp_path: Path) -> None:
    pictures = CardPictures(tmp_path, max_bytes=2 * len(clean_png(RED) or b"") + 20)
    kept = [pictures.keep(data) for data in (RED, BLUE)]
    for age, path in enumerate(kept):
        assert path is not None
        os.utime(path, (1_000 + age, 1_000 + age))
    pictures.keep(RED)  # in use again
    gold = pictures.keep(GOLD)
    assert set(tmp_path.iterdir()) == {kept[0], gold}


def test_a_folder_that_cannot_be_written_costs_the_picture_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert CardPictures(tmp_path / "file").keep(RED) is None
    assert "cannot be kept" in caplog.text


@pytest.mark.parametrize("name", ["Wren", "小明", "", "\ud800"])
def test_a_plain_picture_for_everybody(name: str) -> None:
    with Image.open(io.BytesIO(plain_picture(name))) as opened:
        assert opened.size == (400, 600)
    assert plain_picture(name) == plain_picture(name)


def test_a_truncated_card_is_no_picture() -> None:
    data: Any = png_of(V3)
    assert clean_png(data[:-30]) is None


def test_a_long_text_in_the_picture_does_not_cost_the_picture() -> None:
    packed = chunk(b"zTXt", b"chara\0\0" + zlib.compress(b"A" * (3 * 2**20)))
    assert clean_png(png_with(packed)) == clean_png(picture())
