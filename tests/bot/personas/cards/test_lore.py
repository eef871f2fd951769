"""Lorebooks of cards and of SillyTavern as lore, and back."""

from typing import Any

import pytest

from bot.personas.cards.lore import MAX_ENTRIES, book_from, lore_from, note_from
from engine.lore import Lorebook, LoreEntry
from tests.bot.personas.cards.making import V2


def entry_of(**fields: Any) -> LoreEntry:
    """The only entry of a book that has one with these fields."""
    found = lore_from({"entries": [{"keys": ["bell"], "content": "It cracked.", "enabled": True, **fields}]}).entries
    assert len(found) == 1
    return found[0]


def test_an_entry_of_version_2() -> None:
    lore = lore_from(V2["data"]["character_book"])
    assert lore.entries == (
        LoreEntry(
            keys=("bell", "chime"),
            content="The bell cracked in 1911.",
            name="Bell",
            order=7,
            priority=3,
            position="before_char",
            secondary_keys=("crack",),
            is_case_sensitive=True,
            has_whole_words=False,
        ),
    )
    assert lore.book == Lorebook(scan_depth=3, token_budget=300, is_recursive=True)
    assert lore.warnings == ()


def test_what_is_left_out_has_the_values_of_the_specifications() -> None:
    plain = LoreEntry(keys=("bell",), content="It cracked.", has_whole_words=False, position="after_char")
    assert entry_of() == plain
    assert lore_from({"entries": []}).book == Lorebook()


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"enabled": False}, "is_enabled", False),
        ({"constant": True}, "is_constant", True),
        ({"insertion_order": -5}, "order", -5),
        ({"insertion_order": "12"}, "order", 12),
        ({"priority": 9}, "priority", 9),
        ({"position": "after_char"}, "position", "after_char"),
        ({"selective": False, "secondary_keys": ["a"]}, "secondary_keys", ()),
        ({"selective": True, "secondary_keys": ["a", "", " b "]}, "secondary_keys", ("a", "b")),
        ({"selective": True, "secondary_keys": "a, b"}, "secondary_keys", ("a", "b")),
        ({"use_regex": True}, "is_regex", True),
        ({"use_regex": True, "selective": True, "secondary_keys": ["a"]}, "secondary_keys", ()),
        ({"use_regex": True, "extensions": {"selectiveLogic": 0}}, "is_regex", False),
        ({"use_regex": True, "selective": True, "secondary_keys": ["a"], "extensions": {"position": 0}},
         "secondary_keys", ("a",)),
        ({"comment": "memo"}, "name", "memo"),
        ({"name": "a", "comment": "b"}, "name", "a"),
        ({"keys": ["/dra(gon|ke)/i"]}, "keys", ("/dra(gon|ke)/i",)),
        ({"keys": "bell, chime"}, "keys", ("bell", "chime")),
        ({"case_sensitive": None}, "is_case_sensitive", False),
        ({"content": "@@depth 3\n@@role user\nText"}, "content", "@@depth 3\n@@role user\nText"),
    ],
)  # fmt: skip
def test_fields_of_the_specifications(fields: dict[str, Any], name: str, value: object) -> None:
    assert getattr(entry_of(**fields), name) == value


@pytest.mark.parametrize(
    ("extension", "name", "value"),
    [
        ({"position": 0}, "position", "before_char"),
        ({"position": 1}, "position", "after_char"),
        ({"position": 2, "depth": 9}, "position", "at_depth"),
        ({"position": 2, "depth": 9}, "depth", 4),
        ({"position": 4, "depth": 9}, "position", "at_depth"),
        ({"position": 4, "depth": 9}, "depth", 9),
        ({"position": 4, "depth": 0}, "depth", 0),
        ({"position": 5}, "position", "before_examples"),
        ({"position": 6}, "position", "after_examples"),
        ({"role": 0}, "role", "system"),
        ({"role": 1}, "role", "user"),
        ({"role": 2}, "role", "assistant"),
        ({"role": None}, "role", "system"),
        ({"role": "assistant"}, "role", "assistant"),
        ({"role": 99}, "role", "system"),
        ({"selectiveLogic": 0}, "logic", "and_any"),
        ({"selectiveLogic": 1}, "logic", "not_all"),
        ({"selectiveLogic": 2}, "logic", "not_any"),
        ({"selectiveLogic": 3}, "logic", "and_all"),
        ({"probability": 30, "useProbability": True}, "probability", 30),
        ({"probability": 30, "useProbability": False}, "probability", 100),
        ({"probability": 30}, "probability", 30),
        ({"probability": 400}, "probability", 100),
        ({"probability": None}, "probability", 100),
        ({"group": "weather, sea"}, "groups", ("weather", "sea")),
        ({"group": ""}, "groups", ()),
        ({"group_weight": 40}, "group_weight", 40),
        ({"group_weight": -4}, "group_weight", 0),
        ({"group_override": True}, "group_override", True),
        ({"sticky": 3}, "sticky", 3),
        ({"sticky": None}, "sticky", 0),
        ({"cooldown": 2}, "cooldown", 2),
        ({"delay": 5}, "delay", 5),
        ({"exclude_recursion": True}, "is_not_found_by_lore", True),
        ({"prevent_recursion": True}, "finds_no_lore", True),
        ({"delay_until_recursion": True}, "recursion_level", 1),
        ({"delay_until_recursion": False}, "recursion_level", 0),
        ({"delay_until_recursion": 3}, "recursion_level", 3),
        ({"scan_depth": 2}, "scan_depth", 2),
        ({"scan_depth": 0}, "scan_depth", 0),
        ({"scan_depth": None}, "scan_depth", None),
        ({"match_whole_words": True}, "has_whole_words", True),
        ({"match_whole_words": None}, "has_whole_words", False),
        ({"case_sensitive": True}, "is_case_sensitive", True),
        ({"ignore_budget": True}, "ignores_budget", True),
        ({"depth": 10**30}, "depth", 4),
        ({"depth": -3}, "depth", 0),
    ],
)
def test_extensions_of_sillytavern(extension: dict[str, Any], name: str, value: object) -> None:
    assert getattr(entry_of(extensions=extension), name) == value


