"""Data sets on disk: pictures with captions, and dialogues.

A picture set is `NAME.jsonl` (a row a picture: `image`, `captions`, optionally `name` or `label`) beside `NAME.zip` or
a folder `NAME/` that holds the files. Dialogue sets are single `.jsonl` files. Knows nothing of features or training.
"""

import json
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ConfigurationError

ReadPicture = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class CaptionedPicture:
    """One row of a picture set. `image` is the file's name inside the set."""

    image: str
    captions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StyledAnswers:
    """One user line, answered in several styles."""

    user: str
    answers: dict[str, str]


@dataclass(frozen=True, slots=True)
class PersonaDialogue:
    """Two people, each described by sentences, and what they say in turn: `(speaker, words)`."""

    personas: tuple[tuple[str, ...], tuple[str, ...]]
    turns: tuple[tuple[int, str], ...]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file. Raises `ConfigurationError` naming file and line."""
    rows: list[dict[str, Any]] = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    rows.append(_parse(line, path=path, number=number))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror}); name a folder that holds it") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    if not rows:
        raise ConfigurationError(f"{path} has no rows; a data set needs at least one")
    return rows


def _parse(line: str, *, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ConfigurationError(f"{path}, line {number}: not a JSON object ({error})") from error
    if not isinstance(row, dict):
        raise ConfigurationError(f"{path}, line {number}: a row must be a JSON object")
    return row


def read_pictures(folder: Path, name: str) -> list[CaptionedPicture]:
    """The rows of the picture set `name`. Raises `ConfigurationError` where a row or its file is missing something."""
    path = folder / f"{name}.jsonl"
    pictures = []
    for number, row in enumerate(read_rows(path), start=1):
        image, captions = row.get("image"), row.get("captions")
        if not isinstance(image, str) or not isinstance(captions, list) or not captions:
            raise ConfigurationError(f"{path}, row {number}: needs `image` (a name) and `captions` (a list of texts)")
        pictures.append(CaptionedPicture(image, tuple(str(caption).strip() for caption in captions)))
    return pictures


def thin_out(pictures: Sequence[CaptionedPicture], *, max_per_caption: int) -> list[CaptionedPicture]:
    """At most so many pictures with the same first caption: of a set with few classes a part says it all."""
    num_taken: Counter[str] = Counter()
    kept = []
    for picture in pictures:
        num_taken[picture.captions[0]] += 1
        if num_taken[picture.captions[0]] <= max_per_caption:
            kept.append(picture)
    return kept


@contextmanager
def open_pictures(folder: Path, name: str) -> Iterator[ReadPicture]:
    """Read the files of the picture set `name`, from its folder or its zip."""
    if (folder / name).is_dir():
        yield lambda image: (folder / name / image).read_bytes()
    elif (folder / f"{name}.zip").is_file():
        with zipfile.ZipFile(folder / f"{name}.zip") as archive:
            yield archive.read
    else:
        raise ConfigurationError(f"{folder} has neither a folder {name}/ nor {name}.zip with the pictures of {name}")


def read_styled_answers(path: Path) -> list[StyledAnswers]:
    """A user line a row under `user`; every other text field is an answer in the style that its name says."""
    answers = []
    for row in read_rows(path):
        styles = {style: text for style, text in row.items() if style != "user" and isinstance(text, str) and text}
        if isinstance(row.get("user"), str) and styles:
            answers.append(StyledAnswers(row["user"], styles))
    if not answers:
        raise ConfigurationError(f"{path} has no row with `user` and an answer")
    return answers


def read_dialogues(path: Path) -> list[PersonaDialogue]:
    """`personas` (two lists of sentences) and `turns` (each starting with its speaker, `1: ` or `2: `) a row.

    Dialogues in which nobody speaks are left out.
    """
    dialogues = []
    for number, row in enumerate(read_rows(path), start=1):
        try:
            first, second = (tuple(str(sentence) for sentence in persona) for persona in row["personas"])
            turns = tuple(_turn(turn) for turn in row["turns"] if turn[:3] in ("1: ", "2: "))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(f"{path}, row {number}: needs two `personas` and a list of `turns`") from error
        if turns:
            dialogues.append(PersonaDialogue((first, second), turns))
    if not dialogues:
        raise ConfigurationError(f"{path} has no dialogue with turns that start with `1: ` or `2: `")
    return dialogues


def _turn(text: str) -> tuple[int, str]:
    return int(text[0]) - 1, text[3:].strip()
