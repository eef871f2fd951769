"""The example messages of a card as exchanges, and back. Pure.

Cards write them as a script: blocks after `<START>`, lines that begin with `{{user}}:` or `{{char}}:`, or with the
names themselves, and go on until the next such line.
"""

import re
from collections.abc import Iterator, Sequence

from engine.persona import Example

_START = re.compile(r"^[ \t]*<START>[ \t]*$", re.IGNORECASE | re.MULTILINE)
_CHAR = ("{{char}}",)
_USER = ("{{user}}", "you", "user")


def examples_from(script: str, names: Sequence[str]) -> tuple[Example, ...]:
    """The exchanges in `script`. `names` are the character's own. What is said to nobody has no question."""
    return tuple(example for block in _START.split(script) for example in _exchanges(block, names))


def script_from(examples: Sequence[Example]) -> str:
    """`examples` as cards write them."""
    blocks = []
    for example in examples:
        asked = f"{{{{user}}}}: {example.user}\n" if example.user is not None else ""
        blocks.append(f"<START>\n{asked}{{{{char}}}}: {example.reply}")
    return "\n".join(blocks)


def _exchanges(block: str, names: Sequence[str]) -> Iterator[Example]:
    asked: list[str] = []
    for is_character, text in _messages(block, names):
        if not is_character:
            asked.append(text)
        elif text:
            yield Example(user="\n".join(filter(None, asked)) or None, reply=text)
            asked = []


def _messages(block: str, names: Sequence[str]) -> Iterator[tuple[bool, str]]:
    """Who says what, in order. Words before the first label are the character's: a scene without a dialogue."""
    own = tuple(name.casefold() for name in (*_CHAR, *names) if name.strip())
    is_character, lines = True, []
    for line in block.strip("\n").splitlines():
        found = _labelled(line, own)
        if found is None:
            lines.append(line)
            continue
        yield is_character, "\n".join(lines).strip()
        is_character, lines = found[0], [found[1]]
    yield is_character, "\n".join(lines).strip()


def _labelled(line: str, own: tuple[str, ...]) -> tuple[bool, str] | None:
    """Whether the character speaks, and the words, where `line` begins with a label."""
    label, mark, words = line.partition(":")
    if not mark:
        label, mark, words = line.partition("\uff1a")
    who = label.strip().strip("*_").casefold()
    if not mark or not (who in own or who in _USER):
        return None
    return who in own, words.strip()
