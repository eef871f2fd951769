"""Data sets on disk: pictures with captions, and dialogues.

A picture set is `NAME.jsonl` (a row a picture: `image`, `captions`, optionally `label`) beside `NAME.zip` or a folder
`NAME/` that holds the files. Every other `.jsonl` file is a dialogue set; its first row says in which layout. Knows
nothing of features or training, and takes rows as they are: `engine.training.cleaning` judges them.
"""

import json
import lzma
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from engine.errors import ConfigurationError
from engine.types import Role, Turn

ReadPicture = Callable[[str], bytes]
"""The bytes of a picture by its name. Raises one of `UNREADABLE` where there are none."""
UNREADABLE = (
    KeyError, OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error,
    lzma.LZMAError,
)  # fmt: skip
# No picture that is learnt from is so large: a file that is, or swells to it when unpacked, would only fill the memory.
MAX_FILE_BYTES = 200 << 20

SetRole = Literal["things", "scenes", "shown"]
# Sets whose captions' shape needs no guessing.
KNOWN_ROLES: Mapping[str, SetRole] = {
    "caltech101": "things", "clothing": "things", "emoji": "things", "coco_open": "scenes",
}  # fmt: skip
# How often these are drawn beside other sets of things, in rows: clothes and emoji show less variety than their number.
KNOWN_SHARES: Mapping[str, float] = {"caltech101": 3500.0, "clothing": 900.0, "emoji": 600.0}
MAX_THING_WORDS = 3
_TEMPLATE = re.compile(r"^(?:an?|the) (?:\S+ )?(?:photo|picture|image|drawing|sticker|emoji sticker)(?: of|:) ", re.I)


@dataclass(frozen=True, slots=True)
class CaptionedPicture:
    """One row of a picture set. `image` is the file's name inside the set; `digest`, where it is known, the SHA-256 of
    its bytes in hex."""

    image: str
    captions: tuple[str, ...]
    digest: str = ""


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


@dataclass(frozen=True, slots=True)
class Conversation:
    """A user and somebody of whom `persona` tells, in sentences; the last turn is the assistant's. `picture`, if there
    is one, was shown with the first user turn: its name in the set, and its digest once it was checked."""

    persona: tuple[str, ...]
    turns: tuple[Turn, ...]
    picture: str | None = None


Exchange = StyledAnswers | PersonaDialogue | Conversation


class PictureFiles(Protocol):
    """Where the files of a picture set are."""

    def open(self) -> AbstractContextManager[ReadPicture]:
        """Read them while this is entered. Raises `ConfigurationError` where they cannot be found at all."""


@dataclass(frozen=True, slots=True)
class FilesOnDisk:
    """A folder `NAME/` or `NAME.zip`."""

    folder: Path
    name: str

    def open(self) -> AbstractContextManager[ReadPicture]:
        """Read from the folder, else from the archive."""
        return open_pictures(self.folder, self.name)


@dataclass(frozen=True, slots=True)
class PictureSet:
    """Pictures with captions; of the role `shown`, pictures of conversations, without captions. `share` is how often
    the set is drawn beside others of its role."""

    name: str
    role: SetRole
    pictures: tuple[CaptionedPicture, ...]
    files: PictureFiles
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class DialogueSet:
    """Exchanges of any layout. `files` holds the pictures that conversations name."""

    name: str
    exchanges: tuple[Exchange, ...]
    files: PictureFiles | None = None


@dataclass(frozen=True, slots=True)
class DataSets:
    """Checked data sets, as tasks take them. The picture of a conversation is found by its digest among `shown`."""

    pictures: tuple[PictureSet, ...] = ()
    answers: tuple[StyledAnswers, ...] = ()
    dialogues: tuple[PersonaDialogue, ...] = ()
    conversations: tuple[Conversation, ...] = ()

    def with_role(self, role: SetRole) -> tuple[PictureSet, ...]:
        """The picture sets of one role that have pictures."""
        return tuple(pictures for pictures in self.pictures if pictures.role == role and pictures.pictures)


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What is learnt from, and the rows that are kept back to see what was learnt. `digest` changes with either."""

    learn: DataSets
    held_out: DataSets = field(default_factory=DataSets)
    digest: str = ""


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file. Raises `ConfigurationError` naming file and line."""
    rows: list[dict[str, Any]] = []
    try:
        with path.open(encoding="utf-8-sig") as lines:
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
        if "\\u" in line:
            json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair is no text: no tokenizer takes it
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"{path}, line {number}: half a surrogate pair is no text; take it out") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path}, line {number}: not a JSON object ({error})") from error
    if not isinstance(row, dict):
        raise ConfigurationError(f"{path}, line {number}: a row must be a JSON object")
    return row