def test_a_standalone_file_of_sillytavern() -> None:
    world = {
        "entries": {
            "0": {
                "uid": 0, "key": ["bell"], "keysecondary": ["crack"], "comment": "Bell", "content": "It cracked.",
                "constant": False, "selective": True, "selectiveLogic": 2, "order": 50, "position": 4, "depth": 2,
                "disable": True, "probability": 60, "useProbability": True, "group": "g", "groupOverride": True,
                "groupWeight": 7, "scanDepth": 6, "caseSensitive": True, "matchWholeWords": True, "role": 1,
                "sticky": 1, "cooldown": 2, "delay": 3, "excludeRecursion": True, "preventRecursion": True,
                "delayUntilRecursion": True, "ignoreBudget": True,
            }
        }
    }  # fmt: skip
    assert lore_from(world).entries == (
        LoreEntry(
            keys=("bell",), content="It cracked.", is_enabled=False, name="Bell", order=50, position="at_depth",
            depth=2, role="user", secondary_keys=("crack",), logic="not_any", is_case_sensitive=True,
            has_whole_words=True, scan_depth=6, probability=60, groups=("g",), group_weight=7, group_override=True,
            sticky=1, cooldown=2, delay=3, is_not_found_by_lore=True, finds_no_lore=True, recursion_level=1,
            ignores_budget=True,
        ),
    )  # fmt: skip


def test_what_could_never_be_told_is_left_out_and_said() -> None:
    entries = [
        {"keys": [], "content": "no key"},
        {"keys": ["a"], "content": "   "},
        {"keys": ["a" * 2_000], "content": "long key"},
        {"keys": [], "content": "@@activate\nalways"},
        {"keys": [], "content": "always", "constant": True},
        "nonsense",
    ]
    lore = lore_from({"entries": entries})
    assert [entry.content for entry in lore.entries] == ["@@activate\nalways", "always"]
    assert lore.warnings == ("3 lore entries have no text or no keys, or too long ones, and are never told",)


def test_a_book_of_too_many_entries_is_cut_and_said() -> None:
    lore = lore_from({"entries": [{"keys": ["a"], "content": f"{number}"} for number in range(MAX_ENTRIES + 3)]})
    assert len(lore.entries) == MAX_ENTRIES
    assert "only the first 5,000" in lore.warnings[0]


def test_the_note_of_a_character() -> None:
    note = note_from({"prompt": " Tick. ", "depth": 2, "role": "user"})
    assert note is not None
    assert (note.content, note.depth, note.role, note.position) == ("Tick.", 2, "user", "at_depth")
    assert note.is_constant
    assert note.ignores_budget
    assert note_from({"prompt": "", "depth": 4, "role": "system"}) is None


def test_lore_comes_back_from_a_book() -> None:
    entries = (
        LoreEntry(keys=("a",), content="b", name="n", order=3, priority=4, position="at_depth", depth=2, role="user"),
        LoreEntry(
            content="c", is_constant=True, secondary_keys=("x",), logic="not_all", probability=12.5, groups=("g", "h"),
            group_weight=3, group_override=True, sticky=1, cooldown=2, delay=3, recursion_level=2, scan_depth=0,
            is_not_found_by_lore=True, finds_no_lore=True, ignores_budget=True, position="before_examples",
        ),
    )  # fmt: skip
    book = Lorebook(scan_depth=9, token_budget=100, is_recursive=True)
    lore = lore_from(book_from(entries, book))
    assert lore.entries == entries
    assert lore.book == book


@pytest.mark.parametrize("book", [{}, {"entries": None}, {"entries": "x"}, {"entries": [None, 3, []]}])
def test_nonsense_is_no_lore(book: dict[str, Any]) -> None:
    assert lore_from(book).entries == ()
