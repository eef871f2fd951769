import torch

from engine.encoders import persona as persona_module
from engine.encoders.persona import MAX_FACETS, PersonaEncoder
from engine.persona import LoreEntry, Persona
from tests.engine.encoders.tiny import tiny_text_encoder


def a_persona(**fields: object) -> Persona:
    return Persona.model_validate({"id": "ada", "name": "Ada", "summary": "kind", "greetings": ("hi",), **fields})


def test_each_facet_is_a_token() -> None:
    features = PersonaEncoder(tiny_text_encoder()).encode(a_persona(traits=("kind", "a cat")))
    assert features.kinds == ("name", "summary", "traits", "traits")
    assert features.tokens.shape == (4, 16)
    assert not torch.allclose(features.tokens[2], features.tokens[3])


def test_an_unchanged_persona_is_encoded_once_and_an_edited_one_anew() -> None:
    encoder = PersonaEncoder(tiny_text_encoder())
    first = encoder.encode(a_persona(traits=("kind",)))
    assert encoder.encode(a_persona(traits=("kind",))) is first
    assert not torch.allclose(encoder.encode(a_persona(traits=("a dog",))).tokens[2], first.tokens[2])


def test_endless_lore_is_cut() -> None:
    lore = tuple(LoreEntry(keys=("x",), content="a dog") for _ in range(200))
    assert len(PersonaEncoder(tiny_text_encoder()).encode(a_persona(lore=lore)).tokens) == MAX_FACETS


def test_the_cache_forgets_the_oldest(monkeypatch) -> None:
    monkeypatch.setattr(persona_module, "MAX_PERSONAS", 2)
    encoder = PersonaEncoder(tiny_text_encoder())
    first = encoder.encode(a_persona(summary="a dog"))
    encoder.encode(a_persona(summary="a cat"))
    assert encoder.encode(a_persona(summary="a dog")) is first
    encoder.encode(a_persona(summary="pizza"))
    assert encoder.encode(a_persona(summary="a dog")) is first
    encoder.encode(a_persona(summary="a cat"))  # was forgotten, and pushes out pizza
    assert len(encoder._cache) == 2
