from pathlib import Path

import pytest

from bot.errors import PersonaError
from bot.personas.reading import read_persona
from bot.personas.template import new_persona


@pytest.mark.parametrize(
    ("name", "persona_id"), [("Mira", "mira"), ("Zoë O'Hara", "zoe-o-hara"), ('  "Q"  {x} ', "q-x"), ("R2_D2", "r2_d2")]
)
def test_the_starter_is_valid(tmp_path: Path, name: str, persona_id: str) -> None:
    path = new_persona(name, tmp_path / "new" / "folder")
    persona = read_persona(path)
    assert (persona.id, persona.name) == (persona_id, " ".join(name.split()))
    assert "{{user}}" in persona.greetings[0]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = new_persona("Mira", tmp_path)
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(PersonaError, match="exists already"):
        new_persona("MIRA", tmp_path)
    assert path.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("name", ["", "  ", "a\x00b", "x" * 81])
def test_names_that_no_persona_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(PersonaError, match="1 to 80 printable"):
        new_persona(name, tmp_path)


@pytest.mark.parametrize("name", ["阿墨", "!!!"])
def test_names_that_make_no_file_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(PersonaError, match="Latin letters"):
        new_persona(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(PersonaError, match="cannot be written"):
        new_persona("Mira", tmp_path / "file" / "personas")