def read_folder(
    folder: Path, *, roles: Mapping[str, SetRole] | None = None
) -> tuple[list[PictureSet], list[DialogueSet]]:
    """Every data set in `folder`, by name. Raises `ConfigurationError` where there is none, or one cannot be read."""
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is not a folder; let --data name one that holds data sets")
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise ConfigurationError(f"{folder} holds no .jsonl file; docs/training.md says how data sets are laid out")
    pictures: list[PictureSet] = []
    dialogues: list[DialogueSet] = []
    for path in files:
        if is_picture_row(read_rows(path)[0]):
            pictures.append(read_picture_set(folder, path.stem, roles=roles))
        else:
            dialogues.append(read_dialogue_set(path))
    return pictures, dialogues


def is_picture_row(row: Mapping[str, Any]) -> bool:
    """Whether a row is one of a picture set; dialogues may name a picture, too."""
    return "captions" in row or ("image" in row and "turns" not in row)


def read_picture_set(folder: Path, name: str, *, roles: Mapping[str, SetRole] | None = None) -> PictureSet:
    """The picture set `name`; its files are not read yet, but they must have a folder or an archive."""
    pictures = tuple(read_pictures(folder, name))
    require_files(folder, name)
    role = (roles or {}).get(name) or KNOWN_ROLES.get(name) or role_of(pictures)
    return PictureSet(name, role, pictures, FilesOnDisk(folder, name), KNOWN_SHARES.get(name, float(len(pictures))))


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


def role_of(pictures: Sequence[CaptionedPicture]) -> SetRole:
    """Captions that are few words, fill a template or repeat name one thing; others describe a scene."""
    captions = [picture.captions[0] for picture in pictures]
    num_alike = Counter(caption.casefold() for caption in captions)
    num_things = sum(
        num_alike[caption.casefold()] > 1
        or _TEMPLATE.match(caption) is not None
        or len(caption.split()) <= MAX_THING_WORDS
        for caption in captions
    )
    return "things" if num_things * 2 > len(captions) else "scenes"


def thin_out(pictures: Sequence[CaptionedPicture], *, max_per_caption: int) -> list[CaptionedPicture]:
    """At most so many pictures with the same first caption: of a set with few classes a part says it all."""
    num_taken: Counter[str] = Counter()
    kept = []
    for picture in pictures:
        num_taken[picture.captions[0]] += 1
        if num_taken[picture.captions[0]] <= max_per_caption:
            kept.append(picture)
    return kept


def require_files(folder: Path, name: str) -> None:
    """Raises `ConfigurationError` where the picture set `name` has neither a folder nor an archive."""
    if not (folder / name).is_dir() and not (folder / f"{name}.zip").is_file():
        raise ConfigurationError(f"{folder} has neither a folder {name}/ nor {name}.zip with the pictures of {name}")


@contextmanager
def open_pictures(folder: Path, name: str) -> Iterator[ReadPicture]:
    """Read the files of the picture set `name`, from its folder or its zip."""
    require_files(folder, name)
    if (folder / name).is_dir():
        yield lambda image: _read_file(_inside(folder / name, image))
        return
    try:
        archive = zipfile.ZipFile(folder / f"{name}.zip")
    except (OSError, zipfile.BadZipFile) as error:
        raise ConfigurationError(
            f"{folder / name}.zip cannot be opened ({error}); pack or download it again"
        ) from error
    with archive:
        yield lambda image: _read_member(archive, image)


