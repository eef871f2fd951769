import pytest
from pydantic import ValidationError

from engine.lore import LoreEntry
from engine.persona import Persona


def with_lore(*entries: dict[str, object], **fields: object) -> Persona:
    return Persona.model_validate(
        {"id": "mira", "name": "Mira", "summary": "Keeper.", "greetings": ["Hi"], "lore": entries, **fields}
    )


def test_the_text_of_an_entry_has_no_decorators() -> None:
    assert LoreEntry(keys=("a",), content="@@depth 3\n\n@@@x\nThe bell.\n@@not one").text == "The bell.\n@@not one"
    assert LoreEntry(content="@@activate").text == ""


def test_the_persona_encoder_reads_no_decorators() -> None:
    persona = with_lore({"keys": ["a"], "content": "@@depth 3\nThe bell."}, {"content": "@@activate"})
    assert [facet.text for facet in persona.facets() if facet.kind == "lore"] == ["The bell."]


@pytest.mark.parametrize("field", ["probability", "sticky", "depth", "group_weight"])
def test_nothing_counts_below_nothing(field: str) -> None:
    with pytest.raises(ValidationError):
        LoreEntry.model_validate({"keys": ["a"], "content": "x", field: -1})


def test_what_is_read_can_be_written_and_read_again() -> None:
    persona = with_lore(
        {"keys": ["a"], "content": "x", "regex": True, "delay_until_recursion": 2, "groups": ["g"]},
        lorebook={"recursive": True, "token_budget": 3},
    )
    assert type(persona).model_validate_json(persona.model_dump_json()) == persona
