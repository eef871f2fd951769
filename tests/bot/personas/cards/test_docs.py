"""`docs/cards.md` names tests that exist, and limits that hold."""

import re
from pathlib import Path

from bot import persona_commands
from bot.personas.cards import containers, lore, persona

ROOT = Path(__file__).parents[4]
TEXT = (ROOT / "docs" / "cards.md").read_text(encoding="utf-8")
SOURCES = [*Path(__file__).parent.glob("test_*.py"), *Path(__file__).parents[1].glob("test_*.py")]


def test_every_test_that_is_named_exists() -> None:
    table = TEXT.partition("where each is tested")[2]
    known = {path.stem for path in SOURCES} | {"test_attached_cards"}
    for path in SOURCES:
        known |= set(re.findall(r"^(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"\b(test_\w+)", table))
    assert len(named) > 30
    assert named <= known


def test_the_limits_are_the_true_ones() -> None:
    limits = TEXT.partition("## Limits")[2].partition("\n## ")[0]
    for told in (
        f"{containers.MAX_FILE_BYTES // 2**20} MiB",
        f"{persona_commands.MAX_CARD_BYTES // 2**20} MB in chat",
        f"{containers.MAX_JSON_BYTES // 2**20} MiB",
        f"{containers.MAX_JSON_VALUES:,} values",
        f"{containers.MAX_JSON_DEPTH} levels",
        f"{persona.MAX_TEXT_LENGTH:,} characters",
        f"{containers.MAX_FILES_IN_ZIP:,} files",
        f"{containers.MAX_UNPACKED_BYTES // 2**20} MiB",
        f"first {lore.MAX_ENTRIES:,} entries",
        f"{persona.MAX_NAME_LENGTH} signs",
    ):
        assert told in " ".join(limits.split())
    assert (persona_commands.MAX_CARDS, persona_commands.CARDS_WITHIN_S) == (10, 600)
