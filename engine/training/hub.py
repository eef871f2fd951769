"""Data sets of the Hugging Face hub, or in its formats on disk, by way of the `datasets` library.

`hf:owner/name`, `hf:owner/name:split`, `hf:owner/name:config:split`; instead of `owner/name`, a folder that
`save_to_disk` wrote, or one that the library can read (pictures beside a `metadata.jsonl`, Parquet, CSV). Owns how
columns are told apart. The library is imported only where such a name is given.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from engine.errors import ConfigurationError
from engine.training.datasets import (
    CaptionedPicture,
    Conversation,
    DialogueSet,
    PictureSet,
    ReadPicture,
    conversation_of,
    role_of,
)
from engine.training.options import ColumnsOptions, DataOptions

Table: TypeAlias = Any
"""A `datasets.Dataset`; the library has no types."""
PREFIX = "hf:"
_COLON = re.compile(r":(?![^\[]*\])")  # none of those in `train[:1000]`
SPLITS = ("train", "training", "validation", "valid", "dev", "test")
_USUAL = {
    "image": ("image", "img", "picture"),
    "captions": ("captions", "caption", "text", "label"),
    "messages": ("messages", "conversations", "turns"),
    "persona": ("persona", "personas", "system"),
}


@dataclass(frozen=True, slots=True)
class HubName:
    """What `hf:…` names. Without a split, `train` is taken, or the only one."""

    path: str
    config: str | None = None
    split: str | None = None

    @property
    def set_name(self) -> str:
        """As the set is called in reports and options."""
        return Path(self.path).name


def is_hub_name(source: str) -> bool:
    """Whether `--data` names a set of this kind."""
    return source.startswith(PREFIX)


def parse(source: str) -> HubName:
    """`hf:` names in parts. Raises `ConfigurationError` where there are too many, or none."""
    path, *rest = _COLON.split(source.removeprefix(PREFIX))
    if not path or len(rest) > 2 or not all(rest):
        raise ConfigurationError(
            f"{source}: write it as hf:owner/name, hf:owner/name:split or hf:owner/name:config:split"
        )
    if len(rest) == 2:
        return HubName(path, rest[0], rest[1])
    if rest and (rest[0].partition("[")[0] in SPLITS):
        return HubName(path, None, rest[0])
    return HubName(path, rest[0] if rest else None)


def read_hub(source: str, options: DataOptions, *, cache: Path) -> PictureSet | DialogueSet:
    """A picture set or a dialogue set, by its columns. Raises `ConfigurationError` where it cannot be found, or
    nothing in it looks like either."""
    name = parse(source)
    table = _load(source, name, cache=cache)
    columns = options.columns
    messages = _column(table, columns, "messages")
    captions = _column(table, columns, "captions")
    image = _column(table, columns, "image")
    if not len(table):
        raise ConfigurationError(f"{source} has no rows")
    if messages is not None:
        return _dialogues(source, name, table, columns, messages=messages, image=image)
    if image is not None and captions is not None:
        return _pictures(name, table, options, image=image, captions=captions)
    raise ConfigurationError(
        f"{source} has the columns {', '.join(table.column_names)}; say with --set data.columns.image=… and "
        "data.columns.captions=…, or data.columns.messages=…, which ones to learn from"
    )


def _load(source: str, name: HubName, *, cache: Path) -> Table:
    try:
        import datasets  # type: ignore[import-untyped]
    except ImportError as error:
        raise ConfigurationError("training needs more libraries: pip install 'commedia[train]'") from error
    try:
        if _was_saved(Path(name.path)):
            found = datasets.load_from_disk(name.path)
        else:
            found = datasets.load_dataset(name.path, name.config, cache_dir=str(cache))
    except Exception as error:  # the library raises whatever its readers and its network raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigurationError(f"{source} cannot be loaded: {reason}") from error
    if isinstance(found, datasets.Dataset):
        return _sliced(source, found, name.split)
    split = (name.split or "").partition("[")[0] or ("train" if "train" in found else next(iter(found), ""))
    if split not in found:
        raise ConfigurationError(f"{source} has no split {split!r}; it has {', '.join(found)}")
    return _sliced(source, found[split], name.split)


def _was_saved(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def _sliced(source: str, table: Table, split: str | None) -> Table:
    """`train[:1000]` and `train[1000:2000]` take rows of it."""
    _, has_slice, rest = (split or "").partition("[")
    if not has_slice:
        return table
    first, colon, last = rest.removesuffix("]").partition(":")
    if not colon or not all(part.isdecimal() or not part for part in (first, last)):
        raise ConfigurationError(f"{source}: rows are sliced by number, as in train[:1000]")
    return table.select(range(len(table))[int(first or 0) : int(last) if last else None])


def _column(table: Table, columns: ColumnsOptions, what: str) -> str | None:
    told: str | None = getattr(columns, what)
    if told is not None:
        if told not in table.column_names:
            raise ConfigurationError(
                f"data.columns.{what}: there is no column {told}; there are {', '.join(table.column_names)}"
            )
        return told
    return next((name for name in _USUAL[what] if name in table.column_names), None)


def _pictures(name: HubName, table: Table, options: DataOptions, *, image: str, captions: str) -> PictureSet:
    texts = _texts_of(table, captions)
    pictures = tuple(CaptionedPicture(f"row {row}", texts(value)) for row, value in enumerate(table[captions]))
    named = [picture for picture in pictures if picture.captions]
    if not named:
        raise ConfigurationError(f"the column {captions} of {name.path} has no captions")
    role = options.roles.get(name.set_name) or role_of(named)
    return PictureSet(name.set_name, role, pictures, _TablePictures(table, image), float(len(pictures)))


def _texts_of(table: Table, column: str) -> Callable[[Any], tuple[str, ...]]:
    """How a cell of this column is read: a text, a list of texts, or the number of a class with a name."""
    names: Sequence[str] | None = getattr(table.features[column], "names", None)

    def texts(value: object) -> tuple[str, ...]:
        if names is not None and isinstance(value, int):
            return (names[value].replace("_", " "),) if 0 <= value < len(names) else ()
        if isinstance(value, str):
            return (value,)
        return tuple(str(one) for one in value) if isinstance(value, Sequence) else ()

    return texts


@dataclass(frozen=True, slots=True)
class _TablePictures:
    """The files of a table's pictures; a picture is called by its row."""

    table: Table
    column: str

    def open(self) -> AbstractContextManager[ReadPicture]:
        return self._open()

    @contextmanager
    def _open(self) -> Iterator[ReadPicture]:
        from datasets import Image

        try:
            undecoded = self.table.cast_column(self.column, Image(decode=False))
        except (TypeError, ValueError, NotImplementedError) as error:
            raise ConfigurationError(f"the column {self.column} holds no pictures") from error

        def read(image: str) -> bytes:
            cell = undecoded[int(image.removeprefix("row "))][self.column] or {}
            data, path = cell.get("bytes"), cell.get("path")
            if data is not None:
                return bytes(data)
            if path is None:
                raise FileNotFoundError(image)
            return Path(path).read_bytes()

        yield read


def _dialogues(
    source: str, name: HubName, table: Table, columns: ColumnsOptions, *, messages: str, image: str | None
) -> DialogueSet:
    persona = _column(table, columns, "persona")
    chosen = [column for column in (messages, persona) if column is not None]
    conversations = []
    for number, row in enumerate(table.select_columns(chosen)):
        try:
            conversations.append(_conversation(row, messages, persona, image=f"row {number}" if image else None))
        except ValueError as error:
            raise ConfigurationError(f"{source}, row {number}: {error}") from None
    return DialogueSet(name.set_name, tuple(conversations), _TablePictures(table, image) if image else None)


def _conversation(row: Mapping[str, Any], messages: str, persona: str | None, *, image: str | None) -> Conversation:
    return conversation_of(row[messages], persona=row[persona] if persona else None, image=image)
