"""Real cards, where the project's data folder is there."""

from pathlib import Path
from typing import Any

import pytest

from bot.personas.cards.card import Card, parse_card
from bot.personas.cards.convert import to_version, write_card
from bot.personas.cards.persona import card_from_persona, persona_from_card

FOLDER = Path(__file__).parents[5] / "shared" / "data" / "cards"
SAMPLES = sorted(FOLDER.glob("*.png"))


@pytest.fixture(params=SAMPLES or [None], ids=lambda path: path.stem if path else "none")
def sample(request: pytest.FixtureRequest) -> Path:
    if request.param is None:
        pytest.skip(f"no sample cards in {FOLDER}")
    path = request.param
    assert isinstance(path, Path)
    return path


def test_a_sample_is_read(sample: Path) -> None:
    persona = persona_from_card(parse_card(sample.read_bytes(), name=sample.name), id="sample")
    assert persona.greetings
    assert persona.background
    assert persona.language == "en"


@pytest.mark.parametrize("container", ["json", "png", "charx"])
def test_a_sample_goes_out_and_comes_back_equal(sample: Path, container: Any) -> None:
    card = parse_card(sample.read_bytes(), name=sample.name)
    persona = persona_from_card(card, id="sample")
    back = card_from_persona(persona, avatar=card.image, files=card.assets)
    assert (back.raw, back.spec, back.image) == (card.raw, card.spec, card.image)
    again = parse_card(write_card(back, container), name="again")
    assert again.raw == card.raw
    assert persona_from_card(again, id="sample") == persona


def test_a_sample_comes_back_from_other_versions(sample: Path) -> None:
    card = parse_card(sample.read_bytes(), name=sample.name)
    for version in (2, 3):
        other: Card = to_version(card, version)  # type: ignore[arg-type]
        assert to_version(other, card.spec).raw == card.raw
