"""`docs/personas.md` has every field of the schema, with its true default and an example that is valid."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from bot.personas.prompt import MAX_EXAMPLE_CHARACTERS
from bot.personas.reading import read_persona
from engine.lore import Lorebook
from engine.persona import Persona, Sampling

TEXT = (Path(__file__).parents[3] / "docs" / "personas.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([a-z_.]+)` \| (.+?) \| .+ \| `(.+)` \|$", re.MULTILINE)
ROWS = {match[1]: (match[2].strip("`"), match[3]) for match in ROW.finditer(TEXT)}


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel], FieldInfo]]:
    """Every field that holds a value, by its dotted name."""
    for name, field in model.model_fields.items():
        parts = [part for part in (field.annotation, *get_args(field.annotation)) if is_part(part)]
        if parts:
            yield from leaves(parts[0], f"{prefix}{name}.")
        else:
            yield f"{prefix}{field.alias or name}", model, field


def is_part(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


FIELDS = {name: (model, field) for name, model, field in leaves(Persona)}


def test_every_field_is_documented_and_no_other() -> None:
    assert list(ROWS) == list(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_its_default(name: str) -> None:
    model, field = FIELDS[name]
    if name == "id":
        expected = "the file's name"
    elif field.is_required():
        expected = "required"
    elif model is Sampling:
        expected = "configured"
    elif field.default is None:
        expected = "none"
    elif field.default in ((), {}, ""):
        expected = "empty"
    else:
        expected = str(field.default).lower()
    assert ROWS[name][0] == expected


@pytest.mark.parametrize("name", FIELDS)
def test_its_example(name: str) -> None:
    example = yaml.safe_load(ROWS[name][1])
    assert list(example) == [name.split(".")[0]]
    Persona.model_validate({"id": "mira", "name": "Mira", "summary": "s", "greetings": ["g"], **example})
    assert name.split(".")[-1] in str(example)


def test_the_smallest_persona(tmp_path: Path) -> None:
    path = tmp_path / "mira.yaml"
    path.write_text(re.findall(r"```yaml\n(.+?)```", TEXT, re.DOTALL)[0], encoding="utf-8")
    assert read_persona(path).greetings[0].startswith("Ahoy, {{user}}!")


def test_the_numbers_are_true() -> None:
    assert f"have room in {MAX_EXAMPLE_CHARACTERS} characters" in TEXT
    assert Lorebook().scan_depth == 4
    assert "in the last four messages" in TEXT
