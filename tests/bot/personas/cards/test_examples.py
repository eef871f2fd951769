"""Example messages as exchanges, and back."""

import pytest

from bot.personas.cards.examples import examples_from, script_from
from engine.persona import Example

WREN = ("Wren", "Wrenny")


def pairs(script: str) -> list[tuple[str | None, str]]:
    return [(example.user, example.reply) for example in examples_from(script, WREN)]


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("", []),
        ("<START>", []),
        ("<START>\n{{user}}: Late?\n{{char}}: No.", [("Late?", "No.")]),
        ("{{user}}: Late?\n{{char}}: No.", [("Late?", "No.")]),
        ("<start>\n{{User}}: A\n{{CHAR}}: B\n<START>\n{{char}}: C", [("A", "B"), (None, "C")]),
        ("<START>\n{{user}}: A\n{{char}}: B\n{{user}}: C\n{{char}}: D", [("A", "B"), ("C", "D")]),
        ("{{user}}: A\nmore\n\nyet more\n{{char}}: B\n*ticks*", [("A\nmore\n\nyet more", "B\n*ticks*")]),
        ("{{user}}: A\n{{user}}: B\n{{char}}: C\n{{char}}: D", [("A\nB", "C"), (None, "D")]),
        ("You: A\nWren: B\nUser: C\nwrenny: D", [("A", "B"), ("C", "D")]),
        ("{{user}}：早\n{{char}}：早安", [("早", "早安")]),
        ("**Wren:** hello", [(None, "** hello")]),
        ("{{user}}: nobody answers", []),
        ("A scene without labels.\nTwo lines.", [(None, "A scene without labels.\nTwo lines.")]),
        ("Time: noon\n{{char}}: Now: twelve.", [(None, "Time: noon"), (None, "Now: twelve.")]),
        ("{{user}}:\n{{char}}: B", [(None, "B")]),
        ("{{user}}: A\n{{char}}:", []),
    ],
)
def test_scripts(script: str, found: list[tuple[str | None, str]]) -> None:
    assert pairs(script) == found


def test_examples_come_back() -> None:
    examples = (Example(user="A\nb", reply="C"), Example(user=None, reply="D\n\nE"))
    assert examples_from(script_from(examples), WREN) == examples


def test_a_long_script_takes_no_time() -> None:
    assert len(pairs("{{user}}: a\n{{char}}: b\n" * 20_000)) == 20_000
