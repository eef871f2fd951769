"""What a folder offers for measuring: picture sets, styled answers, dialogues, told apart by what their rows hold.

Owns finding them and drawing a part of them. Knows no model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TypeVar

from engine.errors import ConfigurationError
from engine.training.datasets import read_dialogues, read_pictures, read_rows, require_files

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class FoundSets:
    """Names of sets in `folder`, without their ending. `unknown` are files of rows that are none of these."""

    folder: Path
    pictures: tuple[str, ...]
    styled_answers: tuple[str, ...]
    dialogues: tuple[str, ...]
    unknown: tuple[str, ...]


def find_sets(folder: Path) -> FoundSets:
    """The sets in `folder`. Raises `ConfigurationError` where there are none, or one of them is damaged: every row is
    read, as nothing that was measured before should be lost to a later one."""
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is no folder; --data must name one with data sets (docs/evaluation.md)")
    kinds = {path.stem: _kind(path) for path in sorted(folder.glob("*.jsonl"))}
    pictures, styled, dialogues, unknown = (
        tuple(name for name, kind in kinds.items() if kind == wanted)
        for wanted in ("pictures", "styled", "dialogues", "unknown")
    )
    found = FoundSets(folder, pictures, styled, dialogues, unknown)
    if not (found.pictures or found.styled_answers or found.dialogues):
        raise ConfigurationError(
            f"{folder} holds no data set: put NAME.jsonl there, with NAME.zip or a folder NAME where it is about "
            "pictures (docs/evaluation.md says what the rows look like)"
        )
    return found


def _kind(path: Path) -> str:
    row = read_rows(path)[0]
    if "image" in row and "captions" in row:
        read_pictures(path.parent, path.stem)
        require_files(path.parent, path.stem)
        return "pictures"
    if "personas" in row and "turns" in row:
        read_dialogues(path)
        return "dialogues"
    answers = [text for name, text in row.items() if name != "user" and isinstance(text, str)]
    return "styled" if "user" in row and len(answers) > 1 else "unknown"


def draw(items: Sequence[Item], *, limit: int | None, seed: int) -> list[Item]:
    """`limit` of the items, drawn by `seed`, in their order; all without a limit. Sets are often sorted: the first
    few would not do."""
    if limit is None or limit >= len(items):
        return list(items)
    rows = sorted(Random(seed).sample(range(len(items)), limit))  # noqa: S311 - chance, not secrecy
    return [items[row] for row in rows]
