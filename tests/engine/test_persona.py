import pytest
from pydantic import ValidationError

from engine.persona import Facet, LoreEntry, Persona

FULL = {
    "id": "mira",
    "name": " Mira\n Vane ",
    "summary": "Keeper of a lighthouse.",
    "identity": {"pronouns": "she/her", "age": 27, "home": "Gannet."},
    "look": ["Red coat."],
    "traits": ["kind."],
    "background": "Born at sea.",
    "voice": {"style": ["Short words."]},
    "goals": ["Find a storm."],
    "greetings": ["Ahoy!"],
    "examples": [{"user": "Hi", "reply": "Ahoy there!"}],
    "lore": [{"keys": ["bell"], "content": "The bell sank."}, {"content": "It rains.", "constant": True}],
    "platforms": {"discord": {"name": "M"}},
    "extensions": {"x": {"y": [1, None, "z"]}},
}


def test_facets_are_sentences_in_the_order_of_the_schema() -> None:
    assert list(Persona.model_validate(FULL).facets()) == [
        Facet("name", "My name is Mira Vane."),
        Facet("summary", "Keeper of a lighthouse."),
        Facet("pronouns", "My pronouns are she/her."),
        Facet("age", "My age is 27."),
        Facet("home", "My home is Gannet."),
        Facet("look", "Red coat."),
        Facet("traits", "I am kind."),
        Facet("background", "Born at sea."),
        Facet("voice", "Short words."),
        Facet("goals", "Find a storm."),
        Facet("examples", "Ahoy there!"),
        Facet("lore", "The bell sank."),
        Facet("lore", "It rains."),
    ]


def test_a_dump_can_be_read_back() -> None:
    persona = Persona.model_validate(FULL)
    assert Persona.model_validate_json(persona.model_dump_json()) == persona
    assert "is_constant" not in persona.model_dump_json()


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Nora"},
        {"lore": [{"keys": ["bell"], "content": "The bell sank."}]},
        {"extensions": {"x": {"y": [1, None, "w"]}}},
        {"sampling": {"temperature": 0.7}},
    ],
)
def test_the_digest_sees_every_change(change: dict[str, object]) -> None:
    digest = Persona.model_validate(FULL).digest()
    assert digest == Persona.model_validate(FULL).digest()
    assert digest != Persona.model_validate({**FULL, **change}).digest()


def test_a_persona_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Persona.model_validate(FULL).name = "Nora"


def test_lore_that_would_never_be_told() -> None:
    with pytest.raises(ValidationError, match="would never be told"):
        LoreEntry(content="x")
    assert LoreEntry(content="x", is_constant=True) == LoreEntry.model_validate({"content": "x", "constant": True})


@pytest.mark.parametrize(
    "sampling", [{"temperature": "0.7"}, {"top_k": True}, {"temperature": 2.1}, {"max_new_tokens": 0}, {"seed": 1}]
)
def test_sampling_is_strict(sampling: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Persona.model_validate({**FULL, "sampling": sampling})
