"""Character cards among the personas: found, kept up to date, and shown with the pictures they bring."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bot.personas.library import PersonaLibrary
from bot.personas.reading import InvalidPersona, NoPersona, read_persona
from tests.bot.personas.cards.making import V1, V2, V3, charx_of, picture, png_of, png_with, text
from tests.bot.personas.conftest import WritePersona

HAPPY = "assets/emotion/images/happy.png"


def loaded(*folders: Path, cache: Path | None = None) -> PersonaLibrary:
    library = PersonaLibrary(folders, cache=cache)
    library.load()
    return library


def ids_in(library: PersonaLibrary) -> list[str]:
    return [persona.id for persona in library.all()]


def test_cards_of_every_container_are_personas(write: WritePersona, tmp_path: Path) -> None:
    write("mira.yaml")
    (tmp_path / "Amy Smith.png").write_bytes(png_of(V2))
    (tmp_path / "moving.APNG").write_bytes(png_of(V3, "ccv3"))
    (tmp_path / "plain.json").write_text(json.dumps(V1))
    (tmp_path / "zipped.charx").write_bytes(charx_of(V3))
    library = loaded(tmp_path)
    assert sorted(ids_in(library)) == ["amy-smith", "mira", "moving", "plain", "zipped"]
    assert library.problems == ()


def test_pictures_and_other_files_beside_personas_are_no_problem(write: WritePersona, tmp_path: Path) -> None:
    write("mira.yaml", "avatar: mira.png\n")
    (tmp_path / "mira.png").write_bytes(picture())
    (tmp_path / "notes.json").write_text('{"name": "my notes", "version": 1}')
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / ".hidden.png").write_bytes(png_of(V2))
    (tmp_path / "avatars").mkdir()
    (tmp_path / "avatars" / "wren.png").write_bytes(png_of(V2))
    library = loaded(tmp_path)
    assert ids_in(library) == ["mira"]
    assert library.problems == ()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.png", png_with(text("chara", b"!!")), "no valid base64"),
        ("a.json", b'{"spec": "chara_card_v2", "data": {', "no valid JSON"),
        ("a.charx", b"PK\x03\x04 nothing", "damaged"),
        ("a.charx", b"text", "no character card"),
    ],
)
def test_a_broken_card_is_a_problem_with_its_path(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    (problem,) = loaded(tmp_path).problems
    assert problem.path == tmp_path / name
    assert message in problem.message


def test_two_files_of_one_id_are_told_and_the_yaml_counts(write: WritePersona, tmp_path: Path) -> None:
    (tmp_path / "mira.png").write_bytes(png_of(V2))
    write("mira.yaml")
    (tmp_path / "Wren.json").write_text(json.dumps(V2))
    (tmp_path / "wren.png").write_bytes(png_of(V2))
    library = loaded(tmp_path)
    assert [persona.name for persona in library.all()] == ["Mira", "Wren"]
    assert [(problem.path.name, problem.message.split()[0]) for problem in library.problems] == [
        ("mira.png", "mira.yaml"),
        ("wren.png", "Wren.json"),
    ]


async def test_edits_of_a_card_are_live_and_a_broken_one_leaves_the_last(tmp_path: Path) -> None:
    path = tmp_path / "wren.json"
    path.write_text(json.dumps(V2))
    library = loaded(tmp_path)
    changes: list[int] = []
    library.on_change(lambda: changes.append(len(library.all())))
    path.write_text(json.dumps({**V2, "data": {**V2["data"], "scenario": "A fair, far away."}}))
    await library.refresh()
    assert library.get("wren").scenario == "A fair, far away."
    path.write_text('{"spec": "chara_card_v2"')
    await library.refresh()
    assert library.get("wren").scenario == "A fair, far away."
    assert len(library.problems) == 1
    path.unlink()
    await library.refresh()
    assert library.all() == library.problems == ()
    assert changes == [1, 1, 0]


async def test_a_card_that_becomes_a_plain_picture_is_gone(tmp_path: Path) -> None:
    (tmp_path / "wren.png").write_bytes(png_of(V2))
    library = loaded(tmp_path)
    (tmp_path / "wren.png").write_bytes(picture("pink", (20, 20)))
    await library.refresh()
    assert library.all() == library.problems == ()


# Pictures


def face_of(library: PersonaLibrary, words: str) -> Path | None:
    return library.avatar_for(library.get("wren"), words)


def test_a_picture_card_shows_itself_in_a_clean_copy(tmp_path: Path) -> None:
    (tmp_path / "wren.png").write_bytes(png_of(V2))
    library = loaded(tmp_path, cache=tmp_path / "cache")
    avatar = library.avatar(library.get("wren"))
    assert avatar is not None
    assert avatar.parent == tmp_path / "cache"
    assert b"chara" not in avatar.read_bytes()
    with Image.open(avatar) as opened:
        assert opened.size == (8, 12)
    assert library.speaker(library.get("wren"), "discord").avatar == avatar


def test_without_a_cache_a_picture_card_is_its_own_avatar(tmp_path: Path) -> None:
    (tmp_path / "wren.png").write_bytes(png_of(V2))
    (tmp_path / "zipped.charx").write_bytes(charx_of(V3, **{"assets/icon/a.png": picture()}))
    library = loaded(tmp_path)
    assert library.avatar(library.get("wren")) == tmp_path / "wren.png"
    assert library.avatar(library.get("zipped")) is None


def test_a_zips_icon_and_faces_are_shown(tmp_path: Path) -> None:
    raw: dict[str, Any] = {**V3, "data": {**V3["data"]}}
    raw["data"]["assets"] = [
        {"type": "icon", "uri": "embeded://i.png", "name": "main", "ext": "png"},
        {"type": "emotion", "uri": f"embeded://{HAPPY}", "name": "happy", "ext": "png"},
        {"type": "emotion", "uri": "embeded://missing.png", "name": "angry", "ext": "png"},
    ]
    (tmp_path / "wren.charx").write_bytes(
        charx_of(raw, **{"i.png": picture(size=(5, 5)), HAPPY: picture(size=(7, 7), form="WEBP")})
    )
    library = loaded(tmp_path, cache=tmp_path / "cache")
    avatar, happy = library.avatar(library.get("wren")), face_of(library, "How nice! 😄")
    assert avatar is not None
    assert happy is not None
    for path, side in ((avatar, 5), (happy, 7)):
        with Image.open(path) as opened:
            assert (opened.format, opened.size) == ("PNG", (side, side))
    assert face_of(library, "Grr 😡") is None
    shutil.rmtree(tmp_path / "cache")
    assert library.avatar(library.get("wren")) is None


def test_a_picture_that_cannot_be_decoded_costs_the_avatar_alone(tmp_path: Path) -> None:
    (tmp_path / "wren.charx").write_bytes(charx_of(V3, **{HAPPY: b"no picture"}))
    library = loaded(tmp_path, cache=tmp_path / "cache")
    assert library.problems == ()
    assert face_of(library, "How nice! 😄") is None


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/passwd", "..\\secret.png"])
def test_no_file_outside_of_the_card_is_shown(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(picture())
    (tmp_path / "personas").mkdir()
    raw: dict[str, Any] = {**V3, "data": {**V3["data"]}}
    raw["data"]["assets"] = [
        {"type": kind, "uri": f"embeded://{name}", "name": "happy", "ext": "png"} for kind in ("icon", "emotion")
    ]
    own = {"fields": {"avatar": name, "expressions": {"happy": {"avatar": name}}}, "of": {}}
    raw["data"]["extensions"] = {"commedia": own}
    (tmp_path / "personas" / "wren.json").write_text(json.dumps(raw))
    for cache in (None, tmp_path / "cache"):
        library = loaded(tmp_path / "personas", cache=cache)
        assert library.avatar(library.get("wren")) is None
        assert face_of(library, "How nice! 😄") is None


def test_reading_one_file(tmp_path: Path) -> None:
    (tmp_path / "wren.json").write_text(json.dumps(V2))
    assert read_persona(tmp_path / "wren.json").name == "Wren"
    (tmp_path / "photo.png").write_bytes(picture())
    with pytest.raises(NoPersona, match=r"photo\.png: this picture holds no character card"):
        read_persona(tmp_path / "photo.png")
    with pytest.raises(InvalidPersona, match="cannot be read"):
        read_persona(tmp_path / "gone.png")


def test_a_log_line_stays_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    nasty = {**V2, "data": {**V2["data"], "name": "a\nERROR forged\x1b[2J\u202e"}}
    (tmp_path / "wren.json").write_text(json.dumps(nasty))
    (tmp_path / "bad.json").write_text('{"spec": "chara_card_v2", "data": {"na\\u000ame": "x\n')
    loaded(tmp_path)
    assert len(caplog.records) == 2
    for record in caplog.records:
        assert record.getMessage().isprintable()
        assert "forged" not in record.getMessage()
