"""Cards come into a folder, give way to others, and go out again with their pictures."""

import json
from pathlib import Path

import pytest

from bot.personas.arrivals import REMOVED, bring_in, card_of, files_of, remove
from bot.personas.cards.card import parse_card
from bot.personas.cards.containers import CardError
from bot.personas.cards.convert import write_card
from bot.personas.cards.files import NameTaken
from bot.personas.reading import read_persona
from tests.bot.personas.cards.making import V1, V2, V3, charx_of, picture, png_of
from tests.bot.personas.conftest import MIRA


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_a_card_comes_in_byte_for_byte_under_its_characters_name(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "personas"
    for data, name in ((png_of(V2), "wren.png"), (charx_of(V3), "wren.charx"), (json.dumps(V1).encode(), "wren.json")):
        arrival = bring_in(data, file_name="main_card_v2.png", folder=folder, overwrite=True)
        assert arrival.path == folder / name
        assert arrival.path.read_bytes() == data
        assert arrival.persona == read_persona(arrival.path)
        assert [found for found in names_in(folder) if found != REMOVED] == [name]


def test_a_name_that_makes_no_id_leaves_the_files(tmp_path: Path) -> None:
    data = json.dumps({**V1, "name": "小明"}).encode()
    assert bring_in(data, file_name="Xiao Ming.json", folder=tmp_path).path.name == "xiao-ming.json"
    assert bring_in(data, file_name="小明.json", folder=tmp_path).path.name.startswith("card-")


def test_a_name_may_be_given(tmp_path: Path) -> None:
    assert bring_in(png_of(V2), file_name="x.png", folder=tmp_path, name="my-wren").persona.id == "my-wren"
    for name in ("../x", "My Wren", "con", "", "a/b"):
        if name:
            with pytest.raises(CardError, match="cannot be called"):
                bring_in(png_of(V2), file_name="x.png", folder=tmp_path, name=name)
    assert names_in(tmp_path) == ["my-wren.png"]


@pytest.mark.parametrize("older", ["wren.yaml", "Wren.json", "wren.png"])
def test_nobody_is_replaced_unless_it_is_wanted(older: str, tmp_path: Path) -> None:
    content = MIRA.encode() if older.endswith("yaml") else png_of(V1)
    (tmp_path / older).write_bytes(content)
    with pytest.raises(NameTaken, match=f"`wren` already, in {older}"):
        bring_in(png_of(V2), file_name="x.png", folder=tmp_path)
    assert (tmp_path / older).read_bytes() == content
    bring_in(png_of(V2), file_name="x.png", folder=tmp_path, overwrite=True)
    assert names_in(tmp_path) == [REMOVED, "wren.png"]
    (kept,) = (tmp_path / REMOVED).iterdir()
    assert kept.read_bytes() == content


def test_who_gave_way_comes_back_where_nothing_could_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wren.yaml").write_text(MIRA)

    def refuse(*_: object) -> None:
        raise CardError("the disk is full")

    monkeypatch.setattr("bot.personas.arrivals.write_file", refuse)
    with pytest.raises(CardError, match="full"):
        bring_in(png_of(V2), file_name="x.png", folder=tmp_path, overwrite=True)
    assert (tmp_path / "wren.yaml").read_text() == MIRA


def test_what_is_no_card_changes_nothing(tmp_path: Path) -> None:
    for data in (picture(), b"{}", b"PK\x03\x04", bytes(10)):
        with pytest.raises(CardError):
            bring_in(data, file_name="x", folder=tmp_path, overwrite=True)
    assert names_in(tmp_path) == []


def test_a_picture_that_cannot_be_shown_is_told(tmp_path: Path) -> None:
    broken = png_of(V2).replace(b"IDAT", b"IDAX")
    assert "is not shown" in "".join(bring_in(broken, file_name="x.png", folder=tmp_path).warnings)
    arrival = bring_in(png_of(V2), file_name="x.png", folder=tmp_path, name="other")
    assert arrival.picture is not None
    assert arrival.warnings == ()


def test_a_persona_goes_out_with_its_pictures_and_comes_back(tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    for name, colour in (("a.png", "red"), ("joy.png", "gold"), ("wave.webp", "blue")):
        (tmp_path / "faces" / name).write_bytes(picture(colour, form="WEBP" if name.endswith("webp") else "PNG"))
    shown = "expressions: {joy: {avatar: faces/joy.png, sticker: faces/wave.webp}}\n"
    (tmp_path / "mira.yaml").write_text(f"{MIRA}avatar: faces/a.png\n{shown}")
    card = card_of(tmp_path / "mira.yaml")
    assert card.image == (tmp_path / "faces" / "a.png").read_bytes()
    for container in ("png", "charx"):
        data = write_card(card, container)  # type: ignore[arg-type]
        again = parse_card(data, name="x")
        assert again.assets["faces/joy.png"] == (tmp_path / "faces" / "joy.png").read_bytes()
        assert again.assets["faces/wave.webp"] == (tmp_path / "faces" / "wave.webp").read_bytes()
        folder = tmp_path / container
        bring_in(data, file_name="mira", folder=folder)
        (path,) = files_of("mira", folder)
        assert read_persona(path) == read_persona(tmp_path / "mira.yaml")


def test_a_card_goes_out_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "wren.charx").write_bytes(charx_of(V3, **{"a.png": picture()}))
    card = card_of(tmp_path / "wren.charx")
    assert card.raw == V3
    assert card.assets == {"a.png": picture()}


def test_two_that_go_on_one_day_are_both_kept(tmp_path: Path) -> None:
    for _ in range(2):
        (tmp_path / "wren.yaml").write_text(MIRA)
        remove(tmp_path / "wren.yaml")
    assert len(names_in(tmp_path / REMOVED)) == 2
    with pytest.raises(CardError, match=r"wren\.yaml cannot be moved"):
        remove(tmp_path / "wren.yaml")
