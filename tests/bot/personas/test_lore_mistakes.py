"""Mistakes in the lore of a persona file, with line and column, in the words of its author."""

import pytest

from bot.personas.reading import InvalidPersona, read_persona
from tests.bot.personas.conftest import WritePersona


def problem(write: WritePersona, lines: str) -> str:
    path = write(more=lines + "\n")
    with pytest.raises(InvalidPersona) as caught:
        read_persona(path)
    assert len(caught.value.problems) == 1, caught.value
    return str(caught.value).removeprefix(f"{path}:")


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("insertion_order: 3", "8:5: `insertion_order` is not a known key in `lore.1`; did you mean `order`?"),
        ("selectiveLogic: 0", "8:5: `selectiveLogic` is not a known key in `lore.1`; did you mean `logic`?"),
        ("comment: x", "8:5: `comment` is not a known key in `lore.1`; did you mean `name`?"),
        ("use_regex: true", "8:5: `use_regex` is not a known key in `lore.1`; did you mean `regex`?"),
        ("keysecondary: [a]", "8:5: `keysecondary` is not a known key in `lore.1`; did you mean `secondary_keys`?"),
        ("group: a", "8:5: `group` is not a known key in `lore.1`; did you mean `groups`?"),
        ("probabilty: 5", "8:5: `probabilty` is not a known key in `lore.1`; did you mean `probability`?"),
        (
            "logic: and any",
            "8:12: `lore.1.logic` must be one of `and_any`, `and_all`, `not_any`, `not_all`; did you mean `and_any`?",
        ),
        ("position: before", "8:15: `lore.1.position` must be one of "),
        ("role: bot", "8:11: `lore.1.role` must be one of `system`, `user`, `assistant`"),
        ("probability: 101", "8:18: `lore.1.probability` must be at most 100"),
        ("sticky: -1", "8:13: `lore.1.sticky` must be at least 0"),
        ("depth: deep", "8:12: `lore.1.depth` must be a whole number such as `50`, without quotes"),
        ("groups: a", "8:13: `lore.1.groups` must be a list: each item on a line of its own, after `- `"),
        ("secondary_keys: ['']", "8:22: `lore.1.secondary_keys.1` is empty; give it a value or remove it"),
        ("enabled: maybe", "8:14: `lore.1.enabled` must be `true` or `false`"),
        (
            "secondary_keys: ['/(/']",
            "8:22: `lore.1.secondary_keys.1` is no regular expression: missing ) at position 1; "
            "to find it as it stands, write it without the strokes",
        ),
    ],
)
def test_fields_of_an_entry(write: WritePersona, field: str, expected: str) -> None:
    assert problem(write, f"lore:\n  - keys: [a]\n    content: x\n    {field}").startswith(expected)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            "lore:\n  - content: x\n    regex: true\n    keys:\n      - fine\n      - 'a(b'",
            "10:9: `lore.1.keys.2` is no regular expression: missing ) at position 3; "
            "to find it as it stands, remove `regex: true`",
        ),
        ("lore: [{keys: ['  '], content: x}]", "5:16: `lore.1.keys.1` is empty; give it a word or remove it"),
        (
            "lore: [{keys: ['(a{999}){999}'], regex: true, content: x}]",
            "5:16: `lore.1.keys.1` repeats too much; to find it as it stands, remove `regex: true`",
        ),
        (
            "lore: [{content: x, regex: true, constant: true}]",
            "5:8: `lore.1` would never be told: with `regex: true` it needs `keys`",
        ),
        ("lore: [{content: x}]", "5:8: `lore.1` would never be told: give it `keys`, or `constant: true`"),
        ("lore: [{keys: [a]}]", "5:8: `lore.1.content` is missing; add for example `content: The lighthouse was "),
        ("lorebook: {budget: 5}", "5:12: `budget` is not a known key in `lorebook`; did you mean `token_budget`?"),
        (
            "lorebook: {recursive_scanning: true}",
            "5:12: `recursive_scanning` is not a known key in `lorebook`; did you mean `recursive`?",
        ),
        ("lorebook: {scan_depth: 1.5}", "5:24: `lorebook.scan_depth` must be a whole number such as `50`"),
        ("token_budget: 5", "5:1: `token_budget` belongs under `lorebook`"),
    ],
)
def test_lore_and_lorebook(write: WritePersona, lines: str, expected: str) -> None:
    assert problem(write, lines).startswith(expected)


def test_what_is_right_in_lore_is_no_mistake(write: WritePersona) -> None:
    lines = """\
lorebook: {scan_depth: 6, token_budget: 300, recursive: true, max_recursion: 2}
lore:
  - {keys: ['/st[ao]rm/i', '{{char}}', 'a(b', '/home'], content: x}
  - {keys: ['st[ao]rm'], regex: true, constant: true, content: x}
  - {content: "@@activate\\nx"}
"""
    assert len(read_persona(write(more=lines)).lore) == 3
