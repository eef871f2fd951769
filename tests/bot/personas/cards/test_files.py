"""What card files are called, and how they are written."""

from pathlib import Path

import pytest

from bot.personas.cards.containers import CardError
from bot.personas.cards.files import NameTaken, card_id, is_card_file, read_card, suffix_for, write_file
from bot.personas.reading import PERSONA_ID
from tests.bot.personas.cards.making import V3, charx_of, png_of


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("amy", "amy"),
        ("a--b_c", "a--b_c"),
        ("Amy Smith", "amy-smith"),
        ("Zoë O'Hara", "zoe-o-hara"),
        ("main_amy-123_spec_v2", "main_amy-123_spec_v2"),
        ("../x", "x"),
        ("/etc/passwd", "etc-passwd"),
        ("CON", "con-card"),
        ("con", "con-card"),
        ("com1", "com1-card"),
        ("_amy_", "amy"),
        ("n" * 10_000, "n" * 64),
        ("a" * 63 + " b", "a" * 63),
    ],
)
def test_ids(name: str, made: str) -> None:
    assert card_id(name) == made
    assert PERSONA_ID.fullmatch(made)


def test_other_scripts_get_an_id_that_stays() -> None:
    assert card_id("小明") == card_id("小明") != card_id("小红")
    for name in ("小明", "", "...", "\ud800", "😄", "\x00"):
        assert PERSONA_ID.fullmatch(card_id(name))


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("a.png", True), ("a.APNG", True), ("a.json", True), ("a.charx", True), ("a.yaml", False), ("a.jpg", False)],
)
def test_which_files_may_be_cards(name: str, is_one: bool) -> None:
    assert is_card_file(Path(name)) is is_one


def test_the_ending_that_suits() -> None:
    assert [suffix_for(data) for data in (png_of(V3), charx_of(V3), b"\xff\xd8\xff", b"{}")] == [
        ".png",
        ".charx",
        ".charx",
        ".json",
    ]


def test_nothing_is_overwritten_unless_it_may_be(tmp_path: Path) -> None:
    path = tmp_path / "new" / "amy.json"
    write_file(path, b"one")
    with pytest.raises(NameTaken, match=r"^amy\.json is there already"):
        write_file(path, b"two")
    assert path.read_bytes() == b"one"
    write_file(path, b"two", overwrite=True)
    assert path.read_bytes() == b"two"
    assert [found.name for found in path.parent.iterdir()] == ["amy.json"]


def test_a_disk_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr("os.link", refuse)
    write_file(tmp_path / "amy.json", b"one")
    with pytest.raises(NameTaken):
        write_file(tmp_path / "amy.json", b"two")
    assert [found.read_bytes() for found in tmp_path.iterdir()] == [b"one"]


def test_a_place_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CardError, match="cannot be written"):
        write_file(tmp_path / "file" / "amy.json", b"one")


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="cannot be read"):
        read_card(tmp_path / "amy.png")
    with pytest.raises(CardError, match="directory"):
        read_card(tmp_path)