def _read_file(path: Path) -> bytes:
    if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
        raise FileNotFoundError(path)
    return path.read_bytes()


def _read_member(archive: zipfile.ZipFile, image: str) -> bytes:
    if archive.getinfo(image).file_size > MAX_FILE_BYTES:
        raise FileNotFoundError(image)
    return archive.read(image)


def _inside(folder: Path, image: str) -> Path:
    """A row must not name a file elsewhere on the machine."""
    path = (folder / image).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise FileNotFoundError(image)
    return path


def read_dialogue_set(path: Path) -> DialogueSet:
    """A set of exchanges. Its first row says the layout. Raises `ConfigurationError` naming file and row."""
    first = read_rows(path)[0]
    exchanges: Sequence[Exchange]
    if "personas" in first:
        exchanges = read_dialogues(path)
    elif "turns" in first or "messages" in first:
        exchanges = read_conversations(path)
    elif "instruction" in first:
        exchanges = read_instructions(path)
    elif "user" in first:
        exchanges = read_styled_answers(path)
    else:
        raise ConfigurationError(
            f"{path}, row 1: neither pictures (`image`, `captions`) nor dialogues (`persona` and `turns`, `personas` "
            "and `turns`, `user` and answers, or `instruction` and `response`); docs/training.md shows the layouts"
        )
    folder, name = path.parent, path.stem
    has_pictures = any(isinstance(one, Conversation) and one.picture is not None for one in exchanges)
    if has_pictures:
        require_files(folder, name)
    return DialogueSet(name, tuple(exchanges), FilesOnDisk(folder, name) if has_pictures else None)


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


def read_conversations(path: Path) -> list[Conversation]:
    """`turns` (or `messages`), and optionally `persona` (sentences) and `image`, a row."""
    conversations = []
    for number, row in enumerate(read_rows(path), start=1):
        try:
            conversations.append(
                conversation_of(
                    row.get("turns", row.get("messages")), persona=row.get("persona"), image=row.get("image")
                )
            )
        except ValueError as error:
            raise ConfigurationError(f"{path}, row {number}: {error}") from None
    return conversations


def conversation_of(turns: object, *, persona: object = None, image: object = None) -> Conversation:
    """A conversation of loose values: turns with `role` and `text` or `content`, or with `from` and `value`. What a
    system turn says joins the persona; the end is cut to the last reply. Raises `ValueError` that says what is wrong.
    """
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise ValueError("needs `turns`, a list of {role, text}")
    told = [persona] if isinstance(persona, str) else list(persona) if isinstance(persona, Sequence) else []
    sentences = [str(sentence) for sentence in told]
    said: list[Turn] = []
    for turn in turns:
        role, text = _role_and_text(turn)
        if role == "system":
            sentences.append(text)
        else:
            said.append(Turn(Role(role), text))
    while said and said[-1].role is not Role.ASSISTANT:
        said.pop()
    return Conversation(tuple(sentences), tuple(said), image if isinstance(image, str) and image else None)


def _role_and_text(turn: object) -> tuple[str, str]:
    roles = {
        "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "bot": "assistant",
        "system": "system",
    }  # fmt: skip
    if isinstance(turn, Mapping):
        role, text = turn.get("role", turn.get("from")), turn.get("text", turn.get("content", turn.get("value")))
        if isinstance(text, str) and role in roles:
            return roles[role], text
    raise ValueError("each of `turns` needs `role` (user, assistant or system) and `text`")


def read_instructions(path: Path) -> list[Conversation]:
    """`instruction`, optionally `input`, and `response` a row: one question, one answer."""
    conversations = []
    for number, row in enumerate(read_rows(path), start=1):
        instruction, response, more = row.get("instruction"), row.get("response"), row.get("input") or ""
        if not isinstance(instruction, str) or not isinstance(response, str) or not isinstance(more, str):
            raise ConfigurationError(f"{path}, row {number}: needs the texts `instruction` and `response`")
        asked = f"{instruction}\n{more}".strip()
        conversations.append(Conversation((), (Turn(Role.USER, asked), Turn(Role.ASSISTANT, response))))
    return conversations
