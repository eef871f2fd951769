"""`docs/lorebook.md` has every field with its true default, every decorator, and tests that are there."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from bot.personas import lore_keys, lorebook, macros
from bot.personas.decorators import split_decorators
from engine.lore import Lorebook, LoreEntry
from tests.bot.personas.lore_moments import told, with_lore

TEXT = (Path(__file__).parents[3] / "docs" / "lorebook.md").read_text(encoding="utf-8")
ENTRY, BOOK = TEXT.split("## The fields of an entry")[1].split("## Decorators")[0].split("## The fields of the book")
ROW = re.compile(r"^\| `([a-z_]+)` \| (.+?) \| .+ \| `(.+)` \|$", re.MULTILINE)
TESTS = {
    name
    for path in Path(__file__).parent.glob("test_*.py")
    for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
}


@pytest.mark.parametrize(("model", "part"), [(LoreEntry, ENTRY), (Lorebook, BOOK)])
def test_every_field_and_its_default(model: type[BaseModel], part: str) -> None:
    rows = {match[1]: match[2].strip("`") for match in ROW.finditer(part)}
    expected = {}
    for name, field in model.model_fields.items():
        default = {None: "none", "": "empty", (): "empty"}.get(field.default, str(field.default).lower())
        expected[field.alias or name] = "required" if field.is_required() else default
    assert rows == expected
    assert list(rows) == list(expected) or set(rows) == set(expected)


def test_the_examples_of_fields_are_valid() -> None:
    for match in ROW.finditer(ENTRY):
        LoreEntry.model_validate({"keys": ["a"], "content": "x", **yaml.safe_load(match[3])})
    for match in ROW.finditer(BOOK):
        Lorebook.model_validate(yaml.safe_load(match[3])["lorebook"])


def test_the_first_example_does_what_is_said() -> None:
    example = yaml.safe_load(re.findall(r"```yaml\n(.+?)```", TEXT, re.DOTALL)[0])
    persona = with_lore(*example["lore"], book=example["lorebook"])
    results = {tuple(text.split()[1] for text in told(persona, "A storm!", seed=str(n))) for n in range(30)}
    assert results == {("storm", "is"), ("storm", "still", "is")}


def test_the_decorators_named_are_those_there_are() -> None:
    part = TEXT.split("## Decorators")[1].split("## Macros")[0]
    rows = re.findall(r"^\| `@@([a-z_]+) ?([^`]*)`(?:, `@@(\w+)`, `@@(\w+)`)? \|", part, re.MULTILINE)
    for name, value, *others in rows:
        counts = getattr(split_decorators(f"@@{name} {value}\nx").decorators, name, None)
        assert bool(counts) is not any(others), name
    assert {name for name, *_ in rows} >= set(split_decorators("x").decorators.__dataclass_fields__)


def test_the_tests_named_are_there() -> None:
    named = re.findall(r"`(test_\w+)`", TEXT)
    assert len(named) > 60
    assert set(named) <= TESTS


def test_the_numbers_are_true() -> None:
    for number in (
        f"{lore_keys.MAX_CHARACTERS_SEARCHED:,} characters of a message",
        f"{lore_keys.MAX_PATTERN_S * 1000:g} ms each and {lore_keys.MAX_PATTERNS_S * 1000:g} ms together",
        f"after {lore_keys.MAX_SLOW_PATTERNS} such all patterns",
        f"at most {lorebook.MAX_ROUNDS} rounds",
        f"at most {lorebook.MAX_LORE_CHARACTERS_SEARCHED:,} characters",
        f"at most {macros.MAX_DICE} dice",
        f"at most {lore_keys.MAX_KEYS:,} different keys, and {lore_keys.MAX_KEYS_WITH_MACROS} with macros",
        f"more than {lorebook.MAX_EARLIER_QUESTIONS} questions ago",
        f"more than {lore_keys.MAX_PATTERNS_S * 1000 / 2:g} ms\n  together with nearly every message",
        f"may take {lorebook.MAX_CHARACTERS_OVER_BUDGET:,} characters together",
        f"may take {lorebook.MAX_TOKENS_IF_UNKNOWN:,} tokens",
        f"stays and rests: {lorebook.MAX_ENTRIES_GONE_THROUGH:,} divided by",
    ):
        assert number in TEXT
